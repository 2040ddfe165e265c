//! The program: the hidden guard, which must start with nothing opened, or the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|command| command == "guard") {
        return matriarch::guard::process::main(args);
    }
    matriarch::cli::main()
}
