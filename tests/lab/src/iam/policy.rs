//! IAM's policy language, as much of it as policies for RDS and CloudWatch use: effect, actions, resources, conditions. Pure:
//! a policy, a need, a verdict. What it does not know is refused when a policy is read, never skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What one call needs: one action on one resource, in its circumstances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// `rds:CreateDBCluster`.
    pub action: String,
    /// An ARN, or `*` where AWS knows no resource for the action.
    pub resource: String,
    /// Condition keys in lower case (a tag's key keeps its own), each with its values.
    pub context: BTreeMap<String, Vec<String>>,
}

/// What policies say of a need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A statement allows it and none denies it.
    Allowed,
    /// No statement speaks of it.
    NotAllowed,
    /// A statement denies it.
    Denied,
}

/// What all these policies together say.
#[must_use]
pub fn decide<'a>(policies: impl IntoIterator<Item = &'a Policy>, need: &Need) -> Verdict {
    let mut verdict = Verdict::NotAllowed;
    for statement in policies.into_iter().flat_map(|policy| &policy.statements).filter(|s| s.speaks_of(need)) {
        if !statement.allow {
            return Verdict::Denied;
        }
        verdict = Verdict::Allowed;
    }
    verdict
}

/// A policy document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Document")]
pub struct Policy {
    statements: Vec<Statement>,
}

impl Policy {
    /// Everything, everywhere.
    #[must_use]
    pub fn administrator() -> Self {
        let everything = || Listed { wanted: vec!["*".to_owned()], without: false };
        let (actions, resources) = (everything(), everything());
        Self { statements: vec![Statement { sid: None, allow: true, actions, resources, conditions: Vec::new() }] }
    }

    /// Every action that a statement names, as `(statement, name of the statement, action)`.
    #[must_use]
    pub fn actions(&self) -> Vec<(usize, String, String)> {
        let of = |(at, s): (usize, &Statement)| {
            let sid = s.sid.clone().unwrap_or_else(|| at.to_string());
            s.actions.wanted.iter().map(move |action| (at, sid.clone(), action.clone())).collect::<Vec<_>>()
        };
        self.statements.iter().enumerate().flat_map(of).collect()
    }

    /// The same policy with one action taken from one statement (and the statement gone when it was its last).
    #[must_use]
    pub fn without(&self, statement: usize, action: &str) -> Self {
        let mut less = self.clone();
        if let Some(found) = less.statements.get_mut(statement) {
            found.actions.wanted.retain(|kept| kept != action);
            if found.actions.wanted.is_empty() {
                less.statements.remove(statement);
            }
        }
        less
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Statement {
    sid: Option<String>,
    allow: bool,
    actions: Listed,
    resources: Listed,
    conditions: Vec<Condition>,
}

impl Statement {
    fn speaks_of(&self, need: &Need) -> bool {
        self.actions.covers(&need.action, false)
            && self.resources.covers(&need.resource, true)
            && self.conditions.iter().all(|condition| condition.holds(&need.context))
    }
}

/// Patterns, of which one must fit or (`NotAction`, `NotResource`) none.
#[derive(Debug, Clone, PartialEq)]
struct Listed {
    wanted: Vec<String>,
    without: bool,
}

impl Listed {
    fn covers(&self, text: &str, exact_case: bool) -> bool {
        let fits = |pattern: &String| {
            if exact_case { like(pattern, text) } else { like(&pattern.to_lowercase(), &text.to_lowercase()) }
        };
        self.wanted.iter().any(fits) != self.without
    }
}

/// One key under one operator.
#[derive(Debug, Clone, PartialEq)]
struct Condition {
    operator: Operator,
    negated: bool,
    if_exists: bool,
    /// `ForAllValues`; otherwise one value that fits is enough.
    all: bool,
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equals,
    EqualsIgnoreCase,
    Like,
    Bool,
    Null,
}

impl Condition {
    fn holds(&self, context: &BTreeMap<String, Vec<String>>) -> bool {
        let found = context.get(&self.key);
        if self.operator == Operator::Null {
            return self.values.iter().any(|wanted| (wanted == "true") == found.is_none());
        }
        let Some(found) = found else { return self.if_exists || self.negated || self.all };
        let fits = |value: &String| self.values.iter().any(|wanted| self.fits(wanted, value)) != self.negated;
        if self.all { found.iter().all(fits) } else { found.iter().any(fits) }
    }

    fn fits(&self, wanted: &str, value: &str) -> bool {
        match self.operator {
            Operator::Equals => wanted == value,
            Operator::EqualsIgnoreCase | Operator::Bool => wanted.eq_ignore_ascii_case(value),
            Operator::Like => like(wanted, value),
            Operator::Null => false,
        }
    }
}

/// `*` stands for any text, `?` for one character.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// A condition key: its name is compared without case, a tag's own key with it.
pub(crate) fn key(name: &str) -> String {
    match name.split_once('/') {
        Some((family, tag)) => format!("{}/{tag}", family.to_lowercase()),
        None => name.to_lowercase(),
    }
}

/// A policy as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    sid: Option<String>,
    effect: String,
    action: Option<OneOrMany<String>>,
    not_action: Option<OneOrMany<String>>,
    resource: Option<OneOrMany<String>>,
    not_resource: Option<OneOrMany<String>>,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, OneOrMany<Value>>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn all(self) -> Vec<T> {
        match self {
            Self::Many(all) => all,
            Self::One(one) => vec![one],
        }
    }
}

impl TryFrom<Document> for Policy {
    type Error = String;

