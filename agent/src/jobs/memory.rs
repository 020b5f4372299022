//! What the jobs of one agent remember of each other: warm connections, and which tables were last seen equal on both sides.
//! Kept in memory only: losing it costs time, never correctness.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use proto::{
    job::JobFailure,
    jobs::Table,
    side::{Side, SideIdentity},
};

use super::{
    JobCx,
    servers::{Role, Session, open},
};

/// Connections kept for one server role and database at most.
const WARM_MAX: usize = 2;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    cluster: String,
    side: Side,
    role: Role,
    database: String,
}

/// Shared by all jobs of an agent.
#[derive(Default)]
pub struct Memory {
    warm: Mutex<HashMap<Key, Vec<Session>>>,
    clean: Mutex<HashMap<Table, i64>>,
}

impl Memory {
    /// Nothing remembered.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// The write counter that a table had on blue when it was last seen equal on both sides.
    pub fn clean_at(&self, table: &Table) -> Option<i64> {
        self.clean.lock().unwrap_or_else(PoisonError::into_inner).get(table).copied()
    }

    /// The table was equal on both sides, and its counter stood here before it was read.
    pub fn set_clean(&self, table: &Table, counter: i64) {
        self.clean.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), counter);
    }

    /// The table is not known to be equal any more.
    pub fn set_unclean(&self, table: &Table) {
        self.clean.lock().unwrap_or_else(PoisonError::into_inner).remove(table);
    }

    /// Closes every warm connection, as when the upgrade is over.
    pub fn cool(&self) {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn key(side: &SideIdentity, role: Role, database: &str) -> Key {
    Key { cluster: side.cluster_resource_id.clone(), side: side.side, role, database: database.to_owned() }
}

/// A session that an earlier job left open, or a new one. It was identified when it was opened, and a connection never changes its
/// server.
///
/// # Errors
/// As [`open`].
pub async fn warm(cx: &JobCx, side: &SideIdentity, database: &str, role: Role) -> Result<Session, JobFailure> {
    let kept = {
        let mut warm = cx.memory.warm.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = warm.get_mut(&key(side, role, database));
        sessions.and_then(|sessions| {
            sessions.retain(|session| !session.is_closed() && cx.dial.is_of(session.said(), side));
            sessions.pop()
        })
    };
    match kept {
        Some(session) => Ok(session),
        None => open(cx, side, database, role).await,
    }
}

/// Leaves a session open for the next job. Only one that is in no transaction and has the usual settings.
pub fn keep(cx: &JobCx, side: &SideIdentity, role: Role, session: Session) {
    let mut warm = cx.memory.warm.lock().unwrap_or_else(PoisonError::into_inner);
    let sessions = warm.entry(key(side, role, &session.database)).or_default();
    if session.is_reusable() && sessions.len() < WARM_MAX {
        sessions.push(session);
    }
}
