//! Why a service has no place in the maps.
use super::super::slots::Full;

/// What does not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// A pool of slots is full.
    #[error("{object}: no room for {what}, all {limit} are taken")]
    Full {
        /// Whose turn it was.
        object: String,
        /// What there is none left of.
        what: &'static str,
        /// How many there are.
        limit: u32,
    },
    /// One object is too large.
    #[error("{object}: {count} {what}, but {limit} are the limit")]
    TooMany {
        /// Which.
        object: String,
        /// What it has too many of.
        what: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: u32,
    },
    /// A state that `compile` never makes.
    #[error("{object}: {problem}")]
    Unsound {
        /// Which.
        object: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl LayoutError {
    /// A full pool, and whose turn it was.
    pub(super) fn full(object: String) -> impl FnOnce(Full) -> Self {
        move |Full { what, limit }| Self::Full { object, what, limit }
    }
}
