//! Logs every call to AWS with the request id that AWS gave it, in the span of the step that makes it: what AWS's support and
//! CloudTrail are asked by. Changes at `info`, reads at `debug`; never what was asked for or answered.

use super::aws::{BoxError, ConfigBag, FinalizerInterceptorContextRef, Intercept, Metadata, RuntimeComponents};

/// As AWS names it in the head of an answer.
const REQUEST_ID: &str = "x-amzn-requestid";

/// Listens to the calls of one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    pub(crate) changes: bool,
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "calls"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let call = config.load::<Metadata>();
        let (service, operation) = call.map_or(("unknown", "unknown"), |call| (call.service(), call.name()));
        let answer = context.response();
        let status = answer.map(|answer| answer.status().as_u16());
        let request_id = answer.and_then(|answer| answer.headers().get(REQUEST_ID)).unwrap_or("none");
        if self.changes {
            tracing::info!(service, operation, status, request_id, "asked aws for a change");
        } else {
            tracing::debug!(service, operation, status, request_id, "asked aws");
        }
        Ok(())
    }
}
