//! Tests of `compile`.
