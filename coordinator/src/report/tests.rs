//! Reports over whole journals: those of the plan played with the fakes, with what agents would have seen put in.

use engine::{
    AskId, Code, Entry, Fact, MonitorId, Operator, Record, Request, RunId, RunInfo, Seq, Source, State, testing,
};
use jiff::{SignedDuration, Timestamp};
use proto::jobs::*;
use proto::phase::SwitchoverPhase;
use proto::report::{ClientSeen, Event, HoldKind, OutageKind, Session, Verdict};
use proto::side::Side;

use super::{LISTED_MAX, Report, build, html, markdown, sum, terraform};
use crate::operator::plan::plan_view;
use crate::operator::standing;
use crate::operator::tally::Tally;
use crate::operator::view;
use crate::preflight;
use crate::rds::fake::Creation;
use crate::spec::UpgradeSpec;
use crate::steps::codes;
use crate::steps::testing::{Stage, clock, spec};
use crate::store::{About, AgentVersion};
use crate::world::Upgrade;

/// What a person may have called a table, a role or an application.
const NASTY: &str = "<script>alert(1)</script> | `x` \"o'neil\" &amp; [y](z)";

/// As the matrix calls every run.
const RUN: &str = "run";

/// What is asked for, a finding accepted.
fn wanted() -> UpgradeSpec {
    let mut spec = spec();
    spec.accept = vec!["PU0042".into()];
    spec
}

fn at(of: &Entry<Upgrade>, ms: i64) -> Timestamp {
    of.at.saturating_add(SignedDuration::from_millis(ms)).unwrap()
}

fn session(application: &str, command: &str) -> Session {
    Session {
        pid: 4711,
        database: Some("orders".into()),
        user: Some("batch_runner".into()),
        application: application.into(),
        client: Some("10.0.0.9".into()),
        state: "active".into(),
        backend_start: None,
        xact_start: None,
        age_ms: 6400,
        command: Some(command.into()),
    }
}

/// A stage whose jobs have something to tell.
fn told() -> Stage {
    let stage = Stage::new(clock());
    let databases = stage.databases.clone();
    let table = |name: &str| Table { database: "orders".into(), schema: "public".into(), name: name.into() };
    let compared = move |name: &str, rows| TableCompared {
        table: table(name),
        equal: true,
        blue_rows: rows,
        green_rows: rows,
        rounds: 1,
    };
    stage
        .agents
        .answer(move |_: Compare| {
            let answer = |name: &str, unproven: Option<&str>| QueryCompared {
                name: name.into(),
                equal: unproven.is_none(),
                blue_digest: "ab".into(),
                green_digest: "ab".into(),
                unproven: unproven.map(str::to_owned),
            };
            let queries = vec![answer("orders_total", None), answer("open_orders", Some("written to each time"))];
            let tables = vec![compared("lines", 21_553), compared(NASTY, 12)];
            Ok(Compared { tables, queries, unproven: Vec::new(), rounds: 2 })
        })
        .answer(move |_: Vacuum| {
            databases.lock().unwrap().vacuumed = true;
            Ok(Vacuumed { tables: 4, full: 1, reindexed: 0, slowest: vec![(table("lines"), 812)] })
        })
        .answer(|_: UpdateExtensions| {
            let (database, name) = ("orders".to_owned(), "pg_partman".to_owned());
            Ok(vec![ExtensionUpdate { database, name, from: "4.7.2".into(), to: "5.2.4".into() }])
        })
        .answer(|_: TestExtensions| {
            let (database, name) = ("orders".to_owned(), "pg_partman".to_owned());
            let evidence = "a maintenance made a partition, which was dropped".to_owned();
            Ok(vec![ExtensionTest { database, name, version: "5.2.4".into(), evidence, passed: true }])
        })
        .answer(|_: CheckSequences| {
            Ok(SequencesChecked { sequences: 3, raised: vec!["orders: public.lines_id_seq".into()] })
        });
    stage
}

/// What agents saw, each after the first fact of a kind.
/// By step: who saw it, how many milliseconds after the step's start, and what.
type Seen = Vec<(&'static str, Vec<(&'static str, i64, Event)>)>;

