//! The contract between canary's kernel programs and its agent: `no_std`, compiled for BPF and for the host.
//!
//! [`packet`] parses, [`pipeline`] decides, [`choose`] holds the arithmetic of the choice, [`rewrite`] and [`checksum`]
//! translate, [`verdict`] says why a packet is left alone, [`abi`] is the maps' layout, [`limits`] their capacities.
//! With the feature `user`, [`build`] makes the tables that the choice walks.
#![cfg_attr(not(test), no_std)]
pub mod abi;
#[cfg(feature = "user")]
pub mod build;
pub mod checksum;
pub mod choose;
pub mod limits;
pub mod packet;
pub mod pipeline;
pub mod rewrite;
pub mod verdict;
