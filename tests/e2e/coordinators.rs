//! Two coordinators on one store. The one that drives is ended, stopped in its tracks, cut off and killed, in turn, during one
//! upgrade; the other goes on within the lease, and whoever comes back is fenced.

use std::time::Duration;

use anyhow::ensure;
use lab::Fault;
use tests::stage::{Setting, Stage, play};

use super::upgrade::succeeded;

const STEP: Duration = Duration::from_secs(90);
/// The driver's lease.
const LEASE: Duration = Duration::from_secs(6);
/// What a take-over may take beyond the lease is 2 s; a busy machine gets more before the test fails.
const BUSY: Duration = Duration::from_secs(8);
const SWITCHOVER: &str = "SwitchoverBlueGreenDeployment";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_coordinator_that_drives_the_other_goes_on_and_the_first_is_fenced() {
    let lease = (LEASE.as_secs(), 8, 2);
    play(Setting { shared: true, lease, ..Setting::default() }, async |stage| {
        stage.lab.faults().plan(Fault::SwitchoverStalls { millis: 4000 }, 1);
        let first = stage.until_somebody_leads().await?;
        let mut upgrade = stage.upgrade(&stage.spec(16)).await?;
        stage.until_either_logged("prerequisites: about to do snapshot", STEP).await?;
        replaced(stage, first).await?;
        stage.until_either_logged("provisioning: about to do create", STEP).await?;
        stopped_in_its_tracks(stage, 1 - first).await?;
        stage.until_either_logged("post_provisioning started", STEP).await?;
        cut_off(stage).await?;
        stage.until_either_logged("replicating_data started", STEP).await?;
        let driver = stage.until_somebody_leads().await?;
        killed(stage, driver, "in replicating").await?;
        stage.until_either_logged("switchover armed", STEP).await?;
        let asked = async || match stage.asked_of_aws(SWITCHOVER) {
            0 => Err("not asked yet".to_owned()),
            _ => Ok(()),
        };
        stage.tempo.until("the call", Duration::from_millis(5), STEP, asked).await?;
        killed(stage, 1 - driver, "while armed").await?;
        upgrade.ended(STEP, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&upgrade.id).await?;
        let epochs: Vec<u64> = facts.0.iter().filter_map(|fact| fact["epoch"].as_u64()).collect();
        ensure!(epochs.is_sorted(), "a deposed coordinator appended\n{}", facts.story());
        let armed = facts.epoch("pivot_armed", None);
        ensure!(armed < facts.epoch("point_of_no_return", None), "no kill was while armed\n{}", facts.story());
        succeeded(stage, &upgrade.id, 16).await
    })
    .await;
}

/// As a rolling restart does: it is asked to end, gives the lead away, and comes back.
async fn replaced(stage: &mut Stage, driver: usize) -> anyhow::Result<()> {
    stage.one_of_two(driver)?.signal("TERM")?;
    let took = stage.until_leads(1 - driver).await?;
    println!("take-over from a coordinator that is ended: {} ms", took.as_millis());
    ensure!(took < LEASE + BUSY, "{took:?}");
    restarted(stage, driver).await
}

/// It stands still past its lease, and goes on as if nothing had been.
async fn stopped_in_its_tracks(stage: &mut Stage, driver: usize) -> anyhow::Result<()> {
    stage.one_of_two(driver)?.signal("STOP")?;
    let took = stage.until_leads(1 - driver).await?;
    println!("take-over from a coordinator that is stopped: {} ms", took.as_millis());
    ensure!(took < LEASE + BUSY, "{took:?}");
    stage.one_of_two(driver)?.signal("CONT")?;
    stage.until_stands_by(driver).await
}

/// The store is gone for longer than a lease: nothing is changed, and blue serves.
async fn cut_off(stage: &mut Stage) -> anyhow::Result<()> {
    let driver = stage.until_somebody_leads().await?;
    stage.store()?.crash().await?;
    let (changes, writes) = (stage.changes_at_aws().len(), stage.acknowledged("direct-writes"));
    stage.until_stands_by(driver).await?;
    let (changed, written) = (stage.changes_at_aws().len(), stage.acknowledged("direct-writes"));
    ensure!(changes == changed, "AWS was asked for {} changes without a store", changed - changes);
    ensure!(written > writes, "blue did not serve while the store was gone");
    stage.store()?.again().await?;
    stage.until_somebody_leads().await.map(drop)
}

async fn killed(stage: &mut Stage, driver: usize, when: &str) -> anyhow::Result<()> {
    stage.one_of_two(driver)?.kill();
    let took = stage.until_leads(1 - driver).await?;
    println!("take-over from a coordinator that is killed {when}: {} ms", took.as_millis());
    ensure!(took < LEASE + BUSY, "{took:?}");
    restarted(stage, driver).await
}

async fn restarted(stage: &mut Stage, number: usize) -> anyhow::Result<()> {
    let process = stage.one_of_two(number)?;
    // One that was asked to end has given everything away; it may be draining yet.
    process.kill();
    process.again()?;
    stage.until_stands_by(number).await
}
