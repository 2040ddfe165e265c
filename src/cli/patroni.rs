//! The daemon's old names: called `patroni` (a link is enough), the program takes the words of units and scripts that
//! start a node, called `patroni_raft_controller` those that start a voter without data.

use crate::api::CONTRACT;
use clap::Parser;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What the guard starts goes by its own words, whatever the program is called.
const OWN: [&str; 1] = ["last-word"];

/// Run this node's daemon until SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "patroni", version = CONTRACT)]
struct Patroni {
    /// The node file, or a directory of them; without it the environment says everything
    file: Option<PathBuf>,
    /// Say all that is wrong with the configuration, and start nothing
    #[arg(long)]
    validate_config: bool,
    /// Accepted: a port in use is no error
    #[arg(short, long, requires = "validate_config")]
    ignore_listen_port: bool,
    /// Print what was checked, merged with the environment, if it is valid; secrets are shown as stars
    #[arg(short, long, requires = "validate_config")]
    print: bool,
}

/// Run a node that votes and holds no data, whatever its file says of PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "patroni_raft_controller", version = CONTRACT)]
struct Controller {
    /// The node file, or a directory of them; without it the environment says everything
    file: Option<PathBuf>,
}

/// The same in the program's own words; other names' arguments stay as they are.
///
/// # Errors
/// They make no sense, or ask for help or the version.
pub(super) fn translated(arguments: &[OsString]) -> Result<Vec<OsString>, clap::Error> {
    let stem = arguments.first().and_then(|name| Path::new(name).file_stem());
    let own = |word: &OsString| OWN.iter().any(|own| word == own);
    let is_own = arguments.get(1).is_some_and(own);
    let (words, file): (&[&str], _) = match stem.and_then(OsStr::to_str).filter(|_| !is_own) {
        Some("patroni") => {
            let asked = Patroni::try_parse_from(arguments)?;
            let verb: &[&str] = match (asked.validate_config, asked.print) {
                (true, true) => &["matriarch", "check", "--print"],
                (true, false) => &["matriarch", "check"],
                (false, _) => &["matriarch", "run"],
            };
            (verb, asked.file)
        }
        Some("patroni_raft_controller") => {
            let asked = Controller::try_parse_from(arguments)?;
            (&["matriarch", "run", "--witness"], asked.file)
        }
        _ => return Ok(arguments.to_vec()),
    };
    let file = file.map(PathBuf::into_os_string);
    Ok(words.iter().map(OsString::from).chain(file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn old_words_in_new_ones() {
        for (line, own) in [
            ("/usr/bin/patroni /etc/patroni", "matriarch run /etc/patroni"),
            ("patroni", "matriarch run"),
            ("patroni --validate-config a.yml", "matriarch check a.yml"),
            ("patroni --validate-config -i", "matriarch check"),
            (
                "patroni --validate-config --print a.yml",
                "matriarch check --print a.yml",
            ),
            (
                "patroni a.yml --validate-config -ip",
                "matriarch check --print a.yml",
            ),
            (
                "patroni_raft_controller.py a.yml",
                "matriarch run --witness a.yml",
            ),
            ("patroni_raft_controller", "matriarch run --witness"),
            ("patroni last-word x", "patroni last-word x"),
            ("patronictl list", "patronictl list"),
            ("matriarch --validate-config", "matriarch --validate-config"),
        ] {
            assert_eq!(translated(&words(line)).unwrap(), words(own), "{line}");
        }
        let version = translated(&words("patroni --version")).unwrap_err();
        assert_eq!(
            (version.to_string().as_str(), version.exit_code()),
            ("patroni 4.1.4\n", 0)
        );
        for line in [
            "patroni a.yml b.yml",
            "patroni -i a.yml",
            "patroni --print a.yml",
            "patroni --generate-config",
        ] {
            assert_eq!(translated(&words(line)).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
