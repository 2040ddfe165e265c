//! Asks the server's own program which parameters it would refuse, so that no value ever keeps a server from starting.
//!
//! `postgres -C` reads a configuration file, checks every name and value in it, and ends; it touches no data. What only
//! a start can find out stays unknown: a library that is missing, parameters that do not go together.

use super::run::Program;
use super::{Postgres, PostgresError, conf_file};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// It reads one short file.
const DEADLINE: Duration = Duration::from_secs(10);
/// Parameters that change what it says, or whether it says anything; the command line goes before the file.
const PLAIN_WORDS: [&str; 5] = [
    "lc_messages=C",
    "log_destination=stderr",
    "log_error_verbosity=default",
    "log_line_prefix=",
    "log_min_messages=warning",
];

/// A parameter that PostgreSQL refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name, as it was given.
    pub name: String,
    /// PostgreSQL's own words.
    pub why: String,
}

impl Postgres {
    /// Which of `parameters` this version refuses, in the order of their names.
    pub async fn vet(&self, parameters: &BTreeMap<String, String>) -> Result<Vec<Refused>, PostgresError> {
        let mut left = parameters.clone();
        left.retain(|name, _| conf_file::is_name(name));
        let nameless = parameters.keys().filter(|name| !left.contains_key(*name));
        let mut refused: Vec<Refused> = nameless
            .map(|name| Refused {
                name: name.clone(),
                why: "it is no parameter name; one looks like work_mem".to_owned(),
            })
            .collect();
        // Names are looked at first, values in another run; each run finds at least one more, or is the last.
        loop {
            let found = self.vet_once(&left).await?;
            if found.is_empty() {
                refused.sort_by(|a, b| a.name.cmp(&b.name));
                return Ok(refused);
            }
            for one in &found {
                left.remove(&one.name);
            }
            refused.extend(found);
        }
    }

    async fn vet_once(&self, parameters: &BTreeMap<String, String>) -> Result<Vec<Refused>, PostgresError> {
        let text = conf_file::lines(parameters);
        let file = in_memory(&text).map_err(|why| Program::failed("postgres", why.to_string()))?;
        // A directory is asked for, and not looked into.
        let mut program = Program::new("postgres", DEADLINE)
            .args(["-C", "port", "-D", "/", "--config-file=/dev/stdin"].map(str::to_owned))
            .stdin(file);
        for word in PLAIN_WORDS {
            program = program.arg("-c").arg(word);
        }
        let mut said = Vec::new();
        let finished = self
            .watch_program(program, |_| (), |line| said.push(line.to_owned()))
            .await?;
        if finished.good {
            return Ok(Vec::new());
        }
        let found = read(&said, parameters);
        if found.is_empty() {
            return Err(Program::failed("postgres", finished.words));
        }
        Ok(found)
    }
}

fn in_memory(text: &str) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("matriarch-vet", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// `LOG:` lines that name one of the parameters, each with its `DETAIL:` and `HINT:`.
fn read(said: &[String], parameters: &BTreeMap<String, String>) -> Vec<Refused> {
    let mut found: Vec<Refused> = Vec::new();
    let mut open = false;
    for line in said {
        if let Some(message) = line.strip_prefix("LOG:  ") {
            let name = message
                .split_once("parameter \"")
                .and_then(|(_, rest)| rest.split('"').next())
                .and_then(|name| parameters.keys().find(|given| given.eq_ignore_ascii_case(name)));
            let fresh = name.filter(|name| found.iter().all(|refused| refused.name != **name));
            open = fresh.is_some();
            if let Some(name) = fresh {
                let why = message.split(" in file \"/dev/stdin\"").next().unwrap_or(message);
                found.push(Refused {
                    name: name.clone(),
                    why: why.to_owned(),
                });
            }
        } else if let Some(more) = line.strip_prefix("DETAIL:  ").or(line.strip_prefix("HINT:  "))
            && let Some(refused) = found.last_mut().filter(|_| open)
        {
            refused.why.push_str(&format!("; {}", more.trim_end_matches('.')));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_server_are_told_by_parameter() {
        let given: BTreeMap<String, String> = ["timezone", "wal_level", "wrok_mem", "work_mem"]
            .map(|name| (name.to_owned(), String::new()))
            .into();
        let said = [
            "LOG:  skipping missing configuration file \"/postgresql.auto.conf\"",
            "LOG:  invalid value for parameter \"TimeZone\": \"Mars\"",
            "LOG:  invalid value for parameter \"wal_level\": \"foo\"",
            "HINT:  Available values: minimal, replica, logical.",
            "LOG:  unrecognized configuration parameter \"wrok_mem\" in file \"/dev/stdin\" line 2",
            "FATAL:  configuration file \"/dev/stdin\" contains errors",
        ]
        .map(str::to_owned);
        let told: Vec<String> = read(&said, &given)
            .into_iter()
            .map(|refused| format!("{}: {}", refused.name, refused.why))
            .collect();
        assert_eq!(
            told,
            [
                "timezone: invalid value for parameter \"TimeZone\": \"Mars\"",
                "wal_level: invalid value for parameter \"wal_level\": \"foo\"; Available values: minimal, replica, \
                 logical",
                "wrok_mem: unrecognized configuration parameter \"wrok_mem\"",
            ]
        );
    }
}
