//! The spec of an upgrade from `--spec FILE` and flags; flags win. An unknown key is refused by name.

use std::fs;

use serde_json::Value;

use super::{Fault, SpecArgs};
use crate::codes::BAD_SPEC;
use crate::spec::UpgradeSpec;

impl SpecArgs {
    /// Reads and validates it; the JSON form is what the coordinator takes.
    pub(super) fn read(&self) -> Result<Value, Fault> {
        let spec = self.parse()?;
        spec.validate().map_err(|error| Fault::refused(format!("{BAD_SPEC}: {error}")))?;
        serde_json::to_value(&spec).map_err(|error| Fault::failed(format!("writing the spec: {error}")))
    }

    fn parse(&self) -> Result<UpgradeSpec, Fault> {
        let mut table = match &self.spec {
            None => toml::Table::new(),
            Some(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| Fault::usage(format!("the spec {} cannot be read: {error}", path.display())))?;
                text.parse().map_err(|error| Fault::refused(format!("{BAD_SPEC}: {}: {error}", path.display())))?
            }
        };
        let texts = [("cluster", &self.cluster), ("to", &self.to)];
        for (key, value) in texts {
            if let Some(value) = value {
                table.insert(key.to_owned(), value.clone().into());
            }
            if !table.contains_key(key) {
                return Err(Fault::usage(format!("write --{key}, or `{key}` in the file given with --spec")));
            }
        }
        if let Some(retries) = self.retries {
            table.insert("retries".to_owned(), i64::from(retries).into());
        }
        if self.clean_leftovers {
            table.insert("clean_leftovers".to_owned(), true.into());
        }
        table.try_into().map_err(|error| Fault::refused(format!("{BAD_SPEC}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Exit;
    use super::*;

    fn read(name: &str, text: &str, to: Option<&str>) -> Result<Value, Fault> {
        let path: PathBuf = std::env::temp_dir().join(format!("pilot-spec-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        let args = SpecArgs {
            cluster: Some("orders".into()),
            to: to.map(Into::into),
            spec: Some(path.clone()),
            retries: None,
            clean_leftovers: true,
        };
        let spec = args.read();
        fs::remove_file(path).unwrap();
        spec
    }

    #[test]
    fn flags_win_over_the_file() {
        let spec = read("flags", "to = '15'\n[switchover]\napprove = true\n", Some("16")).unwrap();
        assert_eq!((spec["to"].as_str(), spec["switchover"]["approve"].as_bool()), (Some("16"), Some(true)));
        assert_eq!(spec["clean_leftovers"], true);
    }

    #[test]
    fn an_unknown_key_is_refused_and_a_missing_one_is_bad_usage() {
        let refused = read("unknown", "speed = 'fast'\n", Some("16")).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.text.contains("speed"), "{}", refused.text);
        assert_eq!(read("missing", "", None).unwrap_err().exit, Exit::Usage);
    }
}
