//! What people who use Terraform (or CloudFormation) do after the rename. AWS gives green the names of blue, and the AWS provider
//! knows `aws_rds_cluster` and `aws_rds_cluster_instance` by their identifiers: the state means green from its next refresh on.
//! What does not follow by itself is the code (version, parameter groups), the groups that we made, and resource ids in policies.
//! Addresses are not known here; they are guessed from the names and said to be.

use serde::{Deserialize, Serialize};

use super::known::Known;
use super::model::Cluster;
use crate::operator::view::StatusView;
use crate::rds::Names;

/// The steps, in order, with the identifiers of this upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUp {
    /// Production has moved: something is to be done.
    pub needed: bool,
    pub says: String,
    /// What a refresh changes in the state.
    pub moved: Vec<Attribute>,
    pub steps: Vec<Step>,
    pub cloudformation: String,
}

/// One attribute that is another one now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    pub address: String,
    pub name: String,
    pub before: String,
    pub after: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub title: String,
    pub text: String,
    /// `shell`, `hcl`; null where there is no code.
    pub language: Option<String>,
    pub code: Option<String>,
}

/// Who is who after the rename.
pub(super) struct Moved {
    pub(super) switched: bool,
    pub(super) ended: bool,
    pub(super) cleaned: bool,
    pub(super) cluster: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) family: String,
    pub(super) users_cluster_group: String,
    pub(super) users_instance_group: String,
    pub(super) cluster_group: String,
    pub(super) instance_group: String,
    pub(super) blue_resource: String,
    pub(super) green_resource: String,
    pub(super) old_cluster: String,
    pub(super) instances: Vec<Renamed>,
}

/// An instance: the name stays, the machine is another one.
pub(super) struct Renamed {
    pub(super) name: String,
    pub(super) before: String,
    /// `None` where the name that AWS gave green's instance does not tell whose place it took.
    pub(super) after: Option<String>,
}

impl Moved {
    pub(super) fn of(status: &StatusView, known: &Known, cluster: &Cluster) -> Moved {
        let names = Names::of(&status.id);
        let text = |of: Option<String>| of.unwrap_or_else(|| "not known".to_owned());
        let start = known.start.as_ref();
        let green = cluster.green.as_ref();
        let took = |blue: &str| {
            let green = green?.instances.iter().find(|green| {
                let place = green.name.rsplit_once("-green-").map(|(place, _)| place);
                place == Some(blue)
            });
            green.map(|green| green.resource_id.clone())
        };
        let instances = cluster.blue.iter().flat_map(|blue| &blue.instances).map(|blue| Renamed {
            name: blue.name.clone(),
            before: blue.resource_id.clone(),
            after: took(&blue.name),
        });
        let retired = known.retired.as_ref();
        Moved {
            switched: status.switched_over,
            ended: status.outcome.is_some(),
            cleaned: retired.is_some(),
            cluster: status.cluster.clone(),
            from: status.from_version.clone(),
            to: known.moved.as_ref().map_or_else(
                || start.map_or(status.to_version.clone(), |start| start.target.version.to_string()),
                |moved| moved.production.version.clone(),
            ),
            family: text(start.map(|start| start.target.family.to_string())),
            users_cluster_group: text(start.map(|start| start.users.cluster.to_string())),
            users_instance_group: text(start.map(|start| start.users.instance.to_string())),
            cluster_group: names.green_cluster_group().to_string(),
            instance_group: names.green_instance_group().to_string(),
            blue_resource: text(cluster.blue.as_ref().map(|blue| blue.resource_id.clone())),
            green_resource: text(green.map(|green| green.resource_id.clone())),
            old_cluster: retired
                .and_then(|retired| retired.old_cluster.clone())
                .unwrap_or_else(|| format!("{}-old1", status.cluster)),
            instances: instances.collect(),
        }
    }
}

const CLOUDFORMATION: &str = "CloudFormation: the names stay, so the stack's DBCluster and DBInstances mean the new servers now, and \
    drift detection shows EngineVersion and the parameter groups; write the new values into the template, and where a change set \
    says that a resource is replaced, do not run it but set DeletionPolicy: Retain, take the resource out of the template and bring \
    it back by resource import (User Guide, \"Resolve drift with an import operation\"), for without a DeletionPolicy a DBCluster \
    that is taken out is deleted, with a snapshot.";