fn seen() -> Seen {
    let blank = Timestamp::UNIX_EPOCH;
    let key = "0197c0de-s1".to_owned();
    vec![
        (
            "provisioning",
            vec![
                (
                    "agent-1",
                    0,
                    Event::SessionPurged {
                        at: blank,
                        session: session(NASTY, "UPDATE"),
                        waited_on: Some("rds_us_east_1_x_16401".into()),
                    },
                ),
                ("agent-1", 9, Event::PurgeBlocked { at: blank, what: "pid 12".into(), reason: "it is active".into() }),
            ],
        ),
        (
            "pivot_armed",
            vec![
                (
                    "agent-1",
                    -60,
                    Event::SessionEnded {
                        at: blank,
                        session: session("nightly-batch", "INSERT"),
                        recorded: Some(key.clone()),
                        not_resubmittable: None,
                    },
                ),
                (
                    "agent-1",
                    -50,
                    Event::SessionEnded {
                        at: blank,
                        session: session("month-end", "CALL"),
                        recorded: None,
                        not_resubmittable: Some("a CALL cannot be run again exactly".into()),
                    },
                ),
                phase(-20, SwitchoverPhase::Initiated),
                phase(40, SwitchoverPhase::InProgress),
                phase(430, SwitchoverPhase::PostProcessing),
                ("agent-1", 441, Event::GreenAcceptedWrite { at: blank, offset_ms: None }),
                ("agent-2", 452, Event::Held { at: blank, ms: 871, kind: HoldKind::Gate }),
                ("agent-1", 455, outage_of(OutageKind::Write, 224)),
                ("agent-2", 456, outage_of(OutageKind::Write, 190)),
                ("agent-1", 457, outage_of(OutageKind::Read, 169)),
                ("agent-1", 900, Event::Held { at: blank, ms: 1769, kind: HoldKind::Ingestion }),
                (
                    "agent-1",
                    1000,
                    Event::Resubmission {
                        at: blank,
                        key,
                        database: "orders".into(),
                        role: "batch_runner".into(),
                        verdict: Verdict::Resubmitted,
                    },
                ),
                (
                    "agent-1",
                    1001,
                    Event::Resubmission {
                        at: blank,
                        key: "0197c0de-s0".into(),
                        database: "billing".into(),
                        role: NASTY.into(),
                        verdict: Verdict::Unknown { reason: "its abort could not be proven".into() },
                    },
                ),
                (
                    "agent-1",
                    2000,
                    Event::OldSideClient {
                        at: blank,
                        client: ClientSeen {
                            database: None,
                            user: None,
                            application: "stale-pool".into(),
                            client: None,
                        },
                        ended: true,
                    },
                ),
            ],
        ),
    ]
}

fn phase(offset: i64, phase: SwitchoverPhase) -> (&'static str, i64, Event) {
    let at = Timestamp::UNIX_EPOCH;
    ("agent-1", offset, Event::SwitchoverPhase { at, side: Side::Green, phase: Some(phase), offset_ms: None })
}

fn outage_of(kind: OutageKind, ms: u64) -> Event {
    let at = Timestamp::UNIX_EPOCH;
    Event::Outage { from: at, to: at, ms, kind, before: Some(Side::Blue), after: Some(Side::Green) }
}

/// Events say when they were: the offset of the row, from the fact that they follow.
fn dated(mut event: Event, when: Timestamp) -> Event {
    match &mut event {
        Event::SessionPurged { at, .. }
        | Event::PurgeBlocked { at, .. }
        | Event::SessionEnded { at, .. }
        | Event::Resubmission { at, .. }
        | Event::SchemaChanged { at, .. }
        | Event::OldSideClient { at, .. }
        | Event::OldSideWritten { at, .. }
        | Event::PauseCap { at, .. }
        | Event::Stance { at, .. }
        | Event::Held { at, .. }
        | Event::SwitchoverPhase { at, .. }
        | Event::GreenAcceptedWrite { at, .. } => *at = when,
        Event::Outage { from, to, ms, .. } => {
            *to = when;
            *from = when.saturating_sub(SignedDuration::from_millis(i64::try_from(*ms).unwrap())).unwrap();
        }
    }
    event
}

/// Puts facts behind the first one that is of this kind, or starts this step, and numbers all again.
fn put_in(facts: &mut Vec<Entry<Upgrade>>, behind: &str, more: impl FnOnce(&Entry<Upgrade>) -> Vec<Fact<Upgrade>>) {
    let is = |entry: &Entry<Upgrade>| match &entry.fact {
        Fact::StepStarted { step, .. } => step.as_str() == behind,
        fact => fact.kind() == behind,
    };
    let place = facts.iter().position(is).unwrap_or_else(|| panic!("no {behind}"));
    let before = facts[place].clone();
    let more = more(&before).into_iter().map(|fact| Entry { fact, ..before.clone() });
    facts.splice(place + 1..=place, more);
    facts.iter_mut().enumerate().for_each(|(n, entry)| entry.seq = Seq(n as u64));
}

