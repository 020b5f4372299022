//! The engine's own tests, on a toy domain.

mod boundary;
mod driving;
mod folding;
mod leave;
mod limits;
mod people;
mod suites;
mod toy;
