//! A scenario file: the provider's timings, what clients' resolvers add to them, and what goes wrong when. It is read whole or
//! refused with file, line and what to do; nothing is started here.
//!
//! ```toml
//! about = "names and COMPLETED come late"   # one sentence, for people
//! readers = 1                               # beside the writer
//!
//! [timings]
//! base = "zero"                             # a named set, every delay of which can be set by itself
//! names_delay = "3s"
//!
//! [resolver_delay]                          # how much later than the zone a client's resolver knows, by client
//! default = "0s"
//! direct-writes = "15s"
//!
//! [[fault]]
//! kind = "failover"                         # a kind of `faults.rs` with its fields
//! cluster = "blue"
//! times = 1
//! at = "replicating"                        # a moment of `faults.rs`
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::faults::Planned;
use crate::settings::Timings;

/// The longest delay that makes sense.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a scenario file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// One sentence for people.
    pub about: String,
    /// Readers beside the writer.
    pub readers: usize,
    /// The provider's delays.
    pub timings: Timings,
    /// How much later than the zone each client's resolver knows; `default` is for all others.
    pub resolver_delays: BTreeMap<String, Duration>,
    /// What goes wrong.
    pub faults: Vec<Planned>,
}

/// Why a scenario file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {what}; {cure}", file.display())]
pub struct Refused {
    /// Which file.
    pub file: PathBuf,
    /// Where in it, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl Default for Scenario {
    /// Nothing goes wrong, with no delay at all.
    fn default() -> Self {
        Self {
            about: String::new(),
            readers: 0,
            timings: Timings::zero(),
            resolver_delays: BTreeMap::new(),
            faults: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key, or asks for what cannot be.
    pub fn read(file: &Path) -> Result<Self, Refused> {
        let text = std::fs::read_to_string(file).map_err(|error| Refused {
            file: file.to_owned(),
            line: 1,
            what: format!("it cannot be read: {error}"),
            cure: "name a scenario file".to_owned(),
        })?;
        Self::parse(file, &text)
    }

    /// Reads the text of a scenario file; `file` is only for messages.
    ///
    /// # Errors
    /// As [`Scenario::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, Refused> {
        read(text).map_err(|wrong| Refused {
            file: file.to_owned(),
            line: text.bytes().take(wrong.at.start).filter(|byte| *byte == b'\n').count() + 1,
            what: wrong.what,
            cure: wrong.cure,
        })
    }

    /// How much later than the zone the resolver of `client` knows.
    #[must_use]
    pub fn resolver_delay(&self, client: &str) -> Duration {
        let found = self.resolver_delays.get(client).or_else(|| self.resolver_delays.get("default"));
        found.copied().unwrap_or_default()
    }
}

/// What is wrong with a place of the text.
struct Wrong {
    at: Range<usize>,
    what: String,
    cure: String,
}

fn wrong(at: Range<usize>, what: impl Into<String>, cure: impl Into<String>) -> Wrong {
    Wrong { at, what: what.into(), cure: cure.into() }
}

impl From<toml::de::Error> for Wrong {
    fn from(error: toml::de::Error) -> Self {
        wrong(error.span().unwrap_or(0..0), format!("this is not TOML: {}", error.message()), "mend it")
    }
}

type Pair<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

fn pairs<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Pair<'a, 'i>> {
    table.iter().collect()
}

fn read(text: &str) -> Result<Scenario, Wrong> {
    let document = DeTable::parse(text)?;
    let mut scenario = Scenario::default();
    for (key, value) in pairs(document.get_ref()) {
        match &**key.get_ref() {
            "about" => scenario.about = string(value)?.to_owned(),
            "readers" => scenario.readers = readers(value)?,
            "timings" => scenario.timings = timings(value)?,
            "resolver_delay" => {
                for (client, delay) in pairs(table(value)?) {
                    scenario.resolver_delays.insert(client.get_ref().to_string(), duration(client.get_ref(), delay)?);
                }
            }
            "fault" => scenario.faults = faults(value)?,
            other => {
                return Err(unknown(key.span(), other, &["about", "readers", "timings", "resolver_delay", "fault"]));
            }
        }
    }
    Ok(scenario)
}

fn unknown(at: Range<usize>, key: &str, known: &[&str]) -> Wrong {
    wrong(at, format!("there is no key {key:?}"), format!("use one of {}", known.join(", ")))
}

fn string<'a>(value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Wrong> {
    let text = value.get_ref().as_str();
    text.ok_or_else(|| wrong(value.span(), format!("this is a {}", value.get_ref().type_str()), "write a string"))
}

