//! Values as people read them. Pure.

use askama::{Result, Values};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `4.2 MiB`.
pub(super) fn as_bytes(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} B"),
    }
}

/// `3.4 s`, `12 min 05 s`, `3 h 12 min`.
pub(super) fn as_span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{:.1} s", seconds.max(0.0)),
        (0, minutes, rest) => format!("{minutes} min {rest:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// `224 ms`, `1 769 ms`; from ten seconds on as a span.
pub(super) fn as_ms(ms: u64) -> String {
    if ms < 10_000 { format!("{} ms", as_count(ms)) } else { as_span(ms as f64 / 1000.0) }
}

/// `21 553`, with a space that does not break.
pub(super) fn as_count(number: u64) -> String {
    let digits = number.to_string();
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    grouped.join("\u{202f}")
}

/// `16:02:33`, UTC.
pub(super) fn as_clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%H:%M:%S").to_string()
}

/// `2026-11-30 16:02:33`, UTC.
pub(super) fn as_moment(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[askama::filter_fn]
pub(super) fn bytes(value: &u64, _: &dyn Values) -> Result<String> {
    Ok(as_bytes(*value))
}

#[askama::filter_fn]
pub(super) fn span(value: &f64, _: &dyn Values) -> Result<String> {
    Ok(as_span(*value))
}

#[askama::filter_fn]
pub(super) fn ms(value: &u64, _: &dyn Values) -> Result<String> {
    Ok(as_ms(*value))
}

#[askama::filter_fn]
pub(super) fn count(value: &u64, _: &dyn Values) -> Result<String> {
    Ok(as_count(*value))
}

#[askama::filter_fn]
pub(super) fn clock(value: &Timestamp, _: &dyn Values) -> Result<String> {
    Ok(as_clock(*value))
}

#[askama::filter_fn]
pub(super) fn moment(value: &Timestamp, _: &dyn Values) -> Result<String> {
    Ok(as_moment(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_people_write_them() {
        assert_eq!([0, 1023, 1024, 5 << 20, 3 << 40].map(as_bytes), ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 TiB"]);
        assert_eq!([0.0, 3.44, 65.0, 11_520.0].map(as_span), ["0.0 s", "3.4 s", "1 min 05 s", "3 h 12 min"]);
        assert_eq!([7, 1769, 12_000].map(as_ms), ["7 ms", "1\u{202f}769 ms", "12.0 s"]);
        assert_eq!(as_count(21_553), "21\u{202f}553");
        let at = "2026-11-30T16:02:33.9Z".parse().unwrap();
        assert_eq!((as_clock(at), as_moment(at)), ("16:02:33".into(), "2026-11-30 16:02:33".into()));
    }
}
