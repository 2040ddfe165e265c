//! Taking members out and letting them in again: what an operator may ask for, and the Raft side of it.
//!
//! ```text
//! order -> Dismiss   agreed: it counts for nothing new
//!       -> Resync, Settle (decide/sync)   no commit waits for its copy any more
//!       -> Forget (rule take-out)   no member any more: its slot on the primary goes
//!       -> out of Raft's membership (see_off)   no vote any more
//!       -> whatever it says now is refused (inbox), its daemon ends; `Readmit` lets it join under a new Raft id
//! ```

use super::orders::Judged;
use crate::cluster::{Act, Done, Member, MemberName, State};
use matriarch_raft::{Group, Peer, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the leader looks for whom to see off, beside whenever something was agreed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Until it tries again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Raft's membership as the leader sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Votes {
    /// Each voter and whether it answers and has (nearly) the whole log; the leader itself does.
    pub(super) voters: Vec<(u64, bool)>,
    /// How many more receive the log and could vote.
    pub(super) learners: usize,
}

impl Votes {
    pub(super) fn of(status: &Status) -> Self {
        let level = |id: u64| id == status.id || status.peers_level.contains(&(id, true));
        Self {
            voters: status
                .voters
                .iter()
                .map(|peer| (peer.id, level(peer.id)))
                .collect(),
            learners: status.learners.len(),
        }
    }

    /// How many more voters may fail; negative without a majority.
    fn spare(&self) -> isize {
        let alive = self.voters.iter().filter(|(_, level)| *level).count();
        let majority = self.voters.len() / 2 + 1;
        isize::try_from(alive).unwrap_or(isize::MAX) - isize::try_from(majority).unwrap_or(0)
    }

    /// The same once that one is gone: five become three, and a learner steps in for one of three.
    fn without(&self, id: u64) -> Self {
        let mut voters: Vec<(u64, bool)> = self.voters.iter().copied().filter(|(v, _)| *v != id).collect();
        if voters.len().is_multiple_of(2) && voters.len() < self.voters.len() {
            if self.learners > 0 {
                voters.push((0, true));
            } else if voters.len() > 2 {
                let away = voters.iter().position(|(_, level)| !level);
                voters.remove(away.unwrap_or_default());
            }
        }
        Self {
            voters,
            learners: self.learners,
        }
    }
}

/// Whether a member may be taken out.
pub(super) fn remove(state: &State, votes: &Votes, member: &str, force: bool) -> Judged {
    let name = MemberName::from(member);
    let no = |status, text: String| Judged::Answer(Done::text(status, text));
    let Some(found) = state.member(&name) else {
        return match state.is_removed(&name) {
            true => no(200, format!("{name} was taken out before")),
            false => no(404, format!("no member is named {name}")),
        };
    };
    if state.is_removed(&name) {
        return no(200, format!("{name} is being taken out"));
    }
    if state.primacy.last().is_some_and(|(holder, _)| *holder == name) {
        let why =
            format!("{name} is the primary; move primacy to another member first (matriarch switchover)");
        return no(412, why);
    }
    let after = votes.without(found.info.raft_id).spare();
    if after < 0 {
        let why = format!("without {name} too few voters answer to decide anything; start the others first");
        return no(412, why);
    }
    if after == 0 && votes.spare() > 0 && !force {
        let why = format!(
            "without {name} the cluster could not lose another voter; start or add one first, or ask again with force"
        );
        return no(412, why);
    }
    let last_copy = last_copy(state, found);
    if last_copy && !force {
        let why =
            format!("{name} is the only replica that may be promoted; ask again with force if that is meant");
        return no(412, why);
    }
    let reason = format!("{name} is taken out by an operator");
    let text = format!("{name} is taken out; `matriarch member add {name}` lets it join again");
    let act = Act::Dismiss { member: name };
    Judged::Propose(Box::new(act), "member-remove", reason, Done::text(200, text))
}

/// Whether no other replica could take over.
fn last_copy(state: &State, leaving: &Member) -> bool {
    let primary = state.primacy.last().map(|(name, _)| name.clone());
    let able = |member: &Member| {
        member.info.postgres.is_some()
            && !member.info.tags.nofailover
            && Some(&member.info.name) != primary.as_ref()
            && !state.is_removed(&member.info.name)
            && member.fitness == crate::cluster::Fitness::Fit
    };
    let mut others = state
        .members
        .values()
        .filter(|m| m.info.name != leaving.info.name);
    able(leaving) && !others.any(able)
}

