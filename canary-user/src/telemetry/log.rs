//! The log: lines for people or JSON for machines, on standard error.
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, util::SubscriberInitExt};

use crate::agent::settings::LogFormat;

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level or a filter.
    #[error(
        "--log `{filter}` is neither a level (error, warn, info, debug, trace) nor a filter such as `info,canary_user::agent=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        source: ParseError,
    },
    /// Somebody else has the log.
    #[error("the log is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends this process's log to standard error.
///
/// # Errors
/// When `filter` is not one.
pub fn init(filter: &str, format: LogFormat, colour: bool) -> Result<(), LogError> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| LogError::Filter { filter: filter.into(), source })?;
    let builder = fmt::Subscriber::builder().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(colour);
    match format {
        LogFormat::Text => builder.with_target(false).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(LogError::Twice)
}
