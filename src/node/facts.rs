//! Turns what the node loop knows into the report for the peers and the picture for the doors.

use super::agent::Agent;
use crate::cluster::{
    Bearing, Facts, GuardFacts, LeaseFacts, MemberInfo, MemberName, Moment, Offer, PostgresReport, RaftFacts,
    Report, Role, Seen, Sender, State, Tenure, Vitals, WalSender, WatchdogFacts, command,
};
use crate::config::{self, Config, VipRole};
use crate::decide::duty::{Data, Duty, Process};
use crate::guard::WatchdogState;
use crate::node::job::Purpose;
use std::sync::Arc;

/// After so many failed attempts the end of the log is given up, and the epoch ends without it.
const UNREADABLE_AFTER: u32 = 3;

/// What the cluster should know of this node.
pub fn info(config: &Config, raft_id: u64, incarnation: Option<crate::cluster::Incarnation>) -> MemberInfo {
    let scheme = if config.restapi.certfile.is_some() {
        "https"
    } else {
        "http"
    };
    MemberInfo {
        name: config.name.clone(),
        raft_id,
        raft_addr: config.raft.self_addr.clone(),
        api_url: format!("{scheme}://{}/patroni", config.restapi.connect_address),
        postgres: config.postgresql.as_ref().map(|section| section.connect.clone()),
        tags: config.tags.clone(),
        incarnation,
        level: command::LEVEL,
        pooler: config
            .postgresql
            .as_ref()
            .and_then(|section| section.pooler.clone())
            .map(Box::new),
    }
}

impl Agent {
    /// Publishes the report and the facts; an important change goes out at once.
    pub(super) fn publish(&mut self, state: &Arc<State>, now: Moment) {
        self.note_ending();
        let oldest = self.wal_kept();
        let mut report = self.report(state, now);
        if let Some(postgres) = &mut report.postgres {
            postgres.oldest = oldest;
        }
        let before = self.parts.report.borrow().clone();
        let awaited = self
            .poked_at
            .take_if(|at| self.probed.at >= *at || self.guard.postmaster.is_none())
            .is_some();
        let important = awaited || before.differs(&report);
        let report = Arc::new(report);
        self.parts.report.send_replace(report.clone());
        if important {
            self.parts
                .urgent
                .send_modify(|count| *count = count.wrapping_add(1));
        }
        let mut facts = self.facts(state, report, now);
        facts.vitals.gap_ms = self.gap.observe(&facts, now);
        self.parts.facts.send_replace(Some(Arc::new(facts)));
    }

    fn report(&self, state: &State, now: Moment) -> Report {
        let config = &self.parts.config;
        let incarnation = self.parts.ledger.facts().incarnation;
        Report {
            promise: self.promise,
            again: self.restarts_after(),
            scheduled_restart: self.scheduled_restart(),
            synced: self.synced,
            primary_answers: self.primary_answers,
            rearmed: self.rearmed(state),
            info: info(config, self.parts.group.id(), incarnation),
            run: self.parts.run,
            sent_at: now,
            revision: state.revision,
            tenure: self.tenure(state, now),
            postgres: config.postgresql.as_ref().map(|_| self.postgres_report(now)),
            unpromotable: self.why_unpromotable(now).or_else(|| self.empty_handed(state)),
            activity: self.activity(),
            offer: self.offer(state, now),
            serves: self.gate(state, now),
            proxy: config.proxy_address(),
            bearing: self.bearing(now),
        }
    }

    /// Only where the address is to stand where a proxy lives.
    fn bearing(&self, now: Moment) -> Bearing {
        let vip = self.parts.config.vip.as_ref();
        if vip.is_none_or(|vip| vip.role != VipRole::Proxy) {
            return Bearing::No;
        }
        let (lives, hold) = (*self.parts.proxy_lives.borrow(), *self.parts.hold.borrow());
        self.parts.bearer.look(lives, hold, now)
    }

    fn why_unpromotable(&self, now: Moment) -> Option<String> {
        let fenced = self.parts.state.borrow().primacy.fencing().is_some();
        let tried = self.spared.why(now).map(str::to_owned);
        let unfit = self.fitness.unfit(now, fenced).or(tried);
        unfit.or_else(|| self.watchdog_trouble())
    }

    fn watchdog_trouble(&self) -> Option<String> {
        self.parts.hands.as_ref()?.watchdog_trouble(false)
    }

    /// The last primary without its data has nothing to go on with: somebody else must, or an operator say so.
    fn empty_handed(&self, state: &State) -> Option<String> {
        let was_primary = state.primacy.last().is_some_and(|(holder, _)| *holder == self.me);
        let gone = match &self.holdings.data {
            Data::Absent => Some("its data is gone".to_owned()),
            Data::Broken(why) => Some(format!("its data is broken: {why}")),
            _ => None,
        };
        gone.filter(|_| was_primary && state.system_id.is_some() && self.running.is_none())
    }

