//! A report as one HTML file: nothing is loaded, nothing is run, it prints, it is light or dark as the reader likes. The template
//! escapes every text. It is well-formed XML too, so that any parser can check it.

use std::fmt::Display;

use askama::Template;

use super::chart::{self, Panel};
use super::model::Report;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    r: &'a Report,
    timeline: Option<Panel>,
    downtime: Vec<Panel>,
}

/// The whole file.
///
/// # Errors
/// Only if the template cannot be written.
pub fn page(report: &Report) -> Result<String, askama::Error> {
    Page { r: report, timeline: chart::steps(report), downtime: chart::downtime(report) }.render()
}

impl Page<'_> {
    fn accepts(&self, code: impl Display) -> bool {
        let code = code.to_string();
        self.r.findings_accepted.iter().any(|finding| finding.code.as_str() == code)
    }
}

// The template passes references of any depth; `Display` looks through them.

/// Seconds as a person says them.
pub(super) fn seconds(seconds: impl Display) -> String {
    let seconds: f64 = seconds.to_string().parse().unwrap_or_default();
    let whole = seconds.max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, rest) => format!("{minutes} min {rest:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// A moment: day and time of day in UTC, to the millisecond.
pub(super) fn at(at: impl Display) -> String {
    format!("{at:.3}").replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Thousands apart.
pub(super) fn count(count: impl Display) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_thousands() {
        assert_eq!([0u64, 999, 1000, 1_234_567].map(count), ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
    }
}
