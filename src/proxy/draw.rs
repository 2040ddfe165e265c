//! Where clients are led, as this node's facts have it: pure.

use super::terms::{Asker, Lease, Routes, Terms};
use crate::cluster::{
    Endpoint, Epoch, Facts, Lsn, MemberInfo, MemberName, Moment, Origin, PostgresState, Report, Role, Seen,
    State, Tenure,
};
use crate::config::{PostgresConfig, Proxy};
use crate::lead::Gate;

/// A replica that the leader has not heard of for so long gets no new readers.
const SILENT_MS: u64 = 3_000;

/// The section of the node file as the proxy is told.
pub(super) fn terms(section: &Proxy, postgres: Option<&PostgresConfig>) -> Terms {
    Terms {
        rw: section.rw.clone(),
        ro: section.ro.clone(),
        hold_ms: section.hold_timeout_ms,
        handshake_ms: section.handshake_timeout_ms,
        most: section.max_connections,
        most_of_one: section.max_connections_per_client,
        proxy_protocol: section.proxy_protocol,
        ro_on_primary: section.ro_on_primary,
        asker: postgres.map(|postgres| Asker {
            username: postgres.auth.superuser.username.clone(),
            password: postgres
                .auth
                .superuser
                .password
                .as_ref()
                .map(|it| it.reveal().to_owned()),
            database: postgres.database.clone(),
        }),
        auth_file: section.auth_file.clone(),
    }
}

/// How long the primary is the only one.
pub(super) fn lease(facts: &Facts) -> Lease {
    Lease {
        epoch: facts.reign.epoch,
        until: facts.reign.until,
    }
}

/// Writers to the primary of the agreed epoch while it says that its gate is open; readers to replicas that are near
/// enough. `heard` is what the primary said to this node itself, which may be newer than what the leader passed on.
pub(super) fn routes(facts: &Facts, heard: Option<&Gate>, max_lag: Option<u64>) -> Routes {
    let state = &facts.state;
    let info = |name: &MemberName| {
        let there = state.member(name).filter(|_| !state.is_removed(name));
        there.map(|member| &member.info)
    };
    let door = |name: &MemberName| info(name).and_then(|info| info.door().cloned());
    let held = state.primacy.held().filter(|(_, epoch)| *epoch == state.epoch);
    let rw = held
        .filter(|(holder, epoch)| gate(facts, heard, holder) == Some(*epoch))
        .and_then(|(holder, _)| info(holder));
    let next = if rw.is_none() { next(state) } else { None };
    // A pooler's log-in says nothing of the server behind it: nobody stands there early.
    let next = next.and_then(info).filter(|info| info.pooler.is_none());
    let position = held.and_then(|(_, epoch)| position(facts, epoch));
    let fit = |seen: &&Seen| {
        let name = seen.report.member();
        let tagged = state
            .member(name)
            .is_none_or(|member| member.info.tags.noloadbalance);
        !tagged && seen.age_ms < SILENT_MS && is_near(&seen.report, position, max_lag)
    };
    let named = |seen: &Seen| door(seen.report.member());
    let mut ro: Vec<Endpoint> = facts.members.iter().filter(fit).filter_map(named).collect();
    ro.sort();
    let others = facts
        .members
        .iter()
        .filter(|seen| *seen.report.member() != facts.me);
    let peer = |seen: &Seen| seen.report.proxy.as_ref().map(ToString::to_string);
    let servers = |info: &MemberInfo| [info.pooler.as_deref().cloned(), info.postgres.clone()];
    let all = state.members.keys().filter_map(info).flat_map(servers);
    Routes {
        epoch: state.epoch,
        rw: rw.and_then(|info| info.door().cloned()),
        ro,
        all: all.flatten().collect(),
        peers: others.filter_map(peer).collect(),
        next: next.and_then(|info| info.postgres.clone()),
        behind: rw
            .filter(|info| info.pooler.is_some())
            .and_then(|info| info.postgres.clone()),
    }
}

