//! Follows an upgrade and kills where the trap has caught an append, on the side of the fact that has not been killed at yet.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::stage::Stage;
use tests::stage::pilot::{Said, Upgrade};
use tests::stage::trap::{Standing, Trap};

use super::report::{Path, Shared, Side, Victim, shared};
use super::window::Case;

/// Between two looks into the trap.
const EVERY: Duration = Duration::from_millis(5);

/// Who kills.
pub(super) struct Hunter {
    told: Shared,
    path: Path,
    victims: Vec<Victim>,
    spacing: i64,
    skipped: i64,
    kills: usize,
    case: Option<Case>,
}

impl Hunter {
    /// Kills these victims in turn, with `spacing` facts in between.
    pub(super) fn new(told: Shared, path: Path, victims: &[Victim], spacing: i64) -> Hunter {
        Hunter { told, path, victims: victims.to_vec(), spacing, skipped: 0, kills: 0, case: None }
    }

    /// Lets as many facts pass first.
    pub(super) fn skipping(self, skipped: i64) -> Hunter {
        Hunter { skipped, ..self }
    }

    /// Kills once between arming and outcome too.
    pub(super) fn with_case(self, case: Case) -> Hunter {
        Hunter { case: Some(case), ..self }
    }

    fn victim(&self) -> Victim {
        self.victims[self.kills % self.victims.len()]
    }

    /// What is told of this path and its first victim: the points that came, and how it ended.
    pub(super) fn came(&self, points: &[String]) {
        shared(&self.told).came(self.path, self.victims[0], points);
    }

    pub(super) fn ended(&self, unwound: bool) {
        shared(&self.told).ended(self.path, self.victims[0], unwound);
    }

    /// Arms the trap for what is left.
    pub(super) async fn arm(&self, trap: &Trap) -> anyhow::Result<()> {
        let spared = shared(&self.told).spared(self.path, self.victim());
        trap.arm("", self.skipped, &spared).await
    }

    /// Kills until the upgrade has ended.
    pub(super) async fn follow(
        &mut self,
        stage: &mut Stage,
        trap: &Trap,
        upgrade: &mut Upgrade,
        limit: Duration,
    ) -> anyhow::Result<Said> {
        let deadline = stage.tempo.at() + limit;
        while !upgrade.has_ended() {
            if let Some(standing) = trap.standing().await? {
                self.kill(stage, trap, &standing).await.with_context(|| format!("at {}", standing.point))?;
            }
            if let Some(case) = self.case.take_if(|case| case.is_due(stage)) {
                println!("{:7} ms: {case}", stage.tempo.at().as_millis());
                struck_now(stage, case.victim, self.kills).await?;
                shared(&self.told).killed(Path::Window, case.victim, &case.to_string(), Side::After);
            }
            ensure!(stage.tempo.at() < deadline, "{} has not ended within {limit:?}", upgrade.id);
            stage.tempo.sleep(EVERY).await;
        }
        upgrade.ended(limit, &stage.tempo).await
    }

    async fn kill(&mut self, stage: &mut Stage, trap: &Trap, standing: &Standing) -> anyhow::Result<()> {
        let (victim, point) = (self.victim(), &standing.point);
        let sampling = self.victims.len() > 1;
        let before = if sampling {
            self.kills.is_multiple_of(2)
        } else {
            !shared(&self.told).has(self.path, victim, point, Side::Before)
        };
        let side = if before { Side::Before } else { Side::After };
        println!("{:7} ms: {victim:?} {side:?} {point}", stage.tempo.at().as_millis());
        struck(stage, trap, standing, victim, side, self.kills).await?;
        shared(&self.told).killed(self.path, victim, point, side);
        self.kills += 1;
        // What was lost comes again, and is killed after.
        self.skipped = if before && !sampling { 0 } else { self.spacing };
        self.arm(trap).await
    }
}

/// One kill at an append that stands. Agents are killed in turn.
pub(super) async fn struck(
    stage: &mut Stage,
    trap: &Trap,
    standing: &Standing,
    victim: Victim,
    side: Side,
    turn: usize,
) -> anyhow::Result<()> {
    let agent = turn % stage.agents.len();
    if victim == Victim::Agent && side == Side::After {
        trap.let_go().await?;
    }
    if victim != Victim::Coordinator {
        stage.agents[agent].kill();
    }
    if victim == Victim::Agent {
        if side == Side::Before {
            trap.let_go().await?;
        }
        return stage.agents[agent].again();
    }
    stage.coordinator.kill();
    match side {
        Side::Before => trap.lose(standing, &stage.tempo).await?,
        Side::After => trap.let_go().await?,
    }
    trap.leases_run_out().await?;
    if victim == Victim::Both {
        stage.agents[agent].again()?;
    }
    stage.crash_coordinator().await
}

/// A kill wherever the victim is now. The leases of the dead run out as they do.
pub(super) async fn struck_now(stage: &mut Stage, victim: Victim, turn: usize) -> anyhow::Result<()> {
    let agent = turn % stage.agents.len();
    if victim != Victim::Coordinator {
        stage.agents[agent].kill();
    }
    if victim != Victim::Agent {
        stage.coordinator.kill();
    }
    if victim != Victim::Coordinator {
        stage.agents[agent].again()?;
    }
    if victim == Victim::Agent { Ok(()) } else { stage.crash_coordinator().await }
}
