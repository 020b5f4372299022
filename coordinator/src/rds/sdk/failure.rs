//! Gives every failure of the SDK its class. AWS's code and words come through verbatim. A changing call whose answer was not
//! read is `Unknown`, whatever the reason; it is never taken for a failure without effect.

use super::aws::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use crate::rds::{Class, Error};

/// Whether a call only reads or may change the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Changes,
}

impl Effect {
    /// The class of a failure after which nobody knows whether AWS acted.
    pub(crate) fn unread(self) -> Class {
        match self {
            Effect::Reads => Class::Transient,
            Effect::Changes => Class::Unknown,
        }
    }
}

/// Maps a failure of the SDK.
pub(crate) fn failed<E>(effect: Effect, service: &str, operation: &'static str, target: &str, e: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let (class, code) = match &e {
        SdkError::ServiceError(answer) => {
            let (code, message) = (answer.err().code().unwrap_or(""), answer.err().message().unwrap_or(""));
            let status = answer.raw().status().as_u16();
            if code.is_empty() {
                // No error of AWS: an answer that could not be read, or something between us and AWS that answered.
                let class = if (400..500).contains(&status) { Class::Permanent } else { effect.unread() };
                let chain = DisplayErrorContext(&e).to_string();
                return Error::new(class, operation, target, format!("Http{status}"), chain);
            }
            let class = classify(effect, &format!("{service}:{operation}"), status, code, message);
            return Error::new(class, operation, target, code, message);
        }
        SdkError::ConstructionFailure(_) => (Class::Permanent, "ConstructionFailure"),
        SdkError::TimeoutError(_) => (effect.unread(), "TimeoutError"),
        SdkError::DispatchFailure(failure) => {
            let never_sent = failure.is_user() || refused(&e);
            let class = match (failure.is_user(), never_sent) {
                (true, _) => Class::Permanent,
                (false, true) => Class::Transient,
                (false, false) => effect.unread(),
            };
            (class, "DispatchFailure")
        }
        SdkError::ResponseError(_) => (effect.unread(), "ResponseError"),
        _ => (effect.unread(), "SdkError"),
    };
    Error::new(class, operation, target, code, DisplayErrorContext(&e).to_string())
}

/// Nothing can have been sent where nobody listens.
fn refused(e: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(e);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        next = cause.source();
    }
    false
}

const THROTTLED: [&str; 8] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "SlowDown",
];
const DENIED: [&str; 10] = [
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "NotAuthorized",
    "AuthFailure",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "MissingAuthenticationToken",
    "OptInRequired",
];
const EXPIRED: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"];

/// The class of an answer with an error code. `action` is the IAM action of the call, used where AWS names none.
pub(crate) fn classify(effect: Effect, action: &str, status: u16, code: &str, message: &str) -> Class {
    let plain = code.strip_suffix("Fault").or_else(|| code.strip_suffix("Exception")).unwrap_or(code);
    if THROTTLED.contains(&code) || status == 429 {
        Class::Throttled
    } else if EXPIRED.contains(&code) {
        Class::Transient
    } else if DENIED.contains(&code) {
        Class::AccessDenied { action: denied_action(message).unwrap_or(action).to_owned() }
    } else if status >= 500 {
        effect.unread()
    } else if plain.ends_with("NotFound") {
        Class::NotFound
    } else if plain.ends_with("AlreadyExists") {
        Class::AlreadyExists
    } else if (plain.starts_with("Invalid") && plain.ends_with("State")) || plain == "DBInstanceNotReady" {
        Class::InvalidState
    } else {
        Class::Permanent
    }
}

/// `… is not authorized to perform: rds:CreateDBCluster on resource: …`
fn denied_action(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("not authorized to perform: ")?;
    rest.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(effect: Effect, status: u16, code: &str, expected: Class) {
        assert_eq!(classify(effect, "rds:Op", status, code, ""), expected, "{effect:?} {status} {code}");
    }

    #[test]
    fn every_code_of_the_fact_sheet_has_its_class() {
        use Effect::{Changes, Reads};
        check(Changes, 400, "BlueGreenDeploymentAlreadyExistsFault", Class::AlreadyExists);
        check(Changes, 400, "DBClusterSnapshotAlreadyExistsFault", Class::AlreadyExists);
        check(Changes, 400, "DBParameterGroupAlreadyExists", Class::AlreadyExists);
        check(Changes, 400, "SourceClusterNotSupportedFault", Class::Permanent);
        check(Changes, 400, "InvalidDBClusterStateFault", Class::InvalidState);
        check(Changes, 400, "InvalidDBInstanceState", Class::InvalidState);
        check(Changes, 400, "InvalidBlueGreenDeploymentStateFault", Class::InvalidState);
        check(Changes, 400, "InvalidDBParameterGroupState", Class::InvalidState);
        check(Reads, 400, "DBInstanceNotReady", Class::InvalidState);
        check(Reads, 404, "DBClusterNotFoundFault", Class::NotFound);
        check(Reads, 404, "DBInstanceNotFound", Class::NotFound);
        check(Reads, 404, "BlueGreenDeploymentNotFoundFault", Class::NotFound);
        check(Reads, 404, "DBClusterParameterGroupNotFound", Class::NotFound);
        check(Reads, 404, "DBLogFileNotFoundFault", Class::NotFound);
        check(Changes, 403, "DBClusterQuotaExceededFault", Class::Permanent);
        check(Changes, 400, "InvalidParameterValue", Class::Permanent);
        check(Changes, 400, "InvalidAction", Class::Permanent);
        check(Changes, 400, "Throttling", Class::Throttled);
        check(Changes, 503, "Throttling", Class::Throttled);
        check(Reads, 403, "ExpiredToken", Class::Transient);
    }

    #[test]
    fn a_500_on_a_change_is_unknown_and_on_a_read_transient() {
        for code in ["InternalFailure", "ServiceUnavailable", ""] {
            check(Effect::Changes, 500, code, Class::Unknown);
            check(Effect::Reads, 500, code, Class::Transient);
        }
    }

    #[test]
    fn the_missing_permission_is_named() {
        let said = "User: arn:aws:iam::1:user/x is not authorized to perform: rds:CreateDBCluster on resource: y";
        let class = classify(Effect::Changes, "rds:CreateBlueGreenDeployment", 403, "AccessDenied", said);
        assert_eq!(class, Class::AccessDenied { action: "rds:CreateDBCluster".into() });
        let class = classify(Effect::Changes, "rds:CreateBlueGreenDeployment", 403, "AccessDenied", "no");
        assert_eq!(class, Class::AccessDenied { action: "rds:CreateBlueGreenDeployment".into() });
    }
}
