//! When a coordinator that stands by looks, and how long one that was deposed waits for its drivers, in a time that is played.

use engine::{Journal, JournalRead};

use super::super::leading::SUBJECT;
use super::*;
use crate::store::memory::MemoryStore;

/// Is at a call that takes a minute, whatever it is told meanwhile.
struct Stubborn(Arc<AtomicBool>);

impl Step<Upgrade> for Stubborn {
    const ID: StepId = StepId("prerequisites");
    const TITLE: &'static str = "Prerequisites";
    const REVERSAL: Reversal = Reversal::Reversible;
    type Output = ();

    async fn check(&self, _: &Cx<'_, Upgrade>) -> Result<Gate, Failure> {
        Ok(Gate::Open)
    }

    async fn run(&self, cx: &Cx<'_, Upgrade>) -> Result<(), Failure> {
        self.0.store(true, Ordering::SeqCst);
        cx.clock().sleep(Duration::from_secs(60)).await;
        Ok(())
    }

    async fn verify(&self, _: &Cx<'_, Upgrade>, (): &()) -> Result<(), Failure> {
        Ok(())
    }

    async fn undo(&self, _: &Cx<'_, Upgrade>) -> Result<(), Failure> {
        Ok(())
    }
}

const LEASE: Duration = Duration::from_secs(3);

async fn coordinator(store: &MemoryStore, clock: &Clock, plans: Plans) -> Drivers {
    let hub = Hub::new(HubOptions {
        store: store.id().clone(),
        epoch: Epoch(1),
        lease: LEASE,
        clock: clock.clone(),
        keeper: Arc::new(store.clone()),
    });
    Drivers::resume(DriversOptions {
        store: Arc::new(store.clone()),
        hub,
        rds: Arc::new(FakeRds::new(clock.clone(), Timings::zero())),
        cloudwatch: Arc::new(crate::cloudwatch::fake::Fake::new(clock.clone())),
        plans,
        clock: clock.clone(),
        holder: Holder { id: "one".into(), address: "one".into() },
        lease: LEASE,
        call_timeout: Duration::from_millis(50),
        hooks: Hooks::none(Clock::system()),
        stop: Stop::new(),
    })
    .await
    .unwrap()
}

/// How long it takes until it stands so.
async fn until(drivers: &Drivers, clock: &Clock, standing: impl Fn(Standing) -> bool) -> Duration {
    let began = clock.mono();
    let stands = async {
        while !standing(drivers.options().hub.standing()) {
            clock.sleep(Duration::from_millis(1)).await;
        }
    };
    let stood = clock.timeout(Duration::from_secs(60), stands).await;
    stood.unwrap_or_else(|_| panic!("last seen: {:?}", drivers.options().hub.standing()));
    clock.mono().since(began)
}

#[tokio::test(start_paused = true)]
async fn who_stands_by_looks_every_500_ms_and_takes_over_at_the_first_look_after_the_lease() {
    let clock = Clock::tokio();
    let (store, subject) = (MemoryStore::new(&clock), Subject::from(SUBJECT));
    let other = Holder { id: "other".into(), address: "there".into() };
    store.acquire(&subject, &other, Duration::from_millis(10_200)).await.unwrap();
    let drivers = coordinator(&store, &clock, Arc::new(|_| Plan::new().then(Make(Outside::default())))).await;
    assert_eq!(drivers.options().hub.standing(), Standing::Follows { leader: Some("there".into()) });
    let looked = store.looks(&subject);
    clock.sleep(Duration::from_millis(10_100)).await;
    assert_eq!(store.looks(&subject) - looked, 20, "looks in ten seconds");
    let took = until(&drivers, &clock, |standing| standing == Standing::Leads).await;
    // The lease had a tenth of a second to go, and the next look comes with the half second after it.
    assert!(took >= Duration::from_millis(390) && took <= Duration::from_millis(410), "it leads after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deposed_coordinator_waits_eight_seconds_for_a_driver_that_is_at_a_call_and_for_no_other() {
    for (stubborn, waits) in [(false, Duration::ZERO), (true, Duration::from_secs(8))] {
        let clock = Clock::tokio();
        let (store, begun, outside) = (MemoryStore::new(&clock), Arc::new(AtomicBool::new(false)), Outside::default());
        let (at_work, made) = (begun.clone(), outside.clone());
        let plans: Plans = Arc::new(move |_| match stubborn {
            true => Plan::new().then(Stubborn(at_work.clone())),
            false => Plan::new().then(Make(made.clone())),
        });
        let drivers = coordinator(&store, &clock, plans).await;
        drivers.start(&CLUSTER.parse().unwrap(), UpgradeSpec::new(CLUSTER, "16"), &About::default()).await.unwrap();
        let work = async {
            while !begun.load(Ordering::SeqCst) && outside.made.load(Ordering::SeqCst) == 0 {
                clock.sleep(Duration::from_millis(1)).await;
            }
        };
        clock.timeout(SOON, work).await.expect("the driver is at work");
        let subject = Subject::from(SUBJECT);
        let (_, epoch) = store.holder(&subject).await.unwrap().expect("it leads");
        store.release(&subject, epoch).await.unwrap();
        until(&drivers, &clock, |standing| standing != Standing::Leads).await;
        // Nobody else wants the lead: it takes it again at its first look, which comes when its drivers stand still.
        let took = until(&drivers, &clock, |standing| standing == Standing::Leads).await;
        let expected = waits + Duration::from_millis(500);
        let late = took.saturating_sub(expected);
        assert!(took >= expected && late <= Duration::from_millis(50), "stubborn: {stubborn}: it leads after {took:?}");
    }
}
