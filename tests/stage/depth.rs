//! How much is tried: `TEST_DEPTH` is `quick` unless somebody asks for more.

/// Is the whole matrix wanted (`TEST_DEPTH=full` or `soak`)?
#[must_use]
pub fn is_full() -> bool {
    matches!(std::env::var("TEST_DEPTH").as_deref(), Ok("full" | "soak"))
}
