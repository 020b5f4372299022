//! PgBouncer: holds clients through the cut (`PAUSE`), sends them to another server (its databases file, `RELOAD`), lets
//! them go (`RESUME`). Its admin console understands the simple protocol only.
//!
//! The databases file is `%include`d by PgBouncer's own configuration. Only `host=` and `port=` of the named databases are
//! changed; what stood there before is kept beside it until the production name is good again.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};
use proto::report::IngestionState;
use runtime::clock::Clock;
use tokio::{sync::Mutex, task::AbortHandle};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::{BoxFuture, ControlError, IngestionController, Observation, PauseMark, Serving, failed};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// One command of the console other than `PAUSE`, which the caller bounds.
const COMMAND_WITHIN: Duration = Duration::from_secs(2);

/// What is said to be remembered for 0 s may be so for most of a second.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(1100);

/// Where the admin console is.
#[derive(Debug, Clone)]
pub struct Console {
    pub address: SocketAddr,
    pub user: String,
    pub password_file: Option<PathBuf>,
}

/// Its database names that are held through the cut.
#[derive(Debug, Clone)]
pub struct Databases {
    /// Sent to the writer.
    pub writer: Vec<String>,
    /// Sent to a reader, to the writer where there is none.
    pub reader: Vec<String>,
}

/// See the module.
pub struct PgBouncer {
    name: String,
    console: Console,
    /// All of them, in order of their names' lists.
    databases: Vec<String>,
    readers: Vec<String>,
    config_file: PathBuf,
    clock: Clock,
    /// Connections kept from the pause on, so that the release waits for none: one a database and one more.
    warm: Mutex<Vec<Session>>,
}

struct Session {
    client: Client,
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl PgBouncer {
    pub fn new(name: String, console: Console, databases: Databases, config_file: PathBuf, clock: Clock) -> PgBouncer {
        let Databases { writer, reader: readers } = databases;
        let databases = writer.into_iter().chain(readers.iter().cloned()).collect();
        PgBouncer { name, console, databases, readers, config_file, clock, warm: Mutex::default() }
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} on PgBouncer {} at {}", self.name, self.console.address)
    }

    async fn session(&self) -> Result<Session, ControlError> {
        while let Some(session) = self.warm.lock().await.pop() {
            if !session.client.is_closed() {
                return Ok(session);
            }
        }
        self.connect().await
    }

    async fn keep(&self, session: Session) {
        let mut warm = self.warm.lock().await;
        if warm.len() <= self.databases.len() {
            warm.push(session);
        }
    }

