//! Roles as they are typed behind `-r`.

use super::cluster::Member;
use clap::ValueEnum;
use std::fmt;

/// Which members are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Whoever leads
    Leader,
    /// The primary
    Primary,
    /// The leader of a standby cluster
    StandbyLeader,
    /// Everybody but the leader
    Replica,
    /// The same
    Standby,
    /// Everybody
    Any,
}

impl Role {
    /// Whether a member has it.
    pub(super) fn fits(self, member: &Member) -> bool {
        match self {
            Self::Any => true,
            Self::Leader => member.leads(),
            Self::Primary => member.role == "leader",
            Self::StandbyLeader => member.role == "standby_leader",
            Self::Replica | Self::Standby => !member.leads(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Primary => "primary",
            Self::StandbyLeader => "standby-leader",
            Self::Replica => "replica",
            Self::Standby => "standby",
            Self::Any => "any",
        })
    }
}
