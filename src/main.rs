//! The command line.

fn main() -> std::process::ExitCode {
    matriarch::cli::main()
}
