//! The password of the agent's role: read from a file or printed by a command, remembered for a while, never shown.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::clock::{Clock, Mono};
use secrecy::{ExposeSecret, SecretString};

use super::ConnectError;
use crate::config::Database;

const PASSWORD_COMMAND_WITHIN: Duration = Duration::from_secs(10);
/// A password that a command printed is used this long (IAM tokens live 15 minutes).
const PASSWORD_FRESH: Duration = Duration::from_secs(300);
/// A refused password that a command printed so lately is not asked for again.
const PASSWORD_YOUNG: Duration = Duration::from_secs(60);

/// Where the password comes from, and the last ones.
pub(super) struct Password {
    user: String,
    source: PasswordSource,
    last: Mutex<Passwords>,
}

/// By host and port: what a command prints may be good for one server only, as tokens of IAM are. A file is good for all.
type Passwords = HashMap<Option<(String, u16)>, (Mono, SecretString)>;

enum PasswordSource {
    File(PathBuf),
    Command(Vec<String>),
}

impl Password {
    pub(super) fn new(database: &Database) -> Password {
        let source = match (&database.password_file, &database.password_command) {
            (Some(path), _) => PasswordSource::File(path.clone()),
            (None, command) => PasswordSource::Command(command.clone().unwrap_or_default()),
        };
        Password { user: database.user.clone(), source, last: Mutex::default() }
    }

    fn key(&self, host: &str, port: u16) -> Option<(String, u16)> {
        match self.source {
            PasswordSource::File(_) => None,
            PasswordSource::Command(_) => Some((host.to_owned(), port)),
        }
    }

    fn last(&self) -> MutexGuard<'_, Passwords> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called after a server refused it, so that a rotated one is read. A server that takes nobody refuses it too, again and
    /// again while it is switched over: what a command printed lately is kept, for running it may take long.
    pub(super) fn forget(&self, now: Mono, host: &str, port: u16) {
        let file = matches!(self.source, PasswordSource::File(_));
        let (key, mut last) = (self.key(host, port), self.last());
        if last.get(&key).is_some_and(|(read, _)| file || now.since(*read) >= PASSWORD_YOUNG) {
            last.remove(&key);
        }
    }

    /// The password for the server at `host` and `port`.
    pub(super) async fn get(&self, clock: &Clock, host: &str, port: u16) -> Result<SecretString, ConnectError> {
        let (now, key) = (clock.mono(), self.key(host, port));
        if let Some((at, password)) = self.last().get(&key)
            && now.since(*at) < PASSWORD_FRESH
        {
            return Ok(password.clone());
        }
        let text = match &self.source {
            // Not by the pool of threads: names that do not resolve may keep those busy when it matters.
            PasswordSource::File(path) => std::fs::read_to_string(path)
                .map_err(|error| ConnectError::Password { what: format!("{}: {error}", path.display()) })?,
            PasswordSource::Command(command) => {
                let told = [("PGHOST", host), ("PGPORT", &port.to_string()), ("PGUSER", &self.user)];
                run(clock, command, told).await?
            }
        };
        let password = SecretString::from(text.lines().next().unwrap_or_default().to_owned());
        if password.expose_secret().is_empty() {
            return Err(ConnectError::Password { what: "its source is empty".into() });
        }
        let mut last = self.last();
        // Names that are dialled no more leave nothing behind.
        last.retain(|_, (read, _)| now.since(*read) < PASSWORD_FRESH);
        last.insert(key, (now, password.clone()));
        Ok(password)
    }
}

/// The command's standard output. It is `told` by libpq's variables which server the password is for. What it says on standard error
/// is not repeated: it may hold secrets.
async fn run(clock: &Clock, command: &[String], told: [(&str, &str); 3]) -> Result<String, ConnectError> {
    let failed = |what: String| ConnectError::Password { what };
    let Some((program, arguments)) = command.split_first() else {
        return Err(failed("password_command is empty".into()));
    };
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(told)
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null())
        .output();
    let output = clock
        .timeout(PASSWORD_COMMAND_WITHIN, child)
        .await
        .map_err(|elapsed| failed(format!("{program}: {elapsed}")))?
        .map_err(|error| failed(format!("{program}: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("{program}: {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| failed(format!("{program}: its output is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    #[tokio::test]
    async fn a_command_is_asked_for_a_password_of_each_server_and_anew_when_an_older_one_is_refused() {
        let folder = std::env::temp_dir().join(format!("password-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = format!("echo x >> {}/ran; echo $PGUSER@$PGHOST:$PGPORT", folder.display());
        let command = Some(vec!["sh".into(), "-c".into(), script]);
        let password = Password::new(&Database {
            user: "upgrade_pilot".into(),
            password_file: None,
            password_command: command,
            maintenance_database: "postgres".into(),
            tls: Tls::Disable,
            tls_ca_file: None,
        });
        let clock = Clock::system();
        let ask = async |host, ran: usize| {
            let said = password.get(&clock, host, 5432).await.unwrap();
            assert_eq!(said.expose_secret(), format!("upgrade_pilot@{host}:5432"));
            assert_eq!(std::fs::read_to_string(folder.join("ran")).unwrap().lines().count(), ran, "{host}");
        };
        ask("blue.example", 1).await;
        ask("green.example", 2).await;
        ask("blue.example", 2).await;
        // A server that takes nobody refuses a new one too.
        let now = clock.mono();
        password.forget(now, "green.example", 5432);
        ask("green.example", 2).await;
        password.forget(now + PASSWORD_YOUNG, "green.example", 5432);
        ask("blue.example", 2).await;
        ask("green.example", 3).await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
