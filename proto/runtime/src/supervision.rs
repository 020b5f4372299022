//! Named tasks that are restarted when they die. Every task has an owner that joins it; nothing is detached.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::{backoff::Backoff, clock::Clock, shutdown::Stop};

/// Why a task died.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// A supervised task: named, restarted with backoff, its death counted and reported.
pub trait Task: Send + 'static {
    /// Unique within the process; a label of the metric that counts deaths.
    const NAME: &'static str;

    /// Runs until `stop` is triggered (then returns `Ok`) or until it dies. A task that returns `Ok` before that is
    /// finished and not started again. `ready` tells `/readyz` that the task does its work.
    fn run(&mut self, stop: Stop, ready: Ready) -> impl Future<Output = Result<(), TaskError>> + Send;
}

/// What is known of one task; `/debug/tasks` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TaskState {
    pub running: bool,
    pub ready: bool,
    pub deaths: u64,
    pub last_error: Option<String>,
}

/// The states of all tasks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<&'static str, TaskState>>>);

impl Board {
    /// A copy of every state, by name.
    pub fn states(&self) -> BTreeMap<&'static str, TaskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of the tasks that are not ready yet, or not any more; empty when all are.
    pub fn unready(&self) -> Vec<&'static str> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().filter(|(_, state)| !state.ready).map(|(name, _)| *name).collect()
    }

    fn change(&self, name: &'static str, how: impl FnOnce(&mut TaskState)) {
        how(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    }
}

/// With it a task says whether it does its work.
#[derive(Debug, Clone)]
pub struct Ready {
    board: Board,
    name: &'static str,
}

impl Ready {
    /// Says that the task does its work (`true`), or cannot at the moment.
    pub fn set(&self, ready: bool) {
        self.board.change(self.name, |state| state.ready = ready);
    }

    /// One that nobody reads, for running a task outside a supervisor.
    pub fn unwatched() -> Ready {
        Ready { board: Board::default(), name: "unwatched" }
    }
}

/// Shortest and longest wait before a dead task is started again.
const RESTART_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A task that lived this long starts again with the shortest wait.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// Starts tasks, restarts those that die, joins them all at the end.
pub struct Supervisor {
    clock: Clock,
    stop: Stop,
    board: Board,
    on_death: Arc<dyn Fn(&'static str) + Send + Sync>,
    tasks: JoinSet<()>,
}

impl Supervisor {
    /// `on_death` is called with the name of each task that died (it counts them in the binary's own metric).
    pub fn new(clock: Clock, stop: Stop, on_death: impl Fn(&'static str) + Send + Sync + 'static) -> Supervisor {
        Supervisor { clock, stop, board: Board::default(), on_death: Arc::new(on_death), tasks: JoinSet::new() }
    }

    /// The states of the tasks, for `/readyz` and `/debug/tasks`.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Starts `task` and keeps it alive until the stop.
    pub fn start<T: Task>(&mut self, task: T) {
        self.board.change(T::NAME, |_| {});
        let keeper = Keeper {
            clock: self.clock.clone(),
            stop: self.stop.clone(),
            board: self.board.clone(),
            on_death: self.on_death.clone(),
        };
        self.tasks.spawn(keeper.keep(task));
    }

    /// Waits for the stop, then at most `limit` for every task to end; past it the rest is aborted. True when all ended.
    pub async fn join(mut self, limit: Duration) -> bool {
        self.stop.triggered().await;
        let (clock, tasks) = (self.clock.clone(), &mut self.tasks);
        let all = clock.timeout(limit, async { while tasks.join_next().await.is_some() {} }).await.is_ok();
        self.tasks.shutdown().await;
        all
    }
}

struct Keeper {
    clock: Clock,
    stop: Stop,
    board: Board,
    on_death: Arc<dyn Fn(&'static str) + Send + Sync>,
}

impl Keeper {
    async fn keep<T: Task>(self, mut task: T) {
        let mut backoff = Backoff::new(RESTART_WAITS.0, RESTART_WAITS.1);
        while !self.stop.is_triggered() {
            let began = self.clock.mono();
            self.board.change(T::NAME, |state| state.running = true);
            let ready = Ready { board: self.board.clone(), name: T::NAME };
            let end = task.run(self.stop.clone(), ready).await;
            let Err(error) = end else {
                self.board.change(T::NAME, |state| state.running = false);
                return;
            };
            let chain = chain(error.as_ref());
            tracing::warn!(task = T::NAME, error = %chain, "task died, starting it again");
            self.board.change(T::NAME, |state| {
                (state.running, state.ready) = (false, false);
                state.deaths += 1;
                state.last_error = Some(chain);
            });
            (self.on_death)(T::NAME);
            if self.clock.mono() - began >= HEALTHY_AFTER {
                backoff.reset();
            }
            self.stop.sleep(&self.clock, backoff.next_wait()).await;
        }
    }
}

/// An error and its sources on one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Twice(Arc<AtomicU32>);

    impl Task for Twice {
        const NAME: &'static str = "twice";

        async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
            if self.0.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err("not yet".into());
            }
            ready.set(true);
            stop.triggered().await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_dies_is_started_again_and_its_deaths_are_counted() {
        let (clock, stop, runs) = (Clock::tokio(), Stop::new(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::new(AtomicU32::new(0));
        let count = counted.clone();
        let mut supervisor = Supervisor::new(clock.clone(), stop.clone(), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        supervisor.start(Twice(runs.clone()));
        let board = supervisor.board();
        assert_eq!(board.unready(), ["twice"]);
        clock
            .timeout(Duration::from_secs(60), async {
                while !board.unready().is_empty() {
                    clock.sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .expect("the task became ready");
        let state = board.states()["twice"].clone();
        assert_eq!((state.deaths, state.last_error.as_deref(), state.running), (2, Some("not yet"), true));
        assert_eq!(counted.load(Ordering::SeqCst), 2);
        stop.trigger();
        assert!(supervisor.join(Duration::from_secs(1)).await);
    }
}