fn with_what_was_seen(facts: &mut Vec<Entry<Upgrade>>) {
    let mut n = 0;
    for (behind, events) in seen() {
        put_in(facts, behind, |before| {
            let observed = events.into_iter().map(|(agent, ms, event)| {
                n += 1;
                Fact::Observed { source: Source::from(agent), n, event: dated(event, at(before, ms)) }
            });
            observed.collect()
        });
    }
    put_in(facts, "replicating_data", |_| {
        let detail =
            |statement: &str| format!("{statement} by {NASTY} in orders from 10.0.0.9(4711), 2026-11-23T00:01:00Z");
        let warned = |statement| Fact::Warned { step: None, code: codes::SCHEMA_CHANGED, detail: detail(statement) };
        let ask = |ask: &str, request| Fact::Asked { by: Operator::from(NASTY), ask: AskId::from(ask), request };
        vec![
            warned("GRANT SELECT ON t TO bob"),
            warned("ALTER TABLE t ADD c int"),
            ask("a-1", Request::Approve { name: Some("schema-0badcafe".into()) }),
            Fact::AlarmRaised {
                monitor: MonitorId("replication_lag"),
                alarm: engine::Alarm::Note(engine::Why::new(Code("PU0500"), "lag rises")),
            },
            Fact::AlarmCleared { monitor: MonitorId("replication_lag") },
        ]
    });
}

/// The records that a store would have of them.
fn records(facts: &[Entry<Upgrade>]) -> Vec<Record> {
    let record = |entry: &Entry<Upgrade>| Record {
        seq: entry.seq,
        epoch: entry.epoch,
        at: entry.at,
        fact: entry.fact.encode().unwrap(),
    };
    facts.iter().map(record).collect()
}

async fn about(stage: &Stage) -> About {
    let spec = wanted();
    let facts = preflight::gather(&stage.aws, &spec, stage.clock.now()).await.unwrap();
    let found = preflight::preflight(&facts, Some(&stage.inspection()), &spec);
    let roster = ["agent-1".parse().unwrap(), "agent-2".parse().unwrap()];
    let plan = plan_view(&spec, &facts, &found, crate::steps::plan(&spec).shape(), &roster);
    let agent = |agent: &proto::ids::AgentId| AgentVersion { agent: agent.clone(), version: "0.0.0".into() };
    About {
        from_version: "14.12".into(),
        to_version: "16.4".into(),
        asked_by: NASTY.into(),
        plan_digest: plan.digest.clone(),
        plan: Some(plan),
        program: "0.0.0".into(),
        agents: roster.iter().map(agent).collect(),
        roster: roster.to_vec(),
    }
}

/// The report of these facts; the status is folded from them as the coordinator does it.
fn report(about: &About, facts: &[Entry<Upgrade>]) -> Report {
    let mut state = State::empty();
    let mut tally = Tally::default();
    for entry in facts {
        state = state.apply(entry).unwrap();
        tally.apply(entry);
    }
    let now = facts.last().unwrap().at;
    let shape = crate::steps::plan(state.spec().unwrap()).shape().clone();
    let info = RunInfo {
        id: RunId::from(RUN),
        subject: "arn:aws:rds:us-east-1:123456789012:cluster:orders".into(),
        created_at: facts[0].at,
        outcome: state.outcome(),
    };
    let status = standing::status(&info, about, &shape, &state, &tally, None, now);
    build(&super::Input { status: &status, about, records: &records(facts), entries: facts, now })
}

async fn complete() -> (Report, Vec<Entry<Upgrade>>) {
    let stage = told();
    let about = about(&stage).await;
    let mut facts = testing::play(stage.scene(wanted())).await.facts;
    with_what_was_seen(&mut facts);
    (report(&about, &facts), facts)
}

