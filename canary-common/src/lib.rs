//! The contract between canary's kernel programs and its agent: `no_std`, compiled for BPF and for the host.
//!
//! [`packet`] parses, [`pipeline`] decides, [`choose`] holds the arithmetic of the choice, [`rewrite`] and [`checksum`]
//! translate, [`verdict`] says why a packet is left alone, [`track`] is what keyed flows would need to go without entries, [`abi`] is the maps' layout, [`limits`] their capacities.
//! With the feature `user`, [`build`] makes the tables that the choice walks, and [`host`] runs the pipeline over tables
//! in memory.
#![cfg_attr(not(test), no_std)]
#[cfg(feature = "user")]
extern crate std;

pub mod abi;
#[cfg(any(feature = "user", test))]
pub mod build;
pub mod checksum;
pub mod choose;
#[cfg(any(feature = "user", test))]
pub mod host;
pub mod limits;
pub mod packet;
pub mod pipeline;
pub mod rewrite;
pub mod track;
pub mod verdict;
