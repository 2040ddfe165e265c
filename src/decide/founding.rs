//! The first bootstrap: who creates the database cluster, or brings the one that becomes it.

use super::rules::{Verdict, propose, stand};
use super::view::View;
use crate::cluster::{Act, MemberName, Offer};
use std::cmp::Reverse;

/// How long the first bootstrap waits for the other voters, so that one who brings data is chosen.
const ALL_PRESENT_MS: u64 = 3_000;

pub(super) fn bootstrap(view: &View<'_>) -> Option<Verdict> {
    view.state.system_id.is_none().then_some(())?;
    if let Some(verdict) = bootstrap_under_way(view) {
        return Some(verdict);
    }
    let offers: Vec<_> = view
        .state
        .members
        .values()
        .filter_map(|member| Some((member, view.fresh(&member.info.name)?)))
        .filter_map(|(member, heard)| {
            let offer = heard.report.offer.as_ref()?;
            // Whose data is there already is its primary, wanted or not.
            let may = !member.info.tags.nofailover || offer.existing.is_some();
            may.then(|| (heard.report.member(), offer))
        })
        .collect();
    let present = view
        .state
        .members
        .keys()
        .filter(|name| view.fresh(name).is_some())
        .count();
    // A member that holds data offers it once it has read where it ends.
    let silent = view.state.members.values().any(|member| {
        let heard = view.fresh(&member.info.name);
        !member.is_witness() && heard.is_some_and(|heard| heard.report.offer.is_none())
    });
    if (present < view.voters || silent) && view.now.since(view.lead_since) < ALL_PRESENT_MS {
        return stand("waiting a moment for the other members, one may bring data");
    }
    let mut existing: Vec<u64> = offers.iter().filter_map(|(_, offer)| offer.existing).collect();
    existing.sort_unstable();
    existing.dedup();
    if existing.len() > 1 {
        return stand(
            "members bring data of different database clusters; move all but one data directory away",
        );
    }
    if let Some(verdict) = data_in_the_way(view, &offers) {
        return Some(verdict);
    }
    let chosen = offers
        .iter()
        .filter(|(_, offer)| !offer.standby)
        .min_by_key(|(name, offer)| (offer.existing.is_none(), Reverse(offer.end), (*name).clone()));
    let Some((name, offer)) = chosen else {
        return stand("no member can create the database cluster yet");
    };
    let reason = match offer.existing {
        Some(id) => format!("{name} brings database cluster {id}"),
        None => format!("{name} creates the database cluster"),
    };
    let act = Act::Bootstrap {
        member: (*name).clone(),
        epoch: view.state.epoch.next(),
        config: offer.config.clone(),
        ttl_ms: offer.ttl_ms,
    };
    propose(act, reason)
}

/// A standby's data waits for its primary, and nobody begins anew beside data that cannot be brought yet.
fn data_in_the_way(view: &View<'_>, offers: &[(&MemberName, &Offer)]) -> Option<Verdict> {
    if offers
        .iter()
        .any(|(_, offer)| offer.existing.is_some() && !offer.standby)
    {
        return None;
    }
    if let Some((name, _)) = offers.iter().find(|(_, offer)| offer.existing.is_some()) {
        return stand(format!(
            "{name} holds a standby's data; start the node of its primary first, or promote it by hand before it joins"
        ));
    }
    let holder = view.state.members.keys().find_map(|name| {
        let report = &view.fresh(name)?.report;
        let holds = report.postgres.as_ref()?.system_id.is_some() && report.offer.is_none();
        holds.then_some(report)
    })?;
    let why = holder.unpromotable.as_deref().or(holder.activity.as_deref());
    stand(format!(
        "{} holds data and cannot bring it yet: {}",
        holder.member(),
        why.unwrap_or("its data directory is being read")
    ))
}

fn bootstrap_under_way(view: &View<'_>) -> Option<Verdict> {
    let (name, _) = view.state.primacy.held()?;
    if view.ended().is_some() {
        return None;
    }
    if view.holding().is_some() {
        return stand(format!("{name} is creating the database cluster"));
    }
    let over = view.move_at();
    (view.now < over)
        .then(|| Verdict::Stand(format!("{name} was creating the database cluster and is silent")))
}
