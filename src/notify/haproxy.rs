//! HAProxy's runtime socket: servers that carry the members' names are marked up and down.

use super::picture::Picture;
use super::{News, TRY_AGAIN, Trouble, look, rest};
use crate::cluster::MemberName;
use crate::config::{Haproxy, Reach};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

/// A HAProxy that needs longer than this for a command is busy with something else.
const DEADLINE: Duration = Duration::from_secs(1);
/// Its answers are a line.
const ANSWER_BYTES: u64 = 4_096;

/// One HAProxy.
pub(super) struct Balancer {
    reach: Reach,
    backend: String,
    told: Told,
    /// Whether its servers have been compared with the members.
    compared: bool,
    trouble: Trouble,
}

/// What it has heard from us, or what needs no saying.
#[derive(Debug, Default)]
struct Told(BTreeMap<MemberName, bool>);

impl Told {
    /// What it should hear: who is down first, so that nobody is sent to two.
    fn due(&mut self, picture: &Picture) -> Vec<(MemberName, bool)> {
        // Its own checks know what was so before we knew anything; that somebody serves can be said twice.
        for name in &picture.shut {
            self.0.entry(name.clone()).or_insert(false);
        }
        let down = picture.shut.iter().map(|name| (name, false));
        let up = picture.serving.iter().map(|serving| (&serving.member, true));
        down.chain(up)
            .filter(|(name, up)| self.0.get(*name) != Some(up))
            .map(|(name, up)| (name.clone(), up))
            .collect()
    }
}

impl Balancer {
    pub(super) fn all(section: &Haproxy) -> impl Iterator<Item = Self> + use<> {
        let Haproxy { sockets, backend } = section.clone();
        sockets.into_iter().map(move |reach| Self {
            reach,
            backend: backend.clone(),
            told: Told::default(),
            compared: false,
            trouble: Trouble::default(),
        })
    }

    pub(super) async fn keep(mut self, mut facts: News, mut stopped: watch::Receiver<bool>) {
        loop {
            if !self.compared
                && let Some(picture) = look(&mut facts).filter(|picture| picture.serving.is_some())
            {
                self.compared = true;
                self.compare(&picture).await;
            }
            let due = look(&mut facts)
                .map(|picture| self.told.due(&picture))
                .unwrap_or_default();
            for (name, up) in due {
                match self.tell(&name, up).await {
                    Ok(()) => {
                        self.trouble.is_over();
                        self.told.0.insert(name, up);
                    }
                    Err(why) => {
                        self.trouble
                            .note(format!("notify.haproxy: {}: {why}", self.reach));
                        tokio::time::sleep(TRY_AGAIN).await;
                        break;
                    }
                }
            }
            if rest(&mut facts, &mut stopped).await {
                // On its way out a primary has shut its gate: that is still to be said.
                let due = look(&mut facts)
                    .map(|picture| self.told.due(&picture))
                    .unwrap_or_default();
                for (name, up) in due {
                    let _ = self.tell(&name, up).await;
                }
                return;
            }
        }
    }

    /// Names that HAProxy does not know are found before they are needed.
    async fn compare(&mut self, picture: &Picture) {
        let command = format!("show servers state {}\n", self.backend);
        let Ok(Ok(answer)) = tokio::time::timeout(DEADLINE, self.ask(&command)).await else {
            return;
        };
        let serving = picture.serving.iter().map(|serving| &serving.member);
        let missing: Vec<&str> = serving
            .chain(&picture.shut)
            .map(|name| name.0.as_str())
            .filter(|name| !answer.split_whitespace().any(|word| word == *name))
            .collect();
        if !missing.is_empty() {
            self.trouble.note(format!(
                "notify.haproxy: {}: {} has no server {}; its servers must have the members' names",
                self.reach,
                self.backend,
                missing.join(", ")
            ));
        }
    }

    async fn tell(&self, name: &MemberName, up: bool) -> io::Result<()> {
        let word = if up { "up" } else { "down" };
        let server = format!("{}/{name}", self.backend);
        let command = format!("set server {server} health {word}\n");
        let answer = tokio::time::timeout(DEADLINE, self.ask(&command)).await;
        let answer = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if !answer.trim().is_empty() {
            return Err(io::Error::other(format!("{server}: {}", answer.trim())));
        }
        tracing::info!("told HAProxy at {} that {server} is {word}", self.reach);
        Ok(())
    }

    async fn ask(&self, command: &str) -> io::Result<String> {
        match &self.reach {
            Reach::Path(path) => exchange(UnixStream::connect(path).await?, command).await,
            Reach::Tcp(host, port) => {
                exchange(TcpStream::connect((host.as_str(), *port)).await?, command).await
            }
        }
    }
}

/// One command a connection: HAProxy closes it after the answer.
async fn exchange(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    command: &str,
) -> io::Result<String> {
    stream.write_all(command.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::picture::Serving;
    use super::*;

    fn picture(serving: Option<&str>, shut: &[&str]) -> Picture {
        Picture {
            serving: serving.map(|name| Serving {
                member: name.into(),
                at: None,
            }),
            shut: shut.iter().map(|name| MemberName::from(*name)).collect(),
            moving: None,
        }
    }

    fn due(told: &mut Told, serving: Option<&str>, shut: &[&str]) -> String {
        let due = told.due(&picture(serving, shut));
        let mut words = Vec::new();
        for (name, up) in due {
            words.push(format!("{name} {}", if up { "up" } else { "down" }));
            told.0.insert(name, up);
        }
        words.join(", ")
    }

    #[test]
    fn what_its_checks_know_already_is_not_said_and_a_change_is_once() {
        let mut told = Told::default();
        assert_eq!(due(&mut told, None, &["a"]), "");
        assert_eq!(due(&mut told, Some("b"), &["a", "c"]), "b up");
        assert_eq!(due(&mut told, Some("b"), &["a", "c"]), "");
        // b is lost: nobody serves, then a does.
        assert_eq!(due(&mut told, None, &["c"]), "");
        assert_eq!(due(&mut told, Some("a"), &["b", "c"]), "b down, a up");
        // Word of an end that came before the new primary was open.
        assert_eq!(due(&mut told, None, &["a"]), "a down");
        assert_eq!(due(&mut told, Some("a"), &["b"]), "a up");
    }
}
