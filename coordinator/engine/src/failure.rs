//! What a step says when it cannot go on, and the codes of the failures that the engine itself makes.
//!
//! A failure goes into the journal, so it holds text and a class, never a live error, and never a secret.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Code;

/// Why something could not be done. Kept as text, because it goes into the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the engine may do about it.
    pub class: FailureClass,
    /// Names the runbook page.
    pub code: Code,
    /// What was being done, and to what.
    pub doing: String,
    /// The causes, outermost first.
    pub chain: Vec<String>,
}

/// What the engine may do about a failure. Decided where the failure is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Retry with backoff, within the step's budget.
    Transient,
    /// It may have happened: read the world again before anything else.
    Unknown,
    /// Unwind (reversible) or stop for a person (forward only).
    Permanent,
    /// Stop here, say what to do, wait for `resume` or `abort`.
    NeedsOperator,
    /// The fold says pause, abort, unwind or fenced; seen at the next look. Not journaled as a failure.
    Interrupted,
}

impl Failure {
    /// A failure of `class`; `doing` says what was being done, to what.
    pub fn new(class: FailureClass, code: Code, doing: impl fmt::Display) -> Failure {
        Failure { class, code, doing: doing.to_string(), chain: Vec::new() }
    }

    /// See [`FailureClass::Transient`].
    pub fn transient(code: Code, doing: impl fmt::Display) -> Failure {
        Failure::new(FailureClass::Transient, code, doing)
    }

    /// See [`FailureClass::Unknown`].
    pub fn unknown(code: Code, doing: impl fmt::Display) -> Failure {
        Failure::new(FailureClass::Unknown, code, doing)
    }

    /// See [`FailureClass::Permanent`].
    pub fn permanent(code: Code, doing: impl fmt::Display) -> Failure {
        Failure::new(FailureClass::Permanent, code, doing)
    }

    /// See [`FailureClass::NeedsOperator`]; `doing` should say what the person is to do.
    pub fn needs_operator(code: Code, doing: impl fmt::Display) -> Failure {
        Failure::new(FailureClass::NeedsOperator, code, doing)
    }

    /// See [`FailureClass::Interrupted`].
    pub fn interrupted(why: impl fmt::Display) -> Failure {
        Failure::new(FailureClass::Interrupted, codes::INTERRUPTED, why)
    }

    /// Adds one cause as text.
    pub fn because(mut self, cause: impl fmt::Display) -> Failure {
        self.chain.push(cause.to_string());
        self
    }

    /// Adds an error and all its sources, outermost first.
    pub fn caused_by(mut self, error: &(dyn Error + 'static)) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            self.chain.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// The same failure under another class.
    pub fn with_class(mut self, class: FailureClass) -> Failure {
        self.class = class;
        self
    }

    /// The same failure under another code.
    pub fn with_code(mut self, code: Code) -> Failure {
        self.code = code;
        self
    }

    /// Whether this is the engine's own "come back, the fold has changed".
    pub fn is_interrupted(&self) -> bool {
        self.class == FailureClass::Interrupted
    }
}

/// `doing: cause: cause`, on one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        for cause in &self.chain {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// The codes of the engine's own failures. Each has a runbook page.
pub mod codes {
    use crate::ids::Code;

    /// The fold says pause, abort, unwind or fenced.
    pub const INTERRUPTED: Code = Code("PU0900");
    /// A bounded wait ran past its deadline.
    pub const DEADLINE: Code = Code("PU0901");
    /// The journal holds something that the step cannot read as its own type.
    pub const JOURNAL_SHAPE: Code = Code("PU0902");
    /// A step asked for the output of a step that has none.
    pub const NO_OUTPUT: Code = Code("PU0903");
    /// The gate of a step is closed.
    pub const GATE_CLOSED: Code = Code("PU0904");
    /// Not enough of the lease is left for the call that would follow.
    pub const LEASE_SHORT: Code = Code("PU0905");
    /// The pivot is armed: only looking is allowed.
    pub const LOOK_ONLY: Code = Code("PU0906");
    /// The pivot cannot be armed now.
    pub const CANNOT_ARM: Code = Code("PU0907");
    /// A step panicked.
    pub const PANICKED: Code = Code("PU0908");
    /// A monitor died and was started again.
    pub const MONITOR_DIED: Code = Code("PU0909");
    /// A person asked to abort.
    pub const ABORTED: Code = Code("PU0911");
    /// A person asked to pause.
    pub const PAUSED: Code = Code("PU0912");
    /// A person's approval is needed.
    pub const APPROVAL: Code = Code("PU0913");
    /// The safe intent could not be published.
    pub const NOT_CALM: Code = Code("PU0914");
    /// A person asked to postpone.
    pub const POSTPONED: Code = Code("PU0915");
    /// A step waits before it tries again.
    pub const BACKOFF: Code = Code("PU0916");

    /// All of them, for the test that every code has a page.
    pub const ALL: &[Code] = &[
        INTERRUPTED,
        DEADLINE,
        JOURNAL_SHAPE,
        NO_OUTPUT,
        GATE_CLOSED,
        LEASE_SHORT,
        LOOK_ONLY,
        CANNOT_ARM,
        PANICKED,
        MONITOR_DIED,
        ABORTED,
        PAUSED,
        APPROVAL,
        NOT_CALM,
        POSTPONED,
        BACKOFF,
    ];
}
