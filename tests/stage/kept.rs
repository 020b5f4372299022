//! A store with upgrades that have ended, written as a driver writes: by the journal's public interface. For pages that show much,
//! without a cloud.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use coordinator::spec::UpgradeSpec;
use coordinator::store::{About, Sample, SqliteStore, Store};
use coordinator::world::{Upgrade, Witness};
use engine::journal::start;
use engine::{
    Append, Code, Epoch, Fact, Holder, Journal as _, Operator, Outcome, Request, RunId, Seq, Source, StepId, Subject,
};
use jiff::{SignedDuration, Timestamp};
use proto::phase::SwitchoverPhase;
use proto::report::{Event, HoldKind, OutageKind, Session, Verdict};
use proto::side::Side;
use runtime::clock::Clock;
use serde_json::Value;

/// What a table, a user or an application may be called.
pub const MARKUP: &str = "<script>alert(1)</script>";
const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
/// The steps and how long each took, in milliseconds.
const STEPS: [(&str, i64); 7] = [
    ("prerequisites", 34_000),
    ("provisioning", 1_912_000),
    ("post_provisioning", 220_000),
    ("replicating_data", 640_000),
    ("switchover", 9_000),
    ("post_switchover", 61_000),
    ("cleanup", 240_000),
];

/// One journal that is being written.
struct Writer<'a> {
    store: &'a SqliteStore,
    id: RunId,
    epoch: Epoch,
    seq: u64,
    at: Timestamp,
    observed: u64,
}

impl Writer<'_> {
    async fn add(&mut self, after_ms: i64, fact: Fact<Upgrade>) -> anyhow::Result<()> {
        self.at += SignedDuration::from_millis(after_ms);
        let outcome = if let Fact::Finished { outcome } = &fact { Some(*outcome) } else { None };
        let encoded = fact.encode()?;
        let (id, epoch, seq, at) = (&self.id, self.epoch, Seq(self.seq), self.at);
        self.store.append(Append { id, epoch, seq, at, fact: &encoded, outcome }).await?;
        self.seq += 1;
        Ok(())
    }

    async fn see(&mut self, after_ms: i64, event: impl FnOnce(Timestamp) -> Event) -> anyhow::Result<()> {
        self.observed += 1;
        let event = event(self.at + SignedDuration::from_millis(after_ms));
        self.add(after_ms, Fact::Observed { source: Source::from("agent-1"), n: self.observed, event }).await
    }

    async fn begin(&mut self, step: StepId) -> anyhow::Result<()> {
        self.add(120, Fact::StepStarted { step, attempt: 1 }).await
    }

    async fn done(&mut self, step: StepId, took_ms: i64) -> anyhow::Result<()> {
        self.add(took_ms, Fact::StepDone { step, output: Value::Null }).await
    }

    /// `facts` sessions that held slot creation up, over the step's time.
    async fn purged(&mut self, facts: u64, took_ms: i64) -> anyhow::Result<()> {
        let every = took_ms / i64::try_from(facts.max(1))?;
        for n in 0..facts {
            let waited_on = Some("rds_us_east_1_orders".to_owned());
            self.see(every, |at| Event::SessionPurged { at, session: session(n), waited_on }).await?;
        }
        Ok(())
    }

    async fn cut(&mut self) -> anyhow::Result<()> {
        use SwitchoverPhase as P;
        let phase = |side, phase| move |at| Event::SwitchoverPhase { at, side, phase: Some(phase), offset_ms: None };
        let (recorded, not_resubmittable) = (Some("batch-7".to_owned()), None);
        self.see(400, |at| Event::SessionEnded { at, session: session(7), recorded, not_resubmittable }).await?;
        self.add(100, Fact::PivotArmed { attempt: 1 }).await?;
        self.see(900, phase(Side::Blue, P::Initiated)).await?;
        self.see(20, phase(Side::Green, P::Initiated)).await?;
        self.see(1400, phase(Side::Blue, P::InProgress)).await?;
        self.see(15, phase(Side::Green, P::InProgress)).await?;
        self.see(700, phase(Side::Green, P::PostProcessing)).await?;
        self.see(30, |at| Event::GreenAcceptedWrite { at, offset_ms: None }).await?;
        let (before, after) = (Some(Side::Blue), Some(Side::Green));
        for (ms, kind) in [(690, OutageKind::Write), (410, OutageKind::Read)] {
            let span = SignedDuration::from_millis(i64::try_from(ms)?);
            self.see(12, |to| Event::Outage { from: to - span, to, ms, kind, before, after }).await?;
        }
        self.see(8, |at| Event::Held { at, ms: 1210, kind: HoldKind::Gate }).await?;
        self.see(60, |at| Event::Held { at, ms: 3400, kind: HoldKind::Ingestion }).await?;
        self.add(10, Fact::PointOfNoReturn { witness: witness() }).await?;
        self.see(900, phase(Side::Green, P::Completed)).await
    }

    async fn resubmitted(&mut self) -> anyhow::Result<()> {
        let (key, database, role) = ("batch-7".to_owned(), "orders".to_owned(), "batch_runner".to_owned());
        let reason = "it is not the first statement of its transaction".to_owned();
        self.see(300, |at| Event::Resubmission { at, key, database, role, verdict: Verdict::Refused { reason } }).await
    }

    async fn changed_schema(&mut self) -> anyhow::Result<()> {
        for statement in [format!("CREATE TABLE \"{MARKUP}\" (id int)"), "CREATE INDEX i ON lines (id)".to_owned()] {
            let detail = format!("{statement} by app in orders from 10.0.3.7(5432), {:.0}", self.at);
            self.add(200, Fact::Warned { step: None, code: Code("PU0602"), detail }).await?;
        }
        Ok(())
    }
}

