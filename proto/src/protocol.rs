//! The form of what crosses the link, as one number that both ends say: an agent and a coordinator of other versions work together
//! or refuse each other by name, and never misread each other.
//!
//! What is recorded in `wire/v1.fields` and `wire/v1.bodies/` is what versions in the field say. It may be added to: who does not
//! know a new field passes over it. [`SPOKEN`] rises when something is added that has to be understood (a wish in an [`Intent`],
//! which is obeyed whole or refused), [`OLDEST`] when something recorded is taken away or means something else.
//!
//! [`Intent`]: crate::intent::Intent

/// What this version says.
pub const SPOKEN: u32 = 1;
/// The oldest that this version understands.
pub const OLDEST: u32 = 1;
/// What those said who said no number yet.
const UNNUMBERED: u32 = 1;

/// The other end is of a version that cannot be understood, or that would not understand this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it speaks version {theirs} of the link; this version understands {OLDEST} to {SPOKEN}")]
pub struct Misfit {
    pub theirs: u32,
}

/// May one go on with who says this number? 0 is who says none.
///
/// # Errors
/// [`Misfit`], when not.
pub fn understood(said: u32) -> Result<(), Misfit> {
    let theirs = if said == 0 { UNNUMBERED } else { said };
    if (OLDEST..=SPOKEN).contains(&theirs) { Ok(()) } else { Err(Misfit { theirs }) }
}

#[cfg(test)]
mod tests;
