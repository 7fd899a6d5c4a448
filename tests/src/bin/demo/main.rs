//! `demo` (to come in this commit's successor).
fn main() {}
