//! What the end of a job means for the node.

use super::agent::{Agent, AgentError};
use super::data::{self, Holdings};
use super::job::{Done, Purpose};
use super::jobs;
use crate::clock;
use crate::cluster::{Epoch, Moment};
use crate::decide::duty::Data;

/// After a failed job the same is tried again no sooner than this.
const RETRY_MS: u64 = 1_000;
/// A copy that failed often (it does not fit, say) is tried again at least this often.
const COPY_RETRY_MS: u64 = 60_000;
/// What a standby keeps for others it may keep a little later.
const TIDY_RETRY_MS: u64 = 10_000;
/// One whose `pre_promote` was against it, for at least this long.
const DECLINED_MS: u64 = 10_000;

impl Agent {
    /// Draws the consequences of a finished job.
    pub(super) fn settle(&mut self, purpose: &Purpose, done: Done) -> Result<(), AgentError> {
        let now = clock::now();
        let what = label(purpose);
        match done {
            Done::Inspected(Ok((found, founding))) => {
                self.holdings.inspected(found, &self.parts.ledger);
                self.holdings.founding = founding;
            }
            Done::End(Ok(end)) => {
                self.unreadable = if end.is_some() {
                    0
                } else {
                    self.unreadable.saturating_add(1)
                };
                if end.is_none() {
                    self.retry_at.insert(what, now.plus(RETRY_MS));
                }
                self.holdings.set_end(end);
                self.refresh_fork();
            }
            Done::Risen(epoch) => {
                self.risen = Some(epoch);
                self.spared.succeeded();
                if !matches!(purpose, Purpose::Promote(_)) {
                    self.checkpointed = Some(epoch);
                }
                if matches!(purpose, Purpose::Bootstrap(_)) {
                    self.holdings.data = Data::Unknown;
                    let copy = self
                        .parts
                        .ledger
                        .facts()
                        .incarnation
                        .unwrap_or_else(jobs::new_incarnation);
                    self.parts.ledger.change(|facts| {
                        facts.doing = None;
                        facts.incarnation = Some(copy);
                    })?;
                }
                self.refresh_fork();
                // The probe must see the new role now and not with its next turn: clients wait for it.
                self.postmaster.send_modify(|_| ());
                if matches!(purpose, Purpose::Promote(_)) {
                    tracing::info!("promoted self to leader by acquiring session lock");
                }
                tracing::info!("primary of epoch {epoch}: accepting writes");
            }
            Done::Declined(epoch, why) => self.declined(epoch, why, now),
            Done::NotRisen(epoch, why) => {
                tracing::error!("did not become primary of epoch {epoch}: {why}");
                self.fitness.doubt(now);
                if matches!(purpose, Purpose::Restart(_) | Purpose::Bootstrap(_)) {
                    self.callbacks_after_failed_start();
                }
                self.trouble = Some(format!("could not become primary: {why}"));
                self.spared
                    .failed(format!("it could not become primary: {why}"), now);
                self.holdings.data = Data::Unknown;
            }
            Done::Cloned(copy) => {
                self.parts.ledger.change(|facts| {
                    facts.doing = None;
                    facts.incarnation = Some(copy);
                    facts.reached = None;
                })?;
                self.holdings = Holdings::default();
                self.wishes.from_leader = false;
                if std::mem::take(&mut self.wishes.fresh_copy) {
                    self.finish_in_pause();
                }
                self.trouble = None;
                self.failed_copies = 0;
            }
            Done::Promised(promise) => {
                // Should another promise have been made meanwhile, this one says nothing any more.
                self.promise = Some(promise).filter(|kept| kept.epoch == self.parts.ledger.facts().promised);
                self.configured = None;
            }
            Done::Proved(synced) => self.proved(synced),
            Done::Started { raised } => {
                self.trouble = None;
                // A reload is what tells the server that the file says something else.
                self.reread |= raised;
                if *purpose == Purpose::Again {
                    self.restarted(true);
                }
            }
            Done::Good => self.settle_good(purpose)?,
            Done::Failed(why) | Done::Inspected(Err(why)) | Done::End(Err(why)) => {
                if *purpose == Purpose::ReadEnd {
                    self.unreadable = self.unreadable.saturating_add(1);
                }
                self.fitness.doubt(now);
                tracing::warn!("{what} failed: {why}");
                self.trouble = Some(format!("{what} failed: {why}"));
                let pause_ms = self.pause_after_failure(purpose);
                self.retry_at.insert(what, now.plus(pause_ms));
                if matches!(purpose, Purpose::Rewind) {
                    let out = self.hands().is_some_and(|hands| {
                        let settings = self.parts.settings.borrow().clone();
                        hands.effective(&settings).remove_on_rewind_failure == Some(false)
                    });
                    if !out {
                        self.holdings.data = Data::Broken(format!("pg_rewind failed: {why}"));
                    }
                }
                if matches!(purpose, Purpose::Again) {
                    self.restarted(false);
                }
                if matches!(purpose, Purpose::Configure) {
                    self.configured = None;
                }
                if matches!(purpose, Purpose::Tidy | Purpose::Chores) {
                    self.slots.forget();
                }
            }
        }
        Ok(())
    }

