//! The proxy: follows the rules of a service that need the request.
//!
//! The way of a request: [`server`] has the connection, `exchange` takes one request through: [`table`] finds the rule
//! by [`matching`] and draws version and endpoint, [`headers`] makes the changes, `upstream` sends it on. On the way are
//! `cors`, `fault`, `mirror` and `retry`, for rules that have them. Bodies are streamed, never kept. [`counts`] has what
//! became of them.
pub mod answers;
mod begun;
mod body;
mod client_hello;
mod cors;
pub mod counts;
mod exchange;
mod fault;
pub mod headers;
pub mod matching;
mod mirror;
mod own;
mod pass;
mod portion;
mod retry;
mod rule;
pub mod server;
mod sni;
mod substitution;
pub mod table;
mod target;
pub mod threads;
mod tunnel;
mod upstream;
pub mod view;
mod wire;

pub use self::own::Flag;

#[cfg(test)]
mod tests;