/// The steps for this upgrade.
pub(super) fn follow_up(moved: &Moved) -> FollowUp {
    if !moved.switched {
        let says = match moved.ended {
            true => {
                "Nothing to do: production was not switched over; names, resource ids, version and parameter groups are as the state has them."
            }
            false => {
                "Nothing to do yet: production has not been switched over. Ask again after the switchover, and apply nothing to this cluster meanwhile."
            }
        };
        return FollowUp { says: says.to_owned(), ..FollowUp::default() };
    }
    let says = format!(
        "Production has the names it had, on other machines. The provider knows clusters and instances by their identifiers, so that \
         the state follows with its next refresh, without state rm and import. The code does not follow: until it is changed, \
         terraform plan wants to go back from {} to {}, which RDS refuses.",
        moved.to, moved.from
    );
    FollowUp {
        needed: true,
        says,
        moved: attributes(moved),
        steps: vec![
            find(moved),
            code(moved),
            groups(moved),
            refresh(),
            plan(moved),
            import(moved),
            old(moved),
            others(moved),
        ],
        cloudformation: CLOUDFORMATION.to_owned(),
    }
}

/// A name as one in HCL: letters, digits and underscores.
fn label(name: &str) -> String {
    let label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if label.starts_with(|c: char| c.is_ascii_alphabetic()) { label } else { format!("_{label}") }
}

