//! What the leader judges by: the agreed state, the newest report of each member with its age, and since when it leads.

use super::{fence, lease};
use crate::cluster::{
    Epoch, Lsn, MemberName, Moment, PostgresReport, PostgresState, Report, Role, Settings, State, Tenure,
    WalEnd,
};
use std::collections::BTreeMap;

/// A report and what the leader remembers about its sender.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The newest report.
    pub report: Report,
    /// When it arrived, on the leader's clock.
    pub at: Moment,
    /// When the sender was last seen following the current primary closely, or was given the benefit of the doubt.
    pub followed_at: Moment,
    /// When the primary last said that the sender's stream moves.
    pub streamed_at: Moment,
    /// When the sender first said that its current epoch ended.
    pub ended_at: Option<Moment>,
}

impl Heard {
    /// When, on the leader's clock, its PostgreSQL last said what the report tells of it.
    pub fn said_at(&self) -> Moment {
        let said_ms = self
            .report
            .postgres
            .as_ref()
            .map_or(0, |postgres| postgres.said_ms);
        Moment(self.at.0.saturating_sub(said_ms))
    }
}

/// Everything a verdict may depend on.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The leader's clock.
    pub now: Moment,
    /// The agreed state.
    pub state: &'a State,
    /// Its dynamic configuration.
    pub settings: &'a Settings,
    /// Newest reports.
    pub heard: &'a BTreeMap<MemberName, Heard>,
    /// Since when this node leads by the present vote with its own first entry applied.
    pub lead_since: Moment,
    /// When this leader last granted a lease for the current epoch.
    pub last_grant: Option<Moment>,
    /// When this node learnt of the current primacy.
    pub held_since: Moment,
    /// When this node learnt of the ttl in force.
    pub ttl_since: Moment,
    /// When this node learnt of the synchronous set in force.
    pub sync_since: Moment,
    /// When this node learnt of the handover that is asked for.
    pub asked_since: Moment,
    /// The leader's wall clock, milliseconds since 1970: compared with the time a switchover is scheduled for, with
    /// nothing else.
    pub wall_ms: u64,
    /// How many voters the group has.
    pub voters: usize,
}

/// A holder that the leader does not hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Who it is.
    pub holder: MemberName,
    /// Whoever has a report of it that is no older hears it, milliseconds.
    pub fresh_ms: u64,
    /// Half of the time is over until the holder stops PostgreSQL because nobody renews its lease.
    pub is_long: bool,
}

/// A report is late that has not come so long after it was to be sent, milliseconds.
const LATE_MS: u64 = 100;

