//! Looks at replication slots and sessions of the serving side's writer once a second (lead only). Reads only.

use std::time::Duration;

use proto::{
    lsn::Lsn,
    report::{Sessions, Slot, Slots},
};
use runtime::{
    shutdown::Stop,
    supervision::{Ready, Task, TaskError, chain},
};
use tokio_postgres::Row;

use crate::{
    pg::{Conn, catalog::watchers as sql},
    state::Shared,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// See the module.
pub struct SlotWatch {
    pub shared: Shared,
}

impl SlotWatch {
    async fn look(&self, line: &mut Option<Conn>) -> Result<(), TaskError> {
        let Some((_, side)) = self.shared.serving() else { return Ok(()) };
        let same = |conn: &Conn| !conn.is_closed() && self.shared.dialer.is_of(conn.said(), &side);
        let conn = match line.take().filter(same) {
            Some(conn) => conn,
            None => self.shared.dialer.open(&side, self.shared.dialer.maintenance_database()).await?,
        };
        let now = self.shared.clock.mono();
        let slots = slots(&conn.query(sql::SLOTS, &[]).await?)?;
        let row = conn.query_one(sql::SESSIONS, &[]).await?;
        let count = |at| row.try_get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0));
        let sessions = Sessions {
            clients: count(0)?,
            active: count(1)?,
            idle_in_transaction: count(2)?,
            waiting_slots: count(3)?,
            blockers: count(4)?,
            ..Sessions::default()
        };
        self.shared.picture(|pictures| {
            pictures.slots = Some((now, slots));
            pictures.sessions = Some(sessions);
        });
        *line = Some(conn);
        Ok(())
    }
}

/// The picture from the rows of [`sql::SLOTS`].
fn slots(rows: &[Row]) -> Result<Slots, TaskError> {
    let mut picture = Slots { age_ms: 0, current: Lsn::new(0), slots: Vec::new(), xmin_age: None, free_bytes: None };
    for row in rows {
        picture.current = row.try_get::<_, String>(0)?.parse()?;
        let Some(name) = row.try_get::<_, Option<String>>(1)? else { continue };
        let bytes = |at: usize| -> Result<Option<u64>, tokio_postgres::Error> {
            Ok(row.try_get::<_, Option<i64>>(at)?.map(|bytes| u64::try_from(bytes).unwrap_or(0)))
        };
        picture.xmin_age = picture.xmin_age.max(bytes(9)?);
        picture.slots.push(Slot {
            of_deployment: name.starts_with("rds"),
            name,
            database: row.try_get(2)?,
            logical: row.try_get(3)?,
            active: row.try_get(4)?,
            confirmed_flush: row.try_get::<_, Option<String>>(5)?.map(|lsn| lsn.parse()).transpose()?,
            lag_bytes: bytes(6)?,
            retained_bytes: bytes(7)?,
            wal_status: row.try_get(8)?,
        });
    }
    Ok(picture)
}

impl Task for SlotWatch {
    const NAME: &'static str = "slots";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let mut line = None;
        ready.set(true);
        while !stop.is_triggered() {
            if self.shared.is_lead() {
                let look = self.shared.clock.timeout(LOOK_WITHIN, self.look(&mut line)).await;
                // A look that failed leaves an old picture, whose age tells.
                match look {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(error = %chain(error.as_ref()), "no picture of the slots"),
                    Err(elapsed) => tracing::debug!(error = %elapsed, "no picture of the slots"),
                }
            }
            stop.sleep(&self.shared.clock, LOOK_EVERY).await;
        }
        Ok(())
    }
}
