#![forbid(unsafe_code)]

pub mod cloudwatch;
pub mod rds;