/// A string of HCL, in which nothing is interpolated.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            '$' | '%' if chars.peek() == Some(&'{') => quoted.extend([c, c]),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// A word of a shell.
fn word(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn cluster_address(moved: &Moved) -> String {
    format!("aws_rds_cluster.{}", label(&moved.cluster))
}

fn instance_address(instance: &Renamed) -> String {
    format!("aws_rds_cluster_instance.{}", label(&instance.name))
}

/// Of the groups: by cluster and family.
fn group_label(moved: &Moved) -> String {
    label(&format!("{}_{}", moved.cluster, moved.family))
}

fn attributes(moved: &Moved) -> Vec<Attribute> {
    let one = |address: &str, name: &str, before: &str, after: &str| Attribute {
        address: address.to_owned(),
        name: name.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    let cluster = cluster_address(moved);
    let mut all = vec![
        one(&cluster, "cluster_resource_id", &moved.blue_resource, &moved.green_resource),
        one(&cluster, "engine_version_actual", &moved.from, &moved.to),
        one(&cluster, "db_cluster_parameter_group_name", &moved.users_cluster_group, &moved.cluster_group),
    ];
    for instance in &moved.instances {
        let address = instance_address(instance);
        let after = instance.after.as_deref().unwrap_or("not known");
        all.push(one(&address, "dbi_resource_id", &instance.before, after));
        all.push(one(&address, "db_parameter_group_name", &moved.users_instance_group, &moved.instance_group));
    }
    all
}

fn step(title: &str, text: impl Into<String>, code: Option<(&str, String)>) -> Step {
    let (language, code) = code.map_or((None, None), |(language, code)| (Some(language.to_owned()), Some(code)));
    Step { title: title.to_owned(), text: text.into(), language, code }
}

fn find(moved: &Moved) -> Step {
    let text = format!(
        "The addresses in these steps are guessed from the names ({}). Find yours, and put them in their place.",
        cluster_address(moved)
    );
    step(
        "Find your addresses",
        text,
        Some(("shell", "terraform state list | grep -E 'aws_rds_cluster|aws_db_parameter_group'".into())),
    )
}

fn code(moved: &Moved) -> Step {
    let mut hcl = format!(
        "resource \"aws_rds_cluster\" {} {{\n  engine_version                  = {} # was {}\n  \
         db_cluster_parameter_group_name = {} # was {}\n  # everything else as it is\n}}\n",
        quoted(&label(&moved.cluster)),
        quoted(&moved.to),
        quoted(&moved.from),
        quoted(&moved.cluster_group),
        quoted(&moved.users_cluster_group)
    );
    for instance in &moved.instances {
        hcl += &format!(
            "\nresource \"aws_rds_cluster_instance\" {} {{\n  engine_version          = {} # was {}\n  \
             db_parameter_group_name = {} # was {}\n}}\n",
            quoted(&label(&instance.name)),
            quoted(&moved.to),
            quoted(&moved.from),
            quoted(&moved.instance_group),
            quoted(&moved.users_instance_group)
        );
    }
    let text =
        "Version and parameter groups, as they are now. Where the code does not set one of them, leave it unset.";
    step("Change the code", text, Some(("hcl", hcl)))
}

fn groups(moved: &Moved) -> Step {
    let label = group_label(moved);
    let import = |kind: &str, id: &str| format!("import {{\n  to = {kind}.{label}\n  id = {}\n}}\n", quoted(id));
    let hcl = format!(
        "{}\n{}",
        import("aws_rds_cluster_parameter_group", &moved.cluster_group),
        import("aws_db_parameter_group", &moved.instance_group)
    );
    let text = format!(
        "The new production uses two groups of family {} that the upgrade made, with everything that yours had set. Import them \
         (import blocks from Terraform 1.5 on; terraform plan -generate-config-out=upgrade-pilot.tf writes their code), or make groups of \
         your own for that family and name them above instead. Never delete them while they are in use.",
        moved.family
    );
    step("Take over the parameter groups", text, Some(("hcl", hcl)))
}

fn refresh() -> Step {
    let text = "It must show the attributes of the table above and nothing else of this cluster. It changes the state only, nothing in AWS.";
    let shell = "terraform plan -refresh-only\nterraform apply -refresh-only".to_owned();
    step("Refresh the state", text, Some(("shell", shell)))
}

fn plan(moved: &Moved) -> Step {
    let text = format!(
        "With the code changed it shows no change of the cluster and its instances. With the code as it was it shows, for {}, \
         engine_version = \"{}\" -> \"{}\" and the old parameter group: do not apply that. Do not apply a plan either that says \
         \"must be replaced\" of the cluster or of an instance: it would delete production. The usual cause is a pinned availability_zone, \
         for AWS may have put a new instance elsewhere: write the zone that it has.",
        cluster_address(moved),
        moved.to,
        moved.from
    );
    step("Look at the plan", text, Some(("shell", "terraform plan".to_owned())))
}

fn import(moved: &Moved) -> Step {
    let mut resources = vec![(cluster_address(moved), moved.cluster.clone())];
    resources.extend(moved.instances.iter().map(|instance| (instance_address(instance), instance.name.clone())));
    let line = |(address, id): &(String, String)| {
        format!("terraform state rm {0}\nterraform import {0} {1}", word(address), word(id))
    };
    let shell = resources.iter().map(line).collect::<Vec<_>>().join("\n");
    let text = "Only where the state cannot be refreshed (it was edited, or the plan wants to create what is there). What AWS does not tell \
                is lost from the state by it: the master password, and skip_final_snapshot and delete_automated_backups, which are true after \
                an import until the next apply writes what the code says.";
    step("If the state is broken: forget and import", text, Some(("shell", shell)))
}

fn old(moved: &Moved) -> Step {
    let state = match moved.cleaned {
        true => "was deleted by the upgrade's cleanup",
        false => "is deleted by the upgrade's cleanup, once that is approved",
    };
    let text = format!(
        "{} ({}) {state}. Terraform never knew it by that name: do not import it. Your groups {} and {} are for the old version; where they are in the \
         code, take them out once the old cluster is gone. To keep one in AWS, let Terraform forget it (removed blocks from Terraform 1.7 on).",
        moved.old_cluster, moved.blue_resource, moved.users_cluster_group, moved.users_instance_group
    );
    let hcl = format!(
        "removed {{\n  from = aws_rds_cluster_parameter_group.{}\n  lifecycle {{\n    destroy = false\n  }}\n}}\n",
        label(&moved.users_cluster_group)
    );
    step("The old side", text, Some(("hcl", hcl)))
}

fn others(moved: &Moved) -> Step {
    let text = format!(
        "Resource ids are others: policies for IAM logins (rds-db:connect) name {} instead of {}; where they read cluster_resource_id of the cluster, the \
         next apply changes them. Auto Scaling policies are not copied by AWS; terraform plan shows whether they are missing.",
        moved.green_resource, moved.blue_resource
    );
    step("What else names the old ids", text, None)
}

/// The follow-up as plain text, for a terminal or a file.
pub fn text(id: &str, follow_up: &FollowUp) -> String {
    let mut text = format!("Terraform after upgrade {id}\n\n{}\n", follow_up.says);
    if !follow_up.moved.is_empty() {
        text += "\nWhat a refresh changes in the state:\n";
    }
    for Attribute { address, name, before, after } in &follow_up.moved {
        text += &format!("  {address}\n    {name} = {before} -> {after}\n");
    }
    for (n, step) in follow_up.steps.iter().enumerate() {
        text += &format!("\n{}. {}\n{}\n", n + 1, step.title, step.text);
        if let Some(code) = &step.code {
            text.push('\n');
            code.lines().for_each(|line| text += &format!("{}\n", format!("    {line}").trim_end()));
        }
    }
    if !follow_up.cloudformation.is_empty() {
        text += &format!("\n{}\n", follow_up.cloudformation);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved() -> Moved {
        let text = str::to_owned;
        let instance = |name: &str, after: Option<&str>| Renamed {
            name: text(name),
            before: format!("db-BLUE{}", name.len()),
            after: after.map(text),
        };
        Moved {
            switched: true,
            ended: true,
            cleaned: true,
            cluster: text("orders-eu"),
            from: text("14.12"),
            to: text("16.4"),
            family: text("aurora-postgresql16"),
            users_cluster_group: text("prod-14"),
            users_instance_group: text("default.aurora-postgresql14"),
            cluster_group: text("upgrade-pilot-run-1-gc"),
            instance_group: text("upgrade-pilot-run-1-gi"),
            blue_resource: text("cluster-BLUE"),
            green_resource: text("cluster-GREEN"),
            old_cluster: text("orders-eu-old1"),
            instances: vec![instance("orders-eu-1", Some("db-GREEN1")), instance("reader", None)],
        }
    }

    #[test]
    fn the_steps_name_every_resource_by_its_real_identifier() {
        let said = text("run-1", &follow_up(&moved()));
        for wanted in [
            "    import {\n      to = aws_rds_cluster_parameter_group.orders_eu_aurora_postgresql16\n      id = \"upgrade-pilot-run-1-gc\"\n    }",
            "    terraform state rm aws_rds_cluster.orders_eu\n    terraform import aws_rds_cluster.orders_eu orders-eu\n",
            "    terraform import aws_rds_cluster_instance.orders_eu_1 orders-eu-1\n",
            "    terraform import aws_rds_cluster_instance.reader reader\n",
            "engine_version                  = \"16.4\" # was \"14.12\"",
            "db_cluster_parameter_group_name = \"upgrade-pilot-run-1-gc\" # was \"prod-14\"",
            "cluster_resource_id = cluster-BLUE -> cluster-GREEN",
            "dbi_resource_id = db-BLUE11 -> db-GREEN1",
            "dbi_resource_id = db-BLUE6 -> not known",
            "orders-eu-old1 (cluster-BLUE) was deleted",
            "CloudFormation:",
        ] {
            assert!(said.contains(wanted), "{wanted:?} is not in:\n{said}");
        }
    }

    #[test]
    fn before_the_switchover_there_is_nothing_to_do() {
        for (ended, word) in [(true, "was not switched over"), (false, "Nothing to do yet")] {
            let nothing = follow_up(&Moved { switched: false, ended, ..moved() });
            assert!(!nothing.needed && nothing.steps.is_empty() && nothing.says.contains(word), "{nothing:?}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_string_or_its_word() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c d""#);
        assert_eq!(quoted("${file(1)} $5 %{x} 5%"), "\"$${file(1)} $5 %%{x} 5%\"");
        assert_eq!(word("it's; rm -rf"), "'it'\\''s; rm -rf'");
        assert_eq!((word("orders-1").as_str(), label("1-a.b").as_str()), ("orders-1", "_1_a_b"));
    }
}
