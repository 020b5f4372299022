//! The agent follows a switchover by itself: clients go on at green's first write, while AWS still says that it is switching and
//! names still lead to blue; and a switchover that is taken back lets them go on on blue, never on green.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lab::demo::session::Login;
use lab::fleet::Server;
use lab::status::Flavour;
use lab::{ClusterSettings, Fault, Scenario, Timings};
use serde_json::Value;
use tests::stage::facts::Facts;
use tests::stage::pilot::with;
use tests::stage::{CLUSTER, READING, Setting, Stage, depth, play};

use super::faults::{FOLLOWS, case};

const LIMIT: Duration = Duration::from_secs(150);
const EVERY: Duration = Duration::from_millis(50);
/// SQLSTATE of a write that the old side refuses.
const READ_ONLY: &str = "25006";
/// What the client with the stale name has written.
const ROWS: &str = "select n::text from probe_writes where client = 'direct-writes'";
const SWITCHING: &str = "<Status>SWITCHOVER_IN_PROGRESS</Status>";

/// What AWS says of the deployment now.
async fn deployment(stage: &Stage) -> anyhow::Result<String> {
    stage.aws("DescribeBlueGreenDeployments", &[]).await
}

/// Waits until a client had more answers.
async fn answered(stage: &Stage, client: &str, within: Duration) -> anyhow::Result<()> {
    let before = stage.acknowledged(client);
    let look = async || match stage.acknowledged(client) {
        now if now > before + 3 => Ok(()),
        now => Err(format!("{} more", now - before)),
    };
    stage.tempo.until(&format!("answers to {client}"), Duration::from_millis(5), within, look).await
}

/// The provider's cut as on AWS, in a hurry: the status is told before connections go, and they are gone for a while.
fn cut() -> Timings {
    let ms = Duration::from_millis;
    Timings { initiated: ms(300), drop_delay: ms(300), window: ms(1500), ..Timings::zero() }
}

/// The phases that one side's server said, in order, from the last `AVAILABLE` on.
fn phases(facts: &Facts, side: &str) -> Vec<String> {
    let events = facts.of_kind("observed", None).map(|seen| &seen["fact"]["event"]);
    let told = events.filter(|event| event["event"] == "switchover_phase" && event["side"] == side);
    let words: Vec<String> = told.filter_map(|event| Some(event["phase"].as_str()?.to_owned())).collect();
    let from = words.iter().rposition(|word| word == "AVAILABLE").unwrap_or(0);
    words[from..].to_vec()
}

