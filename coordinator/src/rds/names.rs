//! The names we give in AWS, all derived from the run, so that making a thing twice is adopting it. Every name fits AWS's limits:
//! letters, digits and single hyphens, a letter first, no hyphen last, and short enough for the shortest limit (60, deployments).

use sha2::{Digest, Sha256};

use super::{DeploymentName, ParameterGroupName, SnapshotId, Tag};

/// The key of the tag on everything that we make. Its value is the run's id.
pub const TAG_KEY: &str = "upgrade-pilot";
/// What every derived name begins with.
const PREFIX: &str = "upgrade-pilot";
/// Characters of the run's id in a name; a longer id is shortened to a digest.
const STEM_MAX: usize = 36;

/// The names of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    run: String,
    stem: String,
}

impl Names {
    /// The names of the run with this id (a UUID as a rule; any other text is turned into legal characters or a digest).
    pub fn of(run: impl std::fmt::Display) -> Self {
        let run = run.to_string();
        let lower = run.to_ascii_lowercase();
        let legal = !lower.is_empty()
            && lower.len() <= STEM_MAX
            && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !lower.starts_with('-')
            && !lower.ends_with('-')
            && !lower.contains("--");
        // Case is folded because AWS compares without it; what would fold onto another id gets a digest of its own.
        let stem = if legal && lower == run { lower } else { digest(&run) };
        Self { run, stem }
    }

    fn derived(&self, what: &str) -> String {
        format!("{PREFIX}-{}-{what}", self.stem)
    }

    /// The tag on everything that this run makes.
    pub fn tag(&self) -> Tag {
        Tag::new(TAG_KEY, &self.run)
    }

    /// Whether tags say that the thing is this run's.
    pub fn owns(&self, tags: &[Tag]) -> bool {
        super::value_of(tags, TAG_KEY) == Some(self.run.as_str())
    }

    /// Of blue, before anything is changed.
    pub fn snapshot(&self) -> SnapshotId {
        self.derived("before").into()
    }

    /// Of the new production, before old blue is deleted.
    pub fn after_snapshot(&self) -> SnapshotId {
        self.derived("after").into()
    }

    /// Of old blue, as it is deleted.
    pub fn final_snapshot(&self) -> SnapshotId {
        self.derived("final").into()
    }

    /// Blue's cluster parameters, with what replication needs.
    pub fn blue_cluster_group(&self) -> ParameterGroupName {
        self.derived("bc").into()
    }

    /// Blue's instance parameters, where any must change.
    pub fn blue_instance_group(&self) -> ParameterGroupName {
        self.derived("bi").into()
    }

    /// The user's cluster parameters, for the target's family.
    pub fn green_cluster_group(&self) -> ParameterGroupName {
        self.derived("gc").into()
    }

    /// The user's instance parameters, for the target's family.
    pub fn green_instance_group(&self) -> ParameterGroupName {
        self.derived("gi").into()
    }

    /// Whether this is the name of a deployment of this run, whichever attempt's.
    pub fn made(&self, name: &DeploymentName) -> bool {
        let attempt = name.as_str().strip_prefix(self.derived("a").as_str());
        attempt.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// The deployment of one attempt, counted from 1.
    pub fn deployment(&self, attempt: u32) -> DeploymentName {
        self.derived(&format!("a{attempt}")).into()
    }
}

/// 24 hexadecimal digits.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// Whose a thing is that bears a name of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Made by this run: adopt it.
    Ours,
    /// Made by another run of this program: offer to clean it up.
    OtherRun(String),
    /// Not made by this program: refuse.
    Foreign,
}

impl Names {
    /// The three-way decision before adopting.
    pub fn owner(&self, tags: &[Tag]) -> Owner {
        match super::value_of(tags, TAG_KEY) {
            Some(run) if run == self.run => Owner::Ours,
            Some(other) => Owner::OtherRun(other.to_owned()),
            None => Owner::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(names: &Names) -> Vec<String> {
        let mut all: Vec<String> = [names.snapshot(), names.after_snapshot(), names.final_snapshot()]
            .iter()
            .map(ToString::to_string)
            .collect();
        let groups = [names.blue_cluster_group(), names.blue_instance_group()];
        all.extend(groups.iter().map(ToString::to_string));
        let groups = [names.green_cluster_group(), names.green_instance_group()];
        all.extend(groups.iter().map(ToString::to_string));
        all.extend([names.deployment(1).to_string(), names.deployment(9999).to_string()]);
        all
    }

    fn check(run: &str) {
        let names = all(&Names::of(run));
        for name in &names {
            let legal = name.len() <= 60
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !name.contains("--")
                && !name.ends_with('-');
            assert!(legal, "`{name}` ({} characters) of run `{run}`", name.len());
        }
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "two things of one name: {names:?}");
    }

    #[test]
    fn a_run_keeps_its_id_in_its_names() {
        let run = "0197c0de-0000-7000-8000-000000000001";
        check(run);
        let names = Names::of(run);
        assert_eq!(names.deployment(2).as_str(), format!("upgrade-pilot-{run}-a2"));
        assert_eq!(names.tag(), Tag::new("upgrade-pilot", run));
        assert_eq!(names, Names::of(run));
    }

    #[test]
    fn whose_a_thing_is_tells_its_tag() {
        let names = Names::of("run-1");
        assert_eq!(names.owner(&[names.tag()]), Owner::Ours);
        assert_eq!(names.owner(&[Names::of("run-2").tag()]), Owner::OtherRun("run-2".into()));
        assert_eq!(names.owner(&[Tag::new("team", "orders")]), Owner::Foreign);
        assert!(names.owns(&[names.tag()]) && !names.owns(&[]));
    }

    #[test]
    fn any_run_has_legal_names() {
        let long = "x".repeat(80);
        for run in ["", "-", "a--b", "-a", "a-", "A", "a_b", "0", "élan", "a b", "arn:aws:rds", &long, &long[..36]] {
            check(run);
        }
    }

    #[test]
    fn a_deployment_of_ours_is_known_by_its_derived_name() {
        let names = Names::of("run-1");
        assert!(names.made(&names.deployment(1)) && names.made(&names.deployment(12)));
        for name in ["upgrade-pilot-run-1-a", "upgrade-pilot-run-1-ax", "upgrade-pilot-run-2-a1", "orders"] {
            assert!(!names.made(&name.into()), "{name}");
        }
    }

    #[test]
    fn runs_that_look_alike_share_no_name() {
        let runs = ["abc", "ABC", "Abc", "a-bc", "a--bc", "abc-", "-abc", "abc "];
        let names: std::collections::BTreeSet<_> = runs.iter().map(|run| Names::of(run).snapshot()).collect();
        assert_eq!(names.len(), runs.len());
    }
}
