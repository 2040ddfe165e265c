//! What one node owes at this moment: judged from the agreed state, its own lease and its own PostgreSQL only.
//!
//! It may be stricter than the leader's plan, never laxer: whatever the leader thinks, a node without a lease
//! for the epoch that the log gives it does not serve, and an epoch that was used once is never used again.

use super::lease;
use super::rejoin::{Past, Rejoin, rejoin};
use crate::cluster::{Epoch, Fork, Lsn, MemberName, Moment, Origin, Primacy, Role, State, Timeline, WalEnd};

/// A promotion that takes longer than this may not come about.
const STAND_AFTER_MS: u64 = 5_000;

/// The data directory as far as a duty depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Not looked at yet.
    Unknown,
    /// Nothing there.
    Absent,
    /// A database cluster; where its log ends is known once it was read.
    Present {
        /// Its system identifier.
        system_id: u64,
        /// End of its log while PostgreSQL is down, end of replay while it runs as a standby.
        end: Option<WalEnd>,
    },
    /// It cannot be used, for this reason, and may be replaced by a clone.
    Broken(String),
}

/// The local PostgreSQL as far as a duty depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// No process of the data directory lives.
    Down,
    /// It is going down, or its leftovers are being removed.
    Ending,
    /// The postmaster runs; its role is known once it answers.
    Up(Option<Role>),
}

/// What a duty is judged from, besides the agreed state.
#[derive(Clone, Debug)]
pub struct Local<'a> {
    /// This node.
    pub me: &'a MemberName,
    /// Its data directory.
    pub data: &'a Data,
    /// How the timeline of the data began.
    pub fork: Option<Fork>,
    /// The newest timeline that the data is known to have reached under an agreed primary.
    pub reached: Option<Timeline>,
    /// Where the serving primary's log ended when last heard of, and whether that was after the own end was read.
    pub primary: Option<(Lsn, bool)>,
    /// How long the present promotion has been under way.
    pub unconfirmed_ms: u64,
    /// Its PostgreSQL.
    pub process: Process,
    /// The epoch that it promised not to stream from anything older than, and whether the promise can be reported.
    pub promised: (Epoch, bool),
    /// The highest epoch that this node ever started or promoted a primary in.
    pub used: Epoch,
    /// The epoch that the running postmaster is a primary of.
    pub running: Option<Epoch>,
    /// The epoch of the lease.
    pub lease_epoch: Epoch,
    /// When the lease ends.
    pub lease_until: Moment,
    /// The PostgreSQL that runs was there before us, and nothing of this cluster's has been asked of it yet.
    pub guest: bool,
    /// The postmaster was asked to stop because the daemon stops.
    pub leaving: bool,
    /// The cluster is paused, and nothing that this node did itself is to be brought to its end.
    pub hands_off: bool,
}

/// What this node owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing but to wait, for this reason.
    Rest(String),
    /// Hold the epoch, ask for a lease, start nothing before it is there.
    AwaitLease(Epoch),
    /// Become a running primary in this epoch.
    Rise {
        /// The epoch.
        epoch: Epoch,
        /// How.
        origin: Origin,
        /// The timeline to reach.
        timeline: Option<Timeline>,
    },
    /// Go on as the primary of this epoch.
    Serve(Epoch),
    /// Go on as the primary of this epoch until everything is ready for another one, then stop.
    Yield(Epoch),
    /// Stop PostgreSQL at once: it may not be primary.
    Fence(String),
    /// Stop the standby in order: the group has no place for this node.
    Withdraw(String),
    /// Say that this epoch is over here, for good.
    End(Epoch),
    /// Promise not to stream from anything older than this epoch, and read where the log ends then.
    Promise(Epoch),
    /// Run as a standby of this member.
    Follow(MemberName),
    /// Run as a standby without asking for more: there is no primary to follow yet.
    Stand,
    /// Bring the data back to a common past with this member's, then follow.
    Rewind(MemberName, String),
    /// Replace the data by a copy of this member's, then follow.
    Clone(MemberName, String),
}

impl Local<'_> {
    /// A primary runs here that may not go on once another epoch is in force.
    fn runs_primary(&self) -> bool {
        self.running.is_some() || self.process == Process::Up(Some(Role::Primary)) && !self.guest
    }

    /// A primary that was there before us: nobody stops somebody's only database because a cluster thinks otherwise.
    fn hosts_primary(&self) -> bool {
        self.guest && self.process == Process::Up(Some(Role::Primary))
    }
}

