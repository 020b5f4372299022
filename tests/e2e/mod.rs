//! Whole upgrades with the real binaries, on real servers. One at a time: each fills the machine.

mod abort;
mod certificates;
mod cli;
mod coordinators;
mod crash;
mod cut;
mod dashboard;
mod dumps;
mod extensions;
mod failover;
mod faults;
mod follow;
mod iam;
mod identity;
mod killed;
mod kills;
mod long_pause;
mod lost_coordinator;
mod lost_side;
mod old_copy;
mod page;
mod pairs;
mod real_life;
mod refuse;
mod report;
mod store_away;
mod stuck;
mod take_over;
mod unwind;
mod upgrade;

/// The ports of the coordinator over the real SDK; here so that they take their turn with the other users of the lab.
#[path = "../ports/mod.rs"]
mod ports;
