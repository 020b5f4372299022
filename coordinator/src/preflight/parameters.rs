//! What of the user's settings can be carried into another parameter family. Pure.

use crate::rds::Parameter;

/// A setting that goes along as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub name: String,
    pub value: String,
    pub is_static: bool,
}

/// A setting that the target family cannot hold, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub name: String,
    pub value: String,
    pub why: String,
}

/// Splits what the user set into what the target family takes and what it does not.
pub fn carried_over(user: &[Parameter], target: &[Parameter]) -> (Vec<Carried>, Vec<Lost>) {
    let (mut carried, mut lost) = (Vec::new(), Vec::new());
    for parameter in user {
        let Some(value) = parameter.value.clone() else { continue };
        let name = parameter.name.clone();
        match target.iter().find(|candidate| candidate.name == name) {
            None => lost.push(Lost { name, value, why: "the target family has no such parameter".into() }),
            Some(candidate) if !candidate.is_modifiable => {
                lost.push(Lost { name, value, why: "it cannot be modified in the target family".into() });
            }
            Some(candidate) if !allows(candidate.allowed_values.as_deref(), &value) => {
                let allowed = candidate.allowed_values.clone().unwrap_or_default();
                lost.push(Lost { name, value, why: format!("the target family allows {allowed}") });
            }
            Some(candidate) => carried.push(Carried { name, value, is_static: candidate.is_static }),
        }
    }
    (carried, lost)
}

/// AWS writes allowed values as `a,b,c` or `1-100`; formulas and free text are taken as they are.
fn allows(allowed: Option<&str>, value: &str) -> bool {
    let Some(allowed) = allowed else { return true };
    if value.contains('{') {
        return true;
    }
    let ranges: Vec<(f64, f64)> = allowed.split(',').filter_map(range).collect();
    if !ranges.is_empty() {
        return value.parse().is_ok_and(|number: f64| ranges.iter().any(|(from, to)| (*from..=*to).contains(&number)));
    }
    match allowed.split(',').map(str::trim).collect::<Vec<_>>() {
        words if words.len() > 1 => value.split(',').all(|part| words.contains(&part.trim())),
        _ => true,
    }
}

/// `1-100` or `-1-100`; the minus that separates is the first one behind the first digit.
fn range(text: &str) -> Option<(f64, f64)> {
    let text = text.trim();
    let cut = text.char_indices().skip(1).find(|(_, c)| *c == '-')?.0;
    Some((text[..cut].parse().ok()?, text[cut + 1..].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rds::ParameterSource;

    fn parameter(name: &str, value: Option<&str>, allowed: Option<&str>) -> Parameter {
        Parameter {
            name: name.into(),
            value: value.map(Into::into),
            source: ParameterSource::User,
            is_static: false,
            data_type: None,
            allowed_values: allowed.map(Into::into),
            is_modifiable: true,
            apply_method: None,
        }
    }

    #[test]
    fn what_the_family_dropped_or_narrowed_is_lost_by_name_and_the_rest_goes_along() {
        let user = [
            parameter("work_mem", Some("65536"), None),
            parameter("old_snapshot_threshold", Some("60"), None),
            parameter("random_page_cost", Some("1.1"), None),
            parameter("log_statement", Some("everything"), None),
            parameter("autovacuum_max_workers", Some("{DBInstanceClassMemory/64371566592}"), None),
            parameter("unset", None, None),
        ];
        let target = [
            parameter("work_mem", None, Some("64-2147483647")),
            parameter("random_page_cost", None, Some("0-1")),
            parameter("log_statement", None, Some("none,ddl,mod,all")),
            parameter("autovacuum_max_workers", None, Some("1-262143")),
        ];
        let (carried, lost) = carried_over(&user, &target);
        assert_eq!(carried.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["work_mem", "autovacuum_max_workers"]);
        assert_eq!(
            lost.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(),
            ["old_snapshot_threshold", "random_page_cost", "log_statement"]
        );
    }

    #[test]
    fn ranges_may_be_negative() {
        assert!(allows(Some("-1-100"), "-1"));
        assert!(!allows(Some("-1-100"), "-2"));
        assert!(allows(Some("0,1"), "1"));
        assert!(!allows(Some("0,1"), "2"));
    }
}
