//! What a person may change of an upgrade while it runs: a closed list, each setting with unit, bounds, and from when on a new value
//! holds. A change is read, then judged with the whole spec by `UpgradeSpec::validate`, as the spec itself was. Pure.
//!
//! Not in the list is what something made in AWS, or told to the agents for the cut, was derived from already, and the cap on a
//! pause of ingestion: agents keep it by themselves, and it must stay below what the source keeps.

use std::collections::BTreeMap;

use serde_json::Value;

use super::UpgradeSpec;

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Seconds,
    Millis,
    Transactions,
    Times,
}

impl Unit {
    /// As people and the JSON name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::Millis => "milliseconds",
            Unit::Transactions => "transactions",
            Unit::Times => "times",
        }
    }

    /// How a value is written, for a refusal.
    fn example(self) -> &'static str {
        match self {
            Unit::Bytes => "write bytes, or as 4KiB, 4MiB, 4GiB",
            Unit::Seconds => "write seconds, or as 90s, 15m, 2h",
            Unit::Millis => "write milliseconds, or as 500ms, 2s",
            Unit::Transactions | Unit::Times => "write a number",
        }
    }

    /// The suffixes that a value may have, with what they multiply by. The longer of two that fit is meant.
    fn suffixes(self) -> &'static [(&'static str, f64)] {
        match self {
            Unit::Bytes => &[("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0), ("B", 1.0)],
            Unit::Seconds => &[("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)],
            Unit::Millis => &[("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)],
            Unit::Transactions | Unit::Times => &[],
        }
    }
}

/// From when on a new value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// At the next look: it is judged anew each time.
    Now,
    /// From the next attempt of the step that uses it: what an attempt began with stays together.
    NextAttempt,
}

impl Applies {
    /// As the JSON names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Applies::Now => "now",
            Applies::NextAttempt => "next_attempt",
        }
    }
}

/// One setting that can be tuned.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// As in the spec.
    pub key: &'static str,
    pub unit: Unit,
    /// Both are allowed.
    pub bounds: (f64, f64),
    pub applies: Applies,
    /// What it decides, in a few words.
    pub what: &'static str,
}

const DAY: f64 = 86_400.0;
const PIB: f64 = 1_125_899_906_842_624.0;

const fn now(key: &'static str, unit: Unit, bounds: (f64, f64), what: &'static str) -> Setting {
    Setting { key, unit, bounds, applies: Applies::Now, what }
}

const fn next(key: &'static str, unit: Unit, bounds: (f64, f64), what: &'static str) -> Setting {
    Setting { key, unit, bounds, applies: Applies::NextAttempt, what }
}

/// All of them, in the order of the steps.
pub const SETTINGS: &[Setting] = &[
    next("reboot.seconds_max", Unit::Seconds, (30.0, DAY), "how long a reboot may take"),
    now("purge.idle_grace_seconds", Unit::Seconds, (0.0, DAY), "idle transactions are let be this long"),
    now("purge.active_wait_seconds", Unit::Seconds, (0.0, DAY), "active ones are waited for this long, then named"),
    now("purge.age_fallback_after_seconds", Unit::Seconds, (0.0, DAY), "without a waiting slot, ended at this age"),
    now("provisioning.seconds_max", Unit::Seconds, (60.0, 7.0 * DAY), "how long AWS may take to build green"),
    next("vacuum.seconds_max", Unit::Seconds, (60.0, 7.0 * DAY), "how long vacuuming green may take"),
    now("replication.lag_bytes_max", Unit::Bytes, (0.0, PIB), "the gates open below this lag of every slot"),
    now("replication.marker_delay_ms_max", Unit::Millis, (1.0, 3_600_000.0), "and below this delay of a marker"),
    now("replication.cloudwatch_lag_bytes_max", Unit::Bytes, (0.0, PIB), "and below this lag by CloudWatch"),
    now("replication.cloudwatch_age_seconds_max", Unit::Seconds, (60.0, 3600.0), "an older point of it is none"),
    now("replication.sustained_seconds", Unit::Seconds, (0.0, DAY), "for this long without a break"),
    now("replication.drain_seconds_max", Unit::Seconds, (1.0, 7.0 * DAY), "how long lag may take to drain"),
    now("replication.stalled_seconds_max", Unit::Seconds, (1.0, DAY), "a slot that stands still for longer is stalled"),
    now("replication.retained_bytes_warn", Unit::Bytes, (0.0, PIB), "a slot keeps more WAL: told"),
    now("replication.retained_bytes_hold", Unit::Bytes, (0.0, PIB), "the switchover is held"),
    now("replication.retained_bytes_unwind", Unit::Bytes, (0.0, PIB), "the upgrade is unwound"),
    now("replication.xmin_age_warn", Unit::Transactions, (0.0, 2e9), "a slot keeps more dead rows: told"),
    now("replication.xmin_age_hold", Unit::Transactions, (0.0, 2e9), "the switchover is held"),
    now("replication.xmin_age_unwind", Unit::Transactions, (0.0, 2e9), "the upgrade is unwound"),
    now("replication.free_bytes_warn", Unit::Bytes, (0.0, PIB), "the writer has less local storage: told"),
    now("replication.free_bytes_hold", Unit::Bytes, (0.0, PIB), "the switchover is held"),
    now("replication.free_bytes_unwind", Unit::Bytes, (0.0, PIB), "the upgrade is unwound"),
    next("verify.rounds", Unit::Times, (1.0, 100.0), "how often a table that moves is compared"),
    next("verify.hold_budget_ms", Unit::Millis, (0.0, 60_000.0), "comparing inside the hold may take this long"),
    next("verify.seconds_max", Unit::Seconds, (60.0, 7.0 * DAY), "comparing before it may take this long"),
    next("switchover.timeout_seconds", Unit::Seconds, (30.0, 3600.0), "the time-out of the one call to AWS"),
    next(
        "switchover.revert_allowance_seconds",
        Unit::Seconds,
        (0.0, 3600.0),
        "AWS may take this much longer to revert",
    ),
    next("switchover.hold_seconds_max", Unit::Seconds, (30.0, 7200.0), "clients are never held longer"),
    next("switchover.hold_ack_ms_max", Unit::Millis, (100.0, 60_000.0), "every agent settles the hold within this"),
    now("switchover.gates_seconds_max", Unit::Seconds, (60.0, DAY), "all gates of one attempt open within this"),
    now("switchover.attempts", Unit::Times, (1.0, 100.0), "attempts before the upgrade unwinds"),
    now("switchover.retry_after_seconds", Unit::Seconds, (0.0, DAY), "between two attempts"),
    next("switchover.drain_ms", Unit::Millis, (0.0, 60_000.0), "open transactions may finish for this long"),
    next("switchover.long_transaction_ms", Unit::Millis, (0.0, 3_600_000.0), "older ones are ended at once"),
    next("switchover.marker_ms_max", Unit::Millis, (10.0, 60_000.0), "the last marker passes within this"),
    next("after.extension_test_seconds_max", Unit::Seconds, (1.0, 3600.0), "how long an extension's test may take"),
    now("after.backlog_seconds_max", Unit::Seconds, (1.0, DAY), "how long the backlog may take to begin to fall"),
    now("after.completed_seconds_max", Unit::Seconds, (30.0, DAY), "how long AWS may take to say it is done"),
    now("cleanup.retention_seconds", Unit::Seconds, (0.0, 365.0 * DAY), "the old side is kept this long"),
    now("cleanup.quiet_seconds", Unit::Seconds, (0.0, 30.0 * DAY), "no client was seen on it for this long"),
];

/// A change that cannot be: which setting, what is wrong, what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {wrong}; {cure}")]
pub struct Refused {
    pub key: String,
    pub wrong: String,
    pub cure: String,
}

/// The setting of this name.
///
/// # Errors
/// That it is none, with those that there are.
pub fn setting(key: &str) -> Result<&'static Setting, Refused> {
    SETTINGS.iter().find(|setting| setting.key == key).ok_or_else(|| {
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        let cure = format!("what can be tuned: {}", known.join(", "));
        Refused { key: key.to_owned(), wrong: "cannot be tuned while an upgrade runs".to_owned(), cure }
    })
}