impl View<'_> {
    /// A member that has not reported for this long is taken for silent.
    pub fn silence_ms(&self) -> u64 {
        (3 * self.settings.report_interval_ms).max(600)
    }

    /// The shortest silence that means anything.
    pub fn patience_ms(&self) -> u64 {
        fence::limit_ms(self).min(self.silence_ms())
    }

    /// A report of a holder whose silence would have it fenced is late, and no lease has ended yet: whether its
    /// PostgreSQL serves on is to be known before that.
    pub fn is_worried(&self) -> bool {
        let fences = self.state.sync.is_on() && self.settings.fence_after_ms > 0 && !self.state.pause.is_on();
        let held = self.state.primacy.held().filter(|_| fences);
        held.is_some_and(|(name, _)| {
            let heard = self.heard.get(name).map_or(Moment(0), |heard| heard.at);
            let since = heard.max(self.lead_since).max(self.held_since);
            self.now.since(since) >= self.fresh_ms() && self.now < self.bounded_at()
        })
    }

    /// A report that is older than this is late, milliseconds.
    fn fresh_ms(&self) -> u64 {
        self.settings.report_interval_ms + LATE_MS
    }

    /// The holder, if this leader does not hear it while its lease may run on: another voter may.
    pub fn missed(&self) -> Option<Missed> {
        let (holder, _) = self.state.primacy.held()?;
        let (fresh_ms, begun) = (self.fresh_ms(), self.lead_since.max(self.held_since));
        let heard = self.heard.get(holder).map_or(begun, |heard| heard.at);
        let silent_ms = self.now.since(heard);
        // A new leader is told at once; give that the time of a report.
        let late = silent_ms >= fresh_ms && self.now.since(begun) >= fresh_ms;
        let half_ms = self.state.ttl_ms.saturating_sub(lease::STOP_MARGIN_MS) / 2;
        (late && self.now < self.bounded_at()).then(|| Missed {
            holder: holder.clone(),
            fresh_ms,
            is_long: silent_ms >= half_ms.max(2 * fresh_ms),
        })
    }

    /// The newest report of a member that is not silent.
    pub fn fresh(&self, name: &MemberName) -> Option<&Heard> {
        self.heard
            .get(name)
            .filter(|heard| self.now.since(heard.at) <= self.silence_ms())
    }

    /// The holder's last words about the current epoch: its end on disk and why, if it said that the epoch is over.
    pub fn ended(&self) -> Option<(&Heard, Option<WalEnd>, &str)> {
        let (name, held) = self.state.primacy.held()?;
        let heard = self.heard.get(name)?;
        match &heard.report.tenure {
            Tenure::Ended { epoch, end, why } if *epoch == held => Some((heard, *end, why)),
            _ => None,
        }
    }

    /// The holder, not silent and still in its epoch.
    pub fn holding(&self) -> Option<&Heard> {
        let (name, held) = self.state.primacy.held()?;
        let heard = self.fresh(name)?;
        matches!(heard.report.tenure, Tenure::Holding { epoch } if epoch == held).then_some(heard)
    }

    /// From when on a silent holder's primacy may move: no lease of its epoch can be running any more. A holder that
    /// was never granted one gets the same time to ask for it.
    /// Never by time alone while the primary may have no deadline.
    pub fn move_at(&self) -> Moment {
        if self.state.pause.is_unbounded() {
            return Moment(u64::MAX);
        }
        self.bounded_at()
    }

    /// The same as if there was no pause: for whoever has an operator's word that the holder is gone.
    pub fn bounded_at(&self) -> Moment {
        lease::move_at(
            self.lead_since.max(self.held_since),
            self.last_grant,
            self.state.wait_ttl_ms,
        )
    }

    /// Until time alone may change the verdict, milliseconds: a silence means more from then on, or a lease is over.
    pub fn changes_in_ms(&self) -> Option<u64> {
        let limits = [fence::limit_ms(self), self.silence_ms() + 1];
        let silence = |heard: &Heard| {
            let silent = self.now.since(heard.at);
            limits.map(|limit| limit.saturating_sub(silent))
        };
        let silences = self.heard.values().flat_map(silence);
        silences
            .chain([self.move_at().since(self.now)])
            .filter(|left| *left > 0)
            .min()
    }

    /// The furthest position the current primary is known to have written.
    pub fn primary_position(&self) -> Option<Lsn> {
        let (name, _) = self.state.primacy.held()?;
        let ended = self.ended().and_then(|(_, end, _)| end).map(|end| end.lsn);
        let sampled = self
            .heard
            .get(name)?
            .report
            .postgres
            .as_ref()
            .and_then(|p| p.location);
        ended.max(sampled)
    }
}

/// How far a standby's log reaches.
pub fn reach(postgres: &PostgresReport) -> Option<Lsn> {
    postgres.received.max(postgres.replayed)
}

/// Whether a report shows a primary that runs in `epoch`.
pub fn serves(report: &Report, epoch: Epoch) -> bool {
    matches!(report.tenure, Tenure::Holding { epoch: held } if held == epoch)
        && report
            .postgres
            .as_ref()
            .is_some_and(|p| p.state == PostgresState::Running && p.role == Role::Primary)
}

/// Whether a report shows a standby that streams from the primary of `epoch` at this moment.
pub fn streams(report: &Report, epoch: Epoch) -> bool {
    report.postgres.as_ref().is_some_and(|postgres| {
        postgres.role == Role::Replica
            && postgres.state == PostgresState::Running
            && postgres.streamed_in == Some(epoch)
            && postgres.replication_state.as_deref() == Some("streaming")
    })
}

/// Whether a report shows a standby that follows the primary of `epoch` within `limit` bytes of `position`.
pub fn follows(report: &Report, epoch: Epoch, position: Option<Lsn>, limit: u64) -> bool {
    let Some(postgres) = &report.postgres else {
        return false;
    };
    let level = match (reach(postgres), position) {
        (Some(reached), Some(position)) => reached.behind(position) <= limit,
        _ => false,
    };
    postgres.role == Role::Replica && postgres.streamed_in == Some(epoch) && level
}
