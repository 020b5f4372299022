//! A position in a server's write-ahead log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A log sequence number, written `X/Y` in hexadecimal as PostgreSQL does. Two of one server subtract to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

/// The text is not a log sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a log sequence number (expected two hexadecimal numbers around a slash, as 16/B374D848)")]
pub struct LsnError {
    text: String,
}

impl Lsn {
    /// From the 64-bit position.
    pub const fn new(position: u64) -> Lsn {
        Lsn(position)
    }

    /// The 64-bit position.
    pub const fn position(self) -> u64 {
        self.0
    }

    /// Bytes from `earlier` to `self`; 0 when `earlier` is ahead, as happens when two readings race.
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Lsn, LsnError> {
        let wrong = || LsnError { text: text.to_owned() };
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let part = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        let (high, low) = (part(high).ok_or_else(wrong)?, part(low).ok_or_else(wrong)?);
        Ok(Lsn(high << 32 | low))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_a_round_trip_and_distance_is_in_bytes() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn.to_string(), "16/B374D848");
        let earlier: Lsn = "15/FFFFFFFF".parse().unwrap();
        assert_eq!(lsn.bytes_since(earlier), 0xB374_D849);
        assert_eq!(earlier.bytes_since(lsn), 0);
    }

    #[test]
    fn anything_else_is_refused_with_the_text_in_the_message() {
        for text in ["", "/", "1", "1/", "/1", "G/1", "1/123456789", "+1/1", " 1/1"] {
            let error = text.parse::<Lsn>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