/// Whom a handover that is under way leads to, or who is being promoted.
fn next(state: &State) -> Option<&MemberName> {
    let (holder, epoch) = state.primacy.held().filter(|(_, epoch)| *epoch == state.epoch)?;
    let asked = state.handover.as_ref();
    let awaited = asked.and_then(|asked| asked.of(epoch)).map(|begun| &begun.to);
    let rises = state
        .primacy
        .origin()
        .is_some_and(|(origin, _)| origin == Origin::Promotion);
    awaited.or_else(|| rises.then_some(holder))
}

/// The epoch in which the primary's gate is open, by the newest word there is.
fn gate(facts: &Facts, heard: Option<&Gate>, holder: &MemberName) -> Option<Epoch> {
    let seen = facts.members.iter().find(|seen| seen.report.member() == holder);
    if *holder == facts.me {
        return facts.report.gate();
    }
    let passed_on = seen.map(|seen| {
        let at = Moment(facts.members_at.0.saturating_sub(seen.age_ms));
        (at, seen.report.gate())
    });
    let heard = heard
        .filter(|gate| gate.member == *holder)
        .map(|gate| (gate.at, gate.epoch));
    [passed_on, heard]
        .into_iter()
        .flatten()
        .max_by_key(|(at, _)| *at)?
        .1
}

/// How far the primary is known to have written.
fn position(facts: &Facts, epoch: Epoch) -> Option<Lsn> {
    let holding = |report: &Report| matches!(report.tenure, Tenure::Holding { epoch: of } if of == epoch);
    let primary = facts.members.iter().find(|seen| holding(&seen.report))?;
    primary.report.postgres.as_ref()?.location
}

