//! Who must have a commit on disk before its client is told, and hence whom an election must hear.
//!
//! A [`Quorum`] says: a commit is acknowledged once `primary` and `count` of `members` have flushed it. The state keeps
//! every quorum under which something may have been acknowledged that the next primary must have, oldest first; the
//! last one is what the primary writes into `synchronous_standby_names`. An election must hear a set of copies that
//! *meets* all of them: that shares a copy with every set that could have acknowledged. So widening what an election
//! asks for comes before PostgreSQL's names change, and narrowing comes after: [`super::Act::Resync`] appends,
//! [`super::Act::Settle`] drops what is older, and only the primary's proof lies between the two (a record of its own,
//! written after its names changed, is flushed by `count` of the new members, and no walsender of another member is
//! left).
//!
//! A copy is a member *and* its incarnation: one that was cloned anew has forgotten what it acknowledged.

use super::ids::{Incarnation, MemberName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What acknowledges a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Who writes.
    pub primary: MemberName,
    /// Which copy of the data it writes; `None` only for a copy older than this field.
    pub copy: Option<Incarnation>,
    /// The standbys that count, each with the copy of the data that counts.
    pub members: BTreeMap<MemberName, Incarnation>,
    /// How many of them must have flushed a commit. Zero: the primary alone acknowledges. More than there are members:
    /// nothing is acknowledged (`synchronous_mode_strict` without a standby).
    pub count: u32,
}

impl Quorum {
    /// The primary acknowledges alone, so nobody else may be elected.
    pub fn only(primary: MemberName, copy: Option<Incarnation>) -> Self {
        Self {
            primary,
            copy,
            members: BTreeMap::new(),
            count: 0,
        }
    }

    /// Whether these copies share one with every set that could have acknowledged a commit: the primary is in every
    /// such set; without it, fewer than `count` members may be missing.
    pub fn met_by(&self, heard: impl Fn(&MemberName, Option<Incarnation>) -> bool) -> bool {
        if heard(&self.primary, self.copy) {
            return true;
        }
        let present = self
            .members
            .iter()
            .filter(|(name, copy)| heard(name, Some(**copy)))
            .count();
        present + self.count as usize > self.members.len()
    }

    /// Whether it could acknowledge anything at all.
    pub fn is_blocked(&self) -> bool {
        self.count as usize > self.members.len()
    }

    /// The members that a set of copies lacks, for people.
    pub fn lacks(&self, heard: impl Fn(&MemberName, Option<Incarnation>) -> bool) -> Vec<MemberName> {
        let standbys = self
            .members
            .iter()
            .filter(|(name, copy)| !heard(name, Some(**copy)))
            .map(|(name, _)| name.clone());
        std::iter::once(self.primary.clone()).chain(standbys).collect()
    }
}

/// All that an election has to respect; empty in asynchronous mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Oldest first, the one in force last.
    pub quorums: Vec<Quorum>,
    /// Grows with every change of `quorums`, so that a proof says which one it is for.
    pub serial: u64,
}

impl Sync {
    /// More changes than this without a proof between them are somebody's mistake; an election is never one.
    pub const MOST: usize = 16;

    /// The one in force.
    pub fn current(&self) -> Option<&Quorum> {
        self.quorums.last()
    }

    /// Whether commits wait for standbys, or may have to.
    pub fn is_on(&self) -> bool {
        !self.quorums.is_empty()
    }

    /// Whether only the newest quorum counts.
    pub fn is_settled(&self) -> bool {
        self.quorums.len() <= 1
    }

    /// Whether this copy counts in any quorum.
    pub fn counts(&self, name: &MemberName, copy: Option<Incarnation>) -> bool {
        self.quorums
            .iter()
            .any(|quorum| copy.is_some() && quorum.members.get(name) == copy.as_ref())
    }

    /// Whether this copy acknowledges commits whichever of the quorums PostgreSQL runs by now.
    pub fn acknowledges(&self, name: &MemberName, copy: Option<Incarnation>) -> bool {
        let counts = |quorum: &Quorum| quorum.members.get(name) == copy.as_ref();
        self.is_on() && copy.is_some() && self.quorums.iter().all(counts)
    }

    /// Whether these copies meet every quorum.
    pub fn met_by(&self, heard: impl Fn(&MemberName, Option<Incarnation>) -> bool) -> bool {
        self.quorums.iter().all(|quorum| quorum.met_by(&heard))
    }

    pub(super) fn push(&mut self, quorum: Quorum) {
        if self.current() == Some(&quorum) {
            return;
        }
        self.quorums.retain(|held| *held != quorum);
        self.quorums.push(quorum);
        self.serial += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(count: u32, members: &[&str]) -> Quorum {
        Quorum {
            primary: "p".into(),
            copy: Some(Incarnation(1)),
            members: members
                .iter()
                .map(|name| ((*name).into(), Incarnation(1)))
                .collect(),
            count,
        }
    }

    /// Every subset of copies, by brute force: it meets the quorum exactly if it shares a copy with every set that can
    /// acknowledge.
    #[test]
    fn meeting_is_sharing_a_copy_with_every_acknowledging_set() {
        let names = ["p", "a", "b", "c", "d"];
        for size in 0..=4_usize {
            for count in 0..=5_u32 {
                let quorum = quorum(count, names.get(1..=size).unwrap());
                for heard in 0..1_u32 << names.len() {
                    let has = |set: u32, name: &MemberName| {
                        let at = names.iter().position(|known| *known == name.as_str()).unwrap();
                        set >> at & 1 == 1
                    };
                    let acknowledges = |set: u32| {
                        let of = quorum.members.keys().filter(|name| has(set, name)).count();
                        set & 1 == 1 && of >= count as usize
                    };
                    let within = (1_u32 << (size + 1)) - 1;
                    let shares = (0..=within)
                        .filter(|set| acknowledges(*set))
                        .all(|set| set & heard != 0);
                    assert_eq!(
                        quorum.met_by(|name, _| has(heard, name)),
                        shares,
                        "{quorum:?} {heard:b}"
                    );
                }
            }
        }
    }

    /// A member that joins or leaves the set is none of it until the change is proved.
    #[test]
    fn who_acknowledges_is_in_every_quorum() {
        let mut sync = Sync::default();
        let does = |sync: &Sync, name: &str| sync.acknowledges(&name.into(), Some(Incarnation(1)));
        assert!(!does(&sync, "a"));
        sync.push(quorum(1, &["a", "b"]));
        assert!(does(&sync, "a") && does(&sync, "b") && !does(&sync, "p"));
        sync.push(quorum(1, &["b", "c"]));
        assert!(!does(&sync, "a") && does(&sync, "b") && !does(&sync, "c"));
        assert!(!sync.acknowledges(&"b".into(), Some(Incarnation(2))));
        assert!(!sync.acknowledges(&"b".into(), None));
    }

    #[test]
    fn another_copy_counts_for_nothing() {
        let quorum = quorum(1, &["a", "b"]);
        let old = |name: &MemberName, copy: Option<Incarnation>| {
            name.as_str() != "p" && copy == Some(Incarnation(1))
        };
        assert!(quorum.met_by(old));
        let cloned = |name: &MemberName, copy: Option<Incarnation>| {
            copy == Some(Incarnation(if name.as_str() == "b" { 2 } else { 1 })) && name.as_str() != "p"
        };
        assert!(!quorum.met_by(cloned));
        assert_eq!(quorum.lacks(cloned), ["p".into(), "b".into()]);
    }
}
