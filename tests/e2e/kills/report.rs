//! What was played: points, kills, runs and violations by path and victim, and which points are left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tests::stage::depth;

/// How an upgrade goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Path {
    /// To its end, from the first fact.
    Succeeds,
    /// Aborted by a person when all is ready for the cut; killed from there on.
    Aborted,
    /// AWS fails the switchover until the attempts are used up; killed from the switchover on.
    CutFails,
    /// Between the pivot's arming and its outcome (`window`).
    Window,
}

impl Path {
    /// Those of the facts.
    pub(super) const ALL: [Path; 3] = [Path::Succeeds, Path::Aborted, Path::CutFails];
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Victim {
    Coordinator,
    /// The one that leads and the one that holds clients, in turn.
    Agent,
    /// The coordinator and an agent.
    Both,
}

impl Victim {
    pub(super) const ALL: [Victim; 3] = [Victim::Coordinator, Victim::Agent, Victim::Both];
}

/// On which side of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Side {
    Before,
    After,
}

#[derive(Debug, Default)]
struct Row {
    runs: usize,
    kills: usize,
    unwound: usize,
    came: BTreeSet<String>,
    done: BTreeSet<(String, Side)>,
    violations: Vec<String>,
}

/// Everything so far. `KILLS_KEPT=FILE`: what was played is kept there, a line each, and not played again by who opens it next.
#[derive(Debug, Default)]
pub(super) struct Campaign {
    rows: BTreeMap<(Path, Victim), Row>,
    kept: Option<File>,
}

/// What is told of one path and victim.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    path: Path,
    victim: Victim,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// Points of an upgrade's journal.
    Came(Vec<String>),
    Killed(String, Side),
    /// An upgrade, and whether it was unwound.
    Ended(bool),
    Violated(String),
}

/// Told of while it is played, so that a run that fails is told of too.
pub(super) type Shared = Arc<Mutex<Campaign>>;

/// The campaign, whatever became of whoever had it.
pub(super) fn shared(told: &Shared) -> MutexGuard<'_, Campaign> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Campaign {
    /// With what was kept of earlier ones.
    pub(super) fn open() -> Shared {
        let mut campaign = Campaign::default();
        if let Ok(file) = std::env::var("KILLS_KEPT") {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            for (n, line) in text.lines().enumerate() {
                let told = serde_json::from_str(line).unwrap_or_else(|error| panic!("{file}:{}: {error}", n + 1));
                campaign.take(told);
            }
            let opened = File::options().create(true).append(true).open(&file);
            campaign.kept = Some(opened.unwrap_or_else(|error| panic!("{file}: {error}")));
        }
        Arc::new(Mutex::new(campaign))
    }

    fn take(&mut self, Told { path, victim, what }: Told) {
        let row = self.rows.entry((path, victim)).or_default();
        match what {
            What::Came(points) => row.came.extend(points),
            What::Killed(point, side) => {
                row.kills += 1;
                row.done.insert((point, side));
            }
            What::Ended(unwound) => {
                row.runs += 1;
                row.unwound += usize::from(unwound);
            }
            What::Violated(how) => {
                row.runs += 1;
                row.violations.push(how);
            }
        }
    }

    fn tell(&mut self, path: Path, victim: Victim, what: What) {
        let told = Told { path, victim, what };
        if let Some(kept) = &mut self.kept {
            let line = serde_json::to_string(&told).expect("it has a JSON form");
            writeln!(kept, "{line}").unwrap_or_else(|error| panic!("what was played cannot be kept: {error}"));
        }
        self.take(told);
    }

    pub(super) fn killed(&mut self, path: Path, victim: Victim, point: &str, side: Side) {
        self.tell(path, victim, What::Killed(point.to_owned(), side));
    }

    /// Whether this kill has been made.
    pub(super) fn has(&self, path: Path, victim: Victim, point: &str, side: Side) -> bool {
        self.rows.get(&(path, victim)).is_some_and(|row| row.done.contains(&(point.to_owned(), side)))
    }

    /// Points that have had both kills.
    pub(super) fn spared(&self, path: Path, victim: Victim) -> BTreeSet<String> {
        let Some(row) = self.rows.get(&(path, victim)) else { return BTreeSet::new() };
        let both = |point: &String| row.done.contains(&(point.clone(), Side::Before));
        let after = row.done.iter().filter(|(_, side)| *side == Side::After).map(|(point, _)| point.clone());
        after.filter(both).collect()
    }

    pub(super) fn came(&mut self, path: Path, victim: Victim, points: &[String]) {
        self.tell(path, victim, What::Came(points.to_vec()));
    }

    pub(super) fn ended(&mut self, path: Path, victim: Victim, unwound: bool) {
        self.tell(path, victim, What::Ended(unwound));
    }

    fn violated(&mut self, path: Path, victim: Victim, how: String) {
        self.tell(path, victim, What::Violated(how));
    }

    /// Whether an upgrade has come to its end.
    pub(super) fn begun(&self, path: Path, victim: Victim) -> bool {
        self.rows.get(&(path, victim)).is_some_and(|row| !row.came.is_empty())
    }

    /// Points that came and have not had both kills.
    pub(super) fn left(&self, path: Path, victim: Victim) -> Vec<String> {
        let spared = self.spared(path, victim);
        let came = self.rows.get(&(path, victim)).map(|row| row.came.clone()).unwrap_or_default();
        came.difference(&spared).cloned().collect()
    }

    pub(super) fn kills(&self) -> usize {
        self.rows.values().map(|row| row.kills).sum()
    }

    pub(super) fn clean(&self) -> bool {
        self.rows.values().all(|row| row.violations.is_empty())
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| path | victim | points | kills | upgrades | of them unwound | points left | violations |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for ((path, victim), row) in &self.rows {
            let (left, wrong) = (self.left(*path, *victim), row.violations.len());
            let (points, kills, runs, unwound) = (row.came.len(), row.kills, row.runs, row.unwound);
            writeln!(
                f,
                "| {path:?} | {victim:?} | {points} | {kills} | {runs} | {unwound} | {} | {wrong} |",
                left.len()
            )?;
            if *path != Path::Window {
                left.iter().try_for_each(|point| writeln!(f, "left: {path:?} {victim:?} {point}"))?;
            }
            row.violations.iter().try_for_each(|how| writeln!(f, "violated: {path:?} {victim:?} {how}"))?;
        }
        Ok(())
    }
}

/// Whether this part of the matrix is asked for: full depth, and `KILLS` names it or nothing.
pub(super) fn asked(part: &impl fmt::Display) -> bool {
    let asked = std::env::var("KILLS").unwrap_or_default().to_lowercase();
    let name = part.to_string().to_lowercase();
    depth::is_full() && asked.split_whitespace().all(|word| name.contains(word))
}

/// Plays on this thread.
pub(super) fn block_on(play: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be made").block_on(play);
}

/// Plays on a thread of its own: what fails is a violation that is told at the end, and the next play begins.
pub(super) fn alone<F: Future<Output = ()>>(
    told: &Shared,
    path: Path,
    victim: Victim,
    play: impl FnOnce() -> F + Send + 'static,
) {
    let played = std::thread::spawn(move || block_on(play())).join();
    if let Err(panic) = played {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        let end = words.char_indices().nth(600).map_or(words.len(), |(at, _)| at);
        shared(told).violated(path, victim, words[..end].to_owned());
    }
}
