//! The proxy with real servers and clients, and its parts by themselves.
mod explain;
pub(super) mod fixture;
mod framing;
mod headers;
mod matching;
mod routing;
mod streams;
mod table;
mod telemetry;
mod unwell;
