//! What the agent tells about itself and its services: metrics, the log, deviations from weights.
#![forbid(unsafe_code)]

pub mod deviation;
pub mod log;
pub mod metrics;
pub mod server;
pub mod time;
