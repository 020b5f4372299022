//! Drivers in one process: a run goes on after its process is gone, an event becomes a fact before it is acknowledged, and
//! a cluster has one active upgrade.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use engine::{Cx, Gate, Look, Reversal, Step, Wait};
use proto::epoch::{Epoch, StoreId};
use proto::report::Event;

use super::*;
use crate::link::{FromAgent, Hello, HubOptions, Standing, ToAgent};
use crate::operator::Operator;
use crate::rds::fake::{Fake as FakeRds, Timings};
use crate::store::{OpenError, SqliteStore};

mod lead;
mod owed;

const CLUSTER: &str = "arn:aws:rds:us-east-1:123456789012:cluster:orders";
const SOON: Duration = Duration::from_secs(20);

/// What survives a process: the file, and what was done to the world.
#[derive(Clone, Default)]
pub(crate) struct Outside {
    made: Arc<AtomicU32>,
    pub(crate) go: Arc<AtomicBool>,
}

/// Makes one thing, once, then waits until it may go on.
struct Make(Outside);

impl Step<Upgrade> for Make {
    const ID: StepId = StepId("prerequisites");
    const TITLE: &'static str = "Prerequisites";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = u32;

    async fn check(&self, _: &Cx<'_, Upgrade>) -> Result<Gate, Failure> {
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Cx<'_, Upgrade>) -> Result<u32, Failure> {
        let Outside { made, go } = &self.0;
        let look = |_: &u32| async { Ok(Look::There(made.load(Ordering::SeqCst))) };
        let before = async { Ok(made.load(Ordering::SeqCst)) };
        let done: u32 =
            cx.effect("make", before, look, |_: &u32| async { Ok(made.fetch_add(1, Ordering::SeqCst)) }).await?;
        let wait = Wait { every: Duration::from_millis(10), deadline: SOON, what: "the test" };
        cx.until(wait, || async {
            Ok(if go.load(Ordering::SeqCst) { Look::There(done) } else { Look::NotYet("not told to go on".into()) })
        })
        .await
    }

    async fn verify(&self, _: &Cx<'_, Upgrade>, _: &u32) -> Result<(), Failure> {
        Ok(())
    }

    async fn undo(&self, _: &Cx<'_, Upgrade>) -> Result<(), Failure> {
        Ok(())
    }
}

async fn open(file: &Path, clock: &Clock) -> SqliteStore {
    let open = async {
        loop {
            match SqliteStore::open(file, clock.clone()) {
                Ok(store) => return store,
                Err(OpenError::InUse { .. }) => clock.sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{}", chain(&error)),
            }
        }
    };
    clock.timeout(SOON, open).await.expect("the store is unlocked in time")
}

/// One life of a coordinator.
pub(crate) async fn life(file: &Path, outside: &Outside) -> Drivers {
    let store: Arc<dyn Store> = Arc::new(open(file, &Clock::system()).await);
    life_on(store, outside, "here").await
}

async fn life_on(store: Arc<dyn Store>, outside: &Outside, address: &str) -> Drivers {
    life_with(store, outside, address, Hooks::none(Clock::system())).await
}

async fn life_with(store: Arc<dyn Store>, outside: &Outside, address: &str, hooks: Hooks) -> Drivers {
    let clock = Clock::system();
    let hub = Hub::new(HubOptions {
        store: StoreId(store.id().0.clone()),
        epoch: Epoch(1),
        lease: Duration::from_secs(5),
        clock: clock.clone(),
        keeper: store.clone(),
    });
    let outside = outside.clone();
    Drivers::resume(DriversOptions {
        store,
        hub,
        rds: Arc::new(FakeRds::new(clock.clone(), Timings::zero())),
        cloudwatch: Arc::new(crate::cloudwatch::fake::Fake::new(clock.clone())),
        plans: Arc::new(move |_| Plan::new().then(Make(outside.clone()))),
        clock,
        holder: Holder { id: uuid::Uuid::now_v7().to_string(), address: address.to_owned() },
        lease: Duration::from_secs(3),
        call_timeout: Duration::from_millis(50),
        hooks,
        stop: Stop::new(),
    })
    .await
    .unwrap()
}

fn file() -> PathBuf {
    std::env::temp_dir().join(format!("pilot-drivers-{}.sqlite", uuid::Uuid::now_v7()))
}

