//! The trouble of real life, made on purpose: a console left open inside a transaction, which blocks the creation of
//! replication slots, and near the cut two long statements of a batch role, one that may be resubmitted and one that may
//! not. None of them retries anything: what became of them is for the pilot to say and for the judge to check.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::schema::{self, LINES, NIGHTLY};
use super::session::{Login, Sure};
use super::tempo::Tempo;

const CONNECT: Duration = Duration::from_secs(3);
const STATEMENT: Duration = Duration::from_secs(300);
/// How long one nightly statement takes on the old version; on the new one it is quick.
const NIGHTLY_SECONDS: u64 = 40;
/// How long the procedure sleeps between its halves.
const MONTH_END_SECONDS: u64 = 30;

/// Where the upgrade is, as far as trouble cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// Before slots are made, or while they are.
    Provisioning,
    /// Green exists and is made ready.
    Preparing,
    /// The cut is near.
    NearTheCut,
    /// The cut is over, or there will be none.
    After,
}

/// What trouble was made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Idle transactions opened.
    pub consoles: u32,
    /// How many of them were ended from outside.
    pub consoles_ended: u32,
    /// Nightly runs sent.
    pub nightly_sent: BTreeSet<u32>,
    /// Nightly runs that were acknowledged to the client.
    pub nightly_done: BTreeSet<u32>,
    /// Calls of the procedure sent, and acknowledged.
    pub calls: (u32, u32),
}

/// Running trouble.
#[derive(Debug)]
pub struct Trouble {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    made: Arc<Mutex<Made>>,
}

#[derive(Clone)]
struct Maker {
    endpoint: Login,
    from: u32,
    scene: watch::Receiver<Scene>,
    stop: CancellationToken,
    made: Arc<Mutex<Made>>,
    tempo: Tempo,
}

impl Trouble {
    /// Begins at once; `endpoint` is the cluster endpoint, `from` the source's major version.
    pub fn start(endpoint: Login, from: u32, scene: watch::Receiver<Scene>, tempo: Tempo) -> Self {
        let stop = CancellationToken::new();
        let made = Arc::new(Mutex::new(Made::default()));
        let maker = Maker { endpoint, from, scene, stop: stop.clone(), made: Arc::clone(&made), tempo };
        let mut tasks = JoinSet::new();
        tasks.spawn(maker.clone().consoles());
        tasks.spawn(maker.clone().nightly());
        tasks.spawn(maker.month_end());
        Self { tasks, stop, made }
    }

    /// What was made so far.
    pub fn made(&self) -> Made {
        lock(&self.made).clone()
    }

    /// Ends it all.
    pub async fn stop(mut self) -> Made {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.made()
    }
}

