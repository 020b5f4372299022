//! A window of time that comes again, written as AWS writes maintenance windows: `sun:03:00-sun:05:00` once a week, `03:00-05:00`
//! every day. Always UTC. Pure.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, civil::Weekday, tz::TimeZone};

const DAY: i64 = 24 * 60;
const WEEK: i64 = 7 * DAY;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A window; it begins again every day or every week, and may go past midnight or the end of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Minutes since the beginning of the day, or of Monday.
    from: i64,
    minutes: i64,
    /// Minutes until it comes again.
    every: i64,
}

impl Window {
    /// How long it is until the window opens; zero while it is open. To the second.
    pub fn opens_in(&self, now: Timestamp) -> SignedDuration {
        let zoned = now.to_zoned(TimeZone::UTC);
        let day = i64::from(zoned.weekday().to_monday_zero_offset());
        let seconds =
            ((day * 24 + i64::from(zoned.hour())) * 60 + i64::from(zoned.minute())) * 60 + i64::from(zoned.second());
        let since_opening = (seconds - self.from * 60).rem_euclid(self.every * 60);
        match since_opening < self.minutes * 60 {
            true => SignedDuration::ZERO,
            false => SignedDuration::from_secs(self.every * 60 - since_opening),
        }
    }

    /// The longest that anybody waits for it.
    pub fn every(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.every.unsigned_abs() * 60)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Window, String> {
        let (from, to) = text.split_once('-').ok_or_else(|| format!("{text:?} has no end"))?;
        let (from, to) = (moment(from)?, moment(to)?);
        let (from, to, every) = match (from, to) {
            ((None, from), (None, to)) => (from, to, DAY),
            ((Some(a), from), (Some(b), to)) => (a * DAY + from, b * DAY + to, WEEK),
            _ => return Err(format!("{text:?} names a day on one side only")),
        };
        match (to - from).rem_euclid(every) {
            0 => Err(format!("{text:?} is empty")),
            minutes => Ok(Window { from, minutes, every }),
        }
    }
}

/// `sun:03:00` or `03:00`: the day of the week from Monday, and minutes of the day.
fn moment(text: &str) -> Result<(Option<i64>, i64), String> {
    let wrong = |what: &str| format!("{what} in {text:?}");
    let parts: Vec<&str> = text.trim().split(':').collect();
    let (day, hour, minute) = match parts[..] {
        [hour, minute] => (None, hour, minute),
        [day, hour, minute] => {
            let known = DAYS.iter().find(|(name, _)| day.eq_ignore_ascii_case(name));
            let (_, day) = known.ok_or_else(|| wrong("there is no such day as mon to sun"))?;
            (Some(i64::from(day.to_monday_zero_offset())), hour, minute)
        }
        _ => return Err(wrong("there is no day, hour and minute")),
    };
    let number = |digits: &str, below: i64| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|number| plain && *number < below)
    };
    let hour: i64 = number(hour, 24).ok_or_else(|| wrong("there is no hour from 00 to 23"))?;
    let minute: i64 = number(minute, 60).ok_or_else(|| wrong("there is no minute from 00 to 59"))?;
    Ok((day, hour * 60 + minute))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes until it opens, at a moment of the week of Monday, 23 November 2026.
    fn check(window: &str, now: &str, minutes: i64) {
        let window: Window = window.parse().expect("a window");
        let now: Timestamp = now.parse().expect("a time");
        assert_eq!(window.opens_in(now), SignedDuration::from_mins(minutes), "{window:?} at {now}");
    }

    #[test]
    fn a_window_opens_at_its_minute_and_closes_at_its_last() {
        check("sun:03:00-sun:05:00", "2026-11-29T02:59:00Z", 1);
        check("sun:03:00-sun:05:00", "2026-11-29T03:00:00Z", 0);
        check("sun:03:00-sun:05:00", "2026-11-29T04:59:59Z", 0);
        check("Sun:03:00-Sun:05:00", "2026-11-29T05:00:00Z", WEEK - 120);
    }

    #[test]
    fn a_window_may_go_past_midnight_and_the_end_of_the_week() {
        check("sun:23:00-mon:01:00", "2026-11-23T00:30:00Z", 0);
        check("sun:23:00-mon:01:00", "2026-11-23T01:00:00Z", WEEK - 120);
        check("23:30-00:30", "2026-11-25T00:29:00Z", 0);
        check("23:30-00:30", "2026-11-25T12:30:00Z", 11 * 60);
    }

    #[test]
    fn what_is_no_window_is_refused_with_the_part_that_is_wrong() {
        for (text, said) in [
            ("sunday", "has no end"),
            ("sun:03:00-05:00", "names a day on one side only"),
            ("son:03:00-sun:05:00", "mon to sun in \"son:03:00\""),
            ("sun:24:00-sun:05:00", "no hour from 00 to 23 in \"sun:24:00\""),
            ("sun:03:00-sun:3:60", "no hour from 00 to 23 in \"sun:3:60\""),
            ("sun:03:00-sun:03:60", "no minute from 00 to 59"),
            ("03:00-03:00", "is empty"),
        ] {
            let error = text.parse::<Window>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
