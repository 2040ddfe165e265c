//! The program: the hidden guard or proxy, which must start with nothing opened, or the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    match command.to_str() {
        Some("guard") => matriarch::guard::process::main(args),
        Some("proxy") => matriarch::proxy::process::main(args),
        _ => matriarch::cli::main(),
    }
}