fn table<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Result<&'a DeTable<'i>, Wrong> {
    let found = value.get_ref().as_table();
    found.ok_or_else(|| wrong(value.span(), format!("this is a {}", value.get_ref().type_str()), "write a table"))
}

fn readers(value: &Spanned<DeValue<'_>>) -> Result<usize, Wrong> {
    let number = value.get_ref().as_integer().and_then(|n| n.as_str().parse().ok());
    let fits = number.filter(|n| *n <= 15);
    fits.ok_or_else(|| wrong(value.span(), "a cluster has at most 15 readers", "use 0 to 15"))
}

/// `250ms`, `3s`, `2m`, `1h 30m`: never negative, at most a day.
fn duration(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Duration, Wrong> {
    let text = string(value)?;
    let parsed: SignedDuration = text.parse().map_err(|_| {
        wrong(
            value.span(),
            format!("{key} is not a time: {text:?}"),
            "write it as \"250ms\", \"3s\", \"2m\" or \"1h 30m\"",
        )
    })?;
    let Ok(positive) = Duration::try_from(parsed) else {
        let what = match key {
            "completed_delay" => "the deployment cannot say SWITCHOVER_COMPLETED before green takes writes".to_owned(),
            "names_delay" => "names cannot move before green takes writes".to_owned(),
            _ => format!("{key} is negative"),
        };
        return Err(wrong(value.span(), what, "use \"0s\" or more"));
    };
    if positive > LONGEST {
        return Err(wrong(value.span(), format!("{key} is longer than a day"), "use at most \"24h\""));
    }
    Ok(positive)
}

fn timings(value: &Spanned<DeValue<'_>>) -> Result<Timings, Wrong> {
    let table = table(value)?;
    let mut timings = match table.get("base") {
        None => Timings::zero(),
        Some(base) => {
            let name = string(base)?;
            let known = Timings::NAMES.join(", ");
            Timings::named(name).ok_or_else(|| {
                wrong(base.span(), format!("there is no set of timings {name:?}"), format!("use one of {known}"))
            })?
        }
    };
    let mut last = value.span();
    for (key, value) in pairs(table) {
        let name = &**key.get_ref();
        if name == "base" {
            continue;
        }
        let mut entries = timings.entries();
        let Some((_, entry)) = entries.iter_mut().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = std::iter::once("base").chain(entries.iter().map(|(known, _)| *known)).collect();
            return Err(unknown(key.span(), name, &known));
        };
        **entry = duration(name, value)?;
        if entry.is_zero() && ["cloudwatch_period", "watch"].contains(&name) {
            return Err(wrong(
                value.span(),
                format!("{name} is 0"),
                "use \"1ms\" or more: it is how often something is done",
            ));
        }
        if ["names_delay", "completed_delay"].contains(&name) {
            last = value.span();
        }
    }
    if timings.names_delay > timings.completed_delay {
        let what = format!(
            "names move {:?} after green takes writes, and SWITCHOVER_COMPLETED, which means that they have moved, comes {:?} after it",
            timings.names_delay, timings.completed_delay
        );
        return Err(wrong(last, what, "let completed_delay be at least names_delay"));
    }
    Ok(timings)
}

fn faults(value: &Spanned<DeValue<'_>>) -> Result<Vec<Planned>, Wrong> {
    let array = value.get_ref().as_array();
    let array = array.ok_or_else(|| wrong(value.span(), "fault is not a list", "write [[fault]] before each fault"))?;
    array.iter().map(fault).collect()
}

