//! Hooks of the coordinator on the stage: a command that writes what it is given to a file, and an endpoint that takes it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use runtime::played::http_request;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Stage;

/// The steps, in order.
pub const STEPS: [&str; 7] = [
    "prerequisites",
    "provisioning",
    "post_provisioning",
    "replicating_data",
    "switchover",
    "post_switchover",
    "cleanup",
];

/// An endpoint that answers 200 and keeps what it was sent. Ends with it.
pub struct Receiver {
    /// Where it listens.
    pub url: String,
    took: Arc<Mutex<Vec<Value>>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// Listens.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> anyhow::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let took = Arc::<Mutex<Vec<Value>>>::default();
        let (taken, mut tasks) = (took.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(take(stream, taken.clone()));
            }
        });
        Ok(Receiver { url, took, _tasks: tasks })
    }

    /// All bodies, in the order in which they came.
    #[must_use]
    pub fn took(&self) -> Vec<Value> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration: `asked` is asked before every step, by a command; `told` is told of the rest, over HTTP.
    #[must_use]
    pub fn configuration(&self) -> String {
        let before: Vec<String> = STEPS.iter().map(|step| format!("before_{step}")).collect();
        let script = r#"read -r line || true; printf '%s\\n' \"$line\" >> {folder}/asked.jsonl"#;
        format!(
            "[[hooks]]\nname = \"asked\"\nkind = \"command\"\npoints = {before:?}\ncommand = [\"sh\", \"-c\", \"{script}\"]\n\
             [[hooks]]\nname = \"told\"\nkind = \"http\"\npoints = [\"all\"]\nurl = \"{}\"\n",
            self.url
        )
    }
}

/// One request, kept before it is answered: a coordinator that is killed meanwhile has to send it again.
async fn take(mut stream: TcpStream, took: Arc<Mutex<Vec<Value>>>) {
    let Some((_, body)) = http_request(&mut stream).await else { return };
    let value = serde_json::from_str(&body).unwrap_or(Value::String(body));
    took.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
}

impl Stage {
    /// A file in the stage's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the command of [`Receiver::configuration`] was given, oldest first.
    ///
    /// # Errors
    /// When it was given something that is no JSON on one line.
    pub fn asked(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.file("asked.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

/// Each delivery once, as somebody keeps them who has seen some before.
#[must_use]
pub fn each_once(notices: Vec<Value>) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    notices.into_iter().filter(|notice| seen.insert(notice["delivery"].to_string())).collect()
}
