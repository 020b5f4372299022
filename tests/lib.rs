//! What the end-to-end tests stand on: a stage with the lab, a small cluster, clients and the project's real binaries, and
//! a look at the whole world before and after. It judges nothing itself; the tests do.
#![forbid(unsafe_code)]

pub mod stage;