    async fn connect(&self) -> Result<Session, ControlError> {
        let doing = || self.doing("connecting to the console");
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.console.address.ip().to_string())
            .port(self.console.address.port())
            .user(&self.console.user)
            .dbname("pgbouncer")
            .application_name("upgrade_pilot")
            .connect_timeout(CONNECT_WITHIN);
        if let Some(path) = &self.console.password_file {
            let text = tokio::fs::read_to_string(path).await.map_err(|error| failed(doing(), error))?;
            config.password(text.lines().next().unwrap_or_default());
        }
        let connected = self.clock.timeout(CONNECT_WITHIN, config.connect(NoTls)).await;
        let connected = connected.map_err(|elapsed| failed(doing(), elapsed))?;
        let (client, connection) = connected.map_err(|error| failed(doing(), chain(&error)))?;
        let driver = tokio::spawn(async move {
            // Its error is seen by whoever waits for an answer on the client.
            let _ended = connection.await;
        });
        Ok(Session { client, driver: driver.abort_handle() })
    }

    async fn command(&self, session: &Session, command: &str) -> Result<Vec<SimpleQueryMessage>, ControlError> {
        let answer = self.clock.timeout(COMMAND_WITHIN, session.client.simple_query(command)).await;
        let answer = answer.map_err(|elapsed| failed(self.doing(command), elapsed))?;
        answer.map_err(|error| failed(self.doing(command), chain(&error)))
    }

    /// Name and paused-ness of our databases.
    async fn paused(&self, session: &Session) -> Result<Vec<(String, bool)>, ControlError> {
        let mut seen = Vec::new();
        for message in self.command(session, "SHOW DATABASES").await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            if let Some(name) = row.get("name")
                && self.databases.iter().any(|ours| ours == name)
            {
                seen.push((name.to_owned(), column(&row, "paused") == Some("1")));
            }
        }
        match self.databases.iter().find(|ours| !seen.iter().any(|(name, _)| name == *ours)) {
            None => Ok(seen),
            Some(missing) => Err(failed(self.doing("SHOW DATABASES"), format!("it has no database {missing:?}"))),
        }
    }

    /// Can its clients be sent to a server by address, as they are at the cut? Not where it verifies names: no certificate of RDS
    /// names an address, and every client would be refused.
    async fn takes_addresses(&self, session: &Session) -> Result<(), ControlError> {
        for message in self.command(session, "SHOW CONFIG").await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            if (column(&row, "key"), column(&row, "value")) == (Some("server_tls_sslmode"), Some("verify-full")) {
                let what = "server_tls_sslmode is verify-full, and at the cut clients are sent to green by its address, which no \
                            certificate names; write server_tls_sslmode = verify-ca";
                return Err(failed(self.doing("SHOW CONFIG"), what));
            }
        }
        Ok(())
    }

    async fn pause_all(&self) -> Result<(), ControlError> {
        let control = self.session().await?;
        self.takes_addresses(&control).await?;
        let paused = self.paused(&control).await?;
        let running = paused.into_iter().filter(|(_, paused)| !paused);
        // One connection each: a PAUSE answers when the last transaction has ended, and the others need not wait for it.
        let kept = try_join_all(running.map(|(name, _)| async move {
            let session = self.session().await?;
            let command = format!("PAUSE {}", quoted(&name));
            session.client.simple_query(&command).await.map_err(|error| failed(self.doing(&command), chain(&error)))?;
            Ok(session)
        }))
        .await?;
        for session in kept {
            self.keep(session).await;
        }
        self.keep(control).await;
        Ok(())
    }

    async fn resume_all(&self) -> Result<(), ControlError> {
        let resumed = join_all(self.databases.iter().map(|name| async move {
            let session = self.session().await?;
            let command = format!("RESUME {}", quoted(name));
            let end = self.command(&session, &command).await;
            Ok((session, end.err()))
        }))
        .await;
        let mut refused = Vec::new();
        for end in resumed {
            let (session, error): (Session, Option<ControlError>) = end?;
            refused.extend(error);
            self.keep(session).await;
        }
        let Some(first) = refused.into_iter().next() else { return Ok(()) };
        // "not paused" is the wanted state: look instead of reading the words of an error.
        let control = self.session().await?;
        let still = self.paused(&control).await?;
        if still.iter().any(|(_, paused)| *paused) { Err(first) } else { Ok(()) }
    }

    /// Puts `text` into the databases file and lets PgBouncer read it.
    async fn write_and_reload(&self, text: &str) -> Result<(), ControlError> {
        replace(&self.config_file, text).map_err(|error| failed(self.doing("writing its databases file"), error))?;
        let session = self.session().await?;
        self.command(&session, "RELOAD").await?;
        self.keep(session).await;
        Ok(())
    }

    /// Does PgBouncer itself send every one of our databases where `to` says? What the file says is not what it has read.
    async fn sends(&self, to: impl Fn(&str) -> SocketAddr) -> Result<(), ControlError> {
        let session = self.session().await?;
        let seen = self.command(&session, "SHOW DATABASES").await?;
        self.keep(session).await;
        let seen: Vec<_> = seen.iter().filter_map(place).collect();
        for ours in &self.databases {
            let wanted = to(ours);
            match seen.iter().find(|(name, ..)| name == ours) {
                Some((_, host, port)) if *host == wanted.ip().to_string() && *port == wanted.port().to_string() => {}
                other => {
                    let place = other.map(|(_, host, port)| format!("{host}:{port}"));
                    let what = format!("{ours:?} goes to {place:?}, not to {wanted}");
                    return Err(failed(self.doing("RELOAD"), what));
                }
            }
        }
        tracing::trace!(system = self.name, "clients are sent elsewhere");
        Ok(())
    }

    /// For how many seconds more PgBouncer itself remembers another address of a name in `before` than `now` has in its place. Its
    /// cache of names has its own time to live (`dns_max_ttl`), whatever ours says.
    async fn remembers(&self, before: &str, now: &str) -> Result<Option<u64>, ControlError> {
        let (names, places) = (hosts(before, &self.databases), hosts(now, &self.databases));
        let session = self.session().await?;
        let cached = self.command(&session, "SHOW DNS_HOSTS").await?;
        self.keep(session).await;
        let stale = cached.iter().filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            let (name, addresses) = (column(row, "hostname")?, column(row, "addrs").unwrap_or_default());
            let host =
                |address: &'_ str| address.rsplit_once(':').map_or(address.to_owned(), |(host, _)| host.to_owned());
            let known: Vec<String> = addresses.split(',').map(host).collect();
            let ours = names.iter().filter(|(_, host)| *host == name);
            let other = ours
                .into_iter()
                .any(|(ours, _)| places.iter().any(|(database, place)| database == ours && !known.contains(place)));
            other.then(|| column(row, "ttl").and_then(|left| left.parse().ok()).unwrap_or(0))
        });
        Ok(stale.max())
    }

    fn original(&self) -> PathBuf {
        let mut name = self.config_file.as_os_str().to_owned();
        name.push(".before-upgrade");
        PathBuf::from(name)
    }

    fn read(&self, path: &Path) -> Result<String, ControlError> {
        std::fs::read_to_string(path).map_err(|error| failed(self.doing("reading its databases file"), error))
    }
}

