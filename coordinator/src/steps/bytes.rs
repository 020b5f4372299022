//! A journal whose facts are not what was written: each is refused by name or folds, and what folds can be shown, decided on and
//! planned with. Never a panic: a coordinator that dies of one journal drives none.

use engine::{Entry, Epoch, Fact, Outcome, Record, RunInfo, Seq, State, decide, testing};
use jiff::Timestamp;
use runtime::tried::Target;

use super::testing::{Stage, clock, spec};
use crate::{
    operator::{standing, tally::Tally, view::FactView},
    rds::fake::Switching,
    store::About,
    world::Upgrade,
};

/// A run up to one of its facts, and that fact.
struct Moment {
    state: State<Upgrade>,
    tally: Tally,
    next: Entry<Upgrade>,
}

fn moments(facts: Vec<Entry<Upgrade>>) -> Vec<Moment> {
    let (mut state, mut tally) = (State::empty(), Tally::default());
    let mut all = Vec::new();
    for next in facts {
        let (before, counted) = (state.clone(), tally.clone());
        tally.apply(&next);
        state = state.apply(&next).expect("a legal journal");
        all.push(Moment { state: before, tally: counted, next });
    }
    all
}

/// A run that succeeds, and one that unwinds.
fn played() -> Vec<Moment> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let well = testing::play(Stage::new(clock()).scene(spec())).await;
        let stage = Stage::new(clock());
        stage.aws.switching(Switching::Reverts { reason: "long running transactions".into() });
        let unwound = testing::play(stage.scene(spec())).await;
        assert_eq!((well.outcome, unwound.outcome), (Outcome::Succeeded, Outcome::Unwound));
        moments(well.facts).into_iter().chain(moments(unwound.facts)).collect()
    })
}

#[test]
fn any_bytes_in_a_journal_are_refused_or_folded() {
    let moments = played();
    let mut target = Target::new(env!("CARGO_MANIFEST_DIR"), "journal").words(&[
        "\"kind\":",
        "\"format\":99",
        "\"step\":",
        "\"cleanup\"",
        "\"point_of_no_return\"",
        "-1e400",
    ]);
    for (n, moment) in moments.iter().enumerate() {
        let fact = moment.next.fact.encode().expect("JSON").to_string();
        target = target.seed([&(n as u16).to_be_bytes()[..], fact.as_bytes()].concat());
    }
    target.run(|bytes| {
        let Some((n, text)) = bytes.split_first_chunk::<2>() else { return "too short".into() };
        let moment = &moments[usize::from(u16::from_be_bytes(*n)) % moments.len()];
        match serde_json::from_slice(text) {
            Ok(fact) => follow(moment, fact),
            Err(_) => "no JSON".into(),
        }
    });
}

/// Everything that is done with a stored fact.
fn follow(moment: &Moment, fact: serde_json::Value) -> String {
    let (seq, at) = (moment.state.next_seq(), moment.next.at);
    let record = Record { seq, epoch: moment.next.epoch, at, fact };
    assert!(!FactView::of(record.clone()).text.is_empty());
    let entry = match Entry::<Upgrade>::decode(&record) {
        Ok(entry) => entry,
        // What the reason quotes of the input would make every answer a new one.
        Err(error) => return error.to_string().chars().take(40).collect(),
    };
    let mut tally = moment.tally.clone();
    tally.apply(&entry);
    let folded = match moment.state.clone().apply(&entry) {
        Ok(folded) => folded,
        Err(refused) => return refused.to_string().chars().take(60).collect(),
    };
    if let Fact::Created { spec, .. } = &entry.fact {
        assert!(!super::plan(spec).shape().steps.is_empty());
    }
    let plan = super::plan(&spec());
    let shape = plan.shape();
    let next = decide(shape, &folded, at);
    let info = RunInfo { id: "run".into(), subject: "subject".into(), created_at: at, outcome: folded.outcome() };
    let view = standing::status(&info, &about(), shape, &folded, &tally, None, Timestamp::MAX);
    assert!(serde_json::to_string(&view).is_ok());
    let next = format!("{next:?}");
    format!("{} {} {}", entry.fact.kind(), view.direction, next.split(['(', ' ']).next().unwrap_or_default())
}

fn about() -> About {
    About::default()
}

/// The numbers of the envelope stand in columns of their own; a place that is not the next one is refused.
#[test]
fn a_fact_in_the_wrong_place_is_refused() {
    let moments = played();
    let last = moments.last().expect("facts");
    for seq in [0, 1, u64::MAX] {
        let misplaced = Entry { seq: Seq(seq), epoch: Epoch(u64::MAX), ..last.next.clone() };
        assert!(last.state.clone().apply(&misplaced).is_err(), "{seq}");
    }
}
