//! Parameter groups of both kinds: making, changing, describing, deleting. A change is passed on to the members that use the
//! group by `servers`; static ones turn them `pending-reboot` until they are really restarted.

use std::collections::BTreeMap;

use crate::cloud::Cloud;
use crate::cloud::catalogue::{self, Definition};
use crate::cloud::errors::{Answer, Refusal};
use crate::cloud::parameters::needs_restart;
use crate::cloud::params::Params;
use crate::cloud::servers;
use crate::cloud::state::{Group, State, UserValue, family, group_arn};
use crate::wire::xml::Element;

/// How many groups of a kind an account may have: AWS's quota before anybody asks for more.
const GROUPS_MAX: usize = 50;

/// Which kind of group an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cluster,
    Instance,
}

impl Kind {
    const fn key(self) -> &'static str {
        match self {
            Self::Cluster => "DBClusterParameterGroupName",
            Self::Instance => "DBParameterGroupName",
        }
    }

    const fn element(self) -> &'static str {
        match self {
            Self::Cluster => "DBClusterParameterGroup",
            Self::Instance => "DBParameterGroup",
        }
    }

    fn groups(self, state: &mut State) -> &mut BTreeMap<String, Group> {
        match self {
            Self::Cluster => &mut state.cluster_groups,
            Self::Instance => &mut state.instance_groups,
        }
    }

    fn find(self, state: &State, name: &str) -> Answer<Group> {
        match self {
            Self::Cluster => state.cluster_group(name),
            Self::Instance => state.instance_group(name),
        }
    }

    fn arn(self, name: &str) -> String {
        group_arn(if self == Self::Cluster { "cluster-pg" } else { "pg" }, name)
    }
}

pub(crate) fn describe(cloud: &Cloud, params: &Params, kind: Kind) -> Answer<Option<Element>> {
    let mut state = cloud.state();
    let groups = match params.get(kind.key()) {
        Some(name) => vec![kind.find(&state, name)?],
        None => {
            let defaults: Vec<String> = catalogue::majors().map(|major| format!("default.{}", family(major))).collect();
            let mut all: Vec<Group> = defaults.iter().filter_map(|name| kind.find(&state, name).ok()).collect();
            all.extend(kind.groups(&mut state).values().cloned());
            all
        }
    };
    let (page, marker) = params.page(groups, 100)?;
    let list = match kind {
        Kind::Cluster => "DBClusterParameterGroups",
        Kind::Instance => "DBParameterGroups",
    };
    Ok(Some(Element::new("").maybe("Marker", marker).list(list, page.iter().map(|group| element(group, kind)))))
}

pub(crate) fn create(cloud: &Cloud, params: &Params, kind: Kind) -> Answer<Option<Element>> {
    let name = params.identifier(kind.key())?;
    if !name.starts_with("default.") {
        params.new_identifier(kind.key(), 255)?;
    }
    let family = params.require("DBParameterGroupFamily")?;
    let description = params.require("Description")?;
    if catalogue::family(family).is_none() {
        return Err(Refusal::value(format!("ParameterGroupFamily {family} is not a valid parameter group family")));
    }
    let group = Group {
        name: name.clone(),
        family: family.to_owned(),
        description: description.to_owned(),
        tags: params.tags(),
        user: BTreeMap::new(),
    };
    let mut state = cloud.state();
    let groups = kind.groups(&mut state);
    if groups.contains_key(&name) || name.starts_with("default.") {
        return Err(Refusal::new(
            "DBParameterGroupAlreadyExists",
            400,
            format!("Parameter group {name} already exists"),
        ));
    }
    if groups.len() >= GROUPS_MAX {
        let text = "Request would result in exceeding the maximum number of parameter groups.";
        return Err(Refusal::new("DBParameterGroupQuotaExceeded", 400, text));
    }
    let answer = element(&group, kind);
    groups.insert(name, group);
    Ok(Some(Element::new("").child(answer)))
}

