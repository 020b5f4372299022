//! Identifiers. Each is its own type, so that one is never taken for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The text does not have the form of the identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {rule}")]
pub struct IdError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

fn checked(text: &str, what: &'static str, rule: &'static str, ok: bool) -> Result<String, IdError> {
    if ok { Ok(text.to_owned()) } else { Err(IdError { text: text.to_owned(), what, rule }) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                let check: fn(&str) -> bool = $check;
                checked(text, $what, $rule, check(text)).map($name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<$name, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

text_id!(
    /// One upgrade of one cluster. AWS names derive from it, so it is short, lower case and starts with a letter.
    UpgradeId,
    "an upgrade id",
    "a letter, then 3 to 39 lower-case letters, digits or single hyphens",
    |text| (4..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.contains("--")
        && !text.ends_with('-')
);

text_id!(
    /// A cluster, by its ARN (`arn:aws:rds:REGION:ACCOUNT:cluster:NAME`).
    ClusterArn,
    "a cluster ARN",
    "arn:PARTITION:rds:REGION:ACCOUNT:cluster:NAME",
    |text| {
        let parts: Vec<&str> = text.split(':').collect();
        parts.len() == 7 && parts[0] == "arn" && parts[2] == "rds" && parts[5] == "cluster" && !parts[6].is_empty()
    }
);

text_id!(
    /// An agent, as its configuration names it.
    AgentId,
    "an agent id",
    "1 to 63 letters, digits, dots, hyphens or underscores",
    |text| (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
);

text_id!(
    /// One job; its idempotency key. The same id is the same work, however often it is sent.
    JobId,
    "a job id",
    "1 to 200 visible characters without spaces",
    |text| (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

impl ClusterArn {
    /// The cluster's name: the last part of the ARN.
    pub fn name(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_id_is_fit_for_an_aws_name() {
        assert!("up-0k3f9".parse::<UpgradeId>().is_ok());
        for text in ["", "abc", "1abcd", "ab--cd", "abcd-", "abCd", "ab cd"] {
            assert!(text.parse::<UpgradeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cluster_is_named_by_the_last_part_of_its_arn() {
        let arn: ClusterArn = "arn:aws:rds:us-east-1:123456789012:cluster:orders".parse().unwrap();
        assert_eq!(arn.name(), "orders");
        let error = "orders".parse::<ClusterArn>().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""orders" is not a cluster ARN: arn:PARTITION:rds:REGION:ACCOUNT:cluster:NAME"#
        );
    }

    #[test]
    fn serde_refuses_what_parsing_refuses() {
        assert!(serde_json::from_str::<AgentId>(r#""agent one""#).is_err());
        assert_eq!(serde_json::to_string(&"a-1".parse::<AgentId>().unwrap()).unwrap(), r#""a-1""#);
    }
}