/// Green takes a write and the held client goes on, while names still lead to blue and AWS still says that it switches.
async fn served_by_green_before_aws_says_so(stage: &Stage) -> anyhow::Result<()> {
    stage.until_logged("green accepted a write", LIMIT).await?;
    answered(stage, "held-writes", Duration::from_secs(5)).await?;
    let leads_to = stage.lab.resolver(Duration::ZERO)?.lookup(&stage.cluster.endpoint);
    let blue = stage.cluster.members[0].1;
    ensure!(leads_to == Some(blue), "the name leads to {leads_to:?} by now, not to blue at {blue}: nothing is shown");
    let said = deployment(stage).await?;
    ensure!(said.contains(SWITCHING), "AWS was not late, so nothing is shown: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_at_greens_first_write_and_never_there_when_it_is_taken_back() {
    let (completed_delay, names_delay) = (Duration::from_secs(12), Duration::from_secs(8));
    let timings = Timings { completed_delay, names_delay, ..cut() };
    play(Setting { pooled: true, timings, ..Setting::default() }, async |stage| {
        stage.lab.faults().plan(Fault::SwitchoverReverts { reason: "the lab took it back".into() }, 1);
        let mut upgrade = stage.upgrade(&with(stage.spec(16), "switchover.attempts", 3)).await?;
        let id = upgrade.id.clone();

        stage.until_logged("not switched over: ", LIMIT).await?;
        answered(stage, "held-writes", Duration::from_secs(20)).await?;
        let facts = stage.history(&id).await?;
        ensure!(facts.events("green_accepted_write") == 0, "a green that never served\n{}", facts.story());

        served_by_green_before_aws_says_so(stage).await?;

        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;
        let facts = stage.history(&id).await?;
        ensure!(facts.count("point_of_no_return") == 1, "{}", facts.story());
        let story = phases(&facts, "green");
        let order = ["AVAILABLE", "SWITCHOVER_INITIATED", "SWITCHOVER_IN_PROGRESS", "SWITCHOVER_IN_POST_PROCESSING"];
        let place = |word: &String| order.iter().chain(&["SWITCHOVER_COMPLETED"]).position(|known| known == word);
        let places: Vec<_> = story.iter().map(place).collect();
        ensure!(places.is_sorted() && !places.contains(&None), "green said {story:?}\n{}", facts.story());
        ensure!(
            order.iter().all(|word| story.iter().any(|said| said == word)),
            "green said {story:?}\n{}",
            facts.story()
        );
        let status = stage.status(&id).await?;
        let moments = status["switchover"].as_array().cloned().unwrap_or_default();
        let has = |what: &str| moments.iter().any(|moment: &Value| moment["what"] == what);
        ensure!(has("status") && has("green_accepted_write"), "{moments:?}");
        ensure!(stage.failed_statements("held-writes") == 0, "statements of the held client failed");
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// The program itself sees names late, one of its clients later still, and RDS for PostgreSQL's status never gets further than
/// that writes are stopped. Held clients go on all the same, and so do those that read through the pooler, from green's reader;
/// who follows the stale name is kept from writing on the old side, told of, and sent away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_stuck_and_names_that_stay_stale_keep_nobody_waiting_and_lose_nothing() {
    let cases = case::runs(FOLLOWS, depth::is_full()).expect("every folder can be read");
    let [case] = &cases.concat()[..] else { panic!("one scenario is played here, not {cases:?}") };
    let Scenario { readers, timings, resolver_delays, faults, .. } = case.scenario.clone();
    let shape = |cluster| ClusterSettings { flavour: Flavour::Rds, ..cluster };
    let setting =
        Setting { pooled: true, reading: true, readers, timings, resolver_delays, shape, ..Setting::default() };
    play(setting, async |stage| {
        stage.lab.faults().plan_all(faults.clone());
        let blue = stage.lab.writer(CLUSTER).context("blue has no writer")?;
        let mut upgrade = stage.upgrade(&with(stage.spec(16), "cleanup.policy", "approve")).await?;
        let id = upgrade.id.clone();

        stage.until_logged("switchover armed", LIMIT).await?;
        let reader = greens_reader(stage).await?;
        served_by_green_before_aws_says_so(stage).await?;
        read_from(stage, reader).await.context("who reads through the pooler")?;
        sent_away_from_the_old_side(stage).await.context("who follows the stale name")?;

        let asks = |status: &Value| status["approvals"][0]["name"] == "cleanup";
        stage.wait_until(&id, "the cleanup's approval", LIMIT, asks).await?;
        answered(stage, "direct-writes", Duration::from_secs(30)).await?;
        ensure!(stage.failed_with("direct-writes", READ_ONLY) > 0, "the stale client never came to the old side");
        nothing_but_what_green_has(stage, &blue).await?;
        stage.pilot(&["approve", &id, "cleanup"]).await?.expect(0, &[])?;
        upgrade.ended(LIMIT, &stage.tempo).await?.expect(0, &["succeeded"])?;

        let facts = stage.history(&id).await?;
        for words in &case.expect.says {
            ensure!(facts.story().contains(words), "{words:?} is not said\n{}", facts.story());
        }
        let told = ["AVAILABLE", "SWITCHOVER_INITIATED", "SWITCHOVER_IN_PROGRESS"];
        let story = phases(&facts, "green");
        ensure!(story == told, "green said {story:?}, not {told:?} and no more\n{}", facts.story());
        for client in ["held-writes", "held-reads"] {
            ensure!(stage.failed_statements(client) == 0, "statements of {client} failed");
        }
        stage.nothing_lost().await.map(drop)
    })
    .await;
}

/// The address of green's one reader.
async fn greens_reader(stage: &Stage) -> anyhow::Result<IpAddr> {
    let members = stage.lab.members(&stage.green().await?);
    let readers: Vec<IpAddr> =
        members.iter().filter(|(_, _, writer)| !writer).map(|(_, address, _)| *address).collect();
    let [reader] = readers[..] else { bail!("green has not one reader: {members:?}") };
    Ok(reader)
}

/// The pooler's database for readers leads to green's reader, by address.
async fn read_from(stage: &Stage, reader: IpAddr) -> anyhow::Result<()> {
    let (host, who) = stage.behind_pooler(READING).await?;
    ensure!(host == reader.to_string() && who == format!("{reader} 16 t"), "sent to {host}, answered by {who}");
    answered(stage, "held-reads", Duration::from_secs(5)).await
}

/// A session that is opened by the stale name is on the old side, cannot write there, and is ended.
async fn sent_away_from_the_old_side(stage: &Stage) -> anyhow::Result<()> {
    let login = Login { application: "stale-pool".into(), ..stage.direct.clone() };
    let look = async || login.open(&stage.tempo, Duration::from_secs(2)).await.map_err(|miss| miss.to_string());
    let session = stage.tempo.until("the old side to take clients", EVERY, LIMIT, look).await?;
    let who = session.run(&stage.tempo, LIMIT, "select host(inet_server_addr())").await?;
    let old = stage.cluster.members[0].1.to_string();
    ensure!(who.first(0) == Some(old.as_str()), "its name leads to {who:?} already, not to {old}");
    let ended = async || if session.is_closed() { Ok(()) } else { Err("it is still there".to_owned()) };
    stage.tempo.until("its end", EVERY, LIMIT, ended).await
}

/// Every row that the stale client has on the old side is on green too: what it wrote there was before the cut.
async fn nothing_but_what_green_has(stage: &Stage, blue: &Server) -> anyhow::Result<()> {
    let green = stage.lab.writer(CLUSTER).context("production has no writer")?;
    let mut rows = Vec::new();
    for server in [blue, &green] {
        let found = server.admin("orders").await?.query(ROWS, &[]).await?;
        rows.push(found.iter().map(|row| row.get::<_, String>(0)).collect::<BTreeSet<_>>());
    }
    let only: Vec<&String> = rows[0].difference(&rows[1]).collect();
    ensure!(only.is_empty(), "on the old side alone: {only:?}");
    ensure!(rows[0].len() > 20 && rows[1].len() > rows[0].len(), "{} and {} rows", rows[0].len(), rows[1].len());
    Ok(())
}
