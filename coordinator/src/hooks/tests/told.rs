//! What is told of an upgrade: what the facts are news of, in order, across lives of the process, beside endpoints that hang or fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::testing;
use engine::{Driver, Ended, Entry, Holder, Options, Outcome, Parts, RunId, Seq, State, Subject};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Does, Played, telling};
use crate::hooks::news::{Standing, news};
use crate::hooks::telling::{OnGivenUp, Telling};
use crate::hooks::{About, Hook, Hooks, Notice, Trouble};
use crate::rds::fake::{Creation, Switching};
use crate::steps::testing::{Stage, clock, spec};
use crate::store::memory::MemoryStore;
use crate::store::{Bookmark, Store as _};
use crate::world::Upgrade;

fn about() -> About {
    About {
        upgrade: "run-1".into(),
        cluster_arn: "arn:aws:rds:us-east-1:123456789012:cluster:orders".into(),
        from_version: "14.12".into(),
        to_version: "16.9".into(),
        page_url: None,
    }
}

/// All news of a journal.
fn all_news(facts: &[Entry<Upgrade>], shape: &engine::PlanShape) -> Vec<Notice> {
    let (mut state, mut standing, mut all) = (State::<Upgrade>::empty(), Standing::default(), Vec::new());
    for entry in facts {
        state = state.apply(entry).unwrap();
        let after = Standing::of(shape, &state);
        all.extend(news(&about(), "h", &standing, entry, &after));
        standing = after;
    }
    all
}

fn line(notice: &Notice) -> String {
    let subject = notice.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
    format!("{} {}{subject}", notice.point, notice.outcome)
}

fn lines(notices: &[Notice]) -> Vec<String> {
    notices.iter().map(line).collect()
}

/// Every step begins and is done, and production moves in between.
fn a_good_course() -> Vec<String> {
    let steps = |names: &[&str]| -> Vec<String> {
        names.iter().flat_map(|step| [format!("before_{step} begins"), format!("after_{step} done")]).collect()
    };
    let mut course = steps(&["prerequisites", "provisioning", "post_provisioning", "replicating_data"]);
    course.extend(["before_switchover begins", "point_of_no_return passed", "after_switchover done"].map(String::from));
    course.extend(steps(&["post_switchover", "cleanup"]));
    course.push("finished succeeded".to_owned());
    course
}

async fn news_of(stage: &Stage, spec: crate::spec::UpgradeSpec, outcome: Outcome) -> Vec<Notice> {
    let shape = crate::steps::plan(&spec).shape().clone();
    let played = testing::play(stage.scene(spec)).await;
    assert_eq!(played.outcome, outcome);
    all_news(&played.facts, &shape)
}

#[tokio::test(start_paused = true)]
async fn a_good_upgrade_is_told_step_by_step_and_approvals_with_their_answers() {
    let told = news_of(&Stage::new(clock()), spec(), Outcome::Succeeded).await;
    assert_eq!(lines(&told), a_good_course());
    assert!(told.iter().all(|notice| notice.cluster == "orders" && notice.delivery.ends_with("/h")));
    let no_return = told.iter().position(|notice| notice.point.as_str() == "point_of_no_return").unwrap();
    assert!(told.iter().enumerate().all(|(n, notice)| notice.switched_over == (n >= no_return)));

    let mut asking = spec();
    asking.switchover.approve = true;
    let told = news_of(&Stage::new(clock()), asking, Outcome::Succeeded).await;
    let at = |text: &str| lines(&told).iter().position(|line| line == text).unwrap_or_else(|| panic!("no {text}"));
    let asked = at("approval_wanted asked switchover");
    assert!(at("after_replicating_data done") < asked);
    assert_eq!(asked + 1, at("approval_wanted answered switchover"));
    assert!(asked + 1 < at("before_switchover begins"));
    assert_eq!(told[asked].next_action.as_deref(), Some("pilot approve run-1 switchover"));
    assert_eq!(told[asked].step.as_deref(), Some("switchover"));
}

