//! Looks at every ingestion system once a second, and when a wish was settled, for the report, coordinator or not. Never changes one.

use std::{sync::Arc, time::Duration};

use proto::report::{Controller, IngestionState};
use runtime::{
    shutdown::Stop,
    supervision::{Ready, Task, TaskError},
};

use super::{IngestionController, Observation};
use crate::state::Shared;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// See the module.
pub struct Observer {
    pub shared: Shared,
    pub controllers: Vec<Arc<dyn IngestionController>>,
}

impl Task for Observer {
    const NAME: &'static str = "ingestion";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let mut settled = self.shared.settled.subscribe();
        loop {
            settled.borrow_and_update();
            let looks = self.controllers.iter().map(|controller| look(&self.shared, controller.as_ref()));
            futures_util::future::join_all(looks).await;
            ready.set(true);
            tokio::select! {
                () = stop.triggered() => return Ok(()),
                changed = settled.changed() => changed?,
                () = self.shared.clock.sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// Looks at one system and puts what was seen into the report.
pub async fn look(shared: &Shared, controller: &dyn IngestionController) {
    let seen = shared.clock.timeout(LOOK_WITHIN, controller.observe()).await;
    let seen = match seen {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => unknown(error),
        Err(elapsed) => unknown(elapsed),
    };
    let picture = Controller {
        name: controller.name().to_owned(),
        kind: controller.kind().to_owned(),
        state: seen.state,
        backlog: seen.backlog,
        rate: seen.rate,
        holds: controller.holds(),
        age_ms: 0,
    };
    let now = shared.clock.mono();
    shared.picture(|pictures| {
        pictures.controllers.insert(picture.name.clone(), (now, picture));
    });
}

fn unknown(reason: impl std::fmt::Display) -> Observation {
    Observation { state: IngestionState::Unknown(reason.to_string()), backlog: None, rate: None }
}
