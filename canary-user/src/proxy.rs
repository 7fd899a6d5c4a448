//! The proxy: follows the rules of a service that need the request.
//!
//! The way of a request: [`server`] has the connection, `exchange` takes one request through: [`table`] finds the rule
//! by [`matching`] and draws version and endpoint, [`headers`] makes the changes, `upstream` sends it on. Bodies are
//! streamed, never kept. [`telemetry`] has what became of them, [`access_log`] a line for each.
pub mod access_log;
mod body;
mod exchange;
pub mod explain;
pub mod headers;
pub mod matching;
mod own;
mod rule;
pub mod server;
pub mod table;
mod target;
pub mod telemetry;
pub mod threads;
mod tunnel;
mod upstream;
pub mod view;
mod wire;

pub use self::own::Flag;

#[cfg(test)]
mod tests;
