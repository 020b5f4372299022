//! What Kafka Connect says of a connector, read. Pure.
//!
//! Traces are never passed on: they quote rows and addresses. The classes of the exceptions say what to look for.

use proto::report::IngestionState;
use runtime::clock::Mono;
use serde::Deserialize;

/// `GET /connectors/NAME/status`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Status {
    connector: Part,
    #[serde(default)]
    tasks: Vec<Part>,
    /// `source` or `sink`.
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Part {
    id: Option<u32>,
    state: String,
    trace: Option<String>,
}

/// The longest class of an exception that is shown.
const CLASS_MAX: usize = 100;

impl Status {
    pub(super) fn is_sink(&self) -> bool {
        self.kind.as_deref() == Some("sink")
    }

    /// Somebody stopped the connector itself, which is more than a pause.
    pub(super) fn is_stopped(&self) -> bool {
        self.connector.state == "STOPPED"
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.connector).chain(&self.tasks)
    }

    /// Running, paused or mixed, by the connector and every task of it. One that failed, or that no worker has, is neither: a
    /// failed task may be started again by anybody, and then it writes.
    pub(super) fn state(&self, name: &str) -> IngestionState {
        if let Some(part) = self.parts().find(|part| !matches!(part.state.as_str(), "RUNNING" | "PAUSED" | "STOPPED")) {
            return IngestionState::Unknown(part.trouble(name));
        }
        let still = self.parts().filter(|part| part.state != "RUNNING").count();
        match still {
            0 => IngestionState::Running,
            all if all == 1 + self.tasks.len() => IngestionState::Paused,
            _ => IngestionState::Mixed,
        }
    }

    /// Failed for good, as far as Connect knows; the others of no state are on their way to one.
    pub(super) fn failure(&self, name: &str) -> Option<String> {
        self.parts().find(|part| part.state == "FAILED").map(|part| part.trouble(name))
    }

    /// Nothing of it is paused any more. What failed failed by itself and is not waited for.
    pub(super) fn is_let_go(&self) -> bool {
        self.parts().all(|part| matches!(part.state.as_str(), "RUNNING" | "FAILED"))
    }
}

impl Part {
    fn trouble(&self, name: &str) -> String {
        let which = self.id.map_or_else(String::new, |id| format!(" task {id}"));
        let state: String = self.state.chars().take(20).collect();
        let why = self.trace.as_deref().map(classes).unwrap_or_default();
        format!("connector {name}{which} is {state}{why}")
    }
}

/// The class of a trace, and of its deepest cause.
fn classes(trace: &str) -> String {
    let class = |line: &str| {
        let end =
            line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '$'))).unwrap_or(line.len());
        let class: String = line[..end].chars().take(CLASS_MAX).collect();
        (class.contains('.') && class.starts_with(|c: char| c.is_ascii_lowercase())).then_some(class)
    };
    let first = trace.lines().next().and_then(class);
    let cause = trace.lines().filter_map(|line| class(line.trim_start().strip_prefix("Caused by: ")?)).next_back();
    match (first, cause) {
        (Some(first), Some(cause)) => format!(": {first}, caused by {cause}"),
        (Some(class), None) | (None, Some(class)) => format!(": {class}"),
        (None, None) => String::new(),
    }
}

/// One state of several: what is not known of one is not known of all.
pub(super) fn together(states: impl IntoIterator<Item = IngestionState>) -> IngestionState {
    let mut all: Option<IngestionState> = None;
    for state in states {
        all = Some(match (all, state) {
            (Some(IngestionState::Unknown(why)), _) | (_, IngestionState::Unknown(why)) => IngestionState::Unknown(why),
            (None, one) => one,
            (Some(before), one) if before == one => one,
            _ => IngestionState::Mixed,
        });
    }
    all.unwrap_or(IngestionState::Mixed)
}

/// `GET /connectors/NAME/offsets` of a sink.
#[derive(Debug, Deserialize)]
struct Offsets {
    offsets: Vec<Offset>,
}

#[derive(Debug, Deserialize)]
struct Offset {
    offset: Position,
}

#[derive(Debug, Deserialize)]
struct Position {
    kafka_offset: Option<u64>,
}

/// How many messages a sink has committed, over all partitions. A source's positions are its own and count nothing.
pub(super) fn committed(text: &[u8]) -> Option<u64> {
    let read: Offsets = serde_json::from_slice(text).ok()?;
    let offsets: Option<Vec<u64>> = read.offsets.iter().map(|one| one.offset.kafka_offset).collect();
    offsets?.into_iter().try_fold(0_u64, u64::checked_add)
}

/// What a sink committed, as it was seen to change: it does so every minute or so, and in between nothing is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// When the sum was first seen as it is, and the one before it.
    last: Option<(Mono, u64)>,
    before: Option<(Mono, u64)>,
}

impl Pace {
    pub(super) fn note(&mut self, now: Mono, sum: u64) {
        match self.last {
            Some((_, last)) if last == sum => {}
            // Topics were made anew, or offsets were reset.
            Some((_, last)) if last > sum => *self = Pace { last: Some((now, sum)), before: None },
            last => *self = Pace { last: Some((now, sum)), before: last },
        }
    }

