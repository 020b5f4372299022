//! Blue and green, once both have been recorded, and what agents are told of where their servers are.

use engine::Failure;
use proto::{
    intent::Targets,
    side::{Side, SideIdentity},
};

use super::{
    prerequisites::{Prepared, Prerequisites},
    provisioning::{Provisioned, Provisioning},
    shared::{Context, Recorded, targets},
};
use crate::{rds, topology};

/// What the first two steps found and made.
pub(crate) struct Sides {
    pub(crate) prepared: Prepared,
    pub(crate) provisioned: Provisioned,
}

impl Sides {
    pub(crate) fn of(cx: &Context<'_>) -> Result<Sides, Failure> {
        Ok(Sides { prepared: cx.output::<Prerequisites>()?, provisioned: cx.output::<Provisioning>()? })
    }

    /// By the names that were recorded.
    pub(crate) fn targets(&self, serving: Side) -> Targets {
        let Sides { prepared, provisioned } = self;
        let before = targets(prepared.production.clone(), &prepared.blue, Some(&provisioned.green));
        Targets { serving, ..before }
    }

    /// After the cut, under the names that AWS has given the servers since: what an agent that was not there before looks up, and
    /// what their certificates say. Servers that AWS does not describe now keep their recorded names.
    pub(crate) async fn targets_after(&self, cx: &Context<'_>) -> Targets {
        let Sides { prepared, provisioned } = self;
        let (blue, green) = tokio::join!(named_now(cx, &prepared.blue), named_now(cx, &provisioned.green));
        Targets { blue, green: Some(green), ..self.targets(Side::Green) }
    }
}

/// A side under the names that its servers have now.
async fn named_now(cx: &Context<'_>, recorded: &Recorded) -> SideIdentity {
    let rds = &*cx.world().rds;
    let described = async {
        let Some(cluster) = rds.cluster_by_resource(&recorded.resource_id).await? else { return Ok(Vec::new()) };
        rds.instances(&cluster.id).await
    };
    let instances = described.await.unwrap_or_else(|error: rds::Error| {
        tracing::warn!(side = ?recorded.identity.side, %error, "what the servers are called now cannot be read");
        Vec::new()
    });
    topology::renamed(&recorded.identity, &instances)
}
