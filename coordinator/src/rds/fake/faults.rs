//! What a test can make go wrong in the fake: with a single call, and with the course of a deployment.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::rds::{Class, Error};

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// AWS asks for fewer calls; nothing happens.
    Throttle,
    /// A 500 before acting: transient on a read, unknown on a change.
    Broken,
    /// The request never arrives: unknown on a change, and nothing has happened.
    LostRequest,
    /// AWS acts, and the reply is lost: unknown on a change.
    LostReply,
    /// The credentials may not do this.
    Denied,
    /// AWS refuses with this code and message; nothing happens.
    Refused { class: Class, code: String, message: String },
}

impl Fault {
    /// AWS refuses in this state, as it does with `InvalidBlueGreenDeploymentStateFault`.
    pub fn invalid_state(code: &str, message: &str) -> Self {
        Fault::Refused { class: Class::InvalidState, code: code.into(), message: message.into() }
    }

    /// Whether AWS acts all the same.
    pub(super) fn acts(&self) -> bool {
        *self == Fault::LostReply
    }

    pub(super) fn error(&self, changes: bool, operation: &'static str, target: &str) -> Error {
        let unread = if changes { Class::Unknown } else { Class::Transient };
        let (class, code, message) = match self {
            Fault::Throttle => (Class::Throttled, "Throttling", "Rate exceeded"),
            Fault::Broken => (unread, "InternalFailure", "We encountered an internal error. Please try again."),
            Fault::LostRequest => (unread, "DispatchFailure", "connection closed before message completed"),
            Fault::LostReply => (unread, "TimeoutError", "operation timed out"),
            Fault::Denied => {
                let action = format!("rds:{operation}");
                let said = format!("User: arn:aws:iam::123456789012:user/pilot is not authorized to perform: {action}");
                return Error::new(Class::AccessDenied { action }, operation, target, "AccessDenied", said);
            }
            Fault::Refused { class, code, message } => (class.clone(), code.as_str(), message.as_str()),
        };
        Error::new(class, operation, target, code, message)
    }
}

/// How the making of green goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Creation {
    #[default]
    Succeeds,
    /// INVALID_CONFIGURATION at the end of the engine upgrade, with this reason in an event.
    Invalid { reason: String },
    /// Stays PROVISIONING before its last task until set to something else: a slot that waits for a transaction.
    NeverReady,
}

/// How a switchover that AWS has accepted goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Switching {
    #[default]
    Succeeds,
    /// Rolled back when its time-out has passed; the deployment reads SWITCHOVER_FAILED.
    TimesOut,
    /// A guardrail cancels it soon; the deployment reads AVAILABLE again.
    Reverts { reason: String },
    /// Stays SWITCHOVER_IN_PROGRESS until set to something else.
    Hangs,
    /// Begins only after this long, and reads AVAILABLE until then; it succeeds.
    Late(Duration),
    /// It switches, and the deployment reads SWITCHOVER_FAILED all the same: evidence that contradicts itself.
    SwitchesAndFails,
}

/// Everything that a test has ordered.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    once: HashMap<&'static str, VecDeque<Fault>>,
    always: HashMap<&'static str, Fault>,
    pub(super) creation: Creation,
    pub(super) switching: Switching,
    /// How long green's instances stay `storage-optimization` after AVAILABLE.
    pub(super) members_late: Duration,
    /// The next so many descriptions of an AVAILABLE deployment show it PROVISIONING.
    pub(super) flaps: u32,
}

impl Faults {
    pub(super) fn once(&mut self, operation: &'static str, fault: Fault) {
        self.once.entry(operation).or_default().push_back(fault);
    }

    pub(super) fn always(&mut self, operation: &'static str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.always.insert(operation, fault),
            None => self.always.remove(operation),
        };
    }

    pub(super) fn next(&mut self, operation: &str) -> Option<Fault> {
        let once = self.once.get_mut(operation).and_then(VecDeque::pop_front);
        once.or_else(|| self.always.get(operation).cloned())
    }
}