pub(crate) fn delete(cloud: &Cloud, params: &Params, kind: Kind) -> Answer<Option<Element>> {
    let name = params.identifier(kind.key())?;
    let mut state = cloud.state();
    let group = kind.find(&state, &name)?;
    if group.is_default() {
        return Err(Refusal::value("Default DBParameterGroup cannot be deleted."));
    }
    let planned = state.deployments.values().filter(|d| d.status == "PROVISIONING").any(|d| match kind {
        Kind::Cluster => d.plan.cluster_group == name,
        Kind::Instance => d.plan.instance_group == name,
    });
    let in_use = match kind {
        Kind::Cluster => state.clusters.values().any(|c| c.group == name),
        Kind::Instance => state.instances.values().any(|i| i.group == name),
    };
    if in_use || planned {
        let text = "One or more database instances are still members of this parameter group";
        return Err(Refusal::group_state(format!("{text} {name}, so the group cannot be deleted")));
    }
    kind.groups(&mut state).remove(&name);
    Ok(None)
}

pub(crate) fn modify(cloud: &Cloud, params: &Params, kind: Kind) -> Answer<Option<Element>> {
    let name = params.identifier(kind.key())?;
    let changes = changes(params)?;
    if changes.is_empty() {
        return Err(Refusal::missing("Parameters"));
    }
    {
        let mut state = cloud.state();
        let group = changeable(&state, kind, &name)?;
        let family = catalogue::family(&group.family).ok_or_else(|| Refusal::internal("unknown family"))?;
        let mut checked = Vec::new();
        for change in changes {
            let definition = definition(family, kind, &change.name)?;
            let value = change.value.ok_or_else(|| Refusal::missing("ParameterValue"))?;
            if let Some(why) = definition.refuses(&value) {
                return Err(Refusal::value(why));
            }
            if definition.is_static && !change.at_reboot {
                let text = "cannot use immediate apply method for static parameter";
                return Err(Refusal::combination(format!("{text} {}", change.name)));
            }
            checked.push((
                definition.name.clone(),
                UserValue { value, at_reboot: change.at_reboot },
                needs_restart(definition, change.at_reboot),
            ));
        }
        let user = &mut kind.groups(&mut state).get_mut(&name).ok_or_else(|| Refusal::group_not_found(&name))?.user;
        let mut later = false;
        for (parameter, value, restart) in checked {
            later |= restart && user.get(&parameter) != Some(&value);
            user.insert(parameter, value);
        }
        servers::group_changed(&mut state, kind, &name, later);
    }
    servers::apply_dynamic(cloud, kind, &name);
    Ok(Some(Element::new("").with(kind.key(), name)))
}

pub(crate) fn reset(cloud: &Cloud, params: &Params, kind: Kind) -> Answer<Option<Element>> {
    let name = params.identifier(kind.key())?;
    {
        let mut state = cloud.state();
        let group = changeable(&state, kind, &name)?;
        let family = catalogue::family(&group.family).ok_or_else(|| Refusal::internal("unknown family"))?;
        let gone: Vec<String> = if params.flag("ResetAllParameters")?.unwrap_or(false) {
            group.user.keys().cloned().collect()
        } else {
            changes(params)?.into_iter().map(|change| change.name).collect()
        };
        if gone.is_empty() && group.user.is_empty() {
            return Ok(Some(Element::new("").with(kind.key(), name)));
        }
        let user = &mut kind.groups(&mut state).get_mut(&name).ok_or_else(|| Refusal::group_not_found(&name))?.user;
        let mut later = false;
        for parameter in gone {
            let definition = definition(family, kind, &parameter)?;
            if let Some(old) = user.remove(&definition.name) {
                later |= needs_restart(definition, old.at_reboot);
            }
        }
        servers::group_changed(&mut state, kind, &name, later);
    }
    servers::apply_dynamic(cloud, kind, &name);
    Ok(Some(Element::new("").with(kind.key(), name)))
}

pub(crate) fn parameters(cloud: &Cloud, params: &Params, kind: Kind) -> Answer<Option<Element>> {
    let name = params.identifier(kind.key())?;
    let group = kind.find(&cloud.state(), &name)?;
    let family = catalogue::family(&group.family).ok_or_else(|| Refusal::internal("unknown family"))?;
    let source = params.get("Source");
    let names: Vec<String> = params.filters(&["parameter-name"])?.into_iter().flat_map(|(_, values)| values).collect();
    let all: Vec<Element> = family
        .values()
        .filter(|d| kind == Kind::Cluster || d.per_instance)
        .filter(|d| names.is_empty() || names.contains(&d.name))
        .map(|d| (d, group.user.get(&d.name)))
        .filter(|(d, set)| source.is_none_or(|wanted| wanted == source_of(d, *set)))
        .map(|(d, set)| parameter(d, set))
        .collect();
    let (page, marker) = params.page(all, 100)?;
    Ok(Some(Element::new("").maybe("Marker", marker).list("Parameters", page)))
}