#[tokio::test(start_paused = true)]
async fn what_goes_back_is_told_with_its_reason_and_every_alarm_ends() {
    let stage = Stage::new(clock());
    stage.aws.creation(Creation::Invalid { reason: "incompatible parameter(s)".into() });
    let told = news_of(&stage, spec(), Outcome::Unwound).await;
    assert_eq!(
        lines(&told)[2..],
        ["before_provisioning begins", "after_provisioning undone", "after_prerequisites undone", "finished unwound",]
    );
    let last = told.last().unwrap();
    assert!(last.reason.as_ref().is_some_and(|reason| reason.contains("incompatible parameter(s)")), "{last:?}");
    assert_eq!(last.links.explain, last.code.map(|code| format!("pilot explain {code}")));

    let stage = Stage::new(clock());
    *stage.free_bytes.lock().unwrap() = Some(1e6);
    let told = news_of(&stage, spec(), Outcome::Unwound).await;
    let alarms: Vec<&Notice> = told.iter().filter(|notice| notice.point.as_str() == "alarm").collect();
    let raised = alarms.iter().filter(|notice| notice.outcome == "raised").count();
    assert!(raised >= 1 && alarms.len() == 2 * raised, "{:?}", lines(&told));
    assert!(alarms.iter().any(|notice| notice.level.as_deref() == Some("unwind")), "{alarms:?}");

    let stage = Stage::new(clock());
    stage.aws.switching(Switching::Reverts { reason: "long running transactions".into() });
    let told = news_of(&stage, spec(), Outcome::Unwound).await;
    let begins = told.iter().filter(|notice| line(notice) == "before_switchover begins").count();
    assert_eq!(begins, 3, "each attempt");
}

/// A run in a store, driven to its end beside those who tell of it.
struct Course {
    stage: Stage,
    store: MemoryStore,
    id: RunId,
    shape: engine::PlanShape,
    given_up: Arc<Mutex<Vec<String>>>,
}

impl Course {
    fn new() -> Course {
        let stage = Stage::new(clock());
        let store = MemoryStore::new(&stage.clock);
        let shape = crate::steps::plan(&spec()).shape().clone();
        Course { stage, store, id: RunId::from("run-1"), shape, given_up: Arc::default() }
    }

    async fn open(&self, hooks: &Hooks) {
        for hook in hooks.all() {
            let (run, hook, next) = (self.id.clone(), hook.name.clone(), Seq(0));
            self.store.keep_bookmark(&Bookmark { run, hook, next }).await.unwrap();
        }
        let subject = Subject::from("c");
        let (spec, now) = (spec(), self.stage.clock.now());
        engine::journal::start::<Upgrade>(&self.store, &subject, &self.id, spec, &self.shape, now).await.unwrap();
    }

    /// How long the upgrade took.
    async fn drive(&self) -> Duration {
        let scene = self.stage.scene(spec());
        let parts = Parts {
            plan: Arc::new(scene.plan),
            world: scene.world,
            journal: Arc::new(self.store.clone()),
            clock: self.stage.clock.clone(),
            holder: Holder { id: "one".into(), address: String::new() },
            options: Options::default(),
        };
        let began = self.stage.clock.mono();
        let (driver, _handle) = Driver::new(self.id.clone(), parts);
        assert_eq!(driver.run(CancellationToken::new()).await.unwrap(), Ended::Finished(Outcome::Succeeded));
        self.stage.clock.mono() - began
    }