fn column<'a>(row: &'a SimpleQueryRow, name: &str) -> Option<&'a str> {
    let at = row.columns().iter().position(|column| column.name() == name)?;
    row.get(at)
}

/// Name, host and port of a database of the console's list.
fn place(message: &SimpleQueryMessage) -> Option<(&str, &str, &str)> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((column(row, "name")?, column(row, "host")?, column(row, "port")?))
}

fn chain(error: &dyn std::error::Error) -> String {
    runtime::supervision::chain(error)
}

/// A database name for the console.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where the named databases go by this text: name and host.
fn hosts(text: &str, databases: &[String]) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (name, settings) = line.split_once('=')?;
        let name = name.trim().trim_matches('"');
        let host = settings.split_whitespace().find_map(|word| word.strip_prefix("host="))?;
        databases.iter().any(|ours| ours == name).then(|| (name.to_owned(), host.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Replaces a file at once, with the rights it had.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text)?;
    if let Ok(metadata) = std::fs::metadata(path) {
        std::fs::set_permissions(&draft, metadata.permissions())?;
    }
    std::fs::rename(draft, path)
}

/// The databases file with `host=` and `port=` of the named databases set to where `to` sends each. Every one must stand in it.
fn pointed(text: &str, databases: &[String], to: impl Fn(&str) -> SocketAddr) -> Result<String, String> {
    let mut left: Vec<&str> = databases.iter().map(String::as_str).collect();
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let name = line.split_once('=').map(|(name, _)| name.trim().trim_matches('"'));
        match left.iter().position(|wanted| name == Some(*wanted)) {
            None => lines.push(line.to_owned()),
            Some(at) => {
                left.remove(at);
                lines.push(pointed_line(line, to(name.unwrap_or_default())));
            }
        }
    }
    match left.first() {
        None => Ok(lines.join("\n") + if text.ends_with('\n') { "" } else { "\n" }),
        Some(missing) => Err(format!("it has no line for database {missing:?}")),
    }
}

fn pointed_line(line: &str, to: SocketAddr) -> String {
    let Some((name, settings)) = line.split_once('=') else { return line.to_owned() };
    let kept = settings.split_whitespace().filter(|word| !word.starts_with("host=") && !word.starts_with("port="));
    let kept: Vec<&str> = kept.collect();
    format!("{} = host={} port={} {}", name.trim(), to.ip(), to.port(), kept.join(" ")).trim_end().to_owned()
}

