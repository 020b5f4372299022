//! What a healthy pair of databases answers to every kind of job, late, or not at all where the agent does not reach it.

use std::sync::Arc;

use agent::jobs::{JobCx, Registry, failure};
use coordinator::{
    rds::InstanceId,
    world::healthy::{self, Healthy},
};
use proto::{
    job::{JobFailure, JobFailureClass, JobKind},
    jobs::*,
    side::Side,
};

use super::world::World;

struct Answers {
    all: Registry,
    world: Arc<World>,
    agent: usize,
}

impl Answers {
    /// A kind of job, needing these sides.
    fn add<J: JobKind + Sync + 'static>(
        &mut self,
        answer: impl Fn(&World, &J, &JobCx) -> Result<J::Output, JobFailure> + Clone + Send + Sync + 'static,
    ) where
        J::Output: Send,
    {
        let (world, agent) = (self.world.clone(), self.agent);
        self.all.add::<J, _, _>(move |cx, body| {
            let (world, answer) = (world.clone(), answer.clone());
            async move {
                let slow = if world.dice.percent(5) { 50..2500 } else { 2..60 };
                cx.pause(world.dice.millis(slow), "working").await?;
                let sides = [Some(cx.on.side), cx.on.green.as_ref().map(|_| Side::Green)];
                if let Some(side) = sides.into_iter().flatten().find(|side| !world.reaches(agent, *side)) {
                    return Err(trouble(&format!("{side:?} does not answer")));
                }
                answer(&world, &body, &cx)
            }
        });
    }

    /// A kind of job that answers as where all is well.
    fn add_healthy<J: Healthy + Sync + 'static>(&mut self)
    where
        J::Output: Send,
    {
        self.add(|_, _: &J, _| Ok(J::healthy()));
    }
}

fn trouble(why: &str) -> JobFailure {
    failure(JobFailureClass::Transient, "PU0703", "doing a simulated job", [why])
}

/// Every kind that the plan asks for.
pub(super) fn registry(world: Arc<World>, agent: usize) -> Registry {
    let mut all = Answers { all: Registry::default(), world, agent };
    all.add(|world, _: &Inspect, cx| inspection(world, cx));
    all.add(|world, _: &InstallSchema, _| {
        world.databases().schema = true;
        Ok(InstallSchema::healthy())
    });
    all.add(|world, _: &RemoveSchema, _| {
        world.databases().schema = false;
        Ok(RemoveSchema::healthy())
    });
    all.add(|_, body: &SetReplicaIdentity, _| Ok(body.full.clone()));
    all.add(|world, _: &Quiesce, _| {
        world.databases().quiet = true;
        Ok(Quiesce::healthy())
    });
    all.add(|world, _: &Unquiesce, _| {
        world.databases().quiet = false;
        Ok(Unquiesce::healthy())
    });
    all.add(|world, _: &Vacuum, _| {
        world.databases().vacuumed = true;
        Ok(Vacuum::healthy())
    });
    all.add(|world, _: &Resubmit, cx| {
        if cx.on.side == Side::Green && !world.takes_writes(Side::Green) {
            return Err(trouble("green takes no writes"));
        }
        world.databases().resubmitted += 1;
        Ok(Resubmit::healthy())
    });
    all.add(|world, _: &Identify, cx| {
        let green = cx.on.green.as_ref().and_then(|green| world.said(green, false));
        match green.filter(|_| world.switched()) {
            Some(said) => Ok(Identified { said, version: "16.4".into(), subscriptions_left: 0 }),
            None => Err(trouble("production is blue")),
        }
    });
    readings(&mut all);
    all.all
}

fn readings(all: &mut Answers) {
    all.add_healthy::<CheckStatistics>();
    all.add_healthy::<CompareSchema>();
    all.add_healthy::<Compare>();
    all.add_healthy::<Marker>();
    all.add_healthy::<EndSessions>();
    all.add_healthy::<CheckSequences>();
    all.add_healthy::<UpdateExtensions>();
    all.add_healthy::<TestExtensions>();
    all.add_healthy::<LedgerStatus>();
    all.add(|world, _: &FindLeftovers, _| {
        let left = world.aws.cut(&world.blue).is_some();
        Ok(if left { vec![healthy::leftover()] } else { Vec::new() })
    });
}

fn inspection(world: &World, cx: &JobCx) -> Result<Inspection, JobFailure> {
    let said = world.said(&cx.on.blue, false).ok_or_else(|| trouble("blue has no writer"))?;
    let writer = InstanceId::from("orders-1");
    Ok(healthy::inspection(said, |name| world.aws.booted_with(&writer, name)))
}
