//! Objects of the Kubernetes API, read, and what is to be done to them next. Pure.
//!
//! Our pause is written on the object itself, as an annotation that says who paused for which upgrade and what there was
//! before. What carries no such note, or another's, is not ours to resume.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The annotation of a pause of ours.
pub(super) const NOTE: &str = "upgrade-pilot/pause";
/// KEDA scales to this many replicas and no further as long as the annotation stands.
pub(super) const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";
/// KEDA leaves the replicas as they are.
const PAUSED: &str = "autoscaling.keda.sh/paused";

/// What stands in [`NOTE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The cluster's ARN and the agent's name.
    pub(super) agent: String,
    pub(super) upgrade: String,
    pub(super) since: Timestamp,
    pub(super) expires_at: Timestamp,
    /// Replicas of the workload before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<u32>,
    /// What stood in KEDA's annotation before, if it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) paused_replicas: Option<String>,
}

/// A Deployment, a StatefulSet or a ScaledObject, as far as it matters here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Object {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    generation: u64,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    replicas: Option<u32>,
    selector: Selector,
    scale_target_ref: Option<Target>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Clone, Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

/// What a ScaledObject scales.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    observed_generation: Option<u64>,
    replicas: Option<u32>,
    ready_replicas: Option<u32>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// A list, of which only the length matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct List {
    pub(super) items: Vec<serde::de::IgnoredAny>,
}

/// What is next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Move {
    /// Only the cluster has something to do.
    Wait,
    /// Write down what there is, before it is changed.
    Note(Note),
    /// Scale the workload, by `/scale`.
    Scale(u32),
    /// Write down what there is and let KEDA scale to 0, at once.
    Hold(Note),
    /// Put back what stood in KEDA's annotation and remove the note, at once.
    Restore(Option<String>),
    /// Remove the note: what it speaks of is over. Whoever changed it meanwhile is told of.
    Forget(Option<String>),
    /// It is not ours. The reason, where a person should hear it.
    Leave(Option<String>),
    /// We must not.
    Refuse(String),
}

impl Object {
    pub(super) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// The API's own default is one.
    pub(super) fn replicas(&self) -> u32 {
        self.spec.replicas.unwrap_or(1)
    }

    pub(super) fn ready(&self) -> u32 {
        self.status.ready_replicas.unwrap_or(0)
    }

    /// Scaled to 0, and its controller has seen to it; pods may still be on their way out.
    pub(super) fn is_down(&self) -> bool {
        self.replicas() == 0
            && self.status.replicas.unwrap_or(0) == 0
            && self.status.observed_generation.is_some_and(|seen| seen >= self.metadata.generation)
    }

    pub(super) fn target(&self) -> Option<&Target> {
        self.spec.scale_target_ref.as_ref()
    }

    /// Its pods, as a label selector is written in an address.
    pub(super) fn selector(&self) -> Result<String, String> {
        let Selector { match_labels, match_expressions } = &self.spec.selector;
        let labels = match_labels.iter().map(|(key, value)| Ok(format!("{key}={value}")));
        let expressions = match_expressions.iter().map(|Expression { key, operator, values }| {
            let values = values.join(",");
            match operator.as_str() {
                "In" => Ok(format!("{key} in ({values})")),
                "NotIn" => Ok(format!("{key} notin ({values})")),
                "Exists" => Ok(key.clone()),
                "DoesNotExist" => Ok(format!("!{key}")),
                other => Err(format!("its selector has an operator {other:?} that is not known")),
            }
        });
        let parts: Vec<String> = labels.chain(expressions).collect::<Result<_, String>>()?;
        // An empty selector would select everything.
        if parts.is_empty() { Err("it has no selector".to_owned()) } else { Ok(parts.join(",")) }
    }

