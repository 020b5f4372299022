//! How long it takes until another coordinator goes on: from the end of the former one's leases to its successor's first fact,
//! both on the store's clock. `MEASURE=1 cargo nextest run --workspace take_over --no-capture` is for a quiet machine: the default lease,
//! 32 take-overs, every way in turn.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::stage::cable::Passing;
use tests::stage::takeover::TakeOver;
use tests::stage::{CLUSTER, Setting, Stage, play};

/// What may come on top of the lease.
const PROMISED: Duration = Duration::from_secs(2);
/// The same on a machine that does other things too.
const BUSY: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(60);

/// What happens to the one that drives.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Killed,
    Stopped,
    /// The store is out of its reach, and nobody tells it.
    Silence,
    /// Its connections to the store are reset.
    Reset,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_comes_with_the_end_of_the_lease_and_not_two_seconds_later() {
    use Blow::{Killed, Reset, Silence, Stopped};
    let measured = std::env::var_os("MEASURE").is_some();
    let (lease, rounds, allowed) = if measured { (10, 32, PROMISED) } else { (6, 2, BUSY) };
    play(Setting { shared: true, agents: 1, lease: (lease, 8, 2), ..Setting::default() }, async |stage| {
        stage.until_somebody_leads().await?;
        stage.note_take_overs().await?;
        let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
        stage.pilot(&["pause", &upgrade.id]).await?.expect(0, &[])?;
        stage.until_either_logged("tester asks: pause", LIMIT).await?;
        let mut all = Vec::new();
        for blow in [Reset, Killed, Stopped, Silence].into_iter().cycle().take(rounds) {
            let took = struck(stage, &upgrade.id, blow).await.with_context(|| format!("{blow:?}"))?;
            println!("{blow:?}: {took:?}");
            ensure!(took.after_lease < allowed, "{blow:?}: {took:?}");
            ensure!(took.whole < Duration::from_secs(lease) + allowed, "{blow:?}: {took:?}");
            all.push(took);
        }
        told(&mut all);
        stage.pilot(&["abort", &upgrade.id, "--confirm", CLUSTER]).await?.expect(0, &[])?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(1, &["unwound"])
    })
    .await;
}

/// It happens, somebody wishes something of the other one, and that one does it.
async fn struck(stage: &mut Stage, id: &str, blow: Blow) -> anyhow::Result<TakeOver> {
    let driver = stage.until_somebody_leads().await?;
    let before = stage.before_take_over().await?;
    let cable = |stage: &Stage, passing| stage.cable(driver).map(|cable| cable.passes(passing));
    match blow {
        Blow::Killed => stage.one_of_two(driver)?.kill(),
        Blow::Stopped => stage.one_of_two(driver)?.signal("STOP")?,
        Blow::Silence => cable(stage, Passing::Silence)?,
        Blow::Reset => cable(stage, Passing::Reset)?,
    }
    // The successor's first fact is what somebody asked meanwhile.
    stage.told_only(1 - driver).run(&["pause", id], &stage.tempo).await?.expect(0, &[])?;
    let took = stage.taken_over(before).await?;
    match blow {
        Blow::Killed => stage.one_of_two(driver)?.again()?,
        Blow::Stopped => stage.one_of_two(driver)?.signal("CONT")?,
        Blow::Silence | Blow::Reset => cable(stage, Passing::All)?,
    }
    stage.until_stands_by(driver).await?;
    Ok(took)
}

fn told(all: &mut [TakeOver]) {
    let mut part = |name: &str, of: fn(&TakeOver) -> Duration| {
        all.sort_by_key(of);
        let at = |part: usize| all.get(part).map(of).unwrap_or_default().as_millis();
        println!("{name}: median {} ms, longest {} ms of {}", at(all.len() / 2), at(all.len() - 1), all.len());
    };
    part("from what happened to the successor's first fact", |took| took.whole);
    part("of it after the lease", |took| took.after_lease);
}
