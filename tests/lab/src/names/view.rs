//! What one client sees of the zone: an answer in process, a hosts file for programs that resolve through the C library, and
//! a DNS server for those that do not.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::{Zone, dns};

/// A client's view of the lab's names. Clones share it; its hosts file goes with the last one.
#[derive(Clone)]
pub struct Resolver(Arc<View>);

pub(super) struct View {
    zone: Zone,
    delay: Duration,
    hosts: PathBuf,
    /// Counts answers, so that a name with several addresses leads to each in turn.
    turn: AtomicUsize,
    written: Mutex<String>,
    server: OnceCell<dns::Server>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("delay", &self.0.delay).field("hosts", &self.0.hosts).finish_non_exhaustive()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.hosts);
    }
}

impl Resolver {
    pub(super) fn new(zone: Zone, delay: Duration, number: u32) -> io::Result<Self> {
        let hosts = zone.0.folder.join(format!("{number}.hosts"));
        let (written, server) = (Mutex::default(), OnceCell::new());
        let view = Arc::new(View { zone, delay, hosts, turn: AtomicUsize::new(0), written, server });
        view.write()?;
        Ok(Self(view))
    }

    pub(super) fn downgrade(&self) -> Weak<View> {
        Arc::downgrade(&self.0)
    }

    /// By how much it follows the zone.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.0.delay
    }

    /// The address that this client is told for a host name now: one, as RDS answers, and the next of them at the next call where
    /// there are several. An address answers for itself. `None` is NXDOMAIN.
    #[must_use]
    pub fn lookup(&self, host: &str) -> Option<IpAddr> {
        if let Ok(address) = host.parse() {
            return Some(address);
        }
        if host == "localhost" {
            return Some(IpAddr::from([127, 0, 0, 1]));
        }
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        self.0.answer(&host.trim_end_matches('.').to_ascii_lowercase(), turn)
    }

    /// What a process needs in its environment so that its C library resolves through this view (and nothing else: other names
    /// are unknown to it).
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let ours = &self.0.zone.0.preload;
        let preload = match std::env::var("LD_PRELOAD") {
            Ok(others) if !others.is_empty() && !others.contains("libnss_wrapper") => format!("{ours}:{others}"),
            _ => ours.clone(),
        };
        vec![("LD_PRELOAD".to_owned(), preload), ("NSS_WRAPPER_HOSTS".to_owned(), self.0.hosts.display().to_string())]
    }

    /// The hosts file, replaced at every change.
    #[must_use]
    pub fn hosts_file(&self) -> &Path {
        &self.0.hosts
    }

    /// A `resolv.conf` for programs with a resolver of their own (c-ares, as in PgBouncer): it names a DNS server for this view,
    /// which is started by the first call and ends with the view.
    ///
    /// # Errors
    /// When port 53 of a loopback address cannot be bound: that needs root, or `net.ipv4.ip_unprivileged_port_start` at most 53.
    pub async fn resolv_conf(&self) -> io::Result<PathBuf> {
        let server = self.0.server.get_or_try_init(|| dns::Server::start(self.downgrade())).await?;
        let file = self.0.hosts.with_extension("resolv.conf");
        std::fs::write(&file, format!("nameserver {}\noptions timeout:1 attempts:2\n", server.address().ip()))?;
        Ok(file)
    }
}

impl View {
    /// One address of a name, the `turn`th of those that it has.
    pub(super) fn answer(&self, name: &str, turn: usize) -> Option<IpAddr> {
        let now = self.zone.0.clock.mono();
        let records = self.zone.records();
        let seen = records.seen(name, now, self.delay);
        seen.get(turn % seen.len().max(1)).copied()
    }

    /// As [`View::answer`], for a server that asks for itself.
    pub(super) fn next(&self, name: &str) -> Option<IpAddr> {
        self.answer(name, self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Leads names with several addresses to their next one.
    pub(super) fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
        self.rewrite();
    }

    /// Follows a change of the zone: at once where a client has nothing to remember, the rest after the delay.
    pub(super) fn zone_changed(self: Arc<Self>) {
        self.rewrite();
        if self.delay.is_zero() {
            return;
        }
        let view = Arc::downgrade(&self);
        let (clock, delay) = (self.zone.0.clock.clone(), self.delay);
        tokio::spawn(async move {
            clock.sleep(delay).await;
            if let Some(view) = view.upgrade() {
                view.rewrite();
            }
        });
    }

    fn rewrite(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(%error, file = %self.hosts.display(), "a hosts file could not be written");
        }
    }

    /// Replaces the hosts file by rename, so that a reader sees the old or the new one whole and notices that it is another.
    fn write(&self) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.text();
        if *written == text {
            return Ok(());
        }
        let draft = self.hosts.with_extension("draft");
        std::fs::write(&draft, &text)?;
        std::fs::rename(&draft, &self.hosts)?;
        *written = text;
        Ok(())
    }

    fn text(&self) -> String {
        let turn = self.turn.load(Ordering::Relaxed);
        let now = self.zone.0.clock.mono();
        let records = self.zone.records();
        let lines = records.history.keys().filter_map(|name| {
            let seen = records.seen(name, now, self.delay);
            let address = seen.get(turn % seen.len().max(1))?;
            Some(format!("{address} {name}\n"))
        });
        lines.fold(String::from("127.0.0.1 localhost\n"), |text, line| text + &line)
    }
}
