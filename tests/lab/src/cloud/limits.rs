//! The limits of inputs: what AWS's published models say of them (`limits.tsv`, written by `limits.py`) and what its reference
//! says beyond (tags). It runs before an operation and knows no state.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

use crate::cloud::errors::{Answer, Refusal};

/// One member of an input.
#[derive(Debug)]
struct Limit {
    /// `Filters.Filter[].Name` as steps.
    path: Vec<Step>,
    name: &'static str,
    kind: &'static str,
    required: bool,
    /// Of a number, of a list's items or of a text's characters.
    span: RangeInclusive<i64>,
    pattern: &'static str,
    values: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Member(&'static str),
    Items,
}

static LIMITS: LazyLock<HashMap<&'static str, Vec<Limit>>> = LazyLock::new(|| {
    let mut all: HashMap<&str, Vec<Limit>> = HashMap::new();
    for line in include_str!("limits.tsv").lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [operation, name, kind, required, least, most, pattern, values] = columns[..] else { continue };
        let (low, high) = if kind == "integer" { (i32::MIN.into(), i32::MAX.into()) } else { (i64::MIN, i64::MAX) };
        let limit = Limit {
            path: steps(name),
            name,
            kind,
            required: required == "required",
            span: least.parse().unwrap_or(low)..=most.parse().unwrap_or(high),
            pattern,
            values: values.split('|').filter(|value| !value.is_empty()).collect(),
        };
        all.entry(operation).or_default().push(limit);
    }
    all
});

fn steps(path: &'static str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let name = part.trim_end_matches("[]");
        steps.push(Step::Member(name));
        steps.extend((name != part).then_some(Step::Items));
    }
    steps
}

/// Whom an input is for: the services say the same thing in different words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    Rds,
    CloudWatch,
}

/// Checks an input: names to values, lists as arrays, scalars as text (a form) or as themselves.
///
/// # Errors
/// As the service refuses what does not fit.
pub(crate) fn check(words: Words, operation: &str, input: &Value) -> Answer<()> {
    for limit in LIMITS.get(operation).map_or(&[][..], Vec::as_slice) {
        let (last, parents) = limit.path.split_last().unwrap_or((&Step::Items, &[]));
        let mut holders = vec![input];
        for step in parents {
            holders = holders.into_iter().flat_map(|value| taken(value, *step)).collect();
        }
        for holder in holders {
            let found = taken(holder, *last);
            if limit.required && found.is_empty() {
                return Err(missing(words, limit.name));
            }
            for value in found {
                limit.admits(words, value).map_err(|why| refused(words, operation, why))?;
            }
        }
    }
    if words == Words::Rds { tags(input) } else { Ok(()) }
}

fn taken(value: &Value, step: Step) -> Vec<&Value> {
    match step {
        Step::Member(name) => value.get(name).filter(|found| !found.is_null()).into_iter().collect(),
        Step::Items => value.as_array().into_iter().flatten().collect(),
    }
}

/// Why a value is not taken.
enum Why {
    /// It is not of the type at all.
    Kind(String),
    /// It is, and outside the limits.
    Limit(String),
}