/// Judges.
pub fn duty(state: &State, local: &Local<'_>, now: Moment) -> Duty {
    if local.leaving {
        return Duty::Rest("the daemon is stopping".to_owned());
    }
    let owed = by_primacy(state, local, now);
    if local.hands_off && is_hands_on(&owed, local) {
        return Duty::Rest("the cluster is paused: PostgreSQL is left to its operators".to_owned());
    }
    owed
}

/// What a pause forbids: to start or stop a server of data that somebody may be working on. A primary that another one
/// was agreed instead of is stopped all the same, and an empty directory is nobody's.
fn is_hands_on(owed: &Duty, local: &Local<'_>) -> bool {
    let down = local.process == Process::Down;
    match owed {
        Duty::Follow(_) | Duty::Stand => down,
        Duty::Rewind(..) => true,
        Duty::Clone(..) => matches!(local.data, Data::Present { .. }),
        _ => false,
    }
}

/// What a node owes whose group has no place for it: whoever reads from its standby would read ever older rows, and
/// nobody would tell. A primary, and what was there before us, is judged as ever: its lease ends it, not this.
pub fn out_of_place(local: &Local<'_>, why: &str) -> Option<Duty> {
    if local.leaving || local.guest || local.running.is_some() {
        return None;
    }
    match local.process {
        Process::Up(Some(Role::Primary)) => None,
        // One that answers nobody was started as a standby: a primary of ours has an epoch.
        Process::Up(_) => Some(Duty::Withdraw(why.to_owned())),
        Process::Ending | Process::Down => Some(Duty::Rest(why.to_owned())),
    }
}

fn by_primacy(state: &State, local: &Local<'_>, now: Moment) -> Duty {
    match &state.primacy {
        Primacy::Vacant => without_primacy(local),
        Primacy::Held {
            member,
            epoch,
            origin,
            timeline,
        } if member == local.me && local.promised.0 <= *epoch => {
            own(state, local, *epoch, *origin, *timeline, now)
        }
        Primacy::Held { member, epoch, .. } if local.promised.0 > *epoch => {
            after_promise(local, member, *epoch)
        }
        Primacy::Held { member, .. } => others(state, local, member),
        Primacy::Fencing {
            member, last, epoch, ..
        } => fenced(state, local, member, *last, *epoch),
    }
}

fn without_primacy(local: &Local<'_>) -> Duty {
    match local.process {
        Process::Up(_) if local.guest => {
            Duty::Rest("PostgreSQL goes on as it is until the cluster has formed".to_owned())
        }
        Process::Up(_) => Duty::Fence("no primary was ever agreed in this cluster".to_owned()),
        _ => Duty::Rest("waiting for the cluster to choose who creates the database cluster".to_owned()),
    }
}

fn own(
    state: &State,
    local: &Local<'_>,
    epoch: Epoch,
    origin: Origin,
    timeline: Option<Timeline>,
    now: Moment,
) -> Duty {
    let leased = local.lease_epoch == epoch && now < lease::stop_at(local.lease_until);
    match (local.process, local.running) {
        (Process::Up(_), Some(running)) if running == epoch && leased && yields(state, local.me, epoch) => {
            Duty::Yield(epoch)
        }
        (Process::Up(_), Some(running)) if running == epoch && leased => Duty::Serve(epoch),
        (Process::Up(_), Some(running)) if running == epoch => {
            Duty::Fence("its lease is running out".to_owned())
        }
        (Process::Up(_), Some(running)) => Duty::Fence(format!("it runs in epoch {running}, not {epoch}")),
        (Process::Up(Some(Role::Primary)), None) if !(local.guest && origin == Origin::Bootstrap) => {
            Duty::Fence("it is a primary of no epoch".to_owned())
        }
        (Process::Ending, _) => Duty::Rest("PostgreSQL is going down".to_owned()),
        _ if local.used >= epoch => used_up(state, local, epoch),
        _ if *local.data == Data::Unknown => Duty::Rest("looking at the data directory".to_owned()),
        (Process::Up(None), _) => Duty::Rest("waiting for PostgreSQL to say what it is".to_owned()),
        _ if leased => Duty::Rise {
            epoch,
            origin,
            timeline,
        },
        _ => Duty::AwaitLease(epoch),
    }
}

/// An operator wants another primary after this epoch.
fn yields(state: &State, me: &MemberName, epoch: Epoch) -> bool {
    let begun = state.handover.as_ref().and_then(|asked| asked.of(epoch));
    begun.is_some_and(|begun| begun.to != *me)
}

