//! End-to-end tests (to come).
