//! What waits for an agent, and what waits of one, has an end: at it the stream is cut and nothing is lost, because whoever dials
//! again is told, and tells, everything anew.

use proto::report::Event;

use super::super::message;
use super::*;

/// A hub without a wire.
fn hub() -> Hub {
    Hub::new(HubOptions {
        store: StoreId("store-1".into()),
        epoch: Epoch(3),
        lease: Duration::from_secs(2),
        clock: Clock::system(),
        keeper: Arc::new(Kept::default()),
    })
}

fn attach(hub: &Hub, agent: &str) -> Session {
    hub.attach(message::Hello::plain(agent.parse().unwrap(), CLUSTER.parse().unwrap()))
}

/// An upgrade with two agents in its roster.
fn open(hub: &Hub) -> Agents {
    let roster = vec!["a".parse().unwrap(), "b".parse().unwrap()];
    hub.open(&CLUSTER.parse().unwrap(), &"up-0001".parse().unwrap(), roster, None)
}

fn event(n: u64) -> FromAgent {
    let at = jiff::Timestamp::UNIX_EPOCH;
    FromAgent::Event { n, event: Event::Stance { at, stance: "obey".into() } }
}

fn done(job: &str) -> FromAgent {
    FromAgent::JobDone { id: job.parse().unwrap(), output: serde_json::json!({}) }
}

/// What a session has to say now.
async fn said(session: &mut Session) -> Vec<ToAgent> {
    let mut said = Vec::new();
    while let Ok(Some(message)) = Clock::system().timeout(Duration::ZERO, session.next()).await {
        said.push(message);
    }
    said
}

fn acked_jobs(said: &[ToAgent]) -> Vec<&str> {
    let acked = said.iter().filter_map(|message| match message {
        ToAgent::AckJob(id) => Some(id.as_str()),
        _ => None,
    });
    acked.collect()
}

#[tokio::test]
async fn of_4096_events_that_wait_for_their_fact_the_next_cuts_its_stream_and_is_taken_when_there_is_room() {
    let hub = hub();
    let agents = open(&hub);
    let (a, b) = (attach(&hub, "a"), attach(&hub, "b"));
    // Over all agents together.
    for n in 1..=2048 {
        a.hear(event(n)).unwrap();
        b.hear(event(n)).unwrap();
    }
    assert!(b.hear(event(2049)).is_err(), "one more waits");
    drop(b);
    let mut b = attach(&hub, "b");
    assert!(said(&mut b).await.iter().all(|message| !matches!(message, ToAgent::AckEvent(_))), "acknowledged unkept");
    assert!(b.hear(event(2049)).is_err(), "there is no room yet");
    // What it has said before it may say again, as after every break.
    b.hear(event(2048)).unwrap();

    let (agent, n, _) = agents.next_event().expect("the first of them");
    agents.acknowledge_event(&agent, n);
    b.hear(event(2049)).unwrap();
    let mut numbers = Vec::new();
    while let Some((agent, n, _)) = agents.next_event() {
        numbers.push((agent.to_string(), n));
        agents.acknowledge_event(&agent, n);
    }
    assert_eq!(numbers.len(), 4096);
    assert_eq!(numbers.last().unwrap(), &("b".to_owned(), 2049), "nothing was lost, and nothing is out of order");
}

#[tokio::test]
async fn of_answers_that_nobody_waits_for_512_are_remembered_and_the_next_is_acknowledged_at_once() {
    let hub = hub();
    let agents = open(&hub);
    let mut a = attach(&hub, "a");
    for n in 0..512 {
        a.hear(done(&format!("up-0001/step/1/{n}"))).unwrap();
    }
    assert_eq!(acked_jobs(&said(&mut a).await), [""; 0], "an answer that a resumed step will ask for was given away");
    a.hear(done("up-0001/step/1/512")).unwrap();
    assert_eq!(acked_jobs(&said(&mut a).await), ["up-0001/step/1/512"]);
    // The step is done, and there is room again.
    agents.acknowledge_jobs("up-0001/step/");
    assert_eq!(acked_jobs(&said(&mut a).await).len(), 512);
    a.hear(done("up-0001/next/1/0")).unwrap();
    assert_eq!(acked_jobs(&said(&mut a).await), [""; 0]);
}

#[tokio::test]
async fn an_agent_for_which_1024_answers_wait_is_cut_at_the_next_and_one_that_reads_is_not() {
    let hub = hub();
    let (mut reads, sleeps) = (attach(&hub, "a"), attach(&hub, "b"));
    // Without an upgrade every heartbeat is answered.
    for sequence in 0..1024 {
        let beat = || FromAgent::Heartbeat { sequence, intent_age_ms: 0 };
        reads.hear(beat()).unwrap();
        sleeps.hear(beat()).unwrap();
    }
    let beat = FromAgent::Heartbeat { sequence: 1024, intent_age_ms: 0 };
    assert_eq!(said(&mut reads).await.len(), 1025, "a welcome and an answer to each");
    reads.hear(beat.clone()).unwrap();
    assert!(sleeps.hear(beat.clone()).is_err(), "one more waits for an agent that does not read");
    drop(sleeps);
    // It dials again, and nothing old waits for it.
    let mut again = attach(&hub, "b");
    assert_eq!(said(&mut again).await.len(), 1);
    again.hear(beat).unwrap();
}