/// Whether a member may be let in again, or stay: while it is being taken out it may be the only one that has everything.
pub(super) fn add(state: &State, member: &str) -> Judged {
    let name = MemberName::from(member);
    if !state.is_removed(&name) {
        let text = match state.member(&name) {
            Some(_) => format!("{name} is a member"),
            None => {
                format!("{name} may join: start it with raft.partner_addrs naming a member of this cluster")
            }
        };
        return Judged::Answer(Done::text(200, text));
    }
    let reason = format!("{name} is let in by an operator");
    let text = match state.member(&name) {
        Some(_) => format!("{name} was still being taken out, and stays a member"),
        None => format!("{name} may join again; start it, if it does not run"),
    };
    let act = Act::Readmit { member: name };
    Judged::Propose(Box::new(act), "member-add", reason, Done::text(200, text))
}

/// Why this peer has no place here (any more), if so.
pub(super) fn refusal(state: &State, name: &str, id: u64, in_raft: impl Fn(u64) -> bool) -> Option<String> {
    let name = MemberName::from(name);
    let Some(old) = state.removed.get(&name).copied() else {
        let is_over = state.is_retired(id) && !in_raft(id);
        return is_over.then(|| {
            format!(
                "{name} was taken out of the cluster, and let in since: start it again, and it joins anew"
            )
        });
    };
    let leaving = state.member(&name).is_some() || in_raft(old);
    // Under another id it was let in since; this node has yet to hear of that.
    let is_it = id == 0 || id == old || state.is_retired(id);
    (is_it && !leaving).then(|| {
        format!(
            "{name} was taken out of the cluster; `matriarch member add {name}`, asked of one of its members, lets it \
             join again"
        )
    })
}

