//! Measurements that a person asks for, on a quiet machine: the real binaries against the lab, everything in numbers. They
//! decide nothing, and no test depends on what they find.

pub mod follow;
pub mod spread;
pub mod steps;
pub mod writer;

fn milliseconds(from: jiff::Timestamp, to: jiff::Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}