/// The value of a setting in a spec.
pub fn value(spec: &UpgradeSpec, setting: &Setting) -> Value {
    let all = serde_json::to_value(spec).unwrap_or_default();
    all.pointer(&pointer(setting.key)).cloned().unwrap_or_default()
}

/// Values as people write them (`4MiB`, `"90s"`, `12`), as the spec's numbers.
///
/// # Errors
/// A setting that there is not, a value that is none, or one outside its bounds.
pub fn read(written: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, Refused> {
    written.iter().map(|(key, value)| Ok((key.clone(), setting(key)?.read(value)?))).collect()
}

/// The spec with these settings, all together.
///
/// # Errors
/// As [`read`], and what `UpgradeSpec::validate` refuses of the whole.
pub fn tuned(spec: &UpgradeSpec, settings: &BTreeMap<String, Value>) -> Result<UpgradeSpec, Refused> {
    let mut all = serde_json::to_value(spec).unwrap_or_default();
    for (key, value) in read(settings)? {
        if let Some(place) = all.pointer_mut(&pointer(&key)) {
            *place = value;
        }
    }
    let refused = |key: String, wrong: String, cure: String| Refused { key, wrong, cure };
    let key = || settings.keys().cloned().collect::<Vec<_>>().join(", ");
    let spec: UpgradeSpec =
        serde_json::from_value(all).map_err(|error| refused(key(), error.to_string(), "write a number".into()))?;
    spec.validate().map_err(|error| refused(error.field.to_owned(), error.wrong, error.cure))?;
    Ok(spec)
}

fn pointer(key: &str) -> String {
    format!("/{}", key.replace('.', "/"))
}

impl Setting {
    /// Whether the spec has a fraction here.
    fn is_fractional(&self) -> bool {
        value(&UpgradeSpec::new("", "16"), self).is_f64()
    }

    fn read(&self, written: &Value) -> Result<Value, Refused> {
        let refuse = |wrong: String| Refused { key: self.key.to_owned(), wrong, cure: self.unit.example().to_owned() };
        let number = match written {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => self.number(text.trim()),
            _ => None,
        };
        let shown = written.as_str().map_or_else(|| written.to_string(), str::to_owned);
        let number = number.filter(|number| number.is_finite());
        let number = number.ok_or_else(|| refuse(format!("{shown:?} is no value in {}", self.unit.as_str())))?;
        let (least, most) = self.bounds;
        if !(least..=most).contains(&number) {
            return Err(refuse(format!("{shown} is outside {least} to {most} {}", self.unit.as_str())));
        }
        match (self.is_fractional(), number.fract() == 0.0) {
            (true, _) => Ok(number.into()),
            (false, true) => Ok((number as u64).into()),
            (false, false) => Err(refuse(format!("{shown} is not a whole number of {}", self.unit.as_str()))),
        }
    }

    fn number(&self, text: &str) -> Option<f64> {
        let fits = self.unit.suffixes().iter().filter(|(suffix, _)| text.ends_with(suffix));
        let (suffix, factor) = fits.max_by_key(|(suffix, _)| suffix.len()).copied().unwrap_or(("", 1.0));
        let number = text.strip_suffix(suffix)?.trim_end();
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        plain.then(|| number.parse::<f64>().ok()).flatten().map(|number| number * factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(settings: &[(&str, &str)]) -> Result<UpgradeSpec, Refused> {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        tuned(&UpgradeSpec::new("orders", "16"), &settings)
    }

    #[test]
    fn every_setting_is_a_number_of_the_spec_and_its_default_is_within_its_bounds() {
        let spec = UpgradeSpec::new("orders", "16");
        for setting in SETTINGS {
            let default = value(&spec, setting);
            assert!(default.is_number(), "{} is {default} in the spec", setting.key);
            assert_eq!(setting.read(&default).as_ref(), Ok(&default), "{}", setting.key);
            let same = BTreeMap::from([(setting.key.to_owned(), default)]);
            assert_eq!(tuned(&spec, &same).as_ref(), Ok(&spec), "{}", setting.key);
            for end in [setting.bounds.0, setting.bounds.1] {
                setting.read(&end.into()).unwrap_or_else(|refused| panic!("{refused}"));
            }
        }
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        let check = |key: &str, text: &str, expected: Value| {
            assert_eq!(setting(key).unwrap().read(&text.into()).as_ref(), Ok(&expected), "{key}={text}");
        };
        check("replication.lag_bytes_max", "8MiB", (8 << 20).into());
        check("replication.lag_bytes_max", "1.5 KiB", 1536.into());
        check("replication.lag_bytes_max", "12", 12.into());
        check("replication.sustained_seconds", "1.5m", 90.0.into());
        check("cleanup.retention_seconds", "2d", 172_800.into());
        check("switchover.drain_ms", "1s", 1000.into());
        check("switchover.drain_ms", "250ms", 250.into());
        check("switchover.attempts", "7", 7.into());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_with_what_is_allowed() {
        let check = |settings: &[(&str, &str)], key: &str, part: &str| {
            let refused = change(settings).unwrap_err();
            assert!(refused.key.contains(key) && refused.to_string().contains(part), "{refused}");
        };
        check(&[("replication.lag", "5")], "replication.lag", "replication.lag_bytes_max");
        check(&[("cluster", "orders")], "cluster", "cannot be tuned");
        check(&[("ingestion.max_pause_seconds", "5")], "ingestion.max_pause_seconds", "cannot be tuned");
        for text in ["", "-1", "five", "1e3", "nan", "4MB", "4 4", "0x10"] {
            check(&[("replication.lag_bytes_max", text)], "replication.lag_bytes_max", "is no value in bytes");
        }
        check(&[("replication.lag_bytes_max", "0.5")], "replication.lag_bytes_max", "not a whole number");
        check(&[("switchover.timeout_seconds", "10")], "switchover.timeout_seconds", "outside 30 to 3600");
        // As the spec is judged: the hold must last for the call and its revert.
        check(&[("switchover.timeout_seconds", "600")], "switchover.hold_seconds_max", "use at least 660");
        check(&[("replication.retained_bytes_hold", "1GiB")], "replication.retained_bytes", "not in order");
        check(&[("replication.sustained_seconds", "1h")], "switchover.gates_seconds_max", "no gate can hold");
    }

    #[test]
    fn settings_that_need_each_other_are_changed_together() {
        let spec = change(&[("switchover.timeout_seconds", "10m"), ("switchover.hold_seconds_max", "660")]).unwrap();
        assert_eq!((spec.switchover.timeout_seconds, spec.switchover.hold_seconds_max), (600, 660));
    }
}
