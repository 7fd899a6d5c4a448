//! Entry point of the `canary` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    canary_user::cli::main()
}