impl Limit {
    fn admits(&self, words: Words, value: &Value) -> Result<(), Why> {
        let name = self.name;
        let kind = |what: &str| Why::Kind(format!("{name} must be {what}, not {value}"));
        match self.kind {
            "integer" | "long" => {
                let number =
                    value.as_i64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(|| kind("an integer"))?;
                self.within(number, "value")
            }
            "double" | "float" => {
                let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
                number.map(drop).ok_or_else(|| kind("a number"))
            }
            "boolean" => {
                let is = value.is_boolean() || matches!(value.as_str(), Some("true" | "false"));
                is.then_some(()).ok_or_else(|| kind("true or false"))
            }
            "timestamp" => {
                let is = value.is_number() || value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok());
                is.then_some(()).ok_or_else(|| kind("a timestamp"))
            }
            "list" => match value {
                Value::Array(items) => self.within(count(items.len()), "length"),
                // A form has an empty list as a name without a value, and the items below a name of their own.
                Value::String(text) if text.is_empty() => self.within(0, "length"),
                Value::Object(below) if words == Words::Rds => {
                    let items = below.values().filter_map(Value::as_array).map(Vec::len).max();
                    items.map_or(Ok(()), |items| self.within(count(items), "length"))
                }
                _ => Err(kind("a list")),
            },
            "string" => match value.as_str() {
                Some(text) => self.text(text),
                // A form of CloudWatch is typed by its looks: `60` may be meant as text.
                None if value.is_number() || value.is_boolean() => self.text(&value.to_string()),
                None => Err(kind("a text")),
            },
            _ => Ok(()),
        }
    }

    fn text(&self, text: &str) -> Result<(), Why> {
        let unlimited = *self.span.start() == i64::MIN && *self.span.end() == i64::MAX;
        if !unlimited {
            self.within(count(text.chars().count()), "length")?;
        }
        let name = self.name;
        if !self.pattern.is_empty() && !fits(self.pattern, text).unwrap_or(true) {
            return Err(Why::Limit(format!(
                "Value '{text}' at '{name}' failed to satisfy constraint: Member must satisfy regular expression pattern: {}",
                self.pattern
            )));
        }
        if !self.values.is_empty() && !self.values.contains(&text) {
            return Err(Why::Limit(format!(
                "Value '{text}' at '{name}' failed to satisfy constraint: Member must satisfy enum value set: [{}]",
                self.values.join(", ")
            )));
        }
        Ok(())
    }

    fn within(&self, number: i64, what: &str) -> Result<(), Why> {
        if self.span.contains(&number) {
            return Ok(());
        }
        let (bound, limit) =
            if number < *self.span.start() { ("greater", self.span.start()) } else { ("less", self.span.end()) };
        Err(Why::Limit(format!(
            "Value at '{}' failed to satisfy constraint: Member must have {what} {bound} than or equal to {limit}",
            self.name
        )))
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether a text matches one of the models' patterns; `None` for a pattern that is not known here (a test finds it).
fn fits(pattern: &str, text: &str) -> Option<bool> {
    let all = |allowed: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || allowed.contains(c));
    let first = |test: fn(&char) -> bool| text.chars().next().as_ref().is_some_and(test);
    let single_hyphens = !text.contains("--") && !text.ends_with('-');
    Some(match pattern {
        "[a-zA-Z](?:-?[a-zA-Z0-9]+)*" => first(char::is_ascii_alphabetic) && all("-") && single_hyphens,
        "[a-z](?:-?[a-z0-9]+){0,15}" => {
            let lower = !text.chars().any(|c| c.is_ascii_uppercase());
            first(char::is_ascii_lowercase) && all("-") && single_hyphens && lower
        }
        "[A-Za-z][0-9A-Za-z-:._]*" => first(char::is_ascii_alphabetic) && all("-:._"),
        "arn:[A-Za-z][0-9A-Za-z-:._]*" => text
            .strip_prefix("arn:")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()) && all("-:._")),
        "[0-9A-Za-z-_.]+" => !text.is_empty() && all("-_."),
        r"[a-zA-Z0-9_:\-\/]+" => !text.is_empty() && all("_:-/"),
        "[^:].*" => first(|c| *c != ':'),
        r"[A-Za-z](?!.*--)[0-9A-Za-z-]*[^-]|^default(?!.*--)(?!.*\.\.)[0-9A-Za-z-.]*[^-]" => {
            let own = first(char::is_ascii_alphabetic) && all("-") && single_hyphens && text.len() > 1;
            let default = text.starts_with("default") && all("-.") && single_hyphens && !text.contains("..");
            own || default
        }
        r"db\.[0-9a-z]{2,6}\.[0-9a-z]{4,9}" => {
            let parts: Vec<&str> = text.split('.').collect();
            let of = |part: &str, span: RangeInclusive<usize>| {
                span.contains(&part.len()) && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            };
            matches!(parts[..], ["db", family, size] if of(family, 2..=6) && of(size, 4..=9))
        }
        r"arn:aws[a-z-]*:rds(-[a-z]+)?:[a-z0-9-]*:[0-9]{12}:(cluster|db):[a-zA-Z][a-zA-Z0-9-]{0,62}" => {
            arn(text, "rds", &["cluster", "db"])
        }
        r"arn:aws[a-z-]*:backup:[-a-z0-9]+:[0-9]{12}:[-a-z]+:([a-z0-9\-]+:)?[a-z][a-z0-9\-]{0,255}" => {
            arn(text, "backup", &[])
        }
        _ => return None,
    })
}