fn is_near(report: &Report, position: Option<Lsn>, max_lag: Option<u64>) -> bool {
    let Some(postgres) = &report.postgres else {
        return false;
    };
    let near = match (max_lag, postgres.replayed, position) {
        (None, _, _) => true,
        (Some(most), Some(replayed), Some(position)) => replayed.behind(position) <= most,
        // While there is no primary nobody falls further behind.
        (Some(_), Some(_), None) => true,
        (Some(_), None, _) => false,
    };
    near && postgres.role == Role::Replica && postgres.state == PostgresState::Running
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures::{NOW, facts};
    use crate::cluster::{Handover, Revision, UnderWay};
    use std::sync::Arc;

    /// node1 looks: node0 is the primary of epoch 1 and says so, node1 and node2 stream.
    fn seen_by_node1() -> Facts {
        let mut facts = facts(1);
        let members = Arc::make_mut(&mut facts.members);
        members[0].report.serves = true;
        members[0].report.proxy = Some(Endpoint {
            host: "10.0.0.1".to_owned(),
            port: 5000,
        });
        facts
    }

    fn ports(servers: &[Endpoint]) -> Vec<u16> {
        servers.iter().map(|server| server.port).collect()
    }

    #[test]
    fn writers_go_to_the_primary_and_readers_to_the_others() {
        let facts = seen_by_node1();
        let server = |node: usize| facts.members[node].report.info.postgres.clone().unwrap();
        let found = routes(&facts, None, None);
        assert_eq!((found.epoch, found.rw), (Epoch(1), Some(server(0))));
        assert_eq!(found.ro, [server(1), server(2)]);
        assert_eq!(found.all.len(), 3);
        assert_eq!(found.peers, ["10.0.0.1:5000"]);
    }

    #[test]
    fn a_pooler_is_led_to_in_place_of_its_server_which_is_asked_itself() {
        let pooler = |node: u16| Endpoint {
            host: "pooler".to_owned(),
            port: 6_432 + node,
        };
        let mut facts = seen_by_node1();
        let server = facts.members[0].report.info.postgres.clone();
        assert_eq!(routes(&facts, None, None).behind, None);
        let names: Vec<MemberName> = facts.state.members.keys().cloned().collect();
        let state = Arc::make_mut(&mut facts.state);
        for (node, name) in (0..).zip(&names) {
            state.members.get_mut(name).unwrap().info.pooler = Some(Box::new(pooler(node)));
        }
        let found = routes(&facts, None, None);
        assert_eq!((&found.rw, &found.behind), (&Some(pooler(0)), &server));
        assert_eq!(found.primary(), server.as_ref());
        assert_eq!(found.ro, [pooler(1), pooler(2)]);
        assert_eq!(found.all.len(), 6, "either may be asked to cancel");
    }

    #[test]
    fn nobody_is_led_to_a_primary_that_is_not_agreed_or_whose_gate_is_shut() {
        let mut facts = seen_by_node1();
        Arc::make_mut(&mut facts.members)[0].report.serves = false;
        assert_eq!(routes(&facts, None, None).rw, None);
        let mut facts = seen_by_node1();
        Arc::make_mut(&mut facts.state).epoch = Epoch(2);
        let found = routes(&facts, None, None);
        assert_eq!((found.epoch, found.rw), (Epoch(2), None));
    }

    #[test]
    fn who_is_about_to_be_primary_is_told_while_nobody_is() {
        let mut facts = seen_by_node1();
        let server = facts.members[1].report.info.postgres.clone();
        let handover = Handover {
            failover: false,
            from: None,
            to: None,
            at: None,
            accept_loss: false,
            under_way: Some(UnderWay {
                epoch: Epoch(1),
                to: facts.members[1].report.member().clone(),
            }),
            asked: Revision(1),
        };
        Arc::make_mut(&mut facts.state).handover = Some(handover);
        assert_eq!(routes(&facts, None, None).next, None, "the primary still serves");
        Arc::make_mut(&mut facts.members)[0].report.serves = false;
        assert_eq!(routes(&facts, None, None).next, server);
        let info = |facts: &mut Facts, pooler| {
            let name = facts.members[1].report.member().clone();
            let state = Arc::make_mut(&mut facts.state);
            state.members.get_mut(&name).unwrap().info.pooler = pooler;
        };
        info(&mut facts, server.map(Box::new));
        assert_eq!(
            routes(&facts, None, None).next,
            None,
            "a pooler keeps its own time"
        );
        info(&mut facts, None);
        Arc::make_mut(&mut facts.state).handover = None;
        assert_eq!(
            routes(&facts, None, None).next,
            None,
            "a primary that is up again"
        );
    }

    #[test]
    fn the_newer_word_on_the_gate_counts() {
        let facts = seen_by_node1();
        let gate = |epoch, at| Gate {
            member: facts.members[0].report.member().clone(),
            epoch,
            at,
        };
        // What was passed on is 50 ms older than the digest, which came 100 ms before now.
        let shut = gate(None, NOW);
        assert_eq!(routes(&facts, Some(&shut), None).rw, None);
        let older = gate(None, Moment(NOW.0 - 200));
        assert!(routes(&facts, Some(&older), None).rw.is_some());
        let other = Gate {
            member: facts.members[2].report.member().clone(),
            ..gate(None, NOW)
        };
        assert!(routes(&facts, Some(&other), None).rw.is_some());
    }

    #[test]
    fn a_replica_far_behind_or_tagged_or_silent_gets_no_readers() {
        let all = ports(&routes(&seen_by_node1(), None, Some(0)).ro);
        assert_eq!(all.len(), 2, "nobody lags");
        let without_first = |change: &dyn Fn(&mut Facts)| {
            let mut facts = seen_by_node1();
            change(&mut facts);
            ports(&routes(&facts, None, Some(1_000)).ro) == all[1..]
        };
        assert!(without_first(&|facts| {
            let postgres = Arc::make_mut(&mut facts.members)[1]
                .report
                .postgres
                .as_mut()
                .unwrap();
            postgres.replayed = postgres.replayed.map(|lsn| Lsn(lsn.0 - 1_001));
        }));
        assert!(without_first(&|facts| {
            Arc::make_mut(&mut facts.members)[1].age_ms = SILENT_MS;
        }));
        assert!(without_first(&|facts| {
            let name = facts.members[1].report.member().clone();
            let state = Arc::make_mut(&mut facts.state);
            state.members.get_mut(&name).unwrap().info.tags.noloadbalance = true;
        }));
    }
}