    /// Holding is said only where the epoch can still be used, ended only when everything of it is gone.
    fn tenure(&self, state: &State, now: Moment) -> Tenure {
        let Some((holder, epoch)) = state.primacy.last() else {
            return Tenure::None;
        };
        if *holder != self.me || !self.caught_up {
            return match (self.running, self.caught_up) {
                (Some(epoch), false) => Tenure::Holding { epoch },
                _ => Tenure::None,
            };
        }
        let used = self.parts.ledger.facts().used;
        if self.running == Some(epoch) || used < epoch {
            return Tenure::Holding { epoch };
        }
        if self.running.is_some() {
            return Tenure::None;
        }
        // Used and not running: over for good, also where a restarted daemon has forgotten how it ended.
        let known = self.ended.as_ref().filter(|(ended, _)| *ended >= epoch);
        let why = known
            .map_or("its PostgreSQL does not run", |(_, why)| why)
            .to_owned();
        match self.process() {
            // The end of the log is part of the last word, so that waits until it was read.
            Process::Down if self.end_is_known(now) => Tenure::Ended {
                epoch,
                end: self.holdings.end,
                why,
            },
            Process::Up(Some(Role::Replica)) => Tenure::Ended {
                epoch,
                end: None,
                why,
            },
            _ => Tenure::None,
        }
    }

    fn end_is_known(&self, now: Moment) -> bool {
        let nothing_there = matches!(self.holdings.data, Data::Absent | Data::Broken(_));
        let end = self.holdings.end.is_some() || nothing_there || self.unreadable >= UNREADABLE_AFTER;
        end && self.fitness.is_known(now)
    }

    fn offer(&self, state: &State, now: Moment) -> Option<Offer> {
        let config = &self.parts.config;
        let (existing, end) = (self.holdings.system_id(), self.end_brought());
        // What is there needs nobody's leave to be taken over; making something new does.
        let allowed = config.bootstrap.allow || existing.is_some();
        let ready = state.system_id.is_none()
            && config.postgresql.is_some()
            && allowed
            && self.why_unpromotable(now).is_none()
            && self.caught_up
            && (end.is_some() || existing.is_none())
            && self.holdings.data != crate::decide::duty::Data::Unknown;
        if !ready {
            return None;
        }
        let brought = self.holdings.founding.as_ref().filter(|_| existing.is_some());
        let first = brought.unwrap_or(&config.bootstrap.dcs).clone();
        let ttl_ms = config::settings(&first).map(|settings| settings.ttl_ms).ok()?;
        Some(Offer {
            config: first,
            ttl_ms,
            existing,
            end,
            standby: existing.is_some() && self.brings_standby(),
        })
    }

    /// What it is busy with, else what keeps it from being well.
    fn activity(&self) -> Option<String> {
        let Some(job) = &self.job else {
            return self.trouble.clone();
        };
        let progress = job.progress.borrow().clone();
        let what = match job.purpose {
            Purpose::Bootstrap(_) => "creating the database cluster",
            Purpose::Clone => "copying the data",
            Purpose::Rewind => "rewinding",
            Purpose::Promote(_) => "promoting",
            Purpose::Restart(_) => "starting as primary",
            _ => return None,
        };
        let what = match progress {
            Some(progress) => format!("{what} {progress}"),
            None => what.to_owned(),
        };
        Some(match &self.duty {
            Duty::Clone(_, why) | Duty::Rewind(_, why) => format!("{what}: {why}"),
            _ => what,
        })
    }

    fn postgres_report(&self, now: Moment) -> PostgresReport {
        let pid = self.guard.postmaster;
        let probe = self
            .probed
            .probe
            .clone()
            .filter(|_| pid.is_some() && self.probed.postmaster == pid);
        let mut report = PostgresReport {
            state: self.postgres_state(),
            role: self.role(),
            system_id: self.holdings.system_id(),
            timeline: self.holdings.timeline,
            fork: self.holdings.fork,
            ..PostgresReport::default()
        };
        let Some(probe) = probe else { return report };
        report.said_ms = now.since(self.probed.at);
        report.server_version = probe.server_version;
        report.postmaster_start_time = Some(probe.start_time.clone());
        report.pending_restart.clone_from(&probe.pending_restart);
        let seen = self
            .timeline_seen
            .filter(|(of, _)| Some(*of) == pid)
            .map(|(_, timeline)| timeline);
        report.timeline = probe.timeline.max(seen).max(report.timeline);
        if probe.in_recovery {
            report.received = probe.received;
            report.replayed = probe.replayed;
            report.replayed_timestamp.clone_from(&probe.replayed_timestamp);
            report.replay_paused = probe.replay_paused;
            report.replication_state = probe.is_streaming().then(|| "streaming".to_owned());
            report.streamed_in = self
                .streamed_in
                .filter(|(of, _)| Some(*of) == pid)
                .map(|(_, epoch)| epoch);
        } else {
            report.location = probe.location;
            report.senders = probe.walsenders.iter().map(sender).collect();
            report.checkpointed = self.checkpointed.is_some() && self.checkpointed == self.running;
        }
        report
    }

