//! A real browser, headless: Debian's Chromium, driven by Playwright through `browser.py`, one order and one answer a line. It looks
//! at pages and presses buttons as a person does; what is on a page is judged by the test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lab::demo::tempo::Tempo;
use lab::install;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Playwright, and axe-core with it, which judges pages by the WCAG.
const PACKAGES: [&str; 2] = ["playwright==1.65.2", "axe-playwright-python==0.1.8"];
/// Between two looks at a page.
const EVERY: Duration = Duration::from_millis(50);
/// For one order.
const ANSWER: Duration = Duration::from_secs(60);

/// One page in one browser.
pub struct Browser {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    tempo: Tempo,
    shots: PathBuf,
}

impl Browser {
    /// Starts it. Pictures go to `PILOT_SHOTS`, or the given folder.
    ///
    /// # Errors
    /// When something it needs cannot be installed, or it does not start.
    pub async fn start(folder: &Path, tempo: &Tempo) -> anyhow::Result<Browser> {
        let say = |line: &str| eprintln!("{line}");
        let chromium = install::ensure_chromium(&say).await?;
        let python = install::ensure_python("browser", &PACKAGES, &say).await?;
        let shots = std::env::var_os("PILOT_SHOTS").map_or_else(|| folder.join("shots"), PathBuf::from);
        std::fs::create_dir_all(&shots)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stage/browser.py");
        let mut command = Command::new(python);
        command.arg(script).arg(chromium).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting the browser's driver")?;
        let orders = child.stdin.take().context("its input")?;
        let answers = BufReader::new(child.stdout.take().context("its output")?).lines();
        Ok(Browser { _child: child, orders, answers, tempo: tempo.clone(), shots })
    }

    /// Gives an order (`{"do": "open", "url": …}`) and returns what it says.
    ///
    /// # Errors
    /// With what went wrong in the browser.
    pub async fn order(&mut self, order: Value) -> anyhow::Result<Value> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await?;
        let line = self.tempo.within(ANSWER, self.answers.next_line()).await;
        let line = line.with_context(|| format!("no answer to {order}"))??.context("the driver ended")?;
        let mut answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        match answer["wrong"].take() {
            Value::Null => Ok(answer["said"].take()),
            wrong => bail!("{order}: {wrong}"),
        }
    }

    /// Opens a page.
    ///
    /// # Errors
    /// When it does not load.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        self.order(json!({ "do": "open", "url": url })).await.map(drop)
    }

    /// What is on the page: texts by the names of `browser.py`.
    ///
    /// # Errors
    /// The browser's own.
    pub async fn read(&mut self) -> anyhow::Result<Value> {
        self.order(json!({ "do": "read" })).await
    }

    /// Presses what the selector finds.
    ///
    /// # Errors
    /// When there is no such thing, or it cannot be pressed.
    pub async fn press(&mut self, selector: &str) -> anyhow::Result<()> {
        self.order(json!({ "do": "press", "what": selector })).await.map(drop)
    }

    /// Types into a field.
    ///
    /// # Errors
    /// When there is none.
    pub async fn fill(&mut self, selector: &str, text: &str) -> anyhow::Result<()> {
        self.order(json!({ "do": "fill", "what": selector, "text": text })).await.map(drop)
    }

    /// Pictures of the whole page: light, dark, and narrow.
    ///
    /// # Errors
    /// When they cannot be written, or the page is wider than a narrow screen.
    pub async fn shots(&mut self, name: &str) -> anyhow::Result<()> {
        let folder = self.shots.display().to_string();
        let wide = self.order(json!({ "do": "shots", "folder": folder, "name": name })).await?;
        ensure!(wide.as_u64().is_some_and(|wide| wide <= 400), "{name} is {wide} wide on a screen of 400");
        Ok(())
    }

    /// What axe-core finds wrong with the page, light and dark, one line each.
    ///
    /// # Errors
    /// The browser's own.
    pub async fn barriers(&mut self) -> anyhow::Result<Vec<String>> {
        let found = self.order(json!({ "do": "barriers" })).await?;
        Ok(serde_json::from_value(found)?)
    }

    /// Waits until the page is as wished.
    ///
    /// # Errors
    /// When it is not within `limit`; quotes the page.
    pub async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        wished: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let tempo = self.tempo.clone();
        let begun = tempo.at();
        loop {
            let page = self.read().await?;
            if wished(&page) {
                return Ok(page);
            }
            if tempo.at() - begun > limit {
                bail!("the page does not show {what} within {limit:?}: {page}");
            }
            tempo.sleep(EVERY).await;
        }
    }
}
