//! The writer's free local storage, by CloudWatch (field rule 4.4). On Aurora the cluster's volume grows by itself and WAL lies
//! there; what fills up is the instance's own local storage: temporary files, logs, what logical decoding spills. A point that
//! is missing or old raises nothing here, and never passes the gates of the switchover, which ask for it themselves.

use std::convert::Infallible;
use std::time::Duration;

use engine::{Alarm, Monitor, MonitorId};
use jiff::Timestamp;

use super::{Context, has_slots, hold, note, tell, unwind, writer_of_blue};
use crate::{rds::Error, spec::Replication, steps::codes, world::Upgrade};

pub(super) struct Storage;

/// CloudWatch has a point a minute.
const EVERY: Duration = Duration::from_secs(20);

impl Monitor<Upgrade> for Storage {
    const ID: MonitorId = MonitorId("storage");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        loop {
            if has_slots(&cx) {
                match free(&cx).await {
                    // Nobody knows: what was raised before stands.
                    Ok(None) => {}
                    Ok(Some(bytes)) => tell(&cx, judge(bytes, &cx.spec().replication)).await,
                    Err(error) => tracing::info!(run = %cx.run_id(), %error, "free local storage could not be read"),
                }
            } else {
                cx.clear().await;
            }
            cx.clock().sleep(EVERY).await;
        }
    }
}

async fn free(cx: &Context<'_>) -> Result<Option<u64>, Error> {
    let Some(writer) = writer_of_blue(cx).await? else { return Ok(None) };
    let age = Duration::from_secs(cx.spec().replication.cloudwatch_age_seconds_max);
    let since = cx.clock().now().saturating_sub(age).unwrap_or(Timestamp::UNIX_EPOCH);
    let sample = cx.world().cloudwatch.free_local_storage(&writer, since).await?;
    Ok(sample.map(|sample| sample.bytes))
}

/// The gravest threshold that was crossed.
fn judge(free: u64, limits: &Replication) -> Option<Alarm> {
    let why = format!("the writer has {free} bytes of local storage left");
    match free {
        _ if free < limits.free_bytes_unwind => Some(unwind(codes::STORAGE_LOW, why)),
        _ if free < limits.free_bytes_hold => Some(hold(codes::STORAGE_LOW, why)),
        _ if free < limits.free_bytes_warn => Some(note(codes::STORAGE_LOW, why)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::UpgradeSpec;

    #[test]
    fn little_free_storage_warns_then_holds_then_unwinds() {
        let check = |mebibytes: u64| judge(mebibytes << 20, &UpgradeSpec::new("orders", "16").replication);
        assert_eq!(check(4096), None);
        assert!(matches!(check(4095), Some(Alarm::Note(_))));
        assert!(matches!(check(2047), Some(Alarm::Hold(_))));
        assert!(matches!(check(1023), Some(Alarm::Unwind(_))));
    }
}
