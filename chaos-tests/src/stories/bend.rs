//! Protections of the design, each of which a run can leave out: a checker that cannot fail proves nothing.

use super::world::World;
use matriarch::cluster::{Act, Moment, Quorum, State, Timeline};
use matriarch::decide::rules::Verdict;
use matriarch::lead::desk::Judgement;

/// What is left out. It bends the model around the judgement, or what goes into and comes out of it; the product has
/// no switch for any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// Nothing.
    No,
    /// A new leader does not wait for the leases of the leaders before it.
    NoWaitByANewLeader,
    /// A new leader's wait counts from when it noticed the old leader missing.
    WaitFromNoticing,
    /// Leases are answered without asking a quorum.
    AnswerUnconfirmed,
    /// The deadline counts from the answer's receipt.
    DeadlineFromReceipt,
    /// The wait is shortened by the time that Raft's voters stick to a leader.
    WaitLessVoteLease,
    /// An epoch is used again after it was ended.
    EpochReused,
    /// A lowered ttl counts for waits at once.
    TtlUnsettled,
    /// The guard acts one and a half seconds after the deadline.
    GuardLate,
    /// There is no guard.
    GuardMissing,
    /// A lease is granted for whatever epoch was asked for.
    AnyEpochLeased,
    /// PostgreSQL's names change before the set is agreed.
    NamesBeforeRecord,
    /// A change of the set counts as proved at once.
    SettleUnproved,
    /// A promise is lost with the daemon's crash.
    PromiseForgotten,
    /// One standby's promise is enough.
    OneHeard,
    /// The position that PostgreSQL says is promised, not the end of the last whole record on disk.
    SaidPosition,
    /// An epoch is said to be ended while backends of it are left.
    OrphansLeft,
    /// Timelines are not reserved: a promotion takes the next number that the server knows.
    TimelineUnreserved,
    /// The gate opens without a barrier.
    BarrierSkipped,
    /// Data that went its own way is followed with, not rewound.
    RewindSkipped,
    /// A switchover's candidate is promoted whatever it has received.
    CandidateUnchecked,
    /// A node starts and copies in a pause as it would without.
    HandsOn,
    /// The leader takes time for proof also in a pause.
    PauseTimed,
    /// A failover by hand may lose what was acknowledged although nobody said so.
    LossUnasked,
    /// The leader takes the time of whatever is scheduled for come.
    TimeIgnored,
    /// The leader does not hear of the tag `nofailover`.
    TagUnheard,
    /// Whoever was taken out goes on.
    LeaverStays,
}

impl Bend {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::NoWaitByANewLeader,
        Self::WaitFromNoticing,
        Self::AnswerUnconfirmed,
        Self::DeadlineFromReceipt,
        Self::WaitLessVoteLease,
        Self::EpochReused,
        Self::TtlUnsettled,
        Self::GuardLate,
        Self::GuardMissing,
        Self::AnyEpochLeased,
        Self::NamesBeforeRecord,
        Self::SettleUnproved,
        Self::PromiseForgotten,
        Self::OneHeard,
        Self::SaidPosition,
        Self::OrphansLeft,
        Self::TimelineUnreserved,
        Self::BarrierSkipped,
        Self::RewindSkipped,
        Self::CandidateUnchecked,
        Self::HandsOn,
        Self::PauseTimed,
        Self::LossUnasked,
        Self::TimeIgnored,
        Self::TagUnheard,
        Self::LeaverStays,
    ];
}

impl World {
    /// The first promise that is heard is taken for proof.
    pub fn hear_one(&self, n: usize, state: &State, judgement: &mut Judgement, now: Moment) {
        let Some(epoch) = state
            .primacy
            .fencing()
            .filter(|_| judgement.rule == "proof-wanting")
        else {
            return;
        };
        let Some(daemon) = &self.nodes[n].daemon else {
            return;
        };
        let digest = daemon.desk.digest(now);
        let holder = state.primacy.last().map(|(holder, _)| holder.clone());
        let Some(seen) = digest.iter().find(|seen| {
            seen.report.promise.is_some_and(|promise| promise.epoch == epoch)
                && Some(seen.report.member()) != holder.as_ref()
        }) else {
            return;
        };
        let member = seen.report.member().clone();
        let copy = seen.report.info.incarnation;
        let members = state
            .members
            .values()
            .filter(|other| other.info.name != member && !other.is_witness())
            .filter_map(|other| Some((other.info.name.clone(), other.info.incarnation?)))
            .collect();
        let quorum = Quorum {
            primary: member.clone(),
            copy,
            members,
            count: 1,
        };
        let act = Act::Elect {
            member,
            copy,
            epoch: state.epoch.next(),
            timeline: Timeline(state.reserved.0 + 1),
            quorum,
        };
        judgement.verdict = Verdict::Propose(act, "one was heard".to_owned());
    }
}

/// The holder has ended its epoch for a candidate: nothing else is asked.
pub fn promote_anyway(state: &State, ended: bool, judgement: &mut Judgement) {
    let begun = state.handover.as_ref().and_then(|asked| asked.of(state.epoch));
    if let Some(begun) = begun.filter(|_| ended) {
        let act = Act::Promote {
            member: begun.to.clone(),
            epoch: state.epoch.next(),
            timeline: Timeline(state.reserved.0 + 1),
        };
        judgement.rule = "switchover";
        judgement.verdict = Verdict::Propose(act, "it was asked for".to_owned());
    }
}
