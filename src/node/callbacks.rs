//! `postgresql.callbacks`: which one is due when PostgreSQL here becomes something else, and the one that runs.
//!
//! Nothing waits for a callback. One runs at a time: a newer one ends it with everything it started, because what it
//! was told is no longer true. `on_reload` runs beside the others, as nothing has changed by it.

use super::agent::Agent;
use super::hands::Hands;
use crate::cluster::Role;
use crate::decide::duty::Process;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A callback that takes longer hangs.
const BOUND: Duration = Duration::from_secs(3_600);

/// How long a daemon that ends waits for the last one.
const LAST: Duration = Duration::from_secs(10);

/// What clients find here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// Nothing.
    Down,
    /// A primary of this cluster.
    Primary,
    /// A standby.
    Replica,
}

impl Service {
    fn role(self) -> Role {
        match self {
            Self::Primary => Role::Primary,
            _ => Role::Replica,
        }
    }
}

/// What has been told, and what is being told.
#[derive(Default)]
pub struct Callbacks {
    told: Told,
    running: Option<JoinHandle<()>>,
    reloading: Option<JoinHandle<()>>,
}

/// What the callbacks were told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    service: Option<Service>,
    /// What it was when it was last up.
    last: Option<Service>,
    /// We stop it, so its end is no crash.
    stopping: bool,
    /// It is stopped in order to be started again.
    restarting: bool,
    /// It could not be started since it was a primary, and that was told.
    demoted: bool,
}

impl Told {
    /// Takes in what is there now; the callback that is due.
    fn now(&mut self, service: Service) -> Option<(&'static str, Role)> {
        let before = self.service.replace(service);
        if before == Some(service) {
            return None;
        }
        let due = match (before.unwrap_or(Service::Down), service) {
            (Service::Down, Service::Down) => None,
            (was, Service::Down) => {
                // A restart that was asked for is one event, told when it is done; a crash is not of our making.
                (self.stopping && !self.restarting).then_some(("on_stop", was.role()))
            }
            (Service::Down, up) => {
                let demoted = self.last == Some(Service::Primary) && up == Service::Replica;
                let action = match (demoted, self.restarting) {
                    (true, _) => "on_role_change",
                    (false, true) => "on_restart",
                    (false, false) => "on_start",
                };
                Some((action, up.role()))
            }
            (_, up) => Some(("on_role_change", up.role())),
        };
        if service == Service::Down {
            self.stopping = false;
        } else {
            self.last = Some(service);
            self.restarting = false;
            self.demoted = false;
        }
        due
    }
}

impl Told {
    /// Takes in that a start failed; whether that is told.
    fn failed_start(&mut self) -> bool {
        self.restarting = false;
        self.last == Some(Service::Primary) && !std::mem::replace(&mut self.demoted, true)
    }
}

impl Callbacks {
    fn fire(&mut self, hands: &Hands, action: &'static str, role: Role) {
        let Some(line) = hands.callback(action) else {
            return;
        };
        let (hands, words) = (hands.clone(), [action.to_owned(), role.word().to_owned()]);
        let task = tokio::spawn(async move {
            if let Err(why) = hands.call_back(&line, words, BOUND).await {
                tracing::warn!("callback {action}: {why}");
            }
        });
        let place = if action == "on_reload" {
            &mut self.reloading
        } else {
            &mut self.running
        };
        if let Some(older) = place.replace(task) {
            older.abort();
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        for task in [&self.running, &self.reloading].into_iter().flatten() {
            task.abort();
        }
    }
}

impl Agent {
    /// Tells what has become of PostgreSQL since the last pass.
    pub(super) fn call_back(&mut self) {
        let Some(hands) = self.hands() else { return };
        let service = match self.process() {
            Process::Down | Process::Ending => Service::Down,
            Process::Up(Some(Role::Primary)) if self.risen.is_some() && self.risen == self.running => {
                Service::Primary
            }
            Process::Up(Some(Role::Replica)) if self.running.is_none() => Service::Replica,
            // Between two roles: told when it has arrived.
            Process::Up(_) => return,
        };
        if let Some((action, role)) = self.callbacks.told.now(service) {
            self.callbacks.fire(&hands, action, role);
        }
    }

    /// On the way out: what is being told may be told to its end, within reason.
    pub(super) async fn callbacks_finish(&mut self) {
        if let Some(task) = self.callbacks.running.take() {
            let abort = task.abort_handle();
            if tokio::time::timeout(LAST, task).await.is_err() {
                abort.abort();
            }
        }
    }

    /// PostgreSQL is about to be stopped by us; `restarting`: in order to be started again.
    pub(super) fn callbacks_expect_stop(&mut self, restarting: bool) {
        self.callbacks.told.stopping = true;
        self.callbacks.told.restarting = restarting;
    }

    /// What was a primary until now could not be started again: it is none for whoever listens.
    pub(super) fn callbacks_after_failed_start(&mut self) {
        if self.callbacks.told.failed_start()
            && let Some(hands) = self.hands()
        {
            self.callbacks.fire(&hands, "on_role_change", Role::Demoted);
        }
    }

    /// A postmaster has ended by itself; one that nobody was told of is a start that failed.
    pub(super) fn callbacks_after_end(&mut self) {
        if self.callbacks.told.service == Some(Service::Down) {
            self.callbacks_after_failed_start();
        }
    }

    /// PostgreSQL has read its configuration again.
    pub(super) fn callbacks_after_reload(&mut self) {
        let (Some(hands), Some(service)) = (self.hands(), self.callbacks.told.service) else {
            return;
        };
        if service != Service::Down {
            self.callbacks.fire(&hands, "on_reload", service.role());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `stop`, `restart` announce an end, `fails` is a start; `down`, `primary`, `replica` are what is there then.
    fn told(story: &str) -> Vec<String> {
        let mut told = Told::default();
        let mut heard = Vec::new();
        for word in story.split_whitespace() {
            let service = match word {
                "stop" | "restart" => {
                    told.stopping = true;
                    told.restarting = word == "restart";
                    continue;
                }
                "fails" => {
                    heard.extend(told.failed_start().then(|| "on_role_change demoted".to_owned()));
                    continue;
                }
                "down" => Service::Down,
                "primary" => Service::Primary,
                _ => Service::Replica,
            };
            let due = told.now(service);
            heard.extend(due.map(|(action, role)| format!("{action} {}", role.word())));
        }
        heard
    }

    #[test]
    fn each_change_is_told_once_in_patronis_words() {
        for (story, expected) in [
            ("down primary primary", "on_start primary"),
            ("primary", "on_start primary"),
            (
                "down replica replica primary",
                "on_start replica, on_role_change primary",
            ),
            ("replica stop down", "on_start replica, on_stop replica"),
            (
                "primary stop down replica",
                "on_start primary, on_stop primary, on_role_change replica",
            ),
            ("primary down replica", "on_start primary, on_role_change replica"),
            ("primary down primary", "on_start primary, on_start primary"),
            (
                "primary down fails fails replica down fails",
                "on_start primary, on_role_change demoted, on_role_change replica",
            ),
            (
                "primary restart down primary",
                "on_start primary, on_restart primary",
            ),
            (
                "replica restart down replica",
                "on_start replica, on_restart replica",
            ),
        ] {
            assert_eq!(told(story).join(", "), expected, "{story}");
        }
    }
}