    fn try_from(document: Document) -> Result<Self, String> {
        if document.version.as_deref() != Some("2012-10-17") {
            return Err("The policy's Version must be 2012-10-17".to_owned());
        }
        let statements = document.statement.all().into_iter().map(statement).collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }
}

fn statement(written: Written) -> Result<Statement, String> {
    let allow = match written.effect.as_str() {
        "Allow" => true,
        "Deny" => false,
        other => return Err(format!("Effect must be Allow or Deny, not {other}")),
    };
    let actions = listed("Action", written.action, written.not_action)?;
    let resources = listed("Resource", written.resource, written.not_resource)?;
    if let Some(odd) = actions.wanted.iter().find(|action| *action != "*" && !action.contains(':')) {
        return Err(format!("{odd} is no action: it has no service"));
    }
    let mut conditions = Vec::new();
    for (operator, keys) in written.condition {
        for (name, values) in keys {
            conditions.push(condition(&operator, &name, values)?);
        }
    }
    Ok(Statement { sid: written.sid, allow, actions, resources, conditions })
}

fn listed(what: &str, these: Option<OneOrMany<String>>, not: Option<OneOrMany<String>>) -> Result<Listed, String> {
    match (these, not) {
        (Some(wanted), None) => Ok(Listed { wanted: wanted.all(), without: false }),
        (None, Some(wanted)) => Ok(Listed { wanted: wanted.all(), without: true }),
        _ => Err(format!("A statement has either {what} or Not{what}")),
    }
}

fn condition(operator: &str, name: &str, values: OneOrMany<Value>) -> Result<Condition, String> {
    let (all, plain) = match operator.split_once(':') {
        Some(("ForAllValues", plain)) => (true, plain),
        Some(("ForAnyValue", plain)) => (false, plain),
        _ => (false, operator),
    };
    let (plain, if_exists) = plain.strip_suffix("IfExists").map_or((plain, false), |plain| (plain, true));
    let (operator, negated) = match plain {
        "StringEquals" => (Operator::Equals, false),
        "StringNotEquals" => (Operator::Equals, true),
        "StringEqualsIgnoreCase" => (Operator::EqualsIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => (Operator::EqualsIgnoreCase, true),
        "StringLike" | "ArnLike" | "ArnEquals" => (Operator::Like, false),
        "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => (Operator::Like, true),
        "Bool" => (Operator::Bool, false),
        "Null" => (Operator::Null, false),
        other => return Err(format!("the lab does not know the condition operator {other}")),
    };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Bool(on) => Ok(on.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("{other} is no value of a condition")),
    };
    let values = values.all().into_iter().map(text).collect::<Result<_, _>>()?;
    Ok(Condition { operator, negated, if_exists, all, key: key(name), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(statements: Value) -> Result<Policy, String> {
        let document = serde_json::json!({ "Version": "2012-10-17", "Statement": statements });
        serde_json::from_value(document).map_err(|error| error.to_string())
    }

    fn need(action: &str, resource: &str, context: &[(&str, &[&str])]) -> Need {
        let context = context.iter().map(|(k, v)| (key(k), v.iter().map(|v| (*v).to_owned()).collect())).collect();
        Need { action: action.into(), resource: resource.into(), context }
    }

    #[track_caller]
    fn check(statements: Value, need: &Need, expected: Verdict) {
        let policy = policy(statements.clone()).expect("a policy");
        assert_eq!(decide([&policy], need), expected, "{statements} of {need:?}");
    }

    const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";

    #[test]
    fn actions_are_compared_without_case_and_resources_with_it() {
        let of = |action: &str, resource: &str| serde_json::json!({ "Effect": "Allow", "Action": action, "Resource": resource });
        let asked = need("rds:ModifyDBCluster", CLUSTER, &[]);
        check(of("rds:modifydb*", "*"), &asked, Verdict::Allowed);
        check(of("rds:ModifyDBClust?r", "arn:aws:rds:*:*:cluster:ord*"), &asked, Verdict::Allowed);
        check(of("rds:ModifyDBCluster", "arn:aws:rds:*:*:cluster:Orders"), &asked, Verdict::NotAllowed);
        check(of("cloudwatch:*", "*"), &asked, Verdict::NotAllowed);
    }

    #[test]
    fn a_denial_wins_and_not_means_all_others() {
        let allow = serde_json::json!({ "Effect": "Allow", "NotAction": "rds:Delete*", "Resource": "*" });
        check(serde_json::json!([allow]), &need("rds:DeleteDBCluster", CLUSTER, &[]), Verdict::NotAllowed);
        check(serde_json::json!([allow]), &need("rds:ModifyDBCluster", CLUSTER, &[]), Verdict::Allowed);
        let deny =
            serde_json::json!({ "Effect": "Deny", "Action": "*", "NotResource": "arn:aws:rds:*:*:cluster:other" });
        check(serde_json::json!([allow, deny]), &need("rds:ModifyDBCluster", CLUSTER, &[]), Verdict::Denied);
    }

    #[test]
    fn conditions_hold_as_iam_has_them() {
        let tagged: &[(&str, &[&str])] = &[("aws:ResourceTag/Team", &["data"]), ("aws:TagKeys", &["a", "b"])];
        let cases: [(Value, bool); 11] = [
            (serde_json::json!({ "StringEquals": { "AWS:resourcetag/Team": "data" } }), true),
            (serde_json::json!({ "StringEquals": { "aws:ResourceTag/team": "data" } }), false),
            (serde_json::json!({ "StringLike": { "aws:ResourceTag/Team": ["x", "d*"] } }), true),
            (serde_json::json!({ "StringNotEquals": { "aws:ResourceTag/Team": "data" } }), false),
            (serde_json::json!({ "StringNotEquals": { "aws:ResourceTag/None": "data" } }), true),
            (serde_json::json!({ "StringEquals": { "aws:ResourceTag/None": "data" } }), false),
            (serde_json::json!({ "StringEqualsIfExists": { "aws:ResourceTag/None": "data" } }), true),
            (serde_json::json!({ "Null": { "aws:ResourceTag/None": true } }), true),
            (serde_json::json!({ "ForAllValues:StringEquals": { "aws:TagKeys": ["a"] } }), false),
            (serde_json::json!({ "ForAnyValue:StringEquals": { "aws:TagKeys": ["a"] } }), true),
            (
                serde_json::json!({ "StringLike": { "aws:ResourceTag/Team": "d*" }, "Bool": { "rds:None": true } }),
                false,
            ),
        ];
        for (condition, holds) in cases {
            let statement =
                serde_json::json!({ "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition });
            let expected = if holds { Verdict::Allowed } else { Verdict::NotAllowed };
            check(statement, &need("rds:ModifyDBCluster", CLUSTER, tagged), expected);
        }
    }

    #[test]
    fn what_the_lab_does_not_know_is_refused_when_it_is_read() {
        for (statement, why) in [
            (serde_json::json!({ "Effect": "Perhaps", "Action": "*", "Resource": "*" }), "Effect"),
            (serde_json::json!({ "Effect": "Allow", "Action": "*" }), "Resource"),
            (serde_json::json!({ "Effect": "Allow", "Action": "Describe", "Resource": "*" }), "no action"),
            (serde_json::json!({ "Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*" }), "Principal"),
            (
                serde_json::json!({ "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": { "DateLessThan": { "a": "b" } } }),
                "DateLessThan",
            ),
        ] {
            let said = policy(serde_json::json!([statement])).expect_err("refused");
            assert!(said.contains(why) || said.contains("did not match any variant"), "{said}");
        }
    }

    #[test]
    fn an_action_taken_away_is_missed() {
        let both =
            policy(serde_json::json!({ "Sid": "s", "Effect": "Allow", "Action": ["rds:A", "rds:B"], "Resource": "*" }));
        let both = both.expect("a policy");
        assert_eq!(both.actions().len(), 2);
        let less = both.without(0, "rds:A");
        assert_eq!(decide([&less], &need("rds:A", "*", &[])), Verdict::NotAllowed);
        assert_eq!(decide([&less], &need("rds:B", "*", &[])), Verdict::Allowed);
        assert!(less.without(0, "rds:B").actions().is_empty());
    }
}