fn fault(value: &Spanned<DeValue<'_>>) -> Result<Planned, Wrong> {
    let table = table(value)?;
    let planned = Planned::deserialize(ValueDeserializer::from(value.clone())).map_err(|error| {
        let cure = "see tests/lab/src/faults.rs for the kinds, their fields and the moments";
        wrong(error.span().unwrap_or(value.span()), error.message().to_owned(), cure)
    })?;
    if planned.times == 0 {
        let at = table.get("times").map_or(value.span(), Spanned::span);
        return Err(wrong(at, "a fault that happens 0 times", "use 1 or more, or remove it"));
    }
    // What was not read is not written either: serde takes no notice of unknown fields here.
    let written = serde_json::to_value(&planned).unwrap_or_default();
    for (key, _) in pairs(table) {
        let name = &**key.get_ref();
        if written.get(name).is_none() {
            let known: Vec<&str> =
                written.as_object().into_iter().flat_map(|map| map.keys()).map(String::as_str).collect();
            return Err(unknown(key.span(), name, &[&known[..], &["at"]].concat()));
        }
    }
    Ok(planned)
}

/// A scenario in lines for people: what is other than nothing.
#[must_use]
pub fn told(scenario: &Scenario) -> String {
    let mut text = scenario.about.clone();
    let (mut zero, mut timings) = (Timings::zero(), scenario.timings.clone());
    let changed = zero.entries().into_iter().zip(timings.entries()).filter(|((_, zero), (_, set))| zero != set);
    let late: Vec<String> = changed.map(|(_, (name, set))| format!("{name} {set:?}")).collect();
    if !late.is_empty() {
        let _ = write!(text, "\n  timings: {}", late.join(", "));
    }
    for (client, delay) in &scenario.resolver_delays {
        let _ = write!(text, "\n  names reach {client} {delay:?} later");
    }
    for planned in &scenario.faults {
        let _ = write!(text, "\n  {}", fault_told(planned));
    }
    text
}