    /// Messages a second between the last two changes; less when the next change is late.
    pub(super) fn rate(&self, now: Mono) -> Option<f64> {
        let ((since, first), (at, sum)) = (self.before?, self.last?);
        let over = at.since(since).max(now.since(at)).as_secs_f64();
        (over > 0.0).then(|| (sum - first) as f64 / over)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::clock::Clock;

    use super::*;

    fn status(connector: &str, tasks: &[&str]) -> Status {
        let part = |id: Option<u32>, state: &str| Part { id, state: state.to_owned(), trace: None };
        let tasks = tasks.iter().zip(0..).map(|(state, id)| part(Some(id), state)).collect();
        Status { connector: part(None, connector), tasks, kind: Some("sink".into()) }
    }

    #[test]
    fn a_connector_is_what_it_and_all_its_tasks_are() {
        use IngestionState::{Mixed, Paused, Running};
        let check = |connector: &str, tasks: &[&str], state: IngestionState| {
            assert_eq!(status(connector, tasks).state("c"), state, "{connector} {tasks:?}");
        };
        check("RUNNING", &["RUNNING", "RUNNING"], Running);
        check("RUNNING", &[], Running);
        check("PAUSED", &["PAUSED", "PAUSED"], Paused);
        check("STOPPED", &[], Paused);
        check("PAUSED", &["PAUSED", "RUNNING"], Mixed);
        check("RUNNING", &["PAUSED"], Mixed);
        for state in ["FAILED", "UNASSIGNED", "RESTARTING", "SOMETHING_NEW"] {
            let IngestionState::Unknown(why) = status("PAUSED", &["PAUSED", state]).state("c") else {
                panic!("{state}")
            };
            assert_eq!(why, format!("connector c task 1 is {state}"));
        }
        assert!(matches!(status("UNASSIGNED", &["PAUSED"]).state("c"), IngestionState::Unknown(_)));
    }

    #[test]
    fn a_failure_is_told_by_its_classes_and_never_by_its_words() {
        let trace = "org.apache.kafka.connect.errors.ConnectException: Exiting WorkerSinkTask due to row (4711,'secret')\n\
                     \tat org.apache.kafka.connect.runtime.WorkerSinkTask.deliver(WorkerSinkTask.java:1)\n\
                     Caused by: java.lang.RuntimeException: middle\n\
                     Caused by: org.postgresql.util.PSQLException: password 'secret' of jdbc:postgresql://host/db\n\t... 10 more";
        let mut failed = status("RUNNING", &["FAILED"]);
        failed.tasks[0].trace = Some(trace.into());
        assert_eq!(
            failed.failure("c").unwrap(),
            "connector c task 0 is FAILED: org.apache.kafka.connect.errors.ConnectException, caused by org.postgresql.util.PSQLException"
        );
        failed.tasks[0].trace = Some(format!("a.{}: x", "b".repeat(5000)));
        assert!(failed.failure("c").unwrap().len() < 150);
        failed.tasks[0].trace = Some("no class here".into());
        assert_eq!(failed.failure("c").unwrap(), "connector c task 0 is FAILED");
    }

    #[test]
    fn several_connectors_are_one_system() {
        use IngestionState::{Mixed, Paused, Running, Unknown};
        assert_eq!(together([Paused, Paused]), Paused);
        assert_eq!(together([Paused, Running]), Mixed);
        assert_eq!(together([Running, Running]), Running);
        assert_eq!(together([Paused, Unknown("x".into()), Running]), Unknown("x".into()));
    }

    #[test]
    fn what_a_sink_committed_is_counted_and_what_a_source_remembers_is_not() {
        let sink = br#"{"offsets":[{"partition":{"kafka_topic":"t","kafka_partition":0},"offset":{"kafka_offset":10}},
            {"partition":{"kafka_topic":"t","kafka_partition":1},"offset":{"kafka_offset":5}}]}"#;
        assert_eq!(committed(sink), Some(15));
        assert_eq!(committed(br#"{"offsets":[{"partition":{"server":"s"},"offset":{"lsn":4711}}]}"#), None);
        assert_eq!(committed(b"{}"), None);
    }

    #[test]
    fn the_rate_is_known_from_the_second_change_on_and_falls_while_no_third_comes() {
        let start = Clock::system().mono();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        for (second, sum, rate) in [
            (0, 100, None),
            (15, 100, None),
            (60, 700, Some(10.0)),
            (90, 700, Some(10.0)),
            (180, 700, Some(5.0)),
            (200, 40, None),
        ] {
            pace.note(at(second), sum);
            assert_eq!(pace.rate(at(second)), rate, "after {second} s");
        }
    }

    #[test]
    fn any_bytes_of_a_connect_worker_are_a_status_or_refused() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "kafka-connect");
        let words = ["\"state\":", "\"RUNNING\"", "\"PAUSED\"", "\"trace\":", "Caused by: a.b", "\"kafka_offset\":"];
        target
            .words(&words)
            .seed(*br#"{"connector":{"state":"PAUSED"},"tasks":[{"id":0,"state":"FAILED","trace":"a.B: c"}]}"#)
            .run(|bytes| {
                let counted = committed(bytes).is_some();
                match serde_json::from_slice::<Status>(bytes) {
                    Ok(status) => match status.state("c") {
                        IngestionState::Unknown(why) => {
                            assert!(why.len() < 400, "{why}");
                            "unknown".to_owned()
                        }
                        state => format!("{state:?} {}", status.is_let_go()),
                    },
                    Err(_) => format!("refused {counted}"),
                }
            });
    }
}
