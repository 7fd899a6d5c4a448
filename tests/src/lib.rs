//! End-to-end tests: programs in the kernel, real connections through network namespaces.
pub mod kernel;
