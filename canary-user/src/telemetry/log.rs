//! The log: lines for people or JSON for machines, on standard error.
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
    fmt,
    util::SubscriberInitExt,
};

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

/// `filter`, if it is one that logs what its author means.
///
/// # Errors
/// A sentence that names the levels.
pub fn checked(filter: &str) -> Result<String, String> {
    // A word that is no level would be taken as the name of a module, and everything else would be silent.
    let level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    let plain = |directive: &str| level(directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim());
    // Spans and fields have a grammar of their own, with commas in it.
    let good = filter.contains('[') || filter.split(',').all(plain);
    if good && EnvFilter::try_new(filter).is_ok() {
        return Ok(filter.into());
    }
    Err(format!(
        "`{filter}` is neither a level (error, warn, info, debug, trace, off) nor a filter such as `info,canary_user::agent=debug`"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_no_filter() {
        for good in
            ["info", "WARN", "off", "info,canary_user::agent=debug", "canary_user=trace, error", "info,[edit]=debug"]
        {
            assert_eq!(checked(good), Ok(good.to_owned()));
        }
        for bad in ["loud", "", "info,", "info,canary_user", "canary_user=loud", "debg,canary_user=info", "[edit"] {
            let error = checked(bad).unwrap_err();
            assert!(
                error.starts_with(&format!("`{bad}` is neither a level (error, warn, info, debug, trace")),
                "{error}"
            );
        }
    }
}