/// Every text of an HTML file, joined: read by a parser that takes nothing but well-formed documents.
fn texts(html: &str) -> String {
    use quick_xml::events::Event as Xml;
    let mut reader = quick_xml::Reader::from_str(html);
    let mut text = String::new();
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{error} at {}", reader.error_position())) {
            Xml::Eof => return text,
            Xml::Text(part) => text += &part,
            Xml::GeneralRef(part) => {
                let known = [("lt", "<"), ("gt", ">"), ("amp", "&"), ("quot", "\""), ("apos", "'")];
                let named = known.iter().find(|(known, _)| *known == &*part).map(|(_, text)| (*text).to_owned());
                let numbered = part.resolve_char_ref().unwrap().map(String::from);
                text += &named.or(numbered).unwrap_or_else(|| panic!("entity {}", &*part));
            }
            Xml::Start(tag) | Xml::Empty(tag) => {
                tag.attributes().for_each(|attribute| drop(attribute.unwrap()));
                let name = tag.split([' ', '\n', '/']).next().unwrap_or_default();
                assert!(!["script", "link", "img", "iframe", "object"].contains(&name), "{name}");
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_whole_upgrade_says_everything_in_every_format() {
    let (report, facts) = complete().await;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(serde_json::from_value::<Report>(json.clone()).unwrap(), report);
    assert_eq!(report.plan_as_named, Some(true));
    assert_eq!((report.downtime.write_unavailable_ms, report.downtime.held_ms), (224, 871));
    let counted =
        |kind: &str| report.outages.rows.iter().filter(|one| one.kind == kind && one.counts).map(|one| one.ms).sum();
    let counted: [u64; 4] = ["write", "read", "held", "ingestion_paused"].map(counted);
    assert_eq!(counted, [224, 169, 871, 1769], "the chart shows what the figures say");
    assert_eq!(report.journal.facts, facts.len() as u64);
    let page = html::page(&report).unwrap();
    if let Ok(folder) = std::env::var("REPORTS_KEPT") {
        std::fs::write(format!("{folder}/complete.html"), &page).unwrap();
        std::fs::write(format!("{folder}/complete.md"), markdown::page(&report)).unwrap();
        std::fs::write(format!("{folder}/complete.txt"), terraform::text(&report.id, &report.terraform)).unwrap();
    }
    insta::assert_json_snapshot!("whole", json);
    insta::assert_snapshot!("whole_markdown", markdown::page(&report));
    insta::assert_snapshot!("whole_terraform", terraform::text(&report.id, &report.terraform));
    let text = texts(&page);
    for wanted in [
        "16.4 since 2026-11-23",
        "compared, and nothing differs; 1 not proven exactly",
        "public.lines",
        "orders_total",
        "resubmitted",
        "will not run again: a CALL cannot be run again exactly",
        "unknown, never run again",
        "computed again",
        "green accepted a write",
        "upgrade-pilot-run-before",
        "upgrade-pilot-run-final",
        "schema upgrade_pilot",
        "pg_partman",
        "terraform import aws_rds_cluster.orders orders",
        &report.journal.sha256,
        &report.plan_digest,
    ] {
        assert!(text.to_lowercase().contains(&wanted.to_lowercase()), "{wanted:?} is not in the page");
    }
}

#[tokio::test(start_paused = true)]
async fn names_from_databases_are_shown_and_never_obeyed() {
    let (report, _) = complete().await;
    let page = html::page(&report).unwrap();
    assert!(!page.contains("<script"), "a tag came through");
    assert!(texts(&page).matches(NASTY).count() >= 5, "the names are not shown as they are");
    let loads = ["src=", "href=", "url(", "@import", "<link", "<iframe", "http://", "https://"];
    let loaded: Vec<&str> = loads.into_iter().filter(|sign| page.contains(sign)).collect();
    assert!(loaded.is_empty(), "something would be loaded: {loaded:?}");
    let text = markdown::page(&report);
    assert!(!text.contains("<script") && text.contains("&lt;script&gt;alert(1)&lt;/script&gt; \\|"), "{text}");
    // A cell more or less would be a name that left its cell.
    for table in text.split("\n\n").filter(|part| part.starts_with("| ")) {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let widths: std::collections::BTreeSet<usize> = table.lines().map(cells).collect();
        assert_eq!(widths.len(), 1, "{table}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_hash_of_the_journal_is_computed_again_from_the_history_that_people_keep() {
    let (report, facts) = complete().await;
    let history = view::HistoryView {
        id: report.id.clone(),
        facts: records(&facts).into_iter().map(view::FactView::of).collect(),
    };
    let printed = serde_json::to_string(&history).unwrap();
    let kept: view::HistoryView = serde_json::from_str(&printed).unwrap();
    let again = kept.facts.into_iter().map(|fact| Record {
        seq: Seq(fact.seq),
        epoch: engine::Epoch(fact.epoch),
        at: fact.at,
        fact: fact.fact,
    });
    assert_eq!(sum::of(&again.collect::<Vec<_>>()), report.journal.sha256);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_was_unwound_or_has_not_ended_says_so_plainly() {
    let stage = told();
    let about = about(&stage).await;
    stage.aws.creation(Creation::Invalid { reason: "incompatible parameter(s)".into() });
    let facts = testing::play(stage.scene(wanted())).await.facts;
    let unwound = report(&about, &facts);
    assert_eq!(unwound.verdict.outcome.as_deref(), Some("unwound"));
    assert!(
        unwound.verdict.reason.as_ref().is_some_and(|why| why.contains("incompatible parameter(s)")),
        "{unwound:?}"
    );
    assert!(!unwound.terraform.needed);
    let after: Vec<&str> = unwound.changes.iter().map(|change| change.after.as_str()).collect();
    assert!(after.iter().any(|after| after.ends_with("ours deleted")) && !after.contains(&"as during"), "{after:?}");
    for end in 1..facts.len() {
        let open = report(&about, &facts[..end]);
        let text = texts(&html::page(&open).unwrap());
        assert!(
            open.ended_at.is_none() && text.contains("NOT ENDED") && text.contains("The upgrade has not ended"),
            "{end}"
        );
        assert!(markdown::page(&open).contains("NOT ENDED"), "{end}");
    }
    let mut refused = unwound.clone();
    for (outcome, words) in [("refused", "nothing was touched"), ("stopped", "A person stopped it where it stood")] {
        let mut status = status_of(&about, &facts);
        (status.outcome, status.switched_over) = (Some(outcome.into()), false);
        let input = super::Input { status: &status, about: &about, records: &[], entries: &facts, now: facts[0].at };
        refused.verdict = build(&input).verdict;
        assert!(refused.verdict.sentence.contains(words), "{:?}", refused.verdict);
    }
}

fn status_of(about: &About, facts: &[Entry<Upgrade>]) -> view::StatusView {
    let state = facts.iter().fold(State::empty(), |state, entry| state.apply(entry).unwrap());
    let info = RunInfo {
        id: RunId::from(RUN),
        subject: "arn:aws:rds:us-east-1:123456789012:cluster:orders".into(),
        created_at: facts[0].at,
        outcome: state.outcome(),
    };
    let shape = crate::steps::plan(state.spec().unwrap()).shape().clone();
    standing::status(&info, about, &shape, &state, &Tally::default(), None, facts[0].at)
}

#[tokio::test(start_paused = true)]
async fn a_report_of_ten_thousand_facts_names_a_thousand_of_each_and_counts_the_rest() {
    let stage = told();
    let about = about(&stage).await;
    let mut facts = testing::play(stage.scene(wanted())).await.facts;
    with_what_was_seen(&mut facts);
    put_in(&mut facts, "provisioning", |before| {
        let event = |n: u64| Event::SessionPurged {
            at: at(before, i64::try_from(n).unwrap()),
            session: session("console", "UPDATE"),
            waited_on: Some("rds_us_east_1_x_16401".into()),
        };
        (1..=10_000).map(|n| Fact::Observed { source: Source::from("agent-9"), n, event: event(n) }).collect()
    });
    let clock = runtime::clock::Clock::system();
    let began = clock.mono();
    let report = report(&about, &facts);
    let built = clock.mono();
    let page = html::page(&report).unwrap();
    let rendered = clock.mono();
    let json = serde_json::to_string(&report).unwrap();
    println!(
        "{} facts: built in {:?}, HTML of {} bytes in {:?}, JSON of {} bytes, Markdown of {} bytes",
        facts.len(),
        built - began,
        page.len(),
        rendered - built,
        json.len(),
        markdown::page(&report).len()
    );
    assert_eq!((report.purged.rows.len(), report.purged.left_out), (LISTED_MAX, 10_001 - LISTED_MAX as u64));
    assert_eq!(report.counts.purged, 10_001);
    assert!(texts(&page).contains("9001 more are counted and not listed"), "nothing says what was left out");
    assert!(page.len() < 4 << 20 && json.len() < 4 << 20, "{} {}", page.len(), json.len());
}
