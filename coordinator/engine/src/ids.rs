//! Names: of runs, steps, monitors, codes, people and requests. Newtypes with text forms, and nothing else.

use std::collections::HashSet;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

const NAME_BYTES_MAX: usize = 64;
const NAMES_MAX: usize = 4096;

/// Makes a name read from a journal as static as those written in the code. Bounded, because a journal is a file.
fn intern(name: &str) -> Option<&'static str> {
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return Some(known);
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX || names.len() >= NAMES_MAX {
        return None;
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(kept);
    Some(kept)
}

macro_rules! static_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(pub &'static str);

        impl $name {
            /// The name as written.
            pub fn as_str(self) -> &'static str {
                self.0
            }

            /// Reads a name; `None` if it is empty or longer than 64 bytes.
            pub fn parse(name: &str) -> Option<Self> {
                intern(name).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<De: serde::Deserializer<'de>>(from: De) -> Result<Self, De::Error> {
                let name = String::deserialize(from)?;
                intern(&name).map(Self).ok_or_else(|| serde::de::Error::custom("a name is empty or too long"))
            }
        }
    };
}

static_name! {
    /// Names a step in the plan and in every journal; never renamed.
    StepId
}
static_name! {
    /// Names a monitor; never renamed.
    MonitorId
}
static_name! {
    /// Names what an operator can meet; each has a runbook page.
    Code
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

text_name! {
    /// One run of a plan. External names derive from it.
    RunId
}
text_name! {
    /// What a run is about. At most one active run per subject.
    Subject
}
text_name! {
    /// A person, as the front door knows them.
    Operator
}
text_name! {
    /// Makes a request idempotent; chosen by who asks.
    AskId
}
text_name! {
    /// Who reported an observation.
    Source
}

impl RunId {
    /// A new id; ids made later sort later.
    pub fn fresh() -> RunId {
        RunId(uuid::Uuid::now_v7().to_string())
    }
}

impl AskId {
    /// A new id for a request that is made once.
    pub fn fresh() -> AskId {
        AskId(uuid::Uuid::now_v7().to_string())
    }
}