    /// The pause that is written on it.
    pub(super) fn note(&self) -> Result<Option<Note>, String> {
        let Some(text) = self.metadata.annotations.get(NOTE) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| format!("its annotation {NOTE} cannot be read: {error}"))
    }

    fn paused_replicas(&self) -> Option<&str> {
        self.metadata.annotations.get(PAUSED_REPLICAS).map(|value| value.trim())
    }

    /// KEDA was told to keep it at 0.
    pub(super) fn is_held(&self) -> bool {
        self.paused_replicas() == Some("0")
    }

    /// KEDA says that it does what it was told.
    pub(super) fn is_paused_by_keda(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == "Paused" && condition.status == "True")
    }

    /// Towards no pods of a workload. `ours` is the note to be written, without what there was before.
    pub(super) fn pausing(&self, ours: &Note) -> Result<Move, String> {
        let replicas = self.replicas();
        let noted = |replicas: Option<u32>| Move::Note(Note { replicas, ..ours.clone() });
        Ok(match self.note()? {
            None if replicas == 0 => Move::Wait,
            None => noted(Some(replicas)),
            Some(note) if note.agent != ours.agent => match replicas {
                0 => Move::Wait,
                _ => Move::Refuse(of_another(&note)),
            },
            // Ours of an earlier upgrade, left behind: what it remembers goes on.
            Some(note) if note.upgrade != ours.upgrade => {
                noted(if replicas == 0 { note.replicas } else { Some(replicas) })
            }
            Some(_) if replicas == 0 => Move::Wait,
            Some(note) if note.replicas == Some(replicas) => Move::Scale(0),
            // Somebody scaled it since: that is what a resume must restore.
            Some(_) => noted(Some(replicas)),
        })
    }

    /// Towards the replicas that a workload had.
    pub(super) fn resuming(&self, agent: &str) -> Result<Move, String> {
        let replicas = self.replicas();
        Ok(match self.note()? {
            None => Move::Leave((replicas == 0).then(|| "it is scaled to 0 and not by us, leaving it so".to_owned())),
            Some(note) if note.agent != agent => Move::Leave(Some(of_another(&note))),
            Some(note) => match (replicas, note.replicas) {
                (0, Some(before)) if before > 0 => Move::Scale(before),
                (now, Some(before)) if now == before => Move::Forget(None),
                (now, _) => Move::Forget(Some(format!("somebody scaled it to {now} meanwhile, leaving it so"))),
            },
        })
    }

    /// Towards a ScaledObject that KEDA keeps at 0.
    pub(super) fn holding(&self, ours: &Note) -> Result<Move, String> {
        let hold =
            |before: Option<&str>| Move::Hold(Note { paused_replicas: before.map(str::to_owned), ..ours.clone() });
        Ok(match self.note()? {
            None if self.is_held() => Move::Wait,
            None if self.metadata.annotations.get(PAUSED).is_some_and(|value| value != "false") => {
                let cure = "KEDA would not start it again: remove it, or name the workload itself";
                Move::Refuse(format!("somebody set {PAUSED} on it; {cure}"))
            }
            None => hold(self.paused_replicas()),
            Some(note) if note.agent != ours.agent => match self.is_held() {
                true => Move::Wait,
                false => Move::Refuse(of_another(&note)),
            },
            Some(note) if note.upgrade != ours.upgrade && self.is_held() => hold(note.paused_replicas.as_deref()),
            Some(_) if self.is_held() => Move::Wait,
            Some(_) => hold(self.paused_replicas()),
        })
    }

    /// Towards what stood in KEDA's annotation.
    pub(super) fn releasing(&self, agent: &str) -> Result<Move, String> {
        Ok(match self.note()? {
            None => Move::Leave(self.is_held().then(|| "KEDA keeps it at 0 and not by us, leaving it so".to_owned())),
            Some(note) if note.agent != agent => Move::Leave(Some(of_another(&note))),
            Some(note) if self.is_held() => Move::Restore(note.paused_replicas),
            Some(_) => {
                let now = self.paused_replicas().unwrap_or("nothing");
                Move::Forget(Some(format!("somebody set {PAUSED_REPLICAS} to {now} meanwhile, leaving it so")))
            }
        })
    }
}

