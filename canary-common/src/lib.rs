//! The contract between canary's kernel programs and its agent (to come).
#![no_std]
