//! What agents, monitors and people said, row by row: sessions, statements, schema changes, wishes, alarms.

use std::collections::BTreeMap;

use engine::{Alarm, Entry, Fact};
use proto::report::{Event, Session};

use super::model::{Ddl, Ended, Listed, Note, Purged, Wish};
use crate::operator::facts::{asked, fate, observed, who};
use crate::operator::tally::Statement;
use crate::steps::codes;
use crate::world::Upgrade;

/// See the top of the file.
#[derive(Default)]
pub(super) struct Told {
    pub(super) ddl: Listed<Ddl>,
    pub(super) purged: Listed<Purged>,
    pub(super) ended: Listed<Ended>,
    pub(super) statements: Listed<Statement>,
    pub(super) people: Listed<Wish>,
    pub(super) alarms: Listed<Note>,
    pub(super) warnings: Listed<Note>,
    pub(super) notes: Listed<Note>,
    /// Verdicts by key, until their session is found.
    verdicts: BTreeMap<String, Statement>,
}

impl Told {
    pub(super) fn of(asked_by: &str, entries: &[Entry<Upgrade>]) -> Told {
        let mut told = Told::default();
        for entry in entries {
            told.take(asked_by, entry);
        }
        for ended in &mut told.ended.rows {
            if let Some(statement) = ended.key.as_ref().and_then(|key| told.verdicts.remove(key)) {
                ended.verdict = fate(&statement.verdict);
            }
        }
        std::mem::take(&mut told.verdicts).into_values().for_each(|statement| told.statements.push(statement));
        told
    }

    fn take(&mut self, asked_by: &str, entry: &Entry<Upgrade>) {
        let at = entry.at;
        match &entry.fact {
            Fact::Created { spec, .. } => {
                let what = format!("upgrade of {} to {}", spec.cluster, spec.to);
                self.people.push(Wish { at, by: Some(asked_by.to_owned()), what });
            }
            Fact::Asked { by, request, .. } => {
                self.people.push(Wish { at, by: Some(by.as_str().to_owned()), what: asked(request) });
            }
            Fact::ApprovalAsked { name, why, .. } => {
                self.people.push(Wish { at, by: None, what: format!("approval {name} is needed: {why}") });
            }
            Fact::AlarmRaised { monitor, alarm } => {
                let level = match alarm {
                    Alarm::Note(_) => "note",
                    Alarm::Hold(_) => "hold",
                    Alarm::Unwind(_) => "unwind",
                };
                let (of, code) = (monitor.to_string(), Some(alarm.why().code.to_string()));
                self.alarms.push(Note { at, of, code, text: format!("{level}: {}", alarm.why().text) });
            }
            Fact::AlarmCleared { monitor } => {
                self.alarms.push(Note { at, of: monitor.to_string(), code: None, text: "over".to_owned() });
            }
            Fact::Warned { step: None, code, detail } if *code == codes::SCHEMA_CHANGED => {
                let (breaks_replication, because) = breaks(detail);
                self.ddl.push(Ddl {
                    at,
                    what: detail.clone(),
                    source: "server log".to_owned(),
                    seen_by: None,
                    breaks_replication,
                    because: because.to_owned(),
                });
            }
            Fact::Warned { step, code, detail } => {
                let of = step.map(|step| step.to_string()).unwrap_or_default();
                self.warnings.push(Note { at, of, code: Some(code.to_string()), text: detail.clone() });
            }
            Fact::Observed { source, event, .. } => self.event(source.as_str(), event, entry),
            _ => {}
        }
    }

    fn event(&mut self, agent: &str, event: &Event, entry: &Entry<Upgrade>) {
        match event {
            Event::SessionPurged { at, session, waited_on } => self.purged.push(Purged {
                at: *at,
                session: from_where(session),
                application: session.application.clone(),
                waited_on: waited_on.clone(),
                age_ms: session.age_ms,
            }),
            Event::SessionEnded { at, session, recorded, not_resubmittable } => {
                let verdict = match (recorded, not_resubmittable) {
                    (Some(_), _) => "recorded; no verdict yet".to_owned(),
                    (None, Some(reason)) => format!("will not run again: {reason}"),
                    (None, None) => "it ran no statement".to_owned(),
                };
                self.ended.push(Ended {
                    at: *at,
                    session: from_where(session),
                    application: session.application.clone(),
                    command: session.command.clone(),
                    age_ms: session.age_ms,
                    key: recorded.clone(),
                    verdict,
                });
            }
            Event::Resubmission { key, database, role, verdict, .. } => {
                let (key, database, role) = (key.clone(), database.clone(), role.clone());
                self.verdicts.insert(key.clone(), Statement { key, database, role, verdict: verdict.clone() });
            }
            Event::SchemaChanged { at, differences } => self.ddl.push(Ddl {
                at: *at,
                what: differences.join("; "),
                source: "catalogues".to_owned(),
                seen_by: Some(agent.to_owned()),
                breaks_replication: Some(true),
                because: "blue and green differ; no switchover while they do".to_owned(),
            }),
            Event::PurgeBlocked { .. }
            | Event::OldSideClient { .. }
            | Event::OldSideWritten { .. }
            | Event::PauseCap { .. }
            | Event::Stance { .. } => {
                self.notes.push(Note { at: entry.at, of: agent.to_owned(), code: None, text: observed(event) });
            }
            Event::Outage { .. }
            | Event::Held { .. }
            | Event::SwitchoverPhase { .. }
            | Event::GreenAcceptedWrite { .. } => {}
        }
    }
}

fn from_where(session: &Session) -> String {
    let client = session.client.as_ref().map(|client| format!(" from {client}")).unwrap_or_default();
    format!("{}{client}", who(session))
}

/// What AWS makes of a statement of the server's log: structure that changed since green was made cannot be replicated.
fn breaks(statement: &str) -> (Option<bool>, &'static str) {
    let mut words = statement.split_whitespace().map(str::to_ascii_uppercase);
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match (first.as_str(), second.as_str()) {
        ("GRANT" | "REVOKE", _) | ("CREATE" | "ALTER" | "DROP", "ROLE" | "USER" | "GROUP") => {
            (Some(false), "rights and roles are not replicated; AWS only warns. Green needs them too")
        }
        ("CREATE" | "ALTER" | "DROP" | "REFRESH" | "IMPORT", _) => {
            (Some(true), "not replicated; AWS calls the deployment degraded and refuses to switch over")
        }
        _ => (None, "not replicated; what AWS makes of it is not documented"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_replication_is_told_from_what_aws_only_warns_of_and_from_what_nobody_documents() {
        for (statement, expected) in [
            ("ALTER TABLE t ADD c int by app in orders", Some(true)),
            ("refresh materialized view v by app", Some(true)),
            ("GRANT SELECT ON t TO bob by app", Some(false)),
            ("create role bob by app", Some(false)),
            ("COMMENT ON TABLE t IS '…' by app", None),
            ("", None),
        ] {
            assert_eq!(breaks(statement).0, expected, "{statement}");
        }
    }
}
