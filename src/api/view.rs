//! Questions that several documents ask of the facts.

use crate::cluster::{
    Epoch, Facts, Lsn, MemberName, Moment, PostgresState, Report, Role, SyncMode, Tags, Tenure,
};

/// A member that sends no report for this long, or one ttl if that is longer, is not listed any more.
const LISTED_MS: u64 = 3_000;

/// The facts at one moment.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// What this node knows.
    pub(super) facts: &'a Facts,
    /// The moment of the question.
    pub(super) now: Moment,
}

impl<'a> View<'a> {
    /// The newest report of a member and its age in milliseconds.
    pub(super) fn report(&self, name: &MemberName) -> Option<(&'a Report, u64)> {
        if *name == self.facts.me {
            return Some((&self.facts.report, self.now.since(self.facts.report.sent_at)));
        }
        let since_digest = self.now.since(self.facts.members_at);
        let seen = self
            .facts
            .members
            .iter()
            .find(|seen| *seen.report.member() == *name)?;
        Some((&seen.report, seen.age_ms.saturating_add(since_digest)))
    }

    /// The same, while the member counts as present.
    pub(super) fn fresh_report(&self, name: &MemberName) -> Option<&'a Report> {
        let patience_ms = self.facts.settings.ttl_ms.max(LISTED_MS);
        self.report(name)
            .filter(|(_, age_ms)| *age_ms < patience_ms)
            .map(|(report, _)| report)
    }

    /// Where the holder of primacy was writing when it was last heard of.
    pub(super) fn primary_location(&self) -> Option<Lsn> {
        let (holder, _) = self.facts.state.primacy.held()?;
        self.report(holder)?.0.postgres.as_ref()?.location
    }

    /// `On` or `Quorum` when this member acknowledges commits in that mode, else `Off`.
    pub(super) fn acknowledges(&self, name: &MemberName) -> SyncMode {
        let state = &self.facts.state;
        let copy = state.member(name).and_then(|member| member.info.incarnation);
        let is_holder = state.primacy.held().is_some_and(|(holder, _)| holder == name);
        if !is_holder && state.sync.acknowledges(name, copy) {
            self.facts.settings.synchronous_mode
        } else {
            SyncMode::Off
        }
    }

    /// The same of this node, while it is a replica.
    pub(super) fn i_acknowledge(&self) -> SyncMode {
        let postgres = self.facts.report.postgres.as_ref();
        if postgres.is_some_and(|postgres| postgres.role == Role::Replica) {
            self.acknowledges(&self.facts.me)
        } else {
            SyncMode::Off
        }
    }

    /// This node's tags, once it has joined.
    pub(super) fn my_tags(&self) -> Option<&'a Tags> {
        self.facts
            .state
            .member(&self.facts.me)
            .map(|member| &member.info.tags)
    }

    /// Nobody may be relied upon to be primary: no holder yet, a silent one, one that says it has ended, or too
    /// old a picture to say.
    pub(super) fn is_unlocked(&self) -> bool {
        let holds = |(name, epoch): (&MemberName, Epoch)| {
            self.fresh_report(name).is_some_and(
                |report| !matches!(&report.tenure, Tenure::Ended { epoch: ended, .. } if *ended == epoch),
            )
        };
        !self.facts.is_fresh(self.now) || !self.facts.state.primacy.held().is_some_and(holds)
    }

    /// Whether the local PostgreSQL runs with this role.
    pub(super) fn runs_as(&self, role: Role) -> bool {
        let postgres = self.facts.report.postgres.as_ref();
        postgres.is_some_and(|p| p.state == PostgresState::Running && p.role == role)
    }
}
