//! For tests of whoever uses the engine: an in-memory journal, the crash matrix, the conformance suite.
