//! The `procid` command.

fn main() -> std::process::ExitCode {
    procid::cli::main()
}
