//! For tests of what this agent says to servers: a pair of servers that are played (`runtime::played`), and what tasks and jobs need.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::{
    epoch::{Epoch, Generation},
    intent::{GateWish, IngestionWish, Intent, SwitchoverWindow, Targets, WatchWish},
    job::Expected,
    side::{Endpoint, Member, Side, SideIdentity},
};
use runtime::{
    clock::Clock,
    played::{Asked, Said, Server, Value, settle},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Database, Tls},
    jobs::JobCx,
    pg::{Dialer, catalog},
    spool::Spool,
    state::Shared,
};

/// A pair of servers, what they were asked, and an agent's shared state that reaches them.
pub(crate) struct Pair {
    pub(crate) shared: Shared,
    pub(crate) servers: [Server; 2],
    /// Texts beyond the question who it is, with the side that was asked.
    asked: watch::Receiver<Vec<(Side, Asked)>>,
    folder: PathBuf,
}

/// Who a server of this version says it is: a writer that takes writes.
fn identity(major: u32) -> Said {
    let row = ["127.0.0.1", &format!("{major}0004"), "f", "off", "f"];
    Said::Rows(vec![row.map(Value::from).to_vec()])
}

/// What an agent has in common, as it wakes with the files of a folder.
pub(crate) async fn wake(folder: &Path, clock: Clock) -> Shared {
    std::fs::write(folder.join("pw"), "secret\n").unwrap();
    let database = Database {
        user: "upgrade_pilot".into(),
        password_file: Some(folder.join("pw")),
        password_command: None,
        maintenance_database: "postgres".into(),
        tls: Tls::Disable,
        tls_ca_file: None,
    };
    let dialer =
        Dialer::new(&database, vec!["127.0.0.0/8".parse().unwrap(), "127.1".parse().unwrap()], clock.clone()).unwrap();
    let spool = Spool::open(&folder.join("agent.sqlite")).unwrap();
    let memory = spool.wake().await.unwrap();
    Shared::new(clock, spool, dialer, memory)
}

impl Pair {
    /// `answer` says what both say to everything but the question who they are.
    pub(crate) async fn start<F, A>(name: &str, answer: F) -> Pair
    where
        F: Fn(Side, Asked) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Said> + Send + 'static,
    {
        let (tell, asked) = watch::channel(Vec::new());
        let tell = Arc::new(tell);
        let play = |side: Side, major: u32| {
            let (tell, answer) = (tell.clone(), answer.clone());
            Server::start(move |asked: Asked| {
                let (tell, answer) = (tell.clone(), answer.clone());
                async move {
                    if asked.text == catalog::watchers::IDENTIFY {
                        return identity(major);
                    }
                    tell.send_modify(|all| all.push((side, asked.clone())));
                    answer(side, asked).await
                }
            })
        };
        let servers = [play(Side::Blue, 14).await.unwrap(), play(Side::Green, 16).await.unwrap()];
        let folder = std::env::temp_dir().join(format!("pilot-agent-{name}-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        Pair { shared: wake(&folder, Clock::tokio()).await, servers, asked, folder }
    }

    /// The side as it would be recorded.
    fn side(&self, side: Side) -> SideIdentity {
        let (at, major) = if side == Side::Blue { (0, 14) } else { (1, 16) };
        let member = Member {
            resource_id: format!("db-{side:?}"),
            instance: format!("{side:?}-1"),
            host: "127.0.0.1".into(),
            port: self.servers[at].port(),
            writer: true,
        };
        SideIdentity { side, cluster_resource_id: format!("cluster-{side:?}"), major, members: vec![member] }
    }

    /// A wish with the window of a switchover open.
    pub(crate) fn in_window(&self, serving: Side) -> Intent {
        let production = Endpoint { host: "127.0.0.1".into(), port: self.servers[0].port() };
        let (blue, green) = (self.side(Side::Blue), Some(self.side(Side::Green)));
        Intent {
            upgrade: "up-test".parse().unwrap(),
            epoch: Epoch(4),
            generation: Generation(1),
            ingestion: IngestionWish::Running,
            purger: None,
            gate: GateWish::Open,
            targets: Targets { production, serving, blue, green },
            window: Some(SwitchoverWindow { open: true, deadline_ms: 60_000, grace_ms: 1_000, hold_max_ms: 60_000 }),
            watch: WatchWish::default(),
        }
    }

    /// The surroundings of a job on a side.
    pub(crate) fn cx(&self, side: Side, within: Duration) -> JobCx {
        let Targets { production, blue, green, .. } = self.in_window(side).targets;
        let clock = self.shared.clock.clone();
        JobCx {
            id: "up-test/step/1/job".parse().unwrap(),
            agent: "agent-1".into(),
            on: Expected { side, production, blue, green },
            dial: self.shared.dialer.clone(),
            queries: Vec::new().into(),
            memory: Arc::default(),
            deadline: clock.mono() + within,
            clock,
            stop: CancellationToken::new(),
            progress: Arc::new(|_| {}),
            events: Arc::new(|_| {}),
        }
    }

    /// How often a side was asked this.
    pub(crate) fn times(&self, side: Side, text: &str) -> usize {
        self.asked.borrow().iter().filter(|(of, asked)| *of == side && asked.text == text).count()
    }

    /// Everything that a side was asked, in order.
    pub(crate) fn texts(&self, side: Side) -> Vec<String> {
        self.asked.borrow().iter().filter(|(of, _)| *of == side).map(|(_, asked)| asked.text.clone()).collect()
    }

    /// Until a side was asked this so often; what is due by now is not long on its way.
    pub(crate) async fn asked(&self, side: Side, text: &str, times: usize) {
        for _ in 0..1000 {
            if self.times(side, text) >= times {
                return;
            }
            settle().await;
        }
        panic!("{side:?} was asked {} times of {times}: {text}", self.times(side, text));
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _not_there = std::fs::remove_dir_all(&self.folder);
    }
}

/// The most that went on at once.
#[derive(Clone, Default)]
pub(crate) struct Peak(Arc<Mutex<(usize, usize)>>);

impl Peak {
    /// One more goes on; gives how many do.
    pub(crate) fn up(&self) -> usize {
        let (now, peak) = &mut *self.0.lock().unwrap();
        *now += 1;
        *peak = (*peak).max(*now);
        *now
    }

    pub(crate) fn down(&self) {
        self.0.lock().unwrap().0 -= 1;
    }

    pub(crate) fn most(&self) -> usize {
        self.0.lock().unwrap().1
    }
}
