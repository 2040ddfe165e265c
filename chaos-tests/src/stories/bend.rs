//! Protections of the design, each of which a run can leave out: a checker that cannot fail proves nothing.

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
}

impl Bend {
    /// All of them.
    pub const ALL: [Self; 22] = [
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
    ];
}