    fn facts(&self, state: &Arc<State>, report: Arc<Report>, now: Moment) -> Facts {
        let word = self.parts.word.borrow().clone();
        let (epoch, until) = self.parts.tenancy.lease();
        let probe = self
            .probed
            .probe
            .clone()
            .filter(|_| self.guard.postmaster == self.probed.postmaster);
        Facts {
            me: self.me.clone(),
            scope: self.parts.config.scope.clone(),
            state: state.clone(),
            settings: self.parts.settings.borrow().clone(),
            members: Arc::new(self.members(&word.digest, &report)),
            members_at: word.at,
            gate_open: report.serves,
            report,
            lease: LeaseFacts { epoch, until },
            reign: reign(state, LeaseFacts { epoch, until }, word.reign),
            bears_until: self.parts.bearer.until(),
            raft: self.raft_facts(state),
            walsenders: probe
                .as_ref()
                .map(|probe| probe.walsenders.clone())
                .unwrap_or_default(),
            latest_end: probe.as_ref().and_then(|probe| probe.latest_end),
            standing: word.standing.clone(),
            last_seen_s: word.at_s,
            last_seen: word.at,
            loop_at: now,
            vitals: Vitals {
                guard: self.parts.hands.as_ref().map(|_| self.guard_facts()),
                gap_ms: None,
                proxy: *self.parts.proxy.borrow(),
            },
        }
    }

    /// Lease or no lease: whether the gate is open.
    fn gate(&self, state: &State, now: Moment) -> bool {
        let probe = self.probed.probe.as_ref();
        let probe = probe.filter(|_| self.guard.postmaster == self.probed.postmaster);
        let writable = probe.is_some_and(|probe| !probe.in_recovery) && self.probed.failing_since.is_none();
        let serving = self.is_serving() && self.risen.is_some() && self.risen == self.running;
        // A grant that comes late does not undo a fence that has begun.
        let purpose = self.job.as_ref().map(|job| &job.purpose);
        let ending = matches!(purpose, Some(Purpose::Fence | Purpose::Stop));
        serving && !ending && writable && self.gate_is_open(state, now)
    }

    fn guard_facts(&self) -> GuardFacts {
        GuardFacts {
            connected: self.guard.connected,
            exits: self.guard.exits,
            fenced: self.guard.fenced,
            watchdog: match self.guard.watchdog {
                WatchdogState::Off => WatchdogFacts::Off,
                WatchdogState::Armed { .. } => WatchdogFacts::Armed,
                WatchdogState::Unusable(_) => WatchdogFacts::Failed,
            },
            barred: self.watchdog_trouble().is_some(),
        }
    }

    /// The leader's digest, but of itself a node knows best.
    fn members(&self, digest: &[Seen], own: &Report) -> Vec<Seen> {
        let mut members: Vec<Seen> = digest
            .iter()
            .filter(|seen| *seen.report.member() != self.me)
            .cloned()
            .collect();
        members.push(Seen {
            report: own.clone(),
            age_ms: 0,
        });
        members
    }

    fn raft_facts(&self, state: &State) -> RaftFacts {
        let status = self.parts.group.status();
        let status = status.borrow();
        let name_of = |id: u64| {
            let known = state.members.values().find(|member| member.info.raft_id == id);
            known.map(|member| member.info.name.clone())
        };
        let leader = status.leader.as_ref().and_then(|peer| {
            name_of(peer.id).or_else(|| (!peer.name.is_empty()).then(|| MemberName::from(peer.name.as_str())))
        });
        // Whose vote does not count alone yet is told like one that has none.
        let coming = |peer: &&matriarch_raft::Peer| status.coming.contains(&peer.id);
        let (coming, counted): (Vec<_>, Vec<_>) = status.voters.iter().partition(coming);
        RaftFacts {
            id: status.id,
            leader,
            leading: status.lead.is_some(),
            term: status.term,
            last_log: status.last_log,
            applied: status.applied,
            voters: counted.iter().map(|peer| peer.addr.clone()).collect(),
            voter_ids: counted.iter().map(|peer| peer.id).collect(),
            learner_ids: status.learners.iter().chain(coming).map(|peer| peer.id).collect(),
        }
    }

    /// The agreed timeline of the running primary, for finding how it began.
    pub(super) fn agreed_timeline(state: &State) -> Option<crate::cluster::Timeline> {
        state.primacy.origin().and_then(|(_, timeline)| timeline)
    }
}

/// The agreed primary's lease: this node's own, else the leader's word; in a pause it does not end.
fn reign(state: &State, own: LeaseFacts, heard: LeaseFacts) -> LeaseFacts {
    let Some((_, epoch)) = state.primacy.held() else {
        return LeaseFacts::default();
    };
    let known = [own, heard].into_iter().filter(|lease| lease.epoch == epoch);
    let until = match state.pause.is_on() {
        true => Some(Moment(u64::MAX)),
        false => known.map(|lease| lease.until).max(),
    };
    LeaseFacts {
        epoch,
        until: until.unwrap_or_default(),
    }
}

fn sender(walsender: &WalSender) -> Sender {
    Sender {
        name: walsender.application_name.clone(),
        streaming: walsender.state == "streaming",
        flushed: walsender.flushed,
        sync_state: walsender.sync_state.clone(),
    }
}
