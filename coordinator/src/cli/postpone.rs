//! `pilot postpone`: everything is held at the gate before the switchover until a time, or until told.

use clap::{ArgGroup, Args};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use serde_json::json;

use super::client::Client;
use super::{Common, Exit, Fault, render};

/// Longer is until told.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 365);

const EXAMPLES: &str = "\
Examples:
  pilot postpone up-0193f3a1c2
  pilot postpone up-0193f3a1c2 --for 2h
  pilot postpone up-0193f3a1c2 --until 2026-11-29T03:00:00Z
  pilot postpone up-0193f3a1c2 --until '2026-11-29 03:00'
  pilot postpone up-0193f3a1c2 --off";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("when").args(["until", "lasting", "off"]))]
pub(super) struct Postpone {
    /// The upgrade
    id: String,
    /// Not before this time: 2026-11-29T03:00:00Z, or '2026-11-29 03:00' by this machine's clock
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Not before this long from now: 90m, 2h, 1d
    #[arg(long = "for", id = "lasting", value_name = "TIME", value_parser = lasting)]
    lasting: Option<SignedDuration>,
    /// Not postponed any more
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    common: Common,
}

impl Postpone {
    pub(super) async fn run(self) -> Result<Exit, Fault> {
        let until = match (self.until, self.lasting, self.off) {
            (_, _, true) => Timestamp::UNIX_EPOCH,
            (Some(until), _, _) => until,
            (_, Some(lasting), _) => Clock::system().now().saturating_add(lasting).unwrap_or(Timestamp::MAX),
            _ => Timestamp::MAX,
        };
        let request = json!({ "request": "postpone", "until": until });
        let answer = Client::connect(&self.common).await?.ask(&self.id, &request).await?;
        let what = if self.off { "the end of the postponement" } else { "the postponement" };
        render::answer(self.common.output, what, &answer);
        Ok(Exit::Done)
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let local = text.parse::<DateTime>().ok().and_then(|local| local.to_zoned(TimeZone::system()).ok());
    local.map(|local| local.timestamp()).ok_or_else(|| "write 2026-11-29T03:00:00Z, or '2026-11-29 03:00'".to_owned())
}

fn lasting(text: &str) -> Result<SignedDuration, String> {
    // jiff knows no days in an absolute span: 24 hours each.
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<i64>().ok());
    let lasting = days.and_then(|days| days.checked_mul(24)).map(SignedDuration::from_hours);
    let lasting = lasting.or_else(|| text.parse().ok()).ok_or("write 90m, 2h or 1d")?;
    match lasting > SignedDuration::ZERO && lasting <= LONGEST {
        true => Ok(lasting),
        false => Err("write more than nothing and at most 365d; without a time it is postponed until told".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time("2026-11-29T03:00:00Z").unwrap().to_string(), "2026-11-29T03:00:00Z");
        assert_eq!(time("2026-11-29T03:00:00+02:00").unwrap().to_string(), "2026-11-29T01:00:00Z");
        assert!(time("2026-11-29 03:00").is_ok());
        for (text, hours) in [("2h", 2), ("120m", 2), ("1d", 24), ("1h 60m", 2)] {
            assert_eq!(lasting(text), Ok(SignedDuration::from_hours(hours)), "{text}");
        }
        for text in ["", "tomorrow", "0s", "-2h", "366d", "99999999999999999999d"] {
            assert!(lasting(text).is_err() && time(text).is_err(), "{text}");
        }
    }
}
