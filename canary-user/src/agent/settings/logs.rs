//! Settings of logs: the agent's own, and that of requests.
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::SettingsError;
use crate::{
    proxy::access_log::{self, Sample},
    telemetry::log,
};

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn log_filter<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    log::checked(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn parse_sample(text: &str) -> Result<Sample, String> {
    let ratio: f64 = text.parse().map_err(|_| format!("`{text}` is not a ratio such as 0.01"))?;
    Sample::try_from(ratio).map_err(|error| error.to_string())
}

pub(super) fn sample<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Sample>, D::Error> {
    Sample::try_from(f64::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn access_log(
    file: Option<PathBuf>,
    sample: Option<Sample>,
) -> Result<Option<access_log::Settings>, SettingsError> {
    match (file, sample) {
        (None, Some(_)) => Err(SettingsError::SampleOfNothing),
        (file, sample) => Ok(file.map(|file| access_log::Settings { file, sample: sample.unwrap_or(Sample::ALL) })),
    }
}
