//! Any run that is driven by `decide`, with a world and people that answer at random, is legal from its first fact to
//! its last, and ends with everything undone or everything done.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

use super::toy::{Spec, TEST, Toy, plan};
use crate::decide::{Move, decide};
use crate::fact::{Alarm, Entry, Fact, Outcome, Request};
use crate::failure::{Failure, FailureClass};
use crate::ids::{AskId, MonitorId, Operator, Source, StepId};
use crate::journal::{Epoch, Record};
use crate::plan::PlanShape;
use crate::state::{State, Status};
use crate::step::Why;

const CLASSES: [FailureClass; 4] =
    [FailureClass::Transient, FailureClass::Unknown, FailureClass::Permanent, FailureClass::NeedsOperator];

struct Play {
    shape: PlanShape,
    state: State<Toy>,
    now: Timestamp,
    facts: Vec<Entry<Toy>>,
}

impl Play {
    fn new(restarts_max: u32) -> Play {
        let shape = plan().restart_from(StepId("b"), restarts_max).shape().clone();
        let (state, now) = (State::empty(), Timestamp::UNIX_EPOCH);
        let mut play = Play { shape, state, now, facts: Vec::new() };
        let plan = play.shape.ids();
        assert!(play.append(Fact::Created { spec: Spec { wish: "w".into() }, plan }));
        play
    }

    fn told(&self) -> String {
        self.facts.iter().map(|entry| format!("\n{} {:?}", entry.seq, entry.fact)).collect()
    }

    fn entry(&self, fact: Fact<Toy>) -> Entry<Toy> {
        Entry { seq: self.state.next_seq(), epoch: Epoch(1), at: self.now, fact }
    }

    /// Appends if it is legal.
    fn append(&mut self, fact: Fact<Toy>) -> bool {
        let entry = self.entry(fact);
        let Ok(next) = self.state.clone().apply(&entry) else { return false };
        self.state = next;
        self.facts.push(entry);
        true
    }

    /// What the engine appends of its own must be legal.
    fn must(&mut self, fact: Fact<Toy>) {
        let entry = self.entry(fact);
        let next = self.state.clone().apply(&entry);
        self.state = next.unwrap_or_else(|illegal| panic!("{illegal}; after {}", self.told()));
        self.facts.push(entry);
    }

    /// Anything at all: from monitors, sources, people, or a confused step.
    fn anything(&mut self, dice: u32) {
        let step = self.shape.ids()[dice as usize / 32 % 4];
        let attempt = self.state.step(step).map_or(0, |step| step.attempt);
        let why = || Why::new(TEST, "why");
        let monitor = MonitorId("m");
        let request =
            |request| Fact::Asked { by: Operator::from("ann"), ask: AskId(format!("{}", self.facts.len())), request };
        let failure = Failure::new(CLASSES[dice as usize / 128 % 4], TEST, "x");
        let fact = match dice % 32 {
            0 => request(Request::Pause),
            1..=3 => request(Request::Resume),
            4 => request(Request::Abort),
            5 => request(Request::Approve { name: None }),
            6 => request(Request::Postpone { until: self.now + SignedDuration::from_secs(30) }),
            7 => request(Request::Tune { settings: [("wish".into(), Value::Null)].into() }),
            8 => Fact::AlarmRaised { monitor, alarm: Alarm::Hold(why()) },
            9 => Fact::AlarmRaised { monitor, alarm: Alarm::Unwind(why()) },
            10 | 11 => Fact::AlarmCleared { monitor },
            12 => Fact::Observed { source: Source::from("s"), n: u64::from(dice), event: "e".into() },
            13 => Fact::ApprovalAsked { step, name: "n".into(), why: "w".into() },
            14 => Fact::UndoStarted { step },
            15 => Fact::UndoDone { step },
            16 => Fact::PivotArmed { attempt },
            17 => Fact::PointOfNoReturn { witness: "w".into() },
            18 => Fact::PivotDisarmed { witness: "w".into() },
            19 => Fact::StepDone { step, output: Value::Null },
            20 => Fact::StepStarted { step, attempt: attempt + 1 },
            21 => Fact::StepFailed { step, attempt, failure },
            22 => Fact::Stuck { step, failure },
            23 => Fact::RestartBegun { from: StepId("b"), round: self.state.round() + 1, why: why() },
            24 => Fact::EffectPlanned { step, attempt, key: "k".into(), before: Value::Null },
            25 => Fact::EffectDone { step, attempt, key: "k".into(), output: Value::Null },
            26 => Fact::StepSkipped { step, reason: "r".into() },
            27 => Fact::Finished { outcome: Outcome::Unwound },
            28 => Fact::Finished { outcome: Outcome::Succeeded },
            _ => Fact::Warned { step: Some(step), code: TEST, detail: "d".into() },
        };
        self.append(fact);
    }