/// In the file's own words: `failover (cluster: blue), at hold, 2 times`.
fn fault_told(planned: &Planned) -> String {
    let written = serde_json::to_value(planned).unwrap_or_default();
    let word = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let all = || written.as_object().into_iter().flatten();
    let fields: Vec<String> = all()
        .filter(|(name, _)| !["kind", "times", "at"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}", word(value)))
        .collect();
    let mut text = word(&written["kind"]);
    if !fields.is_empty() {
        let _ = write!(text, " ({})", fields.join(", "));
    }
    if planned.at.is_some() {
        let _ = write!(text, ", at {}", word(&written["at"]));
    }
    if planned.times > 1 {
        let _ = write!(text, ", {} times", planned.times);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Moment};

    fn parse(text: &str) -> Result<Scenario, Refused> {
        Scenario::parse(Path::new("late.toml"), text)
    }

    #[test]
    fn timings_resolvers_and_faults_are_read() {
        let text = "about = \"late\"\nreaders = 1\n[timings]\nbase = \"node-2025-04\"\nnames_delay = \"1m 30s\"\n\
            [resolver_delay]\ndefault = \"250ms\"\nslow = \"1h\"\n\
            [[fault]]\nkind = \"failover\"\ncluster = \"blue\"\nat = \"hold\"\n[[fault]]\nkind = \"flaps\"\ntimes = 6\n";
        let read = parse(text).expect("it is right");
        assert_eq!((read.about.as_str(), read.readers), ("late", 1));
        let told = told(&read);
        assert!(told.starts_with("late\n  timings: ") && told.contains("names_delay 90s"), "{told}");
        for line in ["names reach slow 3600s later", "failover (cluster: blue), at hold", "flaps, 6 times"] {
            assert!(told.contains(&format!("\n  {line}")), "{line:?} is not in: {told}");
        }
        assert_eq!(read.timings.names_delay, Duration::from_secs(90));
        assert_eq!(read.timings.completed_delay, Duration::from_millis(129_100));
        assert_eq!(read.resolver_delay("slow"), Duration::from_secs(3600));
        assert_eq!(read.resolver_delay("any"), Duration::from_millis(250));
        let failover = Planned { fault: Fault::Failover { cluster: "blue".into() }, times: 1, at: Some(Moment::Hold) };
        assert_eq!(read.faults, [failover, Planned { fault: Fault::Flaps, times: 6, at: None }]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_file_line_and_what_to_do() {
        for (text, line, words) in [
            ("about = 'x'\nspeed = 1\n", 2, "there is no key \"speed\"; use one of about"),
            (
                "[timings]\n\nbase = 'fast'\n",
                3,
                "no set of timings \"fast\"; use one of zero, short, real, jdbc-2025-11",
            ),
            ("[timings]\nrename = '1s'\n", 2, "no key \"rename\"; use one of base, create_task"),
            ("[timings]\nreboot = 'soon'\n", 2, "reboot is not a time: \"soon\"; write it as"),
            ("[timings]\nreboot = 5\n", 2, "this is a integer; write a string"),
            ("[timings]\ncompleted_delay = '-1s'\n", 2, "SWITCHOVER_COMPLETED before green takes writes; use \"0s\""),
            ("[timings]\nnames_delay = '-2s'\n", 2, "names cannot move before green takes writes"),
            ("[timings]\nnames_delay = '2s'\n", 2, "let completed_delay be at least names_delay"),
            ("[timings]\ncloudwatch_period = '0s'\n", 2, "cloudwatch_period is 0; use \"1ms\" or more"),
            ("[timings]\ndelete = '25h'\n", 2, "longer than a day"),
            ("[resolver_delay]\nx = '-1ms'\n", 2, "x is negative"),
            ("[[fault]]\nkind = 'flaps'\n[[fault]]\nkind = 'earthquake'\n", 3, "unknown variant `earthquake`"),
            ("[[fault]]\nkind = 'failover'\n", 1, "missing field `cluster`"),
            ("[[fault]]\nkind = 'flaps'\nat = 'dusk'\n", 3, "unknown variant `dusk`"),
            ("[[fault]]\nkind = 'apply_stalls'\nmillis = 5\n", 3, "no key \"millis\"; use one of"),
            ("[[fault]]\nkind = 'flaps'\ntimes = 0\n", 3, "happens 0 times"),
            ("fault = 1\n", 1, "write [[fault]]"),
            ("readers = 16\n", 1, "use 0 to 15"),
            ("a = = b\n", 1, "this is not TOML"),
        ] {
            let refused = parse(text).expect_err(text).to_string();
            assert!(refused.starts_with(&format!("late.toml:{line}: ")), "line {line} is not in: {refused}");
            assert!(refused.contains(words), "{words:?} is not in: {refused}");
        }
    }

    #[test]
    fn every_named_set_exists_and_is_possible() {
        for name in Timings::NAMES {
            parse(&format!("[timings]\nbase = \"{name}\"\n")).expect(name);
        }
    }

    #[test]
    fn any_bytes_in_a_scenario_are_refused_by_line_or_read() {
        let mut target = runtime::tried::Target::new(env!("CARGO_MANIFEST_DIR"), "scenario");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        for case in std::fs::read_dir(folder).expect("the scenarios").flatten() {
            target = target.seed(std::fs::read(case.path().join("scenario.toml")).unwrap_or_default());
        }
        target
            .words(&["[[fault]]\n", "kind = ", "times = ", "at = 'hold'\n", "'1h'", "'999999999999999999h'", "é"])
            .run(|bytes| {
                let text = String::from_utf8_lossy(bytes);
                match parse(&text) {
                    Ok(scenario) => told(&scenario).lines().count().min(20).to_string(),
                    Err(refused) => {
                        assert!((1..=text.lines().count() + 1).contains(&refused.line), "line {}", refused.line);
                        refused.what.split(['"', '`']).next().unwrap_or_default().to_owned()
                    }
                }
            });
    }
}
