//! Rights, as a Role writes them down.

use serde::Deserialize;

/// One rule of a Role.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

pub(super) struct Request<'a> {
    pub(super) group: &'a str,
    /// With its sub-resource.
    pub(super) resource: &'a str,
    pub(super) verb: &'a str,
    pub(super) name: Option<&'a str>,
}

impl Rule {
    pub(super) fn allows(&self, request: &Request<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        // A rule with names says nothing of lists.
        let named = request.name.is_some_and(|name| self.resource_names.iter().any(|one| one == name));
        has(&self.api_groups, request.group)
            && has(&self.resources, request.resource)
            && has(&self.verbs, request.verb)
            && (self.resource_names.is_empty() || named)
    }
}