    /// Does the engine's move as a driver would, the world answering by the dice. `false` when the run has ended.
    fn go_on(&mut self, dice: u32) -> bool {
        let failure = Failure::new(CLASSES[dice as usize / 16 % 4], TEST, "failed");
        let fails = dice % 16 < 3;
        match decide(&self.shape, &self.state, self.now) {
            Move::Finish(outcome) => {
                if self.state.outcome().is_none() {
                    self.must(Fact::Finished { outcome });
                }
                return false;
            }
            Move::Check(step) => {
                let attempt = self.state.step(step).unwrap().attempt;
                match fails {
                    true => self.must(Fact::StepFailed { step, attempt, failure }),
                    false => self.must(Fact::StepStarted { step, attempt: attempt + 1 }),
                }
            }
            Move::Run(step) => self.run(step, fails, failure, dice),
            Move::Look => {
                let witness = String::from("seen");
                match fails {
                    true => {
                        let attempt = self.state.step(StepId("p")).unwrap().attempt;
                        self.must(Fact::StepFailed { step: StepId("p"), attempt, failure });
                    }
                    false if (dice / 16).is_multiple_of(2) => self.must(Fact::PointOfNoReturn { witness }),
                    false => self.must(Fact::PivotDisarmed { witness }),
                }
            }
            Move::Undo(step) => {
                if self.state.step(step).unwrap().status != Status::Undoing {
                    self.must(Fact::UndoStarted { step });
                }
                match fails {
                    true => self.must(Fact::Stuck { step, failure }),
                    false => self.must(Fact::UndoDone { step }),
                }
            }
            Move::Restart { from, why } => {
                let round = self.state.round() + 1;
                self.must(Fact::RestartBegun { from, round, why });
            }
            Move::Wait { until, .. } => {
                assert!(until > self.now, "a wait lies ahead");
                self.now = until;
            }
            Move::AskOperator(_) => {
                for request in [Request::Approve { name: None }, Request::Resume] {
                    let ask = AskId(format!("answer {}", self.facts.len()));
                    self.must(Fact::Asked { by: Operator::from("ann"), ask, request });
                }
            }
        }
        true
    }

    fn run(&mut self, step: StepId, fails: bool, failure: Failure, dice: u32) {
        let attempt = self.state.step(step).unwrap().attempt;
        let pivot = step == StepId("p") && !self.state.committed();
        if fails {
            self.must(Fact::StepFailed { step, attempt, failure });
        } else if pivot {
            // Refused while an alarm holds: the step fails then.
            if !self.append(Fact::PivotArmed { attempt }) {
                let failure = Failure::transient(TEST, "an alarm holds");
                self.must(Fact::StepFailed { step, attempt, failure });
            }
        } else {
            let key = format!("key {}", self.facts.len());
            self.must(Fact::EffectPlanned { step, attempt, key: key.clone(), before: dice.into() });
            self.must(Fact::EffectDone { step, attempt, key, output: Value::Null });
            self.must(Fact::StepDone { step, output: Value::Null });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(600), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_is_legal_and_ends_intact_or_complete(
        restarts_max in 0u32..3,
        dice in prop::collection::vec((any::<u32>(), prop::bool::weighted(0.15)), 0..120),
        calm in prop::collection::vec(3u32..16, 200),
    ) {
        let mut play = Play::new(restarts_max);
        let mut ended = false;
        for (dice, strange) in dice {
            if strange {
                play.anything(dice);
            }
            ended = ended || !play.go_on(dice);
        }
        // From here on the world is kind; then every run comes to its end.
        play.append(Fact::AlarmCleared { monitor: MonitorId("m") });
        for dice in calm {
            ended = ended || !play.go_on(dice);
        }
        prop_assert!(ended, "it does not end: {:?} {}", play.state.mode(), play.told());
        let touched = play.state.steps().iter().any(|step| step.touched);
        match play.state.outcome() {
            Some(Outcome::Succeeded) => prop_assert!(play.state.committed() && play.state.steps().iter().all(|s| s.passed())),
            Some(Outcome::Unwound | Outcome::Refused) => prop_assert!(!touched && play.state.reversible()),
            Some(Outcome::Stopped) => {
                let abort = |entry: &Entry<Toy>| matches!(entry.fact, Fact::Asked { request: Request::Abort, .. });
                prop_assert!(play.facts.iter().any(abort), "nobody gave up");
            }
            None => prop_assert!(false, "no outcome"),
        }
        // Nothing unwinds after the point of no return, nor while armed.
        let mut bound = false;
        for entry in &play.facts {
            match entry.fact {
                Fact::PivotArmed { .. } | Fact::PointOfNoReturn { .. } => bound = true,
                Fact::PivotDisarmed { .. } => bound = false,
                Fact::UndoStarted { .. } | Fact::UndoDone { .. } | Fact::RestartBegun { .. } => prop_assert!(!bound),
                _ => {}
            }
        }
        // Stored and read again, it folds to the same.
        let mut again = State::<Toy>::empty();
        for entry in &play.facts {
            let (seq, epoch, at, fact) = (entry.seq, entry.epoch, entry.at, entry.fact.encode().unwrap());
            again = again.apply(&Entry::decode(&Record { seq, epoch, at, fact }).unwrap()).unwrap();
        }
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", play.state));
    }

    #[test]
    fn the_fold_never_panics_and_refuses_what_cannot_follow(dice in prop::collection::vec(any::<u32>(), 0..200)) {
        let mut play = Play::new(1);
        for dice in dice {
            play.anything(dice);
            decide(&play.shape, &play.state, play.now);
        }
        prop_assert_eq!(play.state.next_seq().0 as usize, play.facts.len());
    }
}
