//! canary's agent and command line: keeps the kernel's weight tables in step with route rules and endpoints.
//!
//! The way of the data (`docs/architecture.md`): [`source`] reads a Snapshot of objects, [`model`] makes the
//! valid part of it, [`compile`] turns that into the wanted [`state::State`], [`dataplane`] compares it with what
//! the maps hold and writes the difference. [`agent`] is the loop around it, [`api`] its door, [`cli`] the client.
//! [`proxy`] follows those rules that need the request, of the same state.
pub mod agent;
pub mod analyze;
pub mod api;
pub mod cli;
pub mod compile;
pub mod dataplane;
pub mod diagnostic;
pub mod model;
pub mod node;
pub mod proxy;
pub mod source;
pub mod state;
mod stop;
pub mod telemetry;
