//! What a call to AWS can fail with, and of which class each failure is. The class is decided where the failure is made
//! (`sdk.rs`, `fake.rs`) and never guessed again from text. AWS's own code and words are kept, verbatim.

use std::fmt;

/// What a failure means for whoever called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// AWS asked for fewer calls. Nothing happened; try again later.
    Throttled,
    /// Nothing happened, and the same call may well succeed later (a read that timed out, a 500 on a read).
    Transient,
    /// A changing call whose outcome was never read: it may have acted. Look before anything else.
    Unknown,
    /// The object named does not exist.
    NotFound,
    /// The object to be made exists already: adopt or refuse.
    AlreadyExists,
    /// The object is in a state in which AWS refuses this call *now*; nothing happened.
    InvalidState,
    /// The credentials may not do this. `action` is the IAM action that is missing, as far as AWS says.
    AccessDenied { action: String },
    /// The same call will never succeed.
    Permanent,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Throttled => "throttled",
            Class::Transient => "transient",
            Class::Unknown => "outcome unknown",
            Class::NotFound => "not found",
            Class::AlreadyExists => "already exists",
            Class::InvalidState => "refused in this state",
            Class::AccessDenied { .. } => "access denied",
            Class::Permanent => "permanent",
        })
    }
}

/// A failed call to AWS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {target}: {code}: {message}")]
pub struct ApiError {
    pub class: Class,
    /// The API's name of the call, such as `CreateBlueGreenDeployment`.
    pub operation: &'static str,
    /// What the call was about, by its name; `-` when about nothing single.
    pub target: String,
    /// AWS's error code, verbatim; for failures without an answer: `TimeoutError`, `DispatchFailure`, `ResponseError`.
    pub code: String,
    /// AWS's message, verbatim, or the chain of causes when there was no answer.
    pub message: String,
}

impl ApiError {
    pub fn new(
        class: Class,
        operation: &'static str,
        target: impl fmt::Display,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { class, operation, target: target.to_string(), code: code.into(), message: message.into() }
    }

    pub fn is_not_found(&self) -> bool {
        self.class == Class::NotFound
    }

    pub fn already_exists(&self) -> bool {
        self.class == Class::AlreadyExists
    }

    /// AWS refused in this state and nothing happened.
    pub fn is_invalid_state(&self) -> bool {
        self.class == Class::InvalidState
    }

    /// The call may have acted: the only legal next move is to look.
    pub fn may_have_acted(&self) -> bool {
        self.class == Class::Unknown
    }

    /// Nothing happened and the call may be made again, later.
    pub fn may_retry(&self) -> bool {
        matches!(self.class, Class::Throttled | Class::Transient)
    }
}

/// Turns "not found" into `None`, and leaves every other failure a failure.
pub fn found<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(there) => Ok(Some(there)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}
