//! Many measurements of one thing: median, 99th percentile, worst. Pure.

use serde::Serialize;

/// Measurements of one thing, in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Spread {
    /// Every one, as it came.
    pub ms: Vec<f64>,
}

impl Spread {
    /// One more.
    pub fn add(&mut self, ms: f64) {
        self.ms.push(ms);
    }

    /// The smallest value that at least `percent` of all are not above; `None` when there is none.
    #[must_use]
    pub fn percentile(&self, percent: u32) -> Option<f64> {
        let mut sorted = self.ms.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent as usize).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// `name | n | p50 | p99 | max`, a row of a table.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        let shown = |percent| self.percentile(percent).map_or_else(|| "–".to_owned(), milliseconds);
        format!("| {name} | {} | {} | {} | {} |", self.ms.len(), shown(50), shown(99), shown(100))
    }
}

fn milliseconds(ms: f64) -> String {
    if ms.abs() < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut spread = Spread::default();
        assert_eq!(spread.percentile(50), None);
        (1..=50).rev().for_each(|n| spread.add(f64::from(n)));
        assert_eq!(
            (spread.percentile(50), spread.percentile(99), spread.percentile(100)),
            (Some(25.0), Some(50.0), Some(50.0))
        );
        assert_eq!(spread.row("it"), "| it | 50 | 25.0 ms | 50.0 ms | 50.0 ms |");
    }
}
