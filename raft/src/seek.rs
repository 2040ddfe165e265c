//! What an empty node concludes from its partners' standings. Pure; `form` says why it is safe.

use std::collections::BTreeMap;

use crate::wire::message::Standing;
use crate::wire::stored::FormationBytes;

/// What an empty node knows of itself.
pub(crate) struct Seeker {
    pub(crate) addr: String,
    /// Sorted, with its own address.
    pub(crate) founders: Vec<String>,
    pub(crate) claim: u64,
    pub(crate) may_form: bool,
}

/// What a round of asking leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Take the founder's id.
    Form(FormationBytes),
    /// Ask to be admitted, there first.
    Join { leader: String },
    /// A majority could form; the rest is given time to appear.
    Patience,
    /// Too few answer, or this node only joins.
    Wait,
    /// A partner's answer forbids forming.
    Object(String),
}

impl Seeker {
    /// `patient`: a majority has not been waiting for the rest long enough.
    pub(crate) fn judge(&self, answers: &BTreeMap<String, Standing>, patient: bool) -> Outcome {
        if let Some(outcome) = self.follow_members(answers) {
            return outcome;
        }
        if !self.may_form {
            return Outcome::Wait;
        }
        if let Some(why) = answers
            .iter()
            .find_map(|(addr, standing)| self.objection(addr, standing))
        {
            return Outcome::Object(why);
        }
        let present = answers.len() + 1;
        if present == self.founders.len() {
            return Outcome::Form(self.formation(answers));
        }
        match (present * 2 > self.founders.len(), patient) {
            (true, true) => Outcome::Patience,
            (true, false) => Outcome::Form(self.formation(answers)),
            (false, _) => Outcome::Wait,
        }
    }

    /// A group exists: as a founder when it saw this very store, else as a newcomer.
    fn follow_members(&self, answers: &BTreeMap<String, Standing>) -> Option<Outcome> {
        let mut hint: Option<(&String, &Option<String>)> = None;
        for (addr, standing) in answers {
            let Standing::Member {
                leader,
                founders,
                seen,
            } = standing
            else {
                continue;
            };
            if self.may_form && *founders == self.founders && self.seen_as(seen) == Some(self.claim) {
                return Some(Outcome::Form(self.formation(answers)));
            }
            if hint.is_none_or(|(_, known)| known.is_none()) {
                hint = Some((addr, leader));
            }
        }
        hint.map(|(addr, leader)| Outcome::Join {
            leader: leader.as_ref().unwrap_or(addr).clone(),
        })
    }

    /// The claim a partner remembers for this node's address.
    fn seen_as(&self, seen: &[(String, u64)]) -> Option<u64> {
        seen.iter()
            .find(|(addr, _)| *addr == self.addr)
            .map(|(_, claim)| *claim)
    }

    /// Why a partner's answer forbids forming with it.
    fn objection(&self, addr: &str, standing: &Standing) -> Option<String> {
        match standing {
            Standing::Empty { founders, .. } | Standing::Formed { founders, .. }
                if *founders != self.founders =>
            {
                Some(format!(
                    "{addr} lists the voters {founders:?}, this node lists {:?}",
                    self.founders
                ))
            }
            Standing::Formed { seen, .. } if self.seen_as(seen).is_some_and(|claim| claim != self.claim) => {
                Some(format!(
                    "{addr} formed a group with an earlier store of this node; waiting to join it"
                ))
            }
            Standing::Joiner => Some(format!("{addr} belonged to a group before and only joins")),
            Standing::Empty { .. } | Standing::Formed { .. } | Standing::Member { .. } => None,
        }
    }

