//! What agents can reach, and what a test takes out of their reach: the coordinator, by cables that are cut, and the servers of a
//! side, which swallow what agents send to them, or refuse them. Clients' open sessions on those servers go on.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::fleet::{Admin, Server};

use super::cable::{Cable, Passing};
use super::{CLUSTER, START, Stage, process, role};

/// The sessions of agents.
const SESSIONS: &str = "select pid from pg_stat_activity where usename = $1 order by pid";
/// Between two looks whether a session of an agent came after all.
const LOOK: Duration = Duration::from_millis(20);

impl Stage {
    /// Lays a cable to the coordinator for each of so many agents.
    pub(super) async fn lay_cables(&mut self, count: u32) -> anyhow::Result<()> {
        let to = self.cli.coordinator.trim_start_matches("http://").parse();
        let to = to.with_context(|| format!("one coordinator without TLS, not {}", self.cli.coordinator))?;
        for _ in 0..count {
            self.cables.push(Cable::lay(to).await?);
        }
        Ok(())
    }

    /// Where an agent (from 0) is told that the coordinator is.
    pub(super) fn coordinator_of(&self, agent: usize) -> String {
        self.cables
            .get(agent)
            .map_or_else(|| self.cli.coordinator.clone(), |cable| format!("http://{}", cable.address()))
    }

    /// What passes between all agents and the coordinator from now on.
    ///
    /// # Errors
    /// When no cables were laid.
    pub fn between_agents_and_coordinator(&self, passing: Passing) -> anyhow::Result<()> {
        ensure!(!self.cables.is_empty(), "the stage has no cables");
        self.cables.iter().for_each(|cable| cable.passes(passing));
        Ok(())
    }

    /// The writer of blue.
    ///
    /// # Errors
    /// When it has none.
    pub fn blue_writer(&self) -> anyhow::Result<std::sync::Arc<Server>> {
        self.lab.writer(CLUSTER).context("production has no writer")
    }

    /// The writer of green, while there is a deployment.
    ///
    /// # Errors
    /// When it has none.
    pub async fn green_writer(&self) -> anyhow::Result<std::sync::Arc<Server>> {
        self.lab.writer(&self.green().await?).context("green has no writer")
    }

    /// The server swallows what agents send to it, until this is dropped: it takes connections and answers none, and what agents
    /// have open stands still. Sessions of clients that are open go on.
    ///
    /// # Errors
    /// When it does not run, or does not say who is connected.
    pub async fn silence(&self, server: &Server) -> anyhow::Result<Silence> {
        let admin = server.admin("postgres").await?;
        let mut silence = Silence { stopped: Vec::new() };
        // Nobody new comes in from here on but who was being let in.
        silence.stop(server.pid().context("it does not run")?)?;
        let mut quiet = 0;
        let look = async || {
            let new = silence.stop_sessions(&admin).await.map_err(|error| format!("{error:#}"))?;
            quiet = if new == 0 { quiet + 1 } else { 0 };
            if quiet > 2 { Ok(()) } else { Err(format!("{new} sessions more")) }
        };
        self.tempo.until("all sessions of agents to stand still", LOOK, START, look).await?;
        Ok(silence)
    }
}

/// A server that agents hear nothing of. It goes on when this is dropped.
#[derive(Debug)]
pub struct Silence {
    stopped: Vec<u32>,
}

impl Silence {
    fn stop(&mut self, pid: u32) -> anyhow::Result<()> {
        process::send("STOP", pid)?;
        self.stopped.push(pid);
        Ok(())
    }

    async fn stop_sessions(&mut self, admin: &Admin) -> anyhow::Result<usize> {
        let before = self.stopped.len();
        for row in admin.query(SESSIONS, &[&role::NAME]).await? {
            let pid = u32::try_from(row.get::<_, i32>(0))?;
            // One that has ended by itself meanwhile is silent enough.
            if !self.stopped.contains(&pid) {
                self.stop(pid).ok();
            }
        }
        Ok(self.stopped.len() - before)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        for pid in self.stopped.drain(..).rev() {
            // One that was killed meanwhile has nothing to go on with.
            process::send("CONT", pid).ok();
        }
    }
}

/// The server refuses agents from now on, and ends the sessions that they have.
///
/// # Errors
/// The server's own.
pub async fn shut_out(server: &Server) -> anyhow::Result<()> {
    let admin = server.admin("postgres").await?;
    admin.batch_execute(&format!("alter role {} connection limit 0", role::NAME)).await?;
    admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", &[&role::NAME]).await?;
    Ok(())
}

/// The server takes agents again.
///
/// # Errors
/// The server's own.
pub async fn let_in(server: &Server) -> anyhow::Result<()> {
    let admin = server.admin("postgres").await?;
    Ok(admin.batch_execute(&format!("alter role {} connection limit -1", role::NAME)).await?)
}