pub(crate) fn engine_defaults(params: &Params) -> Answer<Option<Element>> {
    let name = params.require("DBParameterGroupFamily")?;
    let family = catalogue::family(name)
        .ok_or_else(|| Refusal::value(format!("{name} is not a valid parameter group family")))?;
    let all: Vec<Element> = family.values().map(|d| parameter(d, None)).collect();
    let (page, marker) = params.page(all, 100)?;
    let defaults = Element::new("EngineDefaults")
        .with("DBParameterGroupFamily", name)
        .maybe("Marker", marker)
        .list("Parameters", page);
    Ok(Some(Element::new("").child(defaults)))
}

struct Change {
    name: String,
    value: Option<String>,
    at_reboot: bool,
}

/// The `Parameters` of a call: at most twenty.
fn changes(params: &Params) -> Answer<Vec<Change>> {
    let list = params.list("Parameters", "Parameter");
    if list.len() > 20 {
        return Err(Refusal::value("A maximum of 20 parameters can be modified in a single request."));
    }
    list.into_iter()
        .map(|mut entry| {
            let name = entry.remove("ParameterName").ok_or_else(|| Refusal::missing("ParameterName"))?.to_lowercase();
            let at_reboot = match entry.get("ApplyMethod").map(String::as_str) {
                Some("immediate") => false,
                Some("pending-reboot") => true,
                Some(other) => return Err(Refusal::value(format!("Invalid apply method: {other}"))),
                None => return Err(Refusal::missing("ApplyMethod")),
            };
            Ok(Change { name, value: entry.remove("ParameterValue"), at_reboot })
        })
        .collect()
}

fn changeable(state: &State, kind: Kind, name: &str) -> Answer<Group> {
    let group = kind.find(state, name)?;
    if group.is_default() {
        return Err(Refusal::group_state(format!(
            "The parameter group {name} is a default group and cannot be modified."
        )));
    }
    Ok(group)
}

fn definition<'a>(family: &'a BTreeMap<String, Definition>, kind: Kind, name: &str) -> Answer<&'a Definition> {
    let found = family.get(name).filter(|d| kind == Kind::Cluster || d.per_instance);
    let found = found.ok_or_else(|| Refusal::value(format!("Could not find parameter with name: {name}")))?;
    if !found.modifiable {
        return Err(Refusal::value(format!("The parameter {name} cannot be modified.")));
    }
    Ok(found)
}

fn source_of(definition: &Definition, set: Option<&UserValue>) -> &'static str {
    match set {
        Some(_) => "user",
        None if definition.name.starts_with("rds.") || !definition.modifiable => "system",
        None => "engine-default",
    }
}

fn parameter(definition: &Definition, set: Option<&UserValue>) -> Element {
    let value = set.map(|s| s.value.as_str()).or(definition.default.as_deref());
    let at_reboot = set.is_none_or(|s| s.at_reboot) && (definition.is_static || set.is_some());
    Element::new("Parameter")
        .with("ParameterName", &definition.name)
        .maybe("ParameterValue", value)
        .with("Description", &definition.description)
        .with("Source", source_of(definition, set))
        .with("ApplyType", if definition.is_static { "static" } else { "dynamic" })
        .with("DataType", definition.data_type)
        .maybe("AllowedValues", definition.allowed.as_deref())
        .with("IsModifiable", definition.modifiable)
        .with("ApplyMethod", if at_reboot || definition.is_static { "pending-reboot" } else { "immediate" })
        .list("SupportedEngineModes", [Element::text("member", "provisioned")])
}

fn element(group: &Group, kind: Kind) -> Element {
    let arn = match kind {
        Kind::Cluster => "DBClusterParameterGroupArn",
        Kind::Instance => "DBParameterGroupArn",
    };
    Element::new(kind.element())
        .with(kind.key(), &group.name)
        .with("DBParameterGroupFamily", &group.family)
        .with("Description", &group.description)
        .with(arn, kind.arn(&group.name))
}
