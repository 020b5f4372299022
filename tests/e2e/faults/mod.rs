//! What users met on AWS, played one folder of `tests/scenarios` after the other: what the program does, and what it says.

pub(super) mod case;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lab::demo::pilot::HELD;
use lab::{Fault, Moment};
use tests::stage::facts::Facts;
use tests::stage::pilot::{Said, Upgrade};
use tests::stage::world::World;
use tests::stage::{Setting, Stage, depth, play};

use self::case::{Case, Outcome};
use super::unwind::unwound;

const LIMIT: Duration = Duration::from_secs(240);

/// Each test plays one of these, and every folder names one.
const STAGES: [&str; 4] = ["unwinds", "goes-through", "alone", FOLLOWS];
/// Played by `follow.rs`, on a stage with a pooler and several agents.
pub(super) const FOLLOWS: &str = "follows";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_go_on_is_unwound_and_says_why() {
    play(Setting { agents: 1, ..Setting::default() }, async |stage| {
        let before = stage.world().await?;
        for cases in case::runs("unwinds", depth::is_full())? {
            let names = names(&cases);
            run(stage, &cases, 16, &before).await.with_context(|| names)?;
        }
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_waited_for_or_tried_again_and_the_upgrade_goes_through() {
    play(Setting { agents: 1, ..Setting::default() }, async |stage| {
        let before = stage.world().await?;
        for (cases, to) in case::runs("goes-through", depth::is_full())?.into_iter().zip(15..) {
            let names = names(&cases);
            run(stage, &cases, to, &before).await.with_context(|| names)?;
        }
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_cluster_of_its_own_is_played_alone() {
    for cases in case::runs("alone", depth::is_full()).expect("every folder can be read") {
        let scenario = cases.first().map(|case| case.scenario.clone()).unwrap_or_default();
        let setting = Setting { agents: 1, readers: scenario.readers, timings: scenario.timings, ..Setting::default() };
        play(setting, async |stage| {
            let before = stage.world().await?;
            run(stage, &cases, 16, &before).await.with_context(|| names(&cases))?;
            stage.nothing_lost().await.map(drop)
        })
        .await;
    }
}

#[test]
fn every_scenario_folder_can_be_read_is_told_of_and_is_played() {
    let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/README.md")).expect("a table");
    let all = case::all().expect("every folder can be read");
    assert!(!all.is_empty());
    for Case { name, scenario, expect } in &all {
        assert!(STAGES.contains(&expect.stage.as_str()), "{name}: no test plays stage {}", expect.stage);
        let plain = scenario.readers == 0 && scenario.timings == lab::Timings::zero();
        let shared = plain && scenario.resolver_delays.is_empty();
        let alone = ["alone", FOLLOWS].contains(&expect.stage.as_str());
        assert!(shared || alone, "{name} needs a cluster of its own: stage = \"alone\"");
        assert!(scenario.resolver_delays.is_empty() || expect.stage == FOLLOWS, "{name}: nobody plays its resolvers");
        assert!(!scenario.about.is_empty(), "{name} does not say what it is about");
        assert!(table.contains(&format!("| `{name}` |")), "tests/scenarios/README.md has no row for {name}");
    }
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()) {
        assert!(
            all.iter().any(|case| case.name == row),
            "tests/scenarios/README.md tells of {row}, which is not there"
        );
    }
}

fn names(cases: &[Case]) -> String {
    cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// One upgrade with everything of these cases, and what must come of each.
async fn run(stage: &mut Stage, cases: &[Case], to: u32, before: &World) -> anyhow::Result<()> {
    let mut spec = stage.spec(to);
    let asked_before: Vec<usize> = wanted(cases).map(|(_, action, _)| sent(stage, action)).collect();
    for case in cases {
        spec = case::merged(spec, &case.expect.spec);
        stage.lab.faults().plan_all(case.scenario.faults.clone());
    }
    let mut upgrade = stage.upgrade(&spec).await?;
    let said = driven(stage, &mut upgrade).await;
    let left = stage.lab.faults().outstanding();
    stage.lab.faults().clear();
    let said = said?;
    let facts = stage.history(&upgrade.id).await?;
    let never: Vec<_> = left.into_iter().filter(|planned| !stands(&planned.fault)).collect();
    ensure!(never.is_empty(), "these never happened: {never:?}\n{}", facts.story());
    let outcome = cases.first().context("a run without a case")?.expect.outcome;
    match outcome {
        Outcome::Unwound => {
            said.expect(1, &["unwound"])?;
            unwound(stage, &upgrade.id, before, &[]).await?;
        }
        Outcome::Succeeded => {
            said.expect(0, &["succeeded"])?;
            succeeded(stage, &facts, to).await?;
        }
    }
    let status = stage.status(&upgrade.id).await?;
    let told = format!("{}\n{}", facts.story(), status["reason"].as_str().unwrap_or_default());
    for case in cases {
        for words in &case.expect.says {
            ensure!(told.contains(words), "{}: {words:?} is not said\n{told}", case.name);
        }
    }
    for ((case, action, times), before) in wanted(cases).zip(asked_before) {
        let asked = sent(stage, action) - before;
        ensure!(asked == times, "{case}: AWS was asked for {action} {asked} times, not {times}\n{told}");
    }
    Ok(())
}

fn wanted(cases: &[Case]) -> impl Iterator<Item = (&str, &str, usize)> {
    cases
        .iter()
        .flat_map(|case| case.expect.asked.iter().map(|(action, times)| (case.name.as_str(), action.as_str(), *times)))
}

/// How often AWS was asked for `action`, whatever the answer.
fn sent(stage: &Stage, action: &str) -> usize {
    stage.lab.requests().iter().filter(|call| call.action == action).count()
}

/// A fault that lasts as long as it is planned.
fn stands(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::ApplyStalls
            | Fault::ApplySlow { .. }
            | Fault::ReportedLag { .. }
            | Fault::StatusLate { .. }
            | Fault::StatusAbsent
            | Fault::StatusStuck { .. }
            | Fault::PendingMaintenance { .. }
            | Fault::Looks { .. }
    )
}

/// Waits for the end and tells the lab each time that clients are held, which it cannot see.
async fn driven(stage: &Stage, upgrade: &mut Upgrade) -> anyhow::Result<Said> {
    let holds = || stage.agents.iter().map(|agent| agent.log().matches(HELD).count()).sum::<usize>();
    let telling = async {
        let mut told = holds();
        loop {
            let now = holds();
            if now > told {
                stage.lab.faults().reached(Moment::Hold);
            }
            told = now;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        said = upgrade.ended(LIMIT, &stage.tempo) => said,
        () = telling => bail!("the telling ended"),
    }
}

/// Production is of the new version, with one way there.
async fn succeeded(stage: &Stage, facts: &Facts, to: u32) -> anyhow::Result<()> {
    ensure!(facts.count("point_of_no_return") == 1, "{}", facts.story());
    let version = stage.sql("postgres", "show server_version_num").await?.unwrap_or_default();
    ensure!(version.starts_with(&to.to_string()), "production runs {version}");
    stage.ingestion_runs().await
}
