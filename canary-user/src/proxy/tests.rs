//! The proxy with real servers and clients, and its parts by themselves.
mod cors;
mod faults;
mod fixture;
mod framing;
mod headers;
mod matching;
mod mirrors;
mod retries;
mod routing;
mod streams;
mod table;
mod unwell;
