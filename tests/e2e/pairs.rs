//! Any pair of majors from 14 to 18, from the first step to the last. 14 to 16 and 15 to 17 are what most other tests upgrade.

use std::time::Duration;

use tests::stage::{Setting, depth, play};

use super::upgrade::succeeded;

const LIMIT: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_pairs_of_majors_are_upgraded_too() {
    let all = (14..=18).flat_map(|from| (from + 1..=18).map(move |to| (from, to)));
    let others = all.filter(|pair| ![(14, 16), (15, 17)].contains(pair));
    let wanted: Vec<(u32, u32)> = if depth::is_full() { others.collect() } else { vec![(15, 18)] };
    for (from, to) in wanted {
        play(Setting { from, agents: 1, ..Setting::default() }, async |stage| {
            stage.expects(&[]);
            let mut upgrade = stage.upgrade(&stage.spec(to)).await?;
            upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
            succeeded(stage, &upgrade.id, to).await
        })
        .await;
    }
}
