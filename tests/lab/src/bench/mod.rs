//! Measurements that a person asks for, on a quiet machine: the real binaries against the lab, everything in numbers. They
//! decide nothing, and no test depends on what they find.

pub mod follow;
pub mod spread;
pub mod writer;
