//! stub
use crate::driver::*;
use crate::step::Domain;
use tokio_util::sync::CancellationToken;
pub(crate) async fn drive<D: Domain>(driver: Driver<D>, stop: CancellationToken) -> Result<Ended, Error> {
    drop((driver.id, driver.parts, driver.mail, driver.mailbox, driver.state, driver.progress, driver.lease, stop));
    Ok(Ended::Stopped)
}
