//! The workshop: set-up, demo, test, ci, bench.
fn main() {}