    fn formation(&self, answers: &BTreeMap<String, Standing>) -> FormationBytes {
        let claim = |(addr, standing): (&String, &Standing)| match standing {
            Standing::Empty { claim, .. } => Some((addr.clone(), *claim)),
            _ => None,
        };
        FormationBytes {
            founders: self.founders.clone(),
            seen: answers.iter().filter_map(claim).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders() -> Vec<String> {
        ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec()
    }

    fn seeker() -> Seeker {
        Seeker {
            addr: "a:1".to_owned(),
            founders: founders(),
            claim: 7,
            may_form: true,
        }
    }

    fn empty(claim: u64) -> Standing {
        Standing::Empty {
            founders: founders(),
            claim,
        }
    }

    fn formed(claim: u64) -> Standing {
        Standing::Formed {
            founders: founders(),
            seen: vec![("a:1".to_owned(), claim)],
        }
    }

    fn member(claim: u64) -> Standing {
        let seen = vec![("a:1".to_owned(), claim)];
        Standing::Member {
            leader: Some("c:1".to_owned()),
            founders: founders(),
            seen,
        }
    }

    fn judge(answers: &[(&str, Standing)], patient: bool) -> Outcome {
        let answers = answers
            .iter()
            .map(|(addr, standing)| ((*addr).to_owned(), standing.clone()))
            .collect();
        seeker().judge(&answers, patient)
    }

    fn forms(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Form(_))
    }

    #[test]
    fn all_present_form_at_once_and_remember_each_others_claims() {
        let Outcome::Form(formation) = judge(&[("b:1", empty(8)), ("c:1", empty(9))], true) else {
            panic!("does not form");
        };
        assert_eq!(formation.seen, [("b:1".to_owned(), 8), ("c:1".to_owned(), 9)]);
    }

    #[test]
    fn a_majority_waits_for_the_rest_and_then_forms() {
        assert_eq!(judge(&[("b:1", empty(8))], true), Outcome::Patience);
        assert!(forms(&judge(&[("b:1", empty(8))], false)));
    }

    #[test]
    fn a_minority_never_forms() {
        assert_eq!(judge(&[], false), Outcome::Wait);
    }

    #[test]
    fn a_wiped_founder_waits_for_the_group_it_helped_to_form() {
        assert!(matches!(
            judge(&[("b:1", formed(1)), ("c:1", empty(9))], false),
            Outcome::Object(_)
        ));
        assert!(
            forms(&judge(&[("b:1", formed(7)), ("c:1", empty(9))], false)),
            "the same store may go on"
        );
    }

    #[test]
    fn a_wiped_founder_joins_and_a_slow_one_is_still_a_founder() {
        let there = Outcome::Join {
            leader: "c:1".to_owned(),
        };
        assert_eq!(judge(&[("b:1", member(1)), ("c:1", empty(9))], false), there);
        assert!(forms(&judge(&[("b:1", member(7)), ("c:1", member(7))], true)));
        let unseen = Standing::Member {
            leader: None,
            founders: founders(),
            seen: Vec::new(),
        };
        assert_eq!(
            judge(&[("b:1", unseen)], false),
            Outcome::Join {
                leader: "b:1".to_owned()
            }
        );
    }

    #[test]
    fn other_founders_and_those_who_remember_a_group_forbid_forming() {
        let other = Standing::Empty {
            founders: vec!["a:1".to_owned(), "b:1".to_owned()],
            claim: 8,
        };
        let Outcome::Object(why) = judge(&[("b:1", other), ("c:1", empty(9))], false) else {
            panic!("does not object");
        };
        assert!(
            why.contains(r#"["a:1", "b:1"]"#) && why.contains(r#"["a:1", "b:1", "c:1"]"#),
            "{why}"
        );
        assert!(matches!(
            judge(&[("b:1", Standing::Joiner), ("c:1", empty(9))], false),
            Outcome::Object(_)
        ));
    }

    #[test]
    fn a_node_that_only_joins_never_forms() {
        let answers = [("b:1".to_owned(), empty(8)), ("c:1".to_owned(), member(7))];
        let joiner = Seeker {
            may_form: false,
            ..seeker()
        };
        assert_eq!(
            joiner.judge(&answers.clone().into(), false),
            Outcome::Join {
                leader: "c:1".to_owned()
            }
        );
        let [empty, _] = answers;
        assert_eq!(joiner.judge(&[empty].into(), false), Outcome::Wait);
    }
}