fn lock(made: &Mutex<Made>) -> MutexGuard<'_, Made> {
    made.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Maker {
    fn scene(&self) -> Scene {
        *self.scene.borrow()
    }

    /// Waits a moment; false when it is time to go.
    async fn moment(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.tempo.sleep(time) => true,
        }
    }

    /// Waits for a scene; false when it is past or time to go.
    async fn comes(&mut self, scene: Scene) -> bool {
        let stop = self.stop.clone();
        loop {
            let now = self.scene();
            if now >= scene {
                return now == scene;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                changed = self.scene.changed() => if changed.is_err() { return false },
            }
        }
    }

    /// A person looks something up, changes a note, and goes to lunch. Restarted only by a restart of the server.
    async fn consoles(self) {
        let login = self.endpoint.database("billing").role(&schema::owner("billing"), schema::PASSWORD, "console");
        let mut ended_here = false;
        while self.scene() == Scene::Provisioning && !ended_here {
            let Ok(session) = login.open(&self.tempo, CONNECT).await else {
                if !self.moment(Duration::from_millis(200)).await {
                    return;
                }
                continue;
            };
            let open = "begin; update console_notes set note = 'back in a minute' where id = 1";
            if session.run(&self.tempo, CONNECT, open).await.is_err() {
                continue;
            }
            lock(&self.made).consoles += 1;
            let since = self.tempo.at();
            while !session.is_closed() {
                if !self.moment(Duration::from_millis(100)).await {
                    return;
                }
            }
            lock(&self.made).consoles_ended += 1;
            // A restart also ends it; then the person comes back. Ended for being idle, the person has learned.
            ended_here = !self.restarted(since).await;
        }
    }

    async fn restarted(&self, since: Duration) -> bool {
        let age = self.tempo.at().saturating_sub(since).as_secs_f64();
        let login = self.endpoint.database("billing").role(&schema::owner("billing"), schema::PASSWORD, "console");
        let sql = format!("select extract(epoch from clock_timestamp() - pg_postmaster_start_time()) < {age}");
        let deadline = self.tempo.at() + Duration::from_secs(30);
        while self.tempo.at() < deadline {
            if let Ok(session) = login.open(&self.tempo, CONNECT).await
                && let Ok(answer) = session.run(&self.tempo, CONNECT, &sql).await
            {
                return answer.first(0) == Some("t");
            }
            if !self.moment(Duration::from_millis(100)).await {
                return false;
            }
        }
        false
    }

    /// One INSERT that takes long on the old version. Its role's statements may be resubmitted.
    async fn nightly(mut self) {
        if !self.comes(Scene::NearTheCut).await {
            return;
        }
        let login = self.endpoint.database(NIGHTLY).role(schema::BATCH, schema::PASSWORD, "nightly-batch");
        let pace = NIGHTLY_SECONDS as f64 / LINES as f64;
        for run in 1.. {
            if self.stop.is_cancelled() || self.scene() != Scene::NearTheCut {
                return;
            }
            let Ok(session) = login.open(&self.tempo, CONNECT).await else {
                self.moment(Duration::from_millis(300)).await;
                continue;
            };
            lock(&self.made).nightly_sent.insert(run);
            let sql = format!(
                "insert into nightly_lines (run, line, amount) select {run}, g, g * 10 from generate_series(1, {LINES}) g where \
                 pg_sleep(case when current_setting('server_version_num')::int / 10000 = {} then {pace} else 0.0005 end)::text = ''",
                self.from
            );
            let answer = tokio::select! {
                () = self.stop.cancelled() => return,
                answer = session.run(&self.tempo, STATEMENT, &sql) => answer,
            };
            match answer {
                Ok(_) => {
                    lock(&self.made).nightly_done.insert(run);
                }
                Err(miss) => {
                    tracing::debug!(
                        run,
                        code = miss.code,
                        unknown = miss.sure == Sure::Unknown,
                        "the nightly statement was ended"
                    );
                    // Its client does not retry; tomorrow is another run.
                    if !self.moment(Duration::from_secs(5)).await {
                        return;
                    }
                }
            }
        }
    }

    /// A procedure that commits half-way: never resubmitted.
    async fn month_end(mut self) {
        if !self.comes(Scene::NearTheCut).await {
            return;
        }
        let login = self.endpoint.database("billing").role(schema::BATCH, schema::PASSWORD, "month-end");
        for batch in 1.. {
            if self.stop.is_cancelled() || self.scene() != Scene::NearTheCut {
                return;
            }
            let Ok(session) = login.open(&self.tempo, CONNECT).await else {
                self.moment(Duration::from_millis(300)).await;
                continue;
            };
            lock(&self.made).calls.0 += 1;
            let sql = format!("call month_end({batch}, {MONTH_END_SECONDS})");
            let answer = tokio::select! {
                () = self.stop.cancelled() => return,
                answer = session.run(&self.tempo, STATEMENT, &sql) => answer,
            };
            if answer.is_ok() {
                lock(&self.made).calls.1 += 1;
            } else if !self.moment(Duration::from_secs(5)).await {
                return;
            }
        }
    }
}
