//! The machinery against real servers. One test at a time: two cores carry one pair of servers each.

mod bench;
mod building;
mod switching;
