//! Kills between the pivot's arming and its outcome, while AWS answers in time, late, with a failure though it acted, not at all,
//! with lies, or with silence to every look. `KILLS` and `KILLS_KEPT` as for the others.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{Fault, Timings};
use tests::stage::{Setting, Stage, play};

use super::hunt::{struck, struck_now};
use super::judge::{self, Ends};
use super::report::{self, Campaign, Path, Shared, Side, Victim, shared};
use super::{LIMIT, setting, spec};

const CALL: &str = "SwitchoverBlueGreenDeployment";
const LOOK: &str = "DescribeBlueGreenDeployments";
/// An action that nobody asks for: the fault only tells that its moment has come.
const MARK: &str = "TellsOfItsMoment";
const EVERY: Duration = Duration::from_millis(5);

/// When somebody is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Beside the fact that arms.
    Armed(Side),
    /// AWS has the call and nothing is stopped.
    Called,
    /// Blue takes no writes any more.
    Stopped,
    /// Green takes writes.
    Switched,
    /// Beside the fact that says what came of it.
    Outcome(Side),
}

/// How AWS answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    InTime,
    /// To the call: long after the call was given up.
    Late,
    /// To the call: 500, and it is done.
    FailsAfter,
    /// To the call: 500, and nothing is done.
    FailsBefore,
    /// To the call: nothing, and it is done. To every look: AVAILABLE, as if nothing had been asked.
    Lies,
    /// To the call: nothing, and it is done. To many looks after it: nothing for longer than a look may take.
    Silent,
    /// The first switchover is cancelled.
    Cancels,
}

const MOMENTS: [Moment; 7] = [
    Moment::Armed(Side::Before),
    Moment::Armed(Side::After),
    Moment::Called,
    Moment::Stopped,
    Moment::Switched,
    Moment::Outcome(Side::Before),
    Moment::Outcome(Side::After),
];
const APIS: [Api; 7] =
    [Api::InTime, Api::Late, Api::FailsAfter, Api::FailsBefore, Api::Lies, Api::Silent, Api::Cancels];

/// One kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) victim: Victim,
    pub(super) moment: Moment,
    pub(super) api: Api,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?} while AWS {:?}", self.victim, self.moment, self.api)
    }
}

impl Case {
    /// What AWS will do, and the mark of the moment.
    pub(super) fn plan(&self, stage: &Stage) {
        let (faults, call) = (stage.lab.faults(), || CALL.to_owned());
        match self.api {
            Api::InTime => {}
            Api::Late => faults.plan(Fault::Delay { action: call(), millis: 5000 }, 1),
            Api::FailsAfter => faults.plan(Fault::ErrorAfter { action: call() }, 1),
            Api::FailsBefore => faults.plan(Fault::ErrorBefore { action: call() }, 1),
            Api::Lies => {
                faults.plan(Fault::DropAnswer { action: call() }, 1);
                faults.plan(Fault::StillAvailable, 60);
            }
            Api::Silent => {
                faults.plan(Fault::DropAnswer { action: call() }, 1);
                let silence = Fault::Delay { action: LOOK.into(), millis: 6000 };
                faults.plan_at(silence, 5, Some(lab::Moment::Called));
            }
            Api::Cancels => faults.plan(Fault::SwitchoverCancelled { reason: "a guardrail said no".into() }, 1),
        }
        let mark = Fault::Throttle { action: MARK.into() };
        let at = match self.moment {
            Moment::Armed(_) | Moment::Outcome(_) => return,
            Moment::Called => lab::Moment::Called,
            Moment::Stopped => lab::Moment::Stopped,
            Moment::Switched => lab::Moment::Switched,
        };
        faults.plan_at(mark, 1, Some(at));
    }

    /// Whether its moment has come.
    pub(super) fn is_due(&self, stage: &Stage) -> bool {
        let mark = Fault::Throttle { action: MARK.into() };
        stage.lab.faults().outstanding().iter().any(|planned| planned.fault == mark && planned.at.is_none())
    }

    /// The points of the trap at which it is due, if it is one of those.
    fn points(&self) -> Option<(&'static str, Side)> {
        match self.moment {
            Moment::Armed(side) => Some(("^pivot_armed", side)),
            Moment::Outcome(side) => Some(("^(pivot_disarmed|point_of_no_return)", side)),
            _ => None,
        }
    }
}

/// The provider takes its time over each part of the cut, and longer to say that it is done.
pub(super) fn timings() -> Timings {
    let ms = Duration::from_millis;
    Timings { initiated: ms(500), drop_delay: ms(300), window: ms(1500), completed_delay: ms(3000), ..Timings::zero() }
}

/// An upgrade with this kill, judged.
async fn run(stage: &mut Stage, told: &Shared, case: Case, turn: usize) -> anyhow::Result<()> {
    if matches!(case.moment, Moment::Outcome(Side::Before)) {
        // Lost right before it writes that nothing was switched, a coordinator waits its 20 s again: a hold comes near its cap.
        stage.expects_errors(&["a cap is near or reached"]);
    }
    let (before, trap) = (stage.world().await?, stage.trap().await?);
    case.plan(stage);
    if let Some((points, _)) = case.points() {
        trap.arm(points, 0, &BTreeSet::new()).await?;
    }
    let mut upgrade = stage.upgrade(&spec(stage, 16)).await?;
    let deadline = stage.tempo.at() + LIMIT;
    let mut killed = false;
    while !upgrade.has_ended() {
        if let (Some(standing), Some((_, side))) = (trap.standing().await?, case.points()) {
            trap.arm("^$", 0, &BTreeSet::new()).await?;
            struck(stage, &trap, &standing, case.victim, side, turn).await?;
            killed = true;
        } else if !killed && case.is_due(stage) {
            struck_now(stage, case.victim, turn).await?;
            killed = true;
        }
        ensure!(stage.tempo.at() < deadline, "{} has not ended within {LIMIT:?}", upgrade.id);
        stage.tempo.sleep(EVERY).await;
    }
    let said = upgrade.ended(LIMIT, &stage.tempo).await?;
    stage.lab.faults().clear();
    ensure!(killed, "its moment never came\n{}", stage.history(&upgrade.id).await?.story());
    shared(told).killed(Path::Window, case.victim, &case.to_string(), Side::After);
    let unwound = judge::all(stage, &upgrade.id, &said, &before, Ends::Either).await.context("judged from outside")?;
    shared(told).ended(Path::Window, case.victim, unwound);
    stage.nothing_lost().await.map(drop)
}

#[test]
fn killed_at_any_moment_between_arming_and_outcome_with_aws_late_lying_or_silent() {
    let told = Campaign::open();
    for (turn, api) in APIS.into_iter().enumerate() {
        for moment in MOMENTS {
            for victim in Victim::ALL {
                let case = Case { victim, moment, api };
                let played = shared(&told).has(Path::Window, victim, &case.to_string(), Side::After);
                if played || !report::asked(&case) {
                    continue;
                }
                println!("{case}");
                let inner = Arc::clone(&told);
                report::alone(&told, Path::Window, victim, move || {
                    let setting = Setting { timings: timings(), ..setting() };
                    play(setting, async move |stage| {
                        run(stage, &inner, case, turn).await.with_context(|| case.to_string())
                    })
                });
            }
        }
    }
    println!("{}", shared(&told));
    assert!(shared(&told).clean(), "{}", shared(&told));
}
