//! The proxy: follows the rules of a service that need the request.
//!
//! The way of a request: [`server`] has the connection, `exchange` takes one request through: [`table`] finds the rule
//! by [`matching`] and draws version and endpoint, [`headers`] makes the changes, `upstream` sends it on. On the way are
//! `cors`, `fault`, `mirror` and `retry`, for rules that have them, and `balance`, `affinity` and `outlier` for versions
//! with a policy. Bodies are streamed, never kept. [`telemetry`] has what became of them, [`access_log`] a line for each.
//!
//! The way of a connection: [`sockets`] listens, a [`door`] lets it in, `wire` watches it for [`limited`] patience, `rate`
//! spaces its requests, `farewell` ends it when the proxy stops.
pub mod access_log;
mod affinity;
mod balance;
mod begun;
mod body;
mod client_hello;
mod cors;
pub mod door;
mod endpoint;
mod exchange;
pub mod explain;
mod farewell;
mod fault;
mod filled;
pub mod headers;
pub mod limited;
pub mod matching;
mod mirror;
mod outgoing;
mod outlier;
mod own;
mod pass;
mod portion;
mod powers;
mod rate;
mod retry;
mod rule;
pub mod server;
mod sni;
pub mod sockets;
mod substitution;
pub mod table;
mod target;
pub mod telemetry;
pub mod threads;
mod tunnel;
mod upstream;
pub mod view;
mod wire;

pub use self::own::{Flag, Flags};

#[cfg(test)]
mod tests;
