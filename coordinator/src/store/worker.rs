//! One thread owns the connection; everybody else sends it work. So there is one writer, in one order, and no lock.

use std::path::Path;
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// Work under way to the thread; past it callers wait.
const QUEUE_MAX: usize = 256;

/// The handle of the thread. The thread ends when the last handle is dropped, after the work that was sent.
#[derive(Clone)]
pub(super) struct Worker(mpsc::Sender<Work>);

/// The thread is gone: it panicked, which is a mistake in this program.
#[derive(Debug, thiserror::Error)]
#[error("the store's thread is gone")]
pub(super) struct Gone;

impl Worker {
    /// Opens the file, sets what must be set on every connection, and starts the thread.
    pub(super) fn start(
        path: &Path,
        prepare: impl FnOnce(&mut Connection) -> Result<(), StartError>,
    ) -> Result<Worker, StartError> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", "on")?;
        whole(&connection)?;
        prepare(&mut connection)?;
        let (sender, mut inbox) = mpsc::channel::<Work>(QUEUE_MAX);
        thread::Builder::new().name("store".into()).spawn(move || {
            while let Some(work) = inbox.blocking_recv() {
                work(&mut connection);
            }
        })?;
        Ok(Worker(sender))
    }

    /// Does `work` on the thread. Once sent, it is done even when the caller does not wait.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let _ = reply.send(work(connection));
        });
        self.0.send(work).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}

/// A torn or overwritten file is refused before anything is written to it.
fn whole(connection: &Connection) -> Result<(), StartError> {
    let said: String = connection.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if said == "ok" { Ok(()) } else { Err(StartError::Damaged(said)) }
}

/// Why the thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("what it holds contradicts itself: {0}")]
    Damaged(String),
    #[error("the file cannot be used as a database")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the tables cannot be brought up to date")]
    Migrate(#[from] refinery::Error),
    #[error("the store's thread cannot be started")]
    Thread(#[from] std::io::Error),
}
