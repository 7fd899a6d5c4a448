//! The proxy with real servers and clients, and its parts by themselves.
mod balance;
mod client_hello;
mod cors;
mod faults;
mod fixture;
mod framing;
mod headers;
mod matching;
mod mirrors;
mod passing;
mod policies;
mod retries;
mod routing;
mod sni;
mod streams;
mod table;
mod unwell;
