//! Every parameter that an upgrade was started with, as rows; what differs from the default is marked. Pure.

use serde_json::Value;

use crate::operator::Asked;
use crate::spec::UpgradeSpec;

/// One section of the spec.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// With its section, as a spec and `tune` name it.
    pub(super) key: String,
    /// Without it.
    pub(super) name: String,
    pub(super) value: String,
    /// The default, where it is another.
    pub(super) default: Option<String>,
    /// What a person has made of it since.
    pub(super) tuned: Option<String>,
}

pub(super) fn parameters(asked: &Asked) -> Vec<Group> {
    let Some(spec) = &asked.spec else { return Vec::new() };
    let json = |spec: &UpgradeSpec| serde_json::to_value(spec).unwrap_or_default();
    let (all, defaults) = (json(spec), json(&UpgradeSpec::new(&spec.cluster, &spec.to)));
    let mut groups = vec![Group { name: "upgrade".to_owned(), rows: Vec::new() }];
    for (key, value) in all.as_object().into_iter().flatten() {
        let row = |path: String, value: &Value, default: &Value| Row {
            default: (value != default).then(|| shown(default)),
            tuned: asked.tuned.get(&path).map(shown),
            value: shown(value),
            name: path.rsplit('.').next().unwrap_or_default().to_owned(),
            key: path,
        };
        match value {
            Value::Object(fields) => groups.push(Group {
                name: key.clone(),
                rows: fields.iter().map(|(name, it)| row(format!("{key}.{name}"), it, &defaults[key][name])).collect(),
            }),
            value => groups[0].rows.push(row(key.clone(), value, &defaults[key])),
        }
    }
    groups
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key} = {}", shown(value)));
            fields.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_there_and_what_was_chosen_or_tuned_is_marked() {
        let mut spec = UpgradeSpec::new("orders", "16");
        spec.switchover.attempts = 7;
        let tuned = [("replication.lag_bytes_max".to_owned(), serde_json::json!(99))].into();
        let groups = parameters(&Asked { spec: Some(spec.clone()), tuned });
        let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.rows).collect();
        let row = |key: &str| *rows.iter().find(|row| row.key == key).unwrap_or_else(|| panic!("{key} is not shown"));
        let written = toml::Table::try_from(&spec).unwrap();
        for (key, value) in &written {
            match value {
                toml::Value::Table(fields) => {
                    fields.keys().for_each(|name| assert!(!row(&format!("{key}.{name}")).key.is_empty()))
                }
                _ => drop(row(key)),
            }
        }
        assert_eq!(
            (row("switchover.attempts").value.as_str(), row("switchover.attempts").default.as_deref()),
            ("7", Some("3"))
        );
        assert_eq!(row("replication.lag_bytes_max").tuned.as_deref(), Some("99"));
        assert_eq!((row("accept").value.as_str(), row("accept").default.as_ref()), ("none", None));
        assert_eq!(parameters(&Asked::default()), []);
    }
}