/// `arn:aws:SERVICE:region:123456789012:KIND:name`, of any kind if none is listed.
fn arn(text: &str, service: &str, kinds: &[&str]) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let ["arn", partition, of, _, account, kind, .., name] = parts[..] else { return false };
    partition.starts_with("aws")
        && of.starts_with(service)
        && account.len() == 12
        && account.chars().all(|c| c.is_ascii_digit())
        && (kinds.is_empty() || kinds.contains(&kind))
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// What the reference says of tags: at most 50, keys of 1 to 128 characters that are not AWS's own, values of up to 256.
fn tags(input: &Value) -> Answer<()> {
    let all = input["Tags"]["Tag"].as_array().map_or(&[][..], Vec::as_slice);
    if all.len() > 50 {
        return Err(Refusal::value("A resource can have at most 50 tags."));
    }
    for tag in all {
        let (key, value) = (tag["Key"].as_str().unwrap_or_default(), tag["Value"].as_str().unwrap_or_default());
        if !(1..=128).contains(&key.chars().count()) {
            return Err(Refusal::value("A tag's key must have between 1 and 128 characters."));
        }
        if key.starts_with("aws:") || key.starts_with("rds:") {
            return Err(Refusal::value(format!("The tag key {key} begins with a prefix that is reserved for AWS.")));
        }
        if value.chars().count() > 256 {
            return Err(Refusal::value(format!("The value of the tag {key} has more than 256 characters.")));
        }
    }
    Ok(())
}

fn missing(words: Words, name: &str) -> Refusal {
    let text = match words {
        Words::Rds => format!("The request must contain the parameter {name}"),
        Words::CloudWatch => format!("The parameter {name} is required."),
    };
    Refusal::new("MissingParameter", 400, text)
}

/// `GetMetricStatistics` and `ListMetrics` have modelled codes of their own; `GetMetricData` has none.
fn refused(words: Words, operation: &str, why: Why) -> Refusal {
    match (words, why) {
        (Words::CloudWatch, Why::Kind(text)) => Refusal::new("SerializationException", 400, text),
        (Words::CloudWatch, Why::Limit(text)) if operation == "GetMetricData" => {
            Refusal::new("ValidationError", 400, format!("1 validation error detected: {text}"))
        }
        (_, Why::Kind(text) | Why::Limit(text)) => Refusal::value(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_the_models_is_known() {
        for limit in LIMITS.values().flatten().filter(|limit| !limit.pattern.is_empty()) {
            assert!(fits(limit.pattern, "x").is_some(), "{} of {}", limit.pattern, limit.name);
        }
        assert!(LIMITS.len() > 40, "limits of {} operations", LIMITS.len());
    }

    #[test]
    fn patterns_are_read_as_regular_expressions_would_be() {
        const NAME: &str = "[a-zA-Z](?:-?[a-zA-Z0-9]+)*";
        const GROUP: &str = r"[A-Za-z](?!.*--)[0-9A-Za-z-]*[^-]|^default(?!.*--)(?!.*\.\.)[0-9A-Za-z-.]*[^-]";
        const CLASS: &str = r"db\.[0-9a-z]{2,6}\.[0-9a-z]{4,9}";
        for (pattern, text, expected) in [
            (NAME, "a-1", true),
            (NAME, "1a", false),
            (NAME, "a--b", false),
            (NAME, "a-", false),
            (NAME, "ä", false),
            (GROUP, "default.aurora-postgresql16", true),
            (GROUP, "mine.16", false),
            (CLASS, "db.r6g.large", true),
            (CLASS, "db.serverless", false),
            ("[^:].*", ":x", false),
        ] {
            assert_eq!(fits(pattern, text), Some(expected), "{pattern} {text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let check = |operation, input| check(Words::Rds, operation, &input).map_err(|r| (r.code, r.message));
        let code = |operation, input| check(operation, input).expect_err("refused").0;
        let switchover = |seconds: &str| serde_json::json!({ "BlueGreenDeploymentIdentifier": "bgd-1", "SwitchoverTimeout": seconds });
        assert_eq!(check("SwitchoverBlueGreenDeployment", switchover("30")), Ok(()));
        assert_eq!(code("SwitchoverBlueGreenDeployment", switchover("29")), "InvalidParameterValue");
        assert_eq!(code("SwitchoverBlueGreenDeployment", switchover("x")), "InvalidParameterValue");
        assert_eq!(code("SwitchoverBlueGreenDeployment", serde_json::json!({})), "MissingParameter");
        let filter = serde_json::json!({ "Filters": { "Filter": [{ "Name": "engine" }] } });
        assert!(check("DescribeDBClusters", filter).expect_err("no values").1.contains("Filters.Filter[].Values"));
        let tags = serde_json::json!({ "ResourceName": "arn:x", "Tags": { "Tag": [{ "Key": "aws:x" }] } });
        assert_eq!(code("AddTagsToResource", tags), "InvalidParameterValue");
    }
}
