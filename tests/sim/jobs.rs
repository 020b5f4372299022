//! What a healthy pair of databases answers to every kind of job, late, or not at all where the agent does not reach it.

use std::sync::Arc;

use agent::jobs::{JobCx, Registry, failure};
use coordinator::rds::InstanceId;
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
}

fn trouble(why: &str) -> JobFailure {
    failure(JobFailureClass::Transient, "PU0703", "doing a simulated job", [why])
}

/// Every kind that the plan asks for.
pub(super) fn registry(world: Arc<World>, agent: usize) -> Registry {
    let mut all = Answers { all: Registry::default(), world, agent };
    let both = || vec!["orders".to_owned(), "billing".to_owned()];
    all.add(|world, _: &Inspect, cx| inspection(world, cx));
    all.add(move |world, _: &InstallSchema, _| {
        world.databases().schema = true;
        Ok(SchemaInstalled { databases: both() })
    });
    all.add(move |world, _: &RemoveSchema, _| {
        world.databases().schema = false;
        Ok(SchemaRemoved { databases: both(), kept: Vec::new() })
    });
    all.add(|_, body: &SetReplicaIdentity, _| Ok(body.full.clone()));
    all.add(|world, _: &Quiesce, _| {
        world.databases().quiet = true;
        Ok(Quiesced { cron_jobs: 2, partition_sets: 1, partitions_made: 3, covered_until: None })
    });
    all.add(|world, _: &Unquiesce, _| {
        world.databases().quiet = false;
        Ok(Unquiesced { cron_jobs: 2, partition_sets: 1, rows_in_default: Vec::new() })
    });
    all.add(|world, _: &Vacuum, _| {
        world.databases().vacuumed = true;
        Ok(Vacuumed { tables: 4, full: 0, reindexed: 0, slowest: Vec::new() })
    });
    all.add(|world, _: &Resubmit, cx| {
        if cx.on.side == Side::Green && !world.takes_writes(Side::Green) {
            return Err(trouble("green takes no writes"));
        }
        world.databases().resubmitted += 1;
        Ok(Resubmitted { verdicts: Vec::new() })
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
    all.add(|_, _: &CheckStatistics, _| {
        Ok(StatisticsChecked { tables: 4, without: Vec::new(), extended_without: Vec::new() })
    });
    all.add(|_, _: &CompareSchema, _| {
        let (extensions, settings) = (Vec::new(), Vec::new());
        Ok(SchemaDifferences { objects: 9, differences: Vec::new(), extensions, settings })
    });
    all.add(|_, _: &Compare, _| {
        Ok(Compared { tables: Vec::new(), queries: Vec::new(), unproven: Vec::new(), rounds: 1 })
    });
    all.add(|_, _: &Marker, _| Ok(MarkerSeen { databases: vec![("orders".into(), 12), ("billing".into(), 14)] }));
    all.add(|_, _: &EndSessions, _| Ok(SessionsEnded { ended: Vec::new(), remaining: Vec::new() }));
    all.add(|_, _: &CheckSequences, _| Ok(SequencesChecked { sequences: 3, raised: Vec::new() }));
    all.add(|_, _: &UpdateExtensions, _| Ok(Vec::new()));
    all.add(|_, _: &TestExtensions, _| Ok(Vec::new()));
    all.add(|_, _: &LedgerStatus, _| Ok(LedgerState { open_verdicts: 0, rows: 0 }));
    all.add(|world, _: &FindLeftovers, _| {
        let left = world.aws.cut(&world.blue).is_some();
        let slot = Leftover { kind: "slot".into(), name: "rds_1".into(), database: None, retained_bytes: Some(7) };
        Ok(if left { vec![slot] } else { Vec::new() })
    });
}

fn inspection(world: &World, cx: &JobCx) -> Result<Inspection, JobFailure> {
    let said = world.said(&cx.on.blue, false).ok_or_else(|| trouble("blue has no writer"))?;
    let writer = InstanceId::from("orders-1");
    let booted = |name: &str| world.aws.booted_with(&writer, name);
    let logical = booted("rds.logical_replication").as_deref() == Some("1");
    let number = |name: &str, default: &str| (name.to_owned(), booted(name).unwrap_or_else(|| default.to_owned()));
    let settings = [
        ("wal_level".to_owned(), if logical { "logical" } else { "replica" }.to_owned()),
        number("max_replication_slots", "10"),
        number("max_wal_senders", "10"),
        number("max_logical_replication_workers", "4"),
        number("max_worker_processes", "8"),
    ];
    let database = |name: &str| Database { name: name.into(), bytes: 1, tables: 2, extensions: Vec::new() };
    Ok(Inspection {
        said,
        version: "14.12".into(),
        databases: vec![database("orders"), database("billing")],
        settings: settings.into(),
        tables_without_identity: Vec::new(),
        unlogged_tables: Vec::new(),
        large_objects: Vec::new(),
        foreign_slots: Vec::new(),
        foreign_publications: Vec::new(),
        foreign_subscriptions: Vec::new(),
        prepared_transactions: Vec::new(),
        read_only_overrides: Vec::new(),
        materialized_views: Vec::new(),
        view_refreshers: Vec::new(),
        replica_triggers: Vec::new(),
        event_triggers: Vec::new(),
        sequences: 3,
        missing_rights: Vec::new(),
        missing_queries: Vec::new(),
        old_transactions: Vec::new(),
        leftover_schemas: Vec::new(),
        foreign_servers: Vec::new(),
    })
}