/// Waits until the upgrade's view is as wished, and says how it stood last when it never was.
async fn status_until(drivers: &Drivers, id: &RunId, wished: impl Fn(&crate::operator::view::StatusView) -> bool) {
    let (operator, clock) = (Operator::new(drivers.clone()), Clock::system());
    let began = clock.mono();
    loop {
        let status = operator.status(id.as_str()).await.unwrap();
        if wished(&status) {
            return;
        }
        assert!(clock.mono() - began < SOON, "last seen: {status:?}");
        clock.sleep(Duration::from_millis(10)).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_run_goes_on_after_its_process_is_gone_and_does_nothing_twice() {
    let (file, outside) = (file(), Outside::default());
    let first = runtime();
    let id = first.block_on(async {
        let drivers = life(&file, &outside).await;
        let cluster: ClusterArn = CLUSTER.parse().unwrap();
        let id = drivers.start(&cluster, UpgradeSpec::new(CLUSTER, "16"), &About::default()).await.unwrap();
        let again = drivers.start(&cluster, UpgradeSpec::new(CLUSTER, "16"), &About::default()).await;
        assert!(matches!(again, Err(JournalError::SubjectBusy { .. })), "{again:?}");
        let waits = |view: &crate::operator::view::StatusView| {
            view.current.as_ref().and_then(|now| now.waiting_for.as_deref()) == Some("the test: not told to go on")
        };
        status_until(&drivers, &id, waits).await;
        id
    });
    // As a kill would: every task is dropped where it stands.
    first.shutdown_timeout(Duration::from_secs(5));
    assert_eq!(outside.made.load(Ordering::SeqCst), 1);

    outside.go.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let drivers = life(&file, &outside).await;
        status_until(&drivers, &id, |view| view.outcome.as_deref() == Some("succeeded")).await;
        assert_eq!(outside.made.load(Ordering::SeqCst), 1, "the effect was done again");
        let history = Operator::new(drivers.clone()).history(id.as_str(), Seq(0)).await.unwrap();
        assert_eq!(history.facts.iter().filter(|fact| fact.kind == "step_started").count(), 1);
        let listed = Operator::new(drivers).list().await.unwrap();
        assert_eq!(listed.len(), 1);
    });
    let _ = std::fs::remove_file(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_acknowledged_when_its_fact_is_in_the_journal() {
    let (file, outside) = (file(), Outside::default());
    let drivers = life(&file, &outside).await;
    let clock = Clock::system();
    let hello = Hello::plain("agent-1".parse().unwrap(), CLUSTER.parse().unwrap());
    let mut session = drivers.options().hub.attach(hello);
    let about = About { roster: vec!["agent-1".parse().unwrap()], ..About::default() };
    let id = drivers.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &about).await.unwrap();
    let event = Event::Stance { at: clock.now(), stance: "obey".into() };
    session.hear(FromAgent::Event { n: 3, event }).unwrap();
    let acked = async {
        while let Some(told) = session.next().await {
            if told == ToAgent::AckEvent(3) {
                return;
            }
        }
    };
    clock.timeout(SOON, acked).await.expect("the event is acknowledged in time");
    let facts = Operator::new(drivers.clone()).history(id.as_str(), Seq(0)).await.unwrap().facts;
    assert!(facts.iter().any(|fact| fact.kind == "observed"), "acknowledged without a fact: {facts:?}");
    let holder = drivers.options().store.holder(&Subject(CLUSTER.into())).await.unwrap();
    assert!(holder.is_some(), "the driver holds the cluster's lease");
    let other = Holder { id: "other".into(), address: "there".into() };
    let taken = drivers.options().store.acquire(&Subject(CLUSTER.into()), &other, Duration::from_secs(1)).await;
    assert!(matches!(taken, Err(JournalError::Held { .. })), "{taken:?}");
    drivers.options().stop.trigger();
    clock.timeout(SOON, drivers.join()).await.expect("drivers stop in time");
    let _ = std::fs::remove_file(file);
}

/// Two coordinators on one store: the second stands by, says who drives, keeps wishes, and takes over when the first is ended.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_coordinators_drives_and_the_other_tells_where_it_is() {
    let (file, outside, clock) = (file(), Outside::default(), Clock::system());
    let store: Arc<dyn Store> = Arc::new(open(&file, &clock).await);
    let first = life_on(store.clone(), &outside, "first").await;
    let second = life_on(store, &outside, "second").await;
    assert_eq!(first.options().hub.standing(), Standing::Leads);
    assert_eq!(second.options().hub.standing(), Standing::Follows { leader: Some("first".into()) });

    let id = first.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &About::default()).await.unwrap();
    let (one, two) = (Operator::new(first.clone()), Operator::new(second.clone()));
    let refused = two.start(UpgradeSpec::new(CLUSTER, "16"), "", "ann").await.unwrap_err().to_string();
    assert!(refused.contains("PU0010") && refused.contains("first drives"), "{refused}");
    let waits = |view: &crate::operator::view::StatusView| view.current.is_some();
    status_until(&first, &id, waits).await;
    assert_eq!(two.status(id.as_str()).await.unwrap().id, one.status(id.as_str()).await.unwrap().id);
    let answer = two.ask(id.as_str(), "", "ann", engine::Request::Pause, None).await.unwrap();
    assert!(answer.taken, "a wish through the one that stands by became no fact");
    two.ask(id.as_str(), "", "ann", engine::Request::Resume, None).await.unwrap();

    outside.go.store(true, Ordering::SeqCst);
    first.options().stop.trigger();
    clock.timeout(SOON, first.join()).await.expect("the first stops in time");
    status_until(&second, &id, |view| view.outcome.as_deref() == Some("succeeded")).await;
    assert_eq!(outside.made.load(Ordering::SeqCst), 1, "the effect was done again");
    second.options().stop.trigger();
    clock.timeout(SOON, second.join()).await.expect("the second stops in time");
    let _ = std::fs::remove_file(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_told_to_prometheus_by_who_drives_it_and_for_an_hour_after_its_end() {
    let (file, outside, clock) = (file(), Outside::default(), Clock::system());
    let store: Arc<dyn Store> = Arc::new(open(&file, &clock).await);
    let first = life_on(store.clone(), &outside, "first").await;
    let second = life_on(store, &outside, "second").await;
    let id = first.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &About::default()).await.unwrap();
    status_until(&first, &id, |view| view.current.is_some()).await;
    let told = |drivers: &Drivers, now| crate::scrape::scrape(drivers, now).upgrades;
    let now = clock.now();
    assert!(told(&second, now).is_empty(), "who stands by tells of it too");
    let (one, status) = (told(&first, now), Operator::new(first.clone()).status(id.as_str()).await.unwrap());
    assert_eq!(one.len(), 1);
    assert_eq!((&one[0].status.id, &one[0].status.phase), (&status.id, &status.phase));
    assert_eq!((&one[0].status.steps[0].state, one[0].agents_missing), (&status.steps[0].state, 0));

    outside.go.store(true, Ordering::SeqCst);
    status_until(&first, &id, |view| view.outcome.is_some()).await;
    let ended = Operator::new(first.clone()).status(id.as_str()).await.unwrap();
    let one = told(&first, clock.now());
    assert_eq!((&one[0].status.outcome, one[0].status.seconds), (&ended.outcome, ended.seconds));
    let minutes = |minutes| ended.updated_at + jiff::SignedDuration::from_mins(minutes);
    assert_eq!((told(&first, minutes(59)).len(), told(&first, minutes(61)).len()), (1, 0));
    first.options().stop.trigger();
    second.options().stop.trigger();
    clock.timeout(SOON, async { tokio::join!(first.join(), second.join()) }).await.expect("both stop in time");
    let _ = std::fs::remove_file(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_whose_journal_is_damaged_is_not_driven_and_says_why() {
    let (file, outside, clock) = (file(), Outside::default(), Clock::system());
    let first = life(&file, &outside).await;
    let id = first.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &About::default()).await.unwrap();
    status_until(&first, &id, |view| view.current.is_some()).await;
    first.options().stop.trigger();
    clock.timeout(SOON, first.join()).await.expect("drivers stop in time");
    drop(first);
    let flip = "update facts set fact = replace(fact, 'kind', 'kinf') where seq = 1";
    let flipped = rusqlite::Connection::open(&file).unwrap().execute(flip, []).unwrap();
    assert_eq!(flipped, 1);

    outside.go.store(true, Ordering::SeqCst);
    let second = life(&file, &outside).await;
    let trouble = second.running(&id).and_then(|running| running.trouble).unwrap_or_default();
    assert!(trouble.contains("PU0007") && trouble.contains("place 1"), "{trouble:?}");
    let status = Operator::new(second.clone()).status(id.as_str()).await.unwrap();
    assert_eq!(status.outcome, None, "{status:?}");
    let told = crate::scrape::scrape(&second, clock.now()).upgrades;
    assert_eq!(told.iter().map(|it| it.status.health.as_str()).collect::<Vec<_>>(), ["trouble"], "nobody is called");
    let _ = std::fs::remove_file(file);
}