fn of_another(note: &Note) -> String {
    format!("{} paused it for upgrade {}; where that is over, remove the annotation {NOTE}", note.agent, note.upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(agent: &str, upgrade: &str, replicas: Option<u32>, paused_replicas: Option<&str>) -> Note {
        let at = Timestamp::UNIX_EPOCH;
        let (agent, upgrade, paused_replicas) = (agent.into(), upgrade.into(), paused_replicas.map(str::to_owned));
        Note { agent, upgrade, since: at, expires_at: at, replicas, paused_replicas }
    }

    fn object(replicas: u32, noted: Option<Note>, keda: &[(&str, &str)]) -> Object {
        let mut annotations = serde_json::Map::new();
        for (key, value) in keda {
            annotations.insert((*key).to_owned(), (*value).into());
        }
        if let Some(note) = noted {
            annotations.insert(NOTE.to_owned(), serde_json::to_string(&note).unwrap().into());
        }
        let object = serde_json::json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_workload_is_noted_then_scaled_and_another_s_pause_is_left_alone() {
        let ours = note("a", "up-1", None, None);
        let noted = |replicas| Move::Note(note("a", "up-1", Some(replicas), None));
        let check = |replicas, found: Option<Note>, next: Move| {
            assert_eq!(object(replicas, found.clone(), &[]).pausing(&ours), Ok(next), "{replicas} {found:?}");
        };
        check(3, None, noted(3));
        check(3, Some(note("a", "up-1", Some(3), None)), Move::Scale(0));
        check(0, Some(note("a", "up-1", Some(3), None)), Move::Wait);
        // Somebody scaled it since it was noted.
        check(5, Some(note("a", "up-1", Some(3), None)), noted(5));
        // Paused by nobody of ours.
        check(0, None, Move::Wait);
        check(0, Some(note("b", "up-9", Some(3), None)), Move::Wait);
        // Left behind by an earlier upgrade.
        check(0, Some(note("a", "up-0", Some(3), None)), noted(3));
        check(4, Some(note("a", "up-0", Some(3), None)), noted(4));
        assert!(matches!(object(3, Some(note("b", "up-9", Some(3), None)), &[]).pausing(&ours), Ok(Move::Refuse(_))));
    }

    #[test]
    fn a_workload_gets_back_what_it_had_and_a_person_s_change_stays() {
        let check = |replicas, found: Option<Note>, next: Move| {
            assert_eq!(object(replicas, found.clone(), &[]).resuming("a"), Ok(next), "{replicas} {found:?}");
        };
        check(0, Some(note("a", "up-1", Some(3), None)), Move::Scale(3));
        check(3, Some(note("a", "up-1", Some(3), None)), Move::Forget(None));
        let meanwhile = "somebody scaled it to 5 meanwhile, leaving it so".to_owned();
        check(5, Some(note("a", "up-1", Some(3), None)), Move::Forget(Some(meanwhile)));
        check(3, None, Move::Leave(None));
        check(0, None, Move::Leave(Some("it is scaled to 0 and not by us, leaving it so".into())));
        assert!(matches!(
            object(0, Some(note("b", "up-9", Some(3), None)), &[]).resuming("a"),
            Ok(Move::Leave(Some(_)))
        ));
    }

    #[test]
    fn a_scaled_object_gets_back_exactly_what_stood_there() {
        let ours = note("a", "up-1", None, None);
        let hold = |before| Move::Hold(note("a", "up-1", None, before));
        let check = |keda: &[(&str, &str)], found: Option<Note>, next: Move, back: Move| {
            let object = object(0, found.clone(), keda);
            assert_eq!((object.holding(&ours), object.releasing("a")), (Ok(next), Ok(back)), "{keda:?} {found:?}");
        };
        let held = [(PAUSED_REPLICAS, "0")];
        check(&[], None, hold(None), Move::Leave(None));
        check(&[(PAUSED_REPLICAS, "2")], None, hold(Some("2")), Move::Leave(None));
        check(&[(PAUSED, "false")], None, hold(None), Move::Leave(None));
        check(&held, Some(note("a", "up-1", None, None)), Move::Wait, Move::Restore(None));
        check(&held, Some(note("a", "up-1", None, Some("2"))), Move::Wait, Move::Restore(Some("2".into())));
        check(&held, Some(note("a", "up-0", None, Some("2"))), hold(Some("2")), Move::Restore(Some("2".into())));
        let others = "KEDA keeps it at 0 and not by us, leaving it so".to_owned();
        check(&held, None, Move::Wait, Move::Leave(Some(others)));
        let meanwhile = "somebody set autoscaling.keda.sh/paused-replicas to 7 meanwhile, leaving it so".to_owned();
        let seven = [(PAUSED_REPLICAS, "7")];
        check(&seven, Some(note("a", "up-1", None, None)), hold(Some("7")), Move::Forget(Some(meanwhile)));
        assert!(matches!(object(0, None, &[(PAUSED, "true")]).holding(&ours), Ok(Move::Refuse(_))));
    }

    #[test]
    fn a_workload_is_down_when_its_controller_has_seen_the_zero() {
        let read = |status: &str| -> Object {
            let text = format!(r#"{{"metadata":{{"generation":4}},"spec":{{"replicas":0}},"status":{status}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        assert!(read(r#"{"observedGeneration":4}"#).is_down());
        assert!(!read(r#"{"observedGeneration":3}"#).is_down());
        assert!(!read("{}").is_down());
        assert!(!read(r#"{"observedGeneration":4,"replicas":1}"#).is_down());
    }

    #[test]
    fn a_selector_is_written_as_addresses_have_it_and_an_empty_one_selects_nothing() {
        let text = r#"{"spec":{"selector":{"matchLabels":{"app":"writer"},"matchExpressions":[
            {"key":"tier","operator":"In","values":["a","b"]},{"key":"x","operator":"DoesNotExist"}]}}}"#;
        let object: Object = serde_json::from_str(text).unwrap();
        assert_eq!(object.selector().unwrap(), "app=writer,tier in (a,b),!x");
        assert!(Object::default().selector().is_err());
    }

    #[test]
    fn any_bytes_of_an_api_server_are_an_object_or_refused() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "kubernetes-object");
        let words =
            ["\"replicas\":", "\"annotations\":", "\"upgrade-pilot/pause\":", "\"matchExpressions\":", "4294967296"];
        let seed =
            br#"{"metadata":{"resourceVersion":"7","annotations":{"upgrade-pilot/pause":"{}"}},"spec":{"replicas":3}}"#;
        let ours = note("a", "up-1", None, None);
        target.words(&words).seed(*seed).run(|bytes| match serde_json::from_slice::<Object>(bytes) {
            Ok(object) => {
                let moves =
                    (object.pausing(&ours).is_ok(), object.resuming("a").is_ok(), object.holding(&ours).is_ok());
                format!("{moves:?} {}", object.selector().is_ok())
            }
            Err(_) => "refused".to_owned(),
        });
    }
}
