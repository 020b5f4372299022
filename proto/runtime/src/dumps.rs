//! Core dumps, which would hold every secret of the process: off from its first moment, and on again only where that was asked
//! for in so many words.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Nothing of the process's memory is written when it dies, and no other process of its user may look into it. What `main` does
/// first.
///
/// # Errors
/// When the system does not do it.
pub fn off() -> io::Result<()> {
    limit(Some(0))?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// As far as the system allows, a dump is written again.
///
/// # Errors
/// When the system does not do it.
pub fn on() -> io::Result<()> {
    limit(getrlimit(Resource::Core).maximum)?;
    Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

fn limit(current: Option<u64>) -> io::Result<()> {
    let maximum = getrlimit(Resource::Core).maximum;
    Ok(setrlimit(Resource::Core, Rlimit { current, maximum })?)
}