fn witness() -> Witness {
    Witness { evidence: "green accepted a write of agent-1 and blue refuses them".into(), ..Witness::default() }
}

fn session(n: u64) -> Session {
    Session {
        pid: 4000 + i32::try_from(n).unwrap_or_default(),
        database: Some("orders".into()),
        user: Some("console".into()),
        application: MARKUP.into(),
        client: Some("10.0.3.7".into()),
        state: "idle in transaction".into(),
        backend_start: None,
        xact_start: None,
        age_ms: 41_000 + n,
        command: Some("UPDATE".into()),
    }
}

/// Makes the store in a file: two small upgrades, and then one of `facts` facts, whose id it returns.
///
/// # Errors
/// The store's own.
pub async fn make(file: &Path, facts: u64) -> anyhow::Result<String> {
    let store = SqliteStore::open(file, Clock::system())?;
    let subject = Subject::from(CLUSTER);
    let holder = Holder { id: "a test".into(), address: "nowhere".into() };
    let epoch = store.acquire(&subject, &holder, Duration::from_secs(3600)).await?;
    let mut began: Timestamp = "2026-11-29T22:14:07Z".parse()?;
    let mut id = String::new();
    for (n, facts) in [0, 0, facts].into_iter().enumerate() {
        id = format!("up-0000000000{n:02}abcdef");
        upgrade(&store, &subject, epoch, &id, began, facts).await.with_context(|| id.clone())?;
        began += SignedDuration::from_hours(3);
    }
    store.release(&subject, epoch).await?;
    Ok(id)
}

async fn upgrade(
    store: &SqliteStore,
    subject: &Subject,
    epoch: Epoch,
    id: &str,
    began: Timestamp,
    facts: u64,
) -> anyhow::Result<()> {
    let id = RunId::from(id);
    let about = About {
        roster: vec!["agent-1".parse()?],
        from_version: "14.23".into(),
        to_version: "16.15".into(),
        asked_by: "ann".into(),
        ..About::default()
    };
    store.prepare(&id, &about).await?;
    let mut spec = UpgradeSpec::new(CLUSTER, "16");
    (spec.switchover.attempts, spec.replica_identity_full) = (5, vec![format!("orders.public.{MARKUP}")]);
    let plan = coordinator::steps::plan(&spec);
    start::<Upgrade>(store, subject, &id, spec, plan.shape(), began).await?;
    let mut writer = Writer { store, id: id.clone(), epoch, seq: 1, at: began, observed: 0 };
    for (name, took) in STEPS {
        let step = StepId::parse(name).context("a step")?;
        writer.begin(step).await?;
        match name {
            "provisioning" => writer.purged(facts.saturating_sub(45), took).await?,
            "replicating_data" => writer.changed_schema().await?,
            "switchover" => writer.cut().await?,
            "post_switchover" => writer.resubmitted().await?,
            "cleanup" => {
                let (name, why) = ("cleanup".to_owned(), "the old side is deleted".to_owned());
                writer.add(500, Fact::ApprovalAsked { step, name, why }).await?;
                let request = Request::Approve { name: Some("cleanup".into()) };
                let (by, ask) = (Operator::from("ann"), engine::AskId::from("1"));
                writer.add(600_000, Fact::Asked { by, ask, request }).await?;
            }
            _ => {}
        }
        writer.done(step, if name == "provisioning" && facts > 0 { 1000 } else { took }).await?;
    }
    writer.add(5, Fact::Finished { outcome: Outcome::Succeeded }).await?;
    Ok(store.add_samples(&id, samples(began, writer.at)).await?)
}

/// A lag that drains, ingestion that goes on, a pause at the cut.
fn samples(from: Timestamp, to: Timestamp) -> Vec<Sample> {
    let (from, to) = (from.as_millisecond(), to.as_millisecond());
    let mut samples = Vec::new();
    for n in 0..400 {
        let at_ms = from + (to - from) * n / 400;
        let part = n as f64 / 400.0;
        let wave = (part * 90.0).sin().abs();
        let lag = if part < 0.62 { 0.0 } else { (1.0 - part).powi(2) * 3e8 * (0.7 + 0.3 * wave) };
        let mut add = |name: &str, value: f64| samples.push(Sample { at_ms, name: name.into(), value });
        if part > 0.62 && part < 0.9 {
            add("slot_bytes/rds_us_east_1_orders", lag);
            add("slot_bytes/rds_us_east_1_billing", lag * 0.4);
            add("slot_ms/rds_us_east_1_orders", lag / 9000.0);
            add("slot_ms/rds_us_east_1_billing", lag / 30_000.0);
            add("cloudwatch_bytes", lag * 1.1);
            add("marker_ms", 40.0 + 200.0 * wave);
        }
        add("ingestion_rate", if (0.88..0.9).contains(&part) { 0.0 } else { 430.0 + 90.0 * wave });
        add("backlog", if (0.88..0.93).contains(&part) { 4000.0 * (0.93 - part) / 0.05 } else { 12.0 * wave });
    }
    samples
}
