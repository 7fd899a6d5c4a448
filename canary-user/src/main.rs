//! Entry point of the `canary` binary.
fn main() -> std::process::ExitCode {
    canary_user::cli::main()
}
