//! Many clusters in one lab, each with a life of its own, several of them upgraded side by side.

use std::path::Path;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use runtime::clock::Clock;

use super::real_tests::{call, client, count, lab, source, status_is, switch};
use crate::Lab;
use crate::settings::{ClusterSettings, Timings};

/// What the measures of the whole are held against: 4 GiB.
const MEMORY: u64 = 4 << 30;

/// How many clusters, and how many of them are upgraded at the same time.
fn depth() -> (usize, usize) {
    let full = std::env::var("TEST_DEPTH").is_ok_and(|depth| depth == "full");
    if full { (20, 5) } else { (5, 2) }
}

/// Memory of every process that was started below a folder, shared pages counted once: the sum of their `Pss`.
fn memory_below(folder: &Path) -> u64 {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = processes.filter(|process| {
        // Only the postmaster has the folder in its command line; its children work in it.
        std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.display().to_string().starts_with(&folder))
    });
    let pss = ours.filter_map(|process| {
        let text = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    pss.sum::<u64>() * 1024
}

fn disk_below(folder: &Path) -> u64 {
    let output = std::process::Command::new("du").args(["-sk", "--"]).arg(folder).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// One whole deployment of a cluster by the API, from creation to the cut.
async fn upgraded(lab: &Lab, cluster: &crate::ClusterHandle) {
    let name = format!("upgrade-{}", cluster.identifier);
    let form = [("BlueGreenDeploymentName", &*name), ("Source", &cluster.arn), ("TargetEngineVersion", "16")];
    let answer = call(lab, "CreateBlueGreenDeployment", &form).await;
    let id = answer["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"].as_str().expect("an identifier").to_owned();
    status_is(lab, &id, "AVAILABLE").await;
    switch(lab, &id).await;
    status_is(lab, &id, "SWITCHOVER_COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_clusters_share_a_lab_and_several_are_upgraded_side_by_side() {
    let (clusters, upgrades) = depth();
    let lab = lab(Timings::zero()).await;
    let mut made = Vec::new();
    // A few at a time: what is measured is how they live together, not how they begin.
    for group in (0..clusters).collect::<Vec<_>>().chunks(4) {
        let group = group.iter().map(|number| {
            lab.create_cluster(ClusterSettings { smallest: true, ..source(&format!("orders-{number}"), 14) })
        });
        made.extend(try_join_all(group).await.expect("the clusters come up"));
    }
    for cluster in &made {
        let session = client(cluster, "orders").await;
        let rows = "create table t (id int primary key); insert into t select generate_series(1, 100)";
        session.batch_execute(rows).await.expect("rows");
    }
    let idle = (memory_below(lab.cloud.work_dir()), disk_below(lab.cloud.work_dir()));
    let clock = Clock::system();
    let began = clock.mono();
    let (busy, others) = made.split_at(upgrades);
    let upgrading = join_all(busy.iter().map(|cluster| upgraded(&lab, cluster)));
    let mut slowest = Duration::ZERO;
    let mut most = idle.0;
    let living = async {
        loop {
            for cluster in others {
                let asked = clock.mono();
                call(&lab, "DescribeDBClusters", &[("DBClusterIdentifier", &cluster.identifier)]).await;
                slowest = slowest.max(clock.mono().since(asked));
                let session = client(cluster, "orders").await;
                session
                    .batch_execute("update t set id = id where id = 1")
                    .await
                    .expect("another cluster goes on writing");
            }
            most = most.max(memory_below(lab.cloud.work_dir()));
            clock.sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _ = upgrading => {}
        () = living => {}
    }
    let took = clock.mono().since(began);
    eprintln!(
        "{clusters} clusters: {} MiB of memory and {} MiB on disk when idle, {} MiB at most with {upgrades} upgrades side by side, \
         which took {:.1} s; the slowest description of another cluster took {} ms",
        idle.0 >> 20,
        idle.1 >> 20,
        most >> 20,
        took.as_secs_f64(),
        slowest.as_millis()
    );
    assert!(idle.0 > 0 && most < MEMORY, "{} MiB", most >> 20);
    for (number, cluster) in made.iter().enumerate() {
        let session = client(cluster, "orders").await;
        assert_eq!(count(&session, "select count(*) from t").await, 100);
        let row = session.query_one("show server_version_num", &[]).await.expect("an answer");
        let major = if number < upgrades { "16" } else { "14" };
        assert!(row.get::<_, String>(0).starts_with(major), "{} is not on {major}", cluster.identifier);
    }
    lab.stop().await;
}