impl IngestionController for PgBouncer {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "pgbouncer"
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, ControlError>> {
        Box::pin(async move {
            let session = self.session().await?;
            self.takes_addresses(&session).await?;
            let paused = self.paused(&session).await?;
            let waiting = self.command(&session, "SHOW POOLS").await?;
            let backlog = waiting.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row)
                    if self.databases.iter().any(|d| Some(d.as_str()) == column(row, "database")) =>
                {
                    column(row, "cl_waiting")?.parse::<u64>().ok()
                }
                _ => None,
            });
            let backlog = Some(backlog.sum());
            self.keep(session).await;
            let state = match paused.iter().filter(|(_, paused)| *paused).count() {
                0 => IngestionState::Running,
                n if n == paused.len() => IngestionState::Paused,
                _ => IngestionState::Mixed,
            };
            Ok(Observation { state, backlog, rate: None })
        })
    }

    fn pause<'a>(&'a self, _mark: &'a PauseMark) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.pause_all())
    }

    fn resume<'a>(&'a self, _mark: &'a PauseMark, _to: Option<Serving>) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.resume_all())
    }

    fn holds(&self) -> bool {
        true
    }

    fn retarget(&self, to: Serving) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let now = self.read(&self.config_file)?;
            let place = |name: &str| match to.reader {
                Some(reader) if self.readers.iter().any(|ours| ours == name) => reader,
                _ => to.writer,
            };
            let wanted = pointed(&now, &self.databases, place);
            let wanted = wanted.map_err(|what| failed(self.doing("reading its databases file"), what))?;
            if wanted != now && !self.original().exists() {
                let kept = std::fs::write(self.original(), &now);
                kept.map_err(|error| failed(self.doing("keeping its databases file"), error))?;
            }
            // Read again even where nothing is to be written: whoever wrote it may have been interrupted before PgBouncer read it.
            self.write_and_reload(&wanted).await?;
            self.sends(place).await
        })
    }

    fn restore_target(&self) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async move {
            if !self.original().exists() {
                return Ok(true);
            }
            let (before, now) = (self.read(&self.original())?, self.read(&self.config_file)?);
            match self.remembers(&before, &now).await? {
                None => {}
                Some(0) => self.clock.sleep(FORGOTTEN_AFTER).await,
                Some(seconds) => {
                    tracing::debug!(system = self.name, seconds, "another address of the name is remembered");
                    return Ok(false);
                }
            }
            self.write_and_reload(&before).await?;
            let removed = std::fs::remove_file(self.original());
            removed.map_err(|error| failed(self.doing("removing the kept databases file"), error))?;
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn only_host_and_port_of_the_named_databases_change() {
        let text = "[databases]\n; ours\norders = host=127.1.1.1 port=5432 dbname=orders pool_size=5\n\
                    \"billing\" = dbname=billing host=127.1.1.1 port=5432\nother = host=127.1.1.1 port=5432\n";
        let to: SocketAddr = "127.1.1.9:5433".parse().unwrap();
        let reader: SocketAddr = "127.1.1.10:5433".parse().unwrap();
        let place = |name: &str| if name == "billing" { reader } else { to };
        let pointed = pointed(text, &["orders".into(), "billing".into()], place).unwrap();
        assert_eq!(
            pointed,
            "[databases]\n; ours\norders = host=127.1.1.9 port=5433 dbname=orders pool_size=5\n\
             \"billing\" = host=127.1.1.10 port=5433 dbname=billing\nother = host=127.1.1.1 port=5432\n"
        );
        let again = super::pointed(&pointed, &["orders".into(), "billing".into()], place).unwrap();
        assert_eq!(again, pointed, "pointing twice changes nothing");
    }

    #[test]
    fn a_database_that_is_not_in_the_file_is_named() {
        let to: SocketAddr = "127.1.1.9:5433".parse().unwrap();
        assert_eq!(
            pointed("[databases]\n", &["orders".into()], |_| to).unwrap_err(),
            "it has no line for database \"orders\""
        );
    }

    /// Every line of a database that is not ours stays as it was.
    #[test]
    fn any_bytes_in_the_databases_file_stay_but_for_host_and_port() {
        let target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "pgbouncer-databases");
        let target = target.words(&["host=", "port=1", "orders =", "\"orders\"=", ";", "* = "]);
        let to: SocketAddr = "127.0.0.7:5432".parse().expect("an address");
        target.seed(*b"; ours\norders = host=a port=1 dbname=orders\n\"billing\" = host=b\n* = host=c\n").run(
            |bytes| {
                let text = String::from_utf8_lossy(bytes);
                match pointed(&text, &["orders".into(), "billing".into()], |_| to) {
                    Ok(now) => {
                        let (text, lines) = (text.trim_end_matches('\n'), now.trim_end_matches('\n'));
                        let (before, after): (Vec<&str>, Vec<&str>) =
                            (text.split('\n').collect(), lines.split('\n').collect());
                        let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
                        assert!(before.len() == after.len() && changed <= 2, "{now}");
                        assert_eq!(
                            pointed(&now, &["orders".into(), "billing".into()], |_| to).as_deref(),
                            Ok(now.as_str())
                        );
                        format!("{changed} changed")
                    }
                    Err(missing) => missing,
                }
            },
        );
    }

    /// A console that answers every command, sends `bench` where the file said at the last RELOAD, and keeps what it was asked.
    async fn console(config_file: PathBuf, asked: std::sync::Arc<std::sync::Mutex<Vec<String>>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let host = |text: &str| text.split_once("host=").unwrap().1.split_whitespace().next().unwrap().to_owned();
            let mut read = "127.0.0.1".to_owned();
            let mut remembered = ["127.0.0.1:0", "127.0.0.3:0,127.0.0.2:0"].into_iter();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let length = socket.read_i32().await.unwrap();
                socket.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
                socket.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
                while let Ok(b'Q') = socket.read_u8().await {
                    let length = socket.read_i32().await.unwrap();
                    let mut text = vec![0; length as usize - 4];
                    socket.read_exact(&mut text).await.unwrap();
                    let text = String::from_utf8(text).unwrap().trim_end_matches('\0').to_owned();
                    let mut answer = Vec::new();
                    match text.as_str() {
                        "RELOAD" => read = host(&std::fs::read_to_string(&config_file).unwrap()),
                        "SHOW DATABASES" => answer = row(&[("name", "bench"), ("host", &read), ("port", "5432")]),
                        "SHOW DNS_HOSTS" => {
                            let addresses = remembered.next().unwrap_or_default();
                            answer = row(&[("hostname", "production"), ("ttl", "7"), ("addrs", addresses)]);
                        }
                        _ => {}
                    }
                    answer.extend_from_slice(b"C\0\0\0\x07OK\0Z\0\0\0\x05I");
                    asked.lock().unwrap().push(text);
                    socket.write_all(&answer).await.unwrap();
                }
            }
        });
        address
    }

    /// One row with its description, as the protocol has them.
    fn row(columns: &[(&str, &str)]) -> Vec<u8> {
        let count = i16::try_from(columns.len()).unwrap().to_be_bytes();
        let (mut names, mut values) = (count.to_vec(), count.to_vec());
        for (name, value) in columns {
            names.extend_from_slice(name.as_bytes());
            names.extend_from_slice(&[0; 7]);
            names.extend_from_slice(&[0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
            values.extend_from_slice(&i32::try_from(value.len()).unwrap().to_be_bytes());
            values.extend_from_slice(value.as_bytes());
        }
        let message = |kind: u8, body: &[u8]| {
            let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
            [&[kind], &length[..], body].concat()
        };
        [message(b'T', &names), message(b'D', &values)].concat()
    }

    fn bouncer(console: SocketAddr, config_file: &Path) -> PgBouncer {
        let console = Console { address: console, user: "admin".into(), password_file: None };
        let databases = Databases { writer: vec!["bench".into()], reader: Vec::new() };
        PgBouncer::new("bouncer".into(), console, databases, config_file.to_owned(), Clock::system())
    }

    #[tokio::test]
    async fn a_file_that_was_written_and_never_read_sends_nobody_anywhere() {
        let folder = std::env::temp_dir().join(format!("bouncer-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("databases.ini");
        // Whoever wrote it was interrupted before PgBouncer read it.
        std::fs::write(&file, "[databases]\nbench = host=127.0.0.2 port=5432 dbname=bench\n").unwrap();
        let asked = std::sync::Arc::default();
        let bouncer = bouncer(console(file.clone(), std::sync::Arc::clone(&asked)).await, &file);
        let green = Serving { writer: "127.0.0.2:5432".parse().unwrap(), reader: None };
        bouncer.retarget(green).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), ["RELOAD", "SHOW DATABASES"]);
        // One that did not take it over is not believed.
        let elsewhere = |_: &str| "127.0.0.3:5432".parse().unwrap();
        let error = bouncer.sends(elsewhere).await.unwrap_err().to_string();
        assert!(error.contains("\"127.0.0.2:5432\"), not to 127.0.0.3:5432"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn clients_are_not_sent_back_to_a_name_while_the_pooler_remembers_its_old_address() {
        let folder = std::env::temp_dir().join(format!("bouncer-names-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("databases.ini");
        let by_name = "[databases]\nbench = host=production port=5432 dbname=bench\n";
        std::fs::write(&file, by_name).unwrap();
        let asked = std::sync::Arc::default();
        let bouncer = bouncer(console(file.clone(), std::sync::Arc::clone(&asked)).await, &file);
        let green = Serving { writer: "127.0.0.2:5432".parse().unwrap(), reader: None };
        bouncer.retarget(green).await.unwrap();
        assert!(!bouncer.restore_target().await.unwrap(), "the name is remembered at 127.0.0.1");
        assert!(std::fs::read_to_string(&file).unwrap().contains("host=127.0.0.2"));
        assert!(bouncer.restore_target().await.unwrap(), "the name is known to be at 127.0.0.2");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), by_name);
        assert_eq!(asked.lock().unwrap().last().map(String::as_str), Some("RELOAD"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