    /// What failed is not tried again at once; a copy, which costs its source much, each time later.
    fn pause_after_failure(&mut self, purpose: &Purpose) -> u64 {
        match purpose {
            Purpose::Clone | Purpose::Rewind => {}
            // Nobody waits for it.
            Purpose::Tidy => return TIDY_RETRY_MS,
            _ => return RETRY_MS,
        }
        let doubled = RETRY_MS << self.failed_copies.min(6);
        self.failed_copies = self.failed_copies.saturating_add(1);
        doubled.min(COPY_RETRY_MS)
    }

    /// The operator's script was against it, before anything was changed: a good standby goes on as one.
    fn declined(&mut self, epoch: Epoch, why: String, now: Moment) {
        tracing::warn!("not promoted in epoch {epoch}: {why}");
        let spared_ms = self.parts.settings.borrow().ttl_ms.max(DECLINED_MS);
        self.spared.declined(why.clone(), now.plus(spared_ms));
        self.trouble = Some(why.clone());
        self.running = None;
        self.parts.tenancy.stand_down();
        self.ended = Some((epoch, why));
    }

    fn settle_good(&mut self, purpose: &Purpose) -> Result<(), AgentError> {
        match purpose {
            Purpose::Chores => self.checkpointed = self.running,
            Purpose::Rewind => {
                // The source was an agreed primary; what this copy reaches is known once it has streamed again.
                self.parts.ledger.change(|facts| facts.reached = None)?;
                data::finish(&mut self.parts.ledger)?;
                self.holdings = Holdings::default();
                self.trouble = None;
            }
            Purpose::Prepare(epoch) => self.prepared = Some(*epoch),
            Purpose::Configure => self.callbacks_after_reload(),
            Purpose::Stop => self.holdings.set_end(None),
            _ => {}
        }
        Ok(())
    }

    /// How the newest local timeline began, from its history file.
    pub(super) fn refresh_fork(&mut self) {
        let Some(hands) = self.hands() else { return };
        let timeline = match self.risen {
            Some(_) => Self::agreed_timeline(&self.parts.state.borrow()),
            None => self.holdings.timeline,
        };
        self.holdings.fork = timeline.and_then(|timeline| hands.postgres.fork_of(timeline));
    }
}

fn label(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Inspect => "inspect",
        Purpose::ReadEnd => "read-end",
        Purpose::Bootstrap(_) => "bootstrap",
        Purpose::Restart(_) => "restart",
        Purpose::Promote(_) => "promote",
        Purpose::Standby => "start",
        Purpose::Configure => "configure",
        Purpose::Chores => "chores",
        Purpose::Promise(_) => "promise",
        Purpose::Prove(_) => "prove",
        Purpose::Again => "restart",
        Purpose::Raise => "raise",
        Purpose::Tidy => "tidy",
        Purpose::Prepare(_) => "checkpoint",
        Purpose::Fence => "fence",
        Purpose::Stop => "stop",
        Purpose::Clone => "clone",
        Purpose::Rewind => "rewind",
    }
}