/// Takes the votes of those that were forgotten. Runs until the state's sender is gone; does nothing while another node
/// leads.
pub async fn see_off(group: Group, mut states: watch::Receiver<Arc<State>>) {
    loop {
        tokio::select! {
            // Nothing is agreed any more once the group has ended.
            changed = states.changed() => if changed.is_err() {
                return;
            },
            () = group.beat(LOOK_EVERY) => {}
        }
        let state = states.borrow_and_update().clone();
        let lead = || group.status().borrow().lead.is_some();
        let is_gone = |peer: &Peer| state.is_retired(peer.id);
        while let Some(gone) = group.members().into_iter().find(|peer| lead() && is_gone(peer)) {
            take_vote(&group, &gone).await;
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}

async fn take_vote(group: &Group, gone: &Peer) {
    let status = group.status().borrow().clone();
    let (id, leads) = (gone.id, gone.id == status.id);
    let name = if gone.name.is_empty() {
        &gone.addr
    } else {
        &gone.name
    };
    let done = if leads {
        let level = status.peers_level.iter().find(|(_, level)| *level);
        match level {
            Some((heir, _)) => group.hand_over(*heir).await,
            None => return,
        }
    } else {
        group.remove(id).await
    };
    match done {
        Ok(()) if leads => tracing::info!("handed Raft's lead over to leave the group"),
        Ok(()) => tracing::info!("{name} is no member of the Raft group any more"),
        Err(why) => tracing::warn!("{name} cannot leave the Raft group yet: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers_test::{self, PATIENCE};
    use super::*;
    use crate::decide::script::World;
    use std::future::Future;
    use std::pin::Pin;
    use tokio::time::timeout;

    fn votes(voters: &[(u64, bool)], learners: usize) -> Votes {
        Votes {
            voters: voters.to_vec(),
            learners,
        }
    }

    /// `a` is primary, `b` and `c` follow; their Raft ids are made 1, 2, 3.
    fn state() -> State {
        let mut state = World::herd(&["a", "b", "c"]).state;
        for (id, member) in (1..).zip(state.members.values_mut()) {
            member.info.raft_id = id;
        }
        state
    }

    fn answer(judged: Judged) -> (u16, String, bool) {
        match judged {
            Judged::Answer(done) | Judged::NotYet(done) => (done.status, done.text, false),
            Judged::Propose(_, _, _, done) => (done.status, done.text, true),
        }
    }

    #[test]
    fn the_primary_and_the_majority_stay() {
        let all = votes(&[(1, true), (2, true), (3, true)], 0);
        let (status, text, _) = answer(remove(&state(), &all, "a", true));
        assert!(status == 412 && text.starts_with("a is the primary"), "{text}");
        let dead = votes(&[(1, true), (2, true), (3, false)], 0);
        let (status, text, _) = answer(remove(&state(), &dead, "b", true));
        assert!(status == 412 && text.contains("too few voters"), "{text}");
        let (status, _, proposed) = answer(remove(&state(), &dead, "c", false));
        assert_eq!((status, proposed), (200, true), "a dead voter may always go");
        assert_eq!(answer(remove(&state(), &all, "x", false)).0, 404);
    }

    #[test]
    fn a_loss_of_safety_wants_force() {
        let all = votes(&[(1, true), (2, true), (3, true)], 0);
        let (status, text, _) = answer(remove(&state(), &all, "c", false));
        assert!(
            status == 412 && text.contains("could not lose another voter"),
            "{text}"
        );
        assert!(answer(remove(&state(), &all, "c", true)).2);
        let spare = votes(&[(1, true), (2, true), (3, true)], 1);
        assert!(
            answer(remove(&state(), &spare, "c", false)).2,
            "a learner steps in"
        );
        let five = votes(&[(1, true), (2, true), (3, true), (4, true), (5, true)], 0);
        assert!(answer(remove(&state(), &five, "c", false)).2);
    }

    #[test]
    fn whoever_was_taken_out_is_refused_by_its_old_id_and_by_none() {
        let mut state = state();
        state.removed.insert("c".into(), 3);
        assert_eq!(refusal(&state, "c", 3, |_| false), None, "it is leaving");
        state.members.remove(&MemberName::from("c"));
        assert_eq!(refusal(&state, "c", 3, |_| true), None, "it still has its vote");
        assert!(refusal(&state, "c", 3, |_| false).is_some_and(|why| why.contains("member add c")));
        assert!(refusal(&state, "c", 0, |_| false).is_some());
        assert_eq!(refusal(&state, "c", 9, |_| false), None, "it was let in since");
        assert!(answer(add(&state, "c")).2);
        assert_eq!(answer(add(&state, "d")).0, 200);
    }

    #[test]
    fn whoever_is_still_being_taken_out_may_stay() {
        let mut state = state();
        state.removed.insert("c".into(), 3);
        state.retired.insert(3);
        let (status, text, proposed) = answer(add(&state, "c"));
        assert!(
            status == 200 && proposed && text.ends_with("stays a member"),
            "{text}"
        );
        state.removed.clear();
        assert_eq!(refusal(&state, "c", 3, |_| true), None, "its id is a member's");
    }

    #[test]
    fn whoever_was_away_while_it_was_taken_out_and_let_in_has_to_begin_anew() {
        let mut state = state();
        state.retired.insert(3);
        assert_eq!(refusal(&state, "c", 3, |_| false), None, "it is leaving");
        state.members.remove(&MemberName::from("c"));
        assert_eq!(refusal(&state, "c", 3, |_| true), None, "it still has its vote");
        assert!(refusal(&state, "c", 3, |_| false).is_some_and(|why| why.contains("let in since")));
        assert_eq!(refusal(&state, "c", 0, |_| false), None, "it asks to join");
        assert_eq!(refusal(&state, "c", 9, |_| false), None, "it has joined");
    }

    /// The state's sender goes with the group's machine: whoever waits for the next state has to notice that there is none.
    #[tokio::test(flavor = "multi_thread")]
    async fn seeing_off_ends_with_the_group() {
        let (node, _) = peers_test::group(1, || Arc::new(Nobody)).await.remove(0);
        let mut seeing_off = tokio::spawn(see_off(node.group.clone(), node.states.clone()));
        let early = timeout(2 * LOOK_EVERY, &mut seeing_off).await;
        assert!(early.is_err(), "it ended although the group lives");
        timeout(PATIENCE, node.group.close()).await.expect("it closes");
        let end = timeout(PATIENCE, seeing_off).await;
        end.expect("it goes on without a group").unwrap();
    }

    /// Who is alone has no mail.
    struct Nobody;

    impl matriarch_raft::Inbox for Nobody {
        fn handle(
            &self,
            _: Peer,
            _: Vec<u8>,
            _: Duration,
        ) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
            Box::pin(std::future::ready(Vec::new()))
        }
    }
}