/// Nobody may write. Everybody promises; a copy that is down shows itself as a standby of nobody, so that it can be
/// promoted, but the last primary's stays down: it may be started again, and its own log is its word.
fn fenced(state: &State, local: &Local<'_>, holder: &MemberName, last: Epoch, epoch: Epoch) -> Duty {
    if local.runs_primary() {
        return Duty::Fence(format!("epoch {last} is over"));
    }
    if local.hosts_primary() {
        return Duty::Rest("the primary that was here before goes on as it is".to_owned());
    }
    match (local.process, local.data) {
        (_, Data::Unknown) => Duty::Rest("looking at the data directory".to_owned()),
        (_, Data::Absent | Data::Broken(_)) => {
            Duty::Rest("there is no primary to copy the data from".to_owned())
        }
        (Process::Ending, _) => Duty::Rest("PostgreSQL is going down".to_owned()),
        (Process::Up(None), _) => Duty::Rest("waiting for PostgreSQL to say what it is".to_owned()),
        _ if local.promised != (epoch, true) => Duty::Promise(epoch),
        (Process::Down, _) if holder == local.me && state.is_confirmed() => {
            Duty::Rest("it may be started again as primary, or follow another".to_owned())
        }
        (Process::Down, _) => Duty::Stand,
        _ => Duty::Rest(format!(
            "it promised to stream from nothing older than epoch {epoch}"
        )),
    }
}

/// What is agreed here is older than what was promised: nothing of it is followed.
fn after_promise(local: &Local<'_>, primary: &MemberName, epoch: Epoch) -> Duty {
    if local.runs_primary() {
        return Duty::Fence(format!("epoch {epoch} of {primary} is over"));
    }
    Duty::Rest(format!(
        "it promised not to stream from an epoch below {}, and has not heard of more than {epoch} yet",
        local.promised.0
    ))
}

/// The epoch was used and no postmaster of it runs. A promotion that never came about leaves a good standby.
fn used_up(state: &State, local: &Local<'_>, epoch: Epoch) -> Duty {
    match (local.process, local.data) {
        (Process::Down, Data::Present { end: Some(end), .. })
            if !state.is_confirmed() && Some(end.timeline) == state.timeline() =>
        {
            Duty::Stand
        }
        (Process::Up(_), _) => Duty::Stand,
        _ => Duty::End(epoch),
    }
}

fn others(state: &State, local: &Local<'_>, primary: &MemberName) -> Duty {
    if local.runs_primary() {
        return Duty::Fence(format!("{primary} is the primary"));
    }
    if local.hosts_primary() {
        return Duty::Rest(format!(
            "{primary} is the primary; the one that was here before goes on as it is"
        ));
    }
    let Some(system_id) = state.system_id else {
        return Duty::Rest(format!("waiting for {primary} to create the database cluster"));
    };
    let end = match local.data {
        Data::Unknown => return Duty::Rest("looking at the data directory".to_owned()),
        Data::Absent => return Duty::Clone(primary.clone(), "there is no data yet".to_owned()),
        Data::Broken(why) => return Duty::Clone(primary.clone(), why.clone()),
        Data::Present { system_id: found, .. } if *found != system_id => {
            return Duty::Rest(format!(
                "its data belongs to database cluster {found}, this is {system_id}"
            ));
        }
        Data::Present { end, .. } => *end,
    };
    if local.process == Process::Ending {
        return Duty::Rest("PostgreSQL is going down".to_owned());
    }
    if local.guest && local.process == Process::Up(None) {
        // It may be somebody's primary.
        return Duty::Rest("waiting for PostgreSQL to say what it is".to_owned());
    }
    match end.map(|end| {
        rejoin(
            state,
            &Past {
                me: local.me,
                end,
                fork: local.fork,
                reached: local.reached,
                primary: local.primary,
            },
        )
    }) {
        None if local.process == Process::Down => Duty::Rest("reading where its log ends".to_owned()),
        None | Some(Rejoin::Follow) => Duty::Follow(primary.clone()),
        Some(Rejoin::Unsure) => Duty::Rest(format!("waiting to hear where the log of {primary} ends")),
        // A former primary that runs as a standby before it is rewound hides its tail from pg_rewind; but if the
        // promotion does not come about, its data may be the best there is, and only a running standby is promoted.
        Some(Rejoin::Wait) if local.process == Process::Down && local.unconfirmed_ms < STAND_AFTER_MS => {
            Duty::Rest(format!("waiting for the promotion of {primary}"))
        }
        Some(Rejoin::Wait) => Duty::Stand,
        Some(Rejoin::Rewind(why)) => Duty::Rewind(primary.clone(), why),
        Some(Rejoin::Clone(why)) => Duty::Clone(primary.clone(), why),
    }
}

#[cfg(test)]
#[path = "duty_test.rs"]
mod tests;
