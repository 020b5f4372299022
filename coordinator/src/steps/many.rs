//! A hundred upgrades driven at once against the models of AWS and of the agents, from the first step to the last, in virtual time:
//! what they cost is this process's own time on a core, what they take is virtual; one by the other is how many cores they need.
//! The models are paid for too. `cargo nextest run --workspace a_hundred_upgrades --no-capture` prints the figures.

use engine::{Outcome, testing};

use super::testing::{Stage, clock, spec};

const UPGRADES: usize = 100;

/// Seconds on a core that this process has used so far.
fn core_seconds() -> f64 {
    /// What Linux counts in: hundredths, on every machine that this runs on.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a Linux machine");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

#[tokio::test(start_paused = true)]
async fn a_hundred_upgrades_at_once_need_less_than_a_core() {
    let clock = clock();
    let (began, used) = (clock.mono(), core_seconds());
    let plays = (0..UPGRADES).map(|_| testing::play(Stage::new(clock.clone()).scene(spec())));
    let played = futures_util::future::join_all(plays).await;
    let (took, cost) = (clock.mono().since(began).as_secs_f64(), core_seconds() - used);
    assert!(played.iter().all(|played| played.outcome == Outcome::Succeeded));
    println!("{UPGRADES} upgrades took {took:.1} s and {cost:.1} s on a core: {:.2} cores", cost / took);
    assert!(cost < took, "{cost:.1} s on a core for {took:.1} s");
}