    /// One who tells one hook, as a life of the process finds it.
    async fn teller(&self, hooks: &Hooks, name: &str) -> Telling {
        let marks = self.store.bookmarks().await.unwrap();
        let given_up = self.given_up.clone();
        let on_given_up: OnGivenUp = Arc::new(move |detail: String| -> BoxFuture<'static, ()> {
            given_up.lock().unwrap().push(detail);
            Box::pin(async {})
        });
        Telling {
            hooks: hooks.clone(),
            hook: hooks.all().iter().find(|hook| hook.name == name).unwrap().clone(),
            store: Arc::new(self.store.clone()),
            run: self.id.clone(),
            about: about(),
            shape: self.shape.clone(),
            from: marks.iter().find(|mark| mark.hook == name).map(|mark| mark.next),
            on_given_up,
        }
    }

    fn hooks(&self, all: Vec<Hook>, carrier: &Arc<Played>) -> Hooks {
        Hooks::over(all, carrier.clone(), None, self.stage.clock.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn every_hook_is_told_everything_in_order_while_one_hangs_and_the_upgrade_waits_for_none() {
    let alone = {
        let course = Course::new();
        let played = Played::new(|_, _| Does::Says(0, ""));
        course.open(&course.hooks(Vec::new(), &played)).await;
        course.drive().await
    };
    let course = Course::new();
    let played = Played::new(|notice, _| match notice.delivery.ends_with("/hangs") {
        true => Does::Hangs,
        false => Does::Says(0, "ok"),
    });
    let hooks = course.hooks(vec![telling("good"), telling("hangs")], &played);
    course.open(&hooks).await;
    let (good, hangs) = (course.teller(&hooks, "good").await, course.teller(&hooks, "hangs").await);
    let (good, hangs) = (tokio::spawn(good.run()), tokio::spawn(hangs.run()));
    let took = course.drive().await;
    assert!(took < alone + Duration::from_secs(1), "{took:?} with hooks that hang, {alone:?} without any");
    good.await.unwrap();
    assert_eq!(lines(&played.calls("good")), a_good_course());
    // Each is tried nine times and given up, said once each; then the next one.
    hangs.await.unwrap();
    let tried = played.calls("hangs");
    assert_eq!(tried.len(), 9 * a_good_course().len());
    let mut once = lines(&tried);
    once.dedup();
    assert_eq!(once, a_good_course());
    let given_up = course.given_up.lock().unwrap().clone();
    assert_eq!(given_up.len(), a_good_course().len());
    let first = "hook hangs was not told of before_prerequisites (run-1/";
    assert!(given_up[0].starts_with(first) && given_up[0].contains("/0/hangs): "), "{given_up:?}");
    assert_eq!(course.store.bookmarks().await.unwrap(), [], "nothing is owed any more");
}

#[tokio::test(start_paused = true)]
async fn a_process_lost_between_delivery_and_bookmark_tells_the_same_again_under_the_same_id() {
    let total = a_good_course().len();
    for lost_at in [0, 3, total - 1] {
        let course = Course::new();
        let (delivered, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let played = Played::new({
            let (delivered, taken) = (delivered.clone(), taken.clone());
            move |_, _| {
                if delivered.fetch_add(1, Ordering::SeqCst) == lost_at {
                    // It is with the other side; the answer never arrives.
                    taken.notify_one();
                    return Does::Hangs;
                }
                Does::Says(0, "")
            }
        });
        let hooks = course.hooks(vec![telling("one")], &played);
        course.open(&hooks).await;
        course.drive().await;
        let first = course.teller(&hooks, "one").await;
        tokio::select! {
            () = first.run() => panic!("it was not lost"),
            () = taken.notified() => {}
        }
        course.teller(&hooks, "one").await.run().await;
        let told = played.calls("one");
        assert_eq!(told.len(), total + 1);
        assert_eq!(told[lost_at].delivery, told[lost_at + 1].delivery);
        assert_eq!(told[lost_at], told[lost_at + 1], "the same, to the letter");
        let mut ids: Vec<&str> = told.iter().map(|notice| notice.delivery.as_str()).collect();
        ids.dedup();
        assert_eq!(ids.len(), total, "nothing else was told twice");
        assert_eq!(course.store.bookmarks().await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_what_cannot_work_is_given_up_at_once() {
    let course = Course::new();
    let played = Played::new(|notice, n| match (notice.point.as_str(), n) {
        ("before_prerequisites", 0..3) => Does::Fails(Trouble::passing("503")),
        ("after_provisioning", _) => Does::Fails(Trouble::lasting("404: no_service")),
        _ => Does::Says(0, ""),
    });
    let hooks = course.hooks(vec![telling("one")], &played);
    course.open(&hooks).await;
    course.drive().await;
    course.teller(&hooks, "one").await.run().await;
    let told = lines(&played.calls("one"));
    assert_eq!(told.iter().filter(|line| *line == "before_prerequisites begins").count(), 4);
    assert_eq!(told.iter().filter(|line| *line == "after_provisioning done").count(), 1);
    assert_eq!(told.last().unwrap(), "finished succeeded");
    let given_up = course.given_up.lock().unwrap().clone();
    assert_eq!(given_up.len(), 1);
    assert!(given_up[0].contains("after_provisioning") && given_up[0].ends_with("404: no_service"), "{given_up:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_comes_later_is_told_from_then_on() {
    let course = Course::new();
    let played = Played::new(|_, _| Does::Says(0, ""));
    let hooks = course.hooks(vec![telling("late")], &played);
    course.open(&course.hooks(Vec::new(), &played)).await;
    let late = async {
        let steps = |state: &State<Upgrade>| state.output(engine::StepId("provisioning")).is_some();
        while !steps(&engine::journal::fold::<Upgrade>(&course.store, &course.id).await.unwrap()) {
            course.stage.clock.sleep(Duration::from_millis(100)).await;
        }
        course.teller(&hooks, "late").await.run().await;
    };
    tokio::join!(late, course.drive());
    let told = lines(&played.calls("late"));
    assert_eq!(told.last().unwrap(), "finished succeeded");
    assert!(!told.contains(&"after_prerequisites done".to_owned()), "{told:?}");
    assert!(told.contains(&"after_switchover done".to_owned()), "{told:?}");
}
