//! The metrics Patroni has no word for: Raft, lease, epoch, failovers, the synchronous set, the guard, the watchdog.

use super::metrics::{Page, Seconds};
use super::metrics_proxy::proxy_metrics;
use super::view::View;
use crate::cluster::{Facts, GuardFacts, Moment, WatchdogFacts};
use std::collections::BTreeMap;

/// The rules that promote another member: each is shown from the start, because a counter that appears with its first
/// count has no increase that anybody could see. A rule that is not listed is shown once it has promoted.
pub(super) const PROMOTING: [&str; 6] = [
    "switchover",
    "manual failover",
    "has-every-byte",
    "best-standby",
    "proven",
    "lease-over",
];

pub(super) fn our_metrics(page: &mut Page, facts: &Facts, now: Moment) {
    page.family(
        "matriarch_build_info",
        "The program that answers; the value is always 1.",
        "gauge",
        "version",
        [(env!("CARGO_PKG_VERSION").to_owned(), 1)],
    );
    primacy(page, facts, now);
    raft(page, facts, now);
    members(page, facts, now);
    synchronous(page, facts);
    if let Some(guard) = &facts.vitals.guard {
        guarded(page, guard);
    }
    if let Some(proxy) = &facts.vitals.proxy {
        proxy_metrics(page, proxy);
    }
}

fn primacy(page: &mut Page, facts: &Facts, now: Moment) {
    let held = facts.has_lease(now);
    let left_ms = if held { facts.lease.until.since(now) } else { 0 };
    page.gauge(
        "matriarch_epoch",
        "Epoch of the newest primacy.",
        facts.state.epoch.0,
    );
    page.gauge(
        "matriarch_revision",
        "Decisions applied on this node.",
        facts.state.revision.0,
    );
    page.gauge(
        "matriarch_lease_seconds",
        "Seconds until the lease of this node ends, 0 if it has none.",
        Seconds(left_ms),
    );
    page.gauge(
        "matriarch_lease_epoch",
        "Epoch of the lease of this node, 0 if it has none.",
        if held { facts.lease.epoch.0 } else { 0 },
    );
    page.gauge(
        "matriarch_ttl_seconds",
        "Length of a lease.",
        Seconds(facts.state.ttl_ms),
    );
    page.flag(
        "matriarch_gate_open",
        "Value is 1 if clients may write on this node, 0 otherwise.",
        held && facts.gate_open,
    );
    let mut failovers: BTreeMap<String, u64> = PROMOTING.iter().map(|rule| ((*rule).to_owned(), 0)).collect();
    for promotion in &facts.state.timelines {
        *failovers.entry(promotion.rule.clone()).or_default() += 1;
    }
    page.family(
        "matriarch_failovers_total",
        "Promotions in the agreed history, by the rule that decided them.",
        "counter",
        "rule",
        failovers,
    );
    if let Some(gap_ms) = facts.vitals.gap_ms {
        page.gauge(
            "matriarch_last_failover_gap_seconds",
            "Seconds from when the former primary was last seen serving to when this one let clients write; absent where this node is not the primary or did not see both.",
            Seconds(gap_ms),
        );
    }
}

fn raft(page: &mut Page, facts: &Facts, now: Moment) {
    page.gauge("matriarch_raft_term", "Raft term of this node.", facts.raft.term);
    page.flag(
        "matriarch_raft_leader",
        "Value is 1 if this node leads the Raft group, 0 otherwise.",
        facts.raft.leading,
    );
    page.flag(
        "matriarch_raft_leader_known",
        "Value is 1 if this node knows who leads the Raft group, 0 otherwise.",
        facts.raft.leader.is_some(),
    );
    page.gauge(
        "matriarch_raft_last_log_index",
        "Index of the last Raft log entry.",
        facts.raft.last_log,
    );
    page.gauge(
        "matriarch_raft_applied_index",
        "Index of the last applied Raft log entry.",
        facts.raft.applied,
    );
    page.gauge(
        "matriarch_raft_voters",
        "Voters in the Raft group.",
        facts.raft.voters.len(),
    );
    page.gauge(
        "matriarch_leader_contact_seconds",
        "Seconds since the Raft leader last answered this node.",
        Seconds(now.since(facts.last_seen)),
    );
}

fn members(page: &mut Page, facts: &Facts, now: Moment) {
    let view = View { facts, now };
    let names = facts.state.members.keys();
    page.gauge(
        "matriarch_members",
        "Members of the cluster, witnesses included.",
        facts.state.members.len(),
    );
    page.gauge(
        "matriarch_members_present",
        "Members whose reports arrive.",
        names.filter(|name| view.fresh_report(name).is_some()).count(),
    );
    if let Some(standing) = facts.standing.as_ref().filter(|_| facts.is_fresh(now)) {
        let may = standing
            .candidates
            .iter()
            .filter(|(_, why_not)| why_not.is_none());
        page.gauge(
            "matriarch_members_promotable",
            "Members that may be promoted as the Raft leader sees it; absent while it is not heard.",
            may.count(),
        );
    }
}

fn synchronous(page: &mut Page, facts: &Facts) {
    let sync = &facts.state.sync;
    let (standbys, needed) = sync
        .current()
        .map_or((0, 0), |quorum| (quorum.members.len(), quorum.count));
    page.gauge(
        "matriarch_sync_standbys",
        "Standbys in the synchronous set.",
        standbys,
    );
    page.gauge(
        "matriarch_sync_required",
        "Standbys that must have a commit on disk before it is acknowledged.",
        needed,
    );
    page.flag(
        "matriarch_sync_settled",
        "Value is 1 if the primary has proved the newest synchronous set, or there is none, 0 otherwise.",
        sync.is_settled(),
    );
}

fn guarded(page: &mut Page, guard: &GuardFacts) {
    page.flag(
        "matriarch_guard_connected",
        "Value is 1 if the guard of this node is there, 0 otherwise.",
        guard.connected,
    );
    page.counter(
        "matriarch_guard_postmaster_exits_total",
        "Times a postmaster has ended under the guard since the daemon began.",
        guard.exits,
    );
    page.gauge(
        "matriarch_guard_fenced_epoch",
        "The newest epoch whose primary the guard of this node has stopped by itself, 0 if none.",
        guard.fenced.map_or(0, |epoch| epoch.0),
    );
    page.flag(
        "matriarch_watchdog_armed",
        "Value is 1 if a watchdog resets this machine unless it is fed, 0 otherwise.",
        guard.watchdog == WatchdogFacts::Armed,
    );
    page.flag(
        "matriarch_watchdog_failed",
        "Value is 1 if the watchdog is wanted and cannot be used, 0 otherwise.",
        guard.watchdog == WatchdogFacts::Failed,
    );
}
