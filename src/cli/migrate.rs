//! `matriarch migrate FILE`: what becomes of a node file of Patroni, and the file for Matriarch.
//!
//! Without `--output` everything goes to standard output, the report as comments above the file: `matriarch migrate
//! patroni.yml > node.yml` gives a file that a node can start with, once the lines under "to do" are done.

use super::CliError;
use super::talk::Talk;
use crate::config::{self, Migration, MigrationWishes, Problem};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The widest line of the list of keys.
const WIDTH: usize = 100;

/// Say what becomes of a node file of Patroni, and make one for Matriarch of it
#[derive(Args, Debug)]
pub struct Migrate {
    /// The file of Patroni
    file: PathBuf,
    /// Write the new file here, which must not be there yet; otherwise it is printed
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Peer address of another node, host:port; once for each
    #[arg(long = "partner", value_name = "HOST:PORT")]
    partners: Vec<String>,
    /// Change ttl to this many seconds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<f64>,
}

impl Migrate {
    /// The exit code is 1 if something in the file is refused.
    pub(super) fn execute(self, env: &BTreeMap<String, String>, talk: &mut Talk<'_>) -> Result<u8, CliError> {
        let wishes = MigrationWishes {
            partners: self.partners,
            ttl: self.ttl.map(|ttl| ttl.to_string()),
        };
        let done = config::migration(&self.file, env, &wishes)
            .map_err(|problems| CliError::Config(problems.iter().map(Problem::to_string).collect()))?;
        let report = report(&self.file, &done);
        match &self.output {
            None => talk.print(&format!("{}\n{}", commented(&report), done.text))?,
            Some(output) => {
                write(output, &done.text)?;
                talk.print(&format!(
                    "{report}\n{} is written. Next: matriarch check {0}\n",
                    output.display()
                ))?;
            }
        }
        Ok(u8::from(!done.refused.is_empty()))
    }
}

/// For its user alone, since it holds passwords, and never over a file that is there.
fn write(output: &Path, text: &str) -> Result<(), CliError> {
    let refuse = |error: std::io::Error| CliError::Target(format!("--output: {}: {error}", output.display()));
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)
        .map_err(refuse)?;
    file.write_all(text.as_bytes()).map_err(refuse)
}

fn commented(report: &str) -> String {
    report.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "# {line}");
        text.replace("# \n", "#\n")
    })
}

/// What a person reads, section by section; empty ones are left out.
fn report(file: &Path, done: &Migration) -> String {
    let mut text = format!("What becomes of {}\n", file.display());
    let place = format!("{}:", file.display());
    let plain = |lines: &[String]| -> Vec<String> {
        // All of it is about the one file that was named above.
        let short = |line: &String| line.strip_prefix(&place).map(|rest| format!("line {rest}"));
        lines
            .iter()
            .map(|line| short(line).unwrap_or_else(|| line.clone()))
            .collect()
    };
    let obeyed = format!("Obeyed as written ({} keys)", done.obeyed.len());
    section(&mut text, &obeyed, &wrapped(&done.obeyed));
    section(
        &mut text,
        "Without effect, may stay or go",
        &plain(&done.without_effect),
    );
    section(
        &mut text,
        "Refused: a node does not start before this is changed",
        &plain(&done.refused),
    );
    section(&mut text, "Good to know", &done.notes);
    let added: Vec<String> = done
        .added
        .iter()
        .flat_map(|added| added.lines())
        .map(str::to_owned)
        .collect();
    section(&mut text, "Added", &added);
    section(&mut text, "To do", &done.to_do);
    text
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in lines.iter().flat_map(|line| line.lines()) {
        let _ = writeln!(text, "  {line}");
    }
}

fn wrapped(words: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() + 2 <= WIDTH => {
                line.push_str(", ");
                line.push_str(word);
            }
            _ => lines.push(word.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures::recorded;

    fn migrated(file: &str, wishes: &MigrationWishes) -> (String, Migration) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/testdata/migrate");
        let file = dir.join(file);
        let env = [("HOME".to_owned(), "/var/lib/pgsql".to_owned())].into();
        let done = config::migration(&file, &env, wishes).unwrap();
        let shown = report(&file, &done).replace(&format!("{}/", dir.display()), "");
        (shown, done)
    }

    /// Files in the likeness of those that people have: report and file as one text.
    #[test]
    fn files_of_patroni_as_people_have_them() {
        for (file, wishes) in [
            (
                "etcd3",
                MigrationWishes {
                    ttl: Some("2".into()),
                    ..MigrationWishes::default()
                },
            ),
            (
                "consul",
                MigrationWishes {
                    partners: vec!["10.2.0.2".into(), "10.2.0.3:2223".into()],
                    ttl: Some("3".into()),
                },
            ),
            ("refused", MigrationWishes::default()),
        ] {
            let (shown, done) = migrated(&format!("{file}.yml"), &wishes);
            recorded(
                &format!("cli/testdata/migrate/{file}.txt"),
                &format!("{}\n{}", commented(&shown), done.text),
            );
        }
    }

    /// Nothing that was typed is lost, and what is printed is a node file again.
    #[test]
    fn what_is_printed_is_a_node_file() {
        let wishes = MigrationWishes::default();
        let (shown, done) = migrated("etcd3.yml", &wishes);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yml");
        std::fs::write(&file, format!("{}\n{}", commented(&shown), done.text)).unwrap();
        let loaded = config::load(&file, &BTreeMap::new()).unwrap();
        assert_eq!(
            loaded.config.raft.partner_addrs,
            ["10.1.0.12:2222", "10.1.0.13:2222"]
        );
        // A second turn finds the section and adds nothing.
        let again = config::migration(&file, &BTreeMap::new(), &wishes).unwrap();
        assert_eq!(again.added, None);
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yml");
        write(&file, "one").unwrap();
        assert!(write(&file, "two").unwrap_err().to_string().contains("--output"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
    }
}
