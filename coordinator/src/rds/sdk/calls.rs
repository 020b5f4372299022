//! Logs every call to AWS with the request id that AWS gave it, in the span of the step that makes it: what AWS's support and
//! CloudTrail are asked by. Changes at `info`, reads at `debug`; never what was asked for or answered.

use super::aws::{BoxError, ConfigBag, FinalizerInterceptorContextRef, Intercept, RuntimeComponents};

/// As AWS names it in the head of an answer.
const REQUEST_ID: &str = "x-amzn-requestid";

/// Listens to the calls of one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    pub(crate) service: &'static str,
    /// The one operation of the client, where it does not stand in the body.
    pub(crate) operation: Option<&'static str>,
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
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.request().and_then(|request| request.body().bytes()).unwrap_or_default();
        let operation = self.operation.or_else(|| action(body)).unwrap_or("unknown");
        let answer = context.response();
        let status = answer.map(|answer| answer.status().as_u16());
        let request_id = answer.and_then(|answer| answer.headers().get(REQUEST_ID)).unwrap_or("none");
        let service = self.service;
        if self.changes {
            tracing::info!(service, operation, status, request_id, "asked aws for a change");
        } else {
            tracing::debug!(service, operation, status, request_id, "asked aws");
        }
        Ok(())
    }
}

/// The operation in a body of AWS's query protocol.
fn action(body: &[u8]) -> Option<&str> {
    let text = body.strip_prefix(b"Action=")?;
    let name = text.split(|byte| *byte == b'&').next()?;
    std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_is_read_and_nothing_else_of_a_body() {
        let check = |body: &str, expected: Option<&str>| assert_eq!(action(body.as_bytes()), expected, "{body}");
        check("Action=DescribeDBClusters&Version=2014-10-31&DBClusterIdentifier=orders", Some("DescribeDBClusters"));
        check("Action=RebootDBInstance", Some("RebootDBInstance"));
        check("Version=2014-10-31&Action=RebootDBInstance", None);
        check("Action=a%20b&c", None);
        check("", None);
    }
}
