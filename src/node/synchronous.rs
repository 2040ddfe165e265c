//! The node's part in synchronous replication: whose stream counts, the promise of a fenced epoch, the proof, the gate.

use super::agent::{Agent, AgentError};
use super::hands::{Hands, Wanted};
use super::job::{Job, Purpose};
use super::jobs;
use crate::cluster::{Endpoint, Epoch, MemberName, Moment, Origin, Quorum, State, SyncMode, Synced};
use crate::decide::duty::Process;
use crate::decide::lease;
use crate::decide::sync;
use crate::postgres::Proof;
use std::collections::BTreeSet;

impl Agent {
    /// What PostgreSQL's configuration shall say while it streams from `endpoint`, or from nobody.
    pub(super) fn wanted(&self, state: &State, endpoint: Option<&Endpoint>) -> Wanted {
        let settings = self.parts.settings.borrow().clone();
        let upstream = endpoint.zip(self.hands()).map(|(endpoint, hands)| {
            let mut upstream = hands.upstream(endpoint, &self.me, &settings);
            upstream.alias = self.alias(state);
            upstream
        });
        let names = self.names(state, settings.synchronous_mode);
        Wanted {
            settings,
            upstream,
            names,
        }
    }

    /// A copy that does not count yet must not be taken for one that does, nor for the one that was here before it.
    fn alias(&self, state: &State) -> Option<String> {
        let counts = state.sync.counts(&self.me, self.parts.ledger.facts().incarnation);
        (state.sync.is_on() && !counts).then(|| format!("{} (new)", self.me))
    }

    /// The primary writes the agreed names. A standby names nobody: one that is promoted by whatever accident
    /// acknowledges nothing, and when it is promoted rightly its backends already wait.
    fn names(&self, state: &State, mode: SyncMode) -> Option<String> {
        if !state.sync.is_on() {
            return None;
        }
        let held = state.primacy.held().is_some_and(|(holder, _)| *holder == self.me);
        let own = state
            .sync
            .current()
            .filter(|quorum| held && quorum.primary == self.me);
        Some(match own {
            Some(quorum) => sync::names(quorum, mode),
            None => format!("\"{}\"", sync::NOBODY),
        })
    }

    /// First the ledger, then PostgreSQL, then the word.
    pub(super) fn keep_promise(
        &mut self,
        hands: Hands,
        epoch: Epoch,
        state: &State,
        now: Moment,
    ) -> Result<(), AgentError> {
        if self.parts.ledger.facts().promised < epoch {
            self.promise = None;
            self.parts.ledger.change(|facts| facts.promised = epoch)?;
        }
        if !self.may_try("promise", now) {
            return Ok(());
        }
        // What PostgreSQL is told now is told whether or not the rest succeeds.
        self.configured = None;
        let wanted = self.wanted(state, None);
        let running = matches!(self.process(), Process::Up(_));
        self.job = Some(Job::spawn(Purpose::Promise(epoch), |_| {
            jobs::promise(hands, wanted, epoch, running)
        }));
        Ok(())
    }

    /// Begins the proof that is owed, and drops one that is not any more.
    pub(super) fn prove(&mut self, hands: &Hands, epoch: Epoch, state: &State, now: Moment) {
        let owed = Synced {
            epoch,
            serial: state.sync.serial,
        };
        let purpose = Purpose::Prove(owed);
        if self.proof.as_ref().is_some_and(|job| job.purpose != purpose) {
            self.proof = None;
        }
        let own = |quorum: &&Quorum| quorum.primary == self.me && !quorum.is_blocked();
        let Some(quorum) = state.sync.current().filter(own) else {
            return;
        };
        let idle = self.proof.is_none() && self.job.is_none();
        if !idle || self.synced == Some(owed) || !self.may_try("prove", now) {
            return;
        }
        let mode = self.parts.settings.borrow().synchronous_mode;
        let proof = Proof {
            names: sync::names(quorum, mode),
            members: quorum.members.keys().map(|name| name.0.clone()).collect(),
            count: quorum.count,
            dropped: dropped(&state.sync.quorums, quorum),
            first: self.nameless,
        };
        let hands = hands.clone();
        self.proof = Some(Job::spawn(purpose, |_| jobs::prove(hands, proof, owed)));
    }

    /// Draws the consequences of a proof.
    pub(super) fn proved(&mut self, synced: Synced) {
        self.synced = Some(synced);
        self.trouble = None;
        // The names may have been others again since this proof began.
        let serial = self.parts.state.borrow().sync.serial;
        if serial == synced.serial && self.job.is_none() {
            let named = self.configured.as_ref().and_then(|known| known.names.as_ref());
            self.nameless = named.is_none_or(String::is_empty);
        }
        if self.barrier != Some(synced.epoch) {
            let epoch = synced.epoch;
            tracing::info!("primary of epoch {epoch}: its standbys have everything, clients may come");
            self.barrier = Some(epoch);
        }
    }

    /// A proof is the serving primary's alone.
    pub(super) fn drop_stale_proof(&mut self) {
        if self.proof.is_some() && !self.is_serving() {
            self.proof = None;
        }
    }

    /// Whether commits that clients are told of are safe, and, where that is asked for, whether nobody can read an
    /// older state elsewhere.
    pub(super) fn gate_is_open(&self, state: &State, now: Moment) -> bool {
        let settings = self.parts.settings.borrow();
        let proved = self.barrier.is_some() && self.barrier == self.running;
        let synchronous = state.sync.is_on() || settings.synchronous_mode != SyncMode::Off;
        let origin = state.primacy.origin().map(|(origin, _)| origin);
        let stale = settings.stale_reads_wait
            && origin == Some(Origin::Promotion)
            && now < lease::move_at(self.epoch_since.1, None, state.wait_ttl_ms);
        (proved || !synchronous) && !stale
    }
}

/// Whose streams have to end before the proof: they counted before and do not now, or fewer of them sufficed.
fn dropped(all: &[Quorum], current: &Quorum) -> Vec<String> {
    let older = all.iter().filter(|quorum| *quorum != current);
    let names: BTreeSet<&MemberName> = older
        .flat_map(|quorum| {
            let fewer = quorum.count < current.count;
            let stays = move |name: &&MemberName| fewer || !current.members.contains_key(*name);
            quorum.members.keys().filter(stays)
        })
        .collect();
    names.into_iter().map(|name| name.0.clone()).collect()
}
