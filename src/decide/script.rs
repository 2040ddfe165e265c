//! Text scripts for tests of judgement: a situation told line by line, and what is decided about it.
//!
//! A line is `subject: words`, a word is `flag`, `key=value` or `key="some text"`; a line without a colon asks a
//! question (see `golden.rs`). Times are milliseconds *ago*; `time: +500` lets half a second pass for everybody.

use super::duty::{Data, Local, Process};
use super::script_sync;
use super::script_words::{fork, member_info, names, number, role, said, timeline, wal_end, words};
use super::view::{Heard, View};
use crate::cluster::{
    Epoch, Fitness, Handover, Incarnation, Lsn, Member, MemberName, Moment, Origin, Pause, PostgresReport,
    PostgresState, Primacy, Promotion, Report, Revision, Role, Settings, State, Tenure, Timeline, UnderWay,
    WalEnd, When,
};
use std::collections::BTreeMap;

/// A situation: what is agreed, what was heard when, and what one node sees of itself.
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) state: State,
    pub(crate) settings: Settings,
    pub(crate) heard: BTreeMap<MemberName, Heard>,
    pub(crate) lead_since: Moment,
    pub(crate) last_grant: Option<Moment>,
    pub(crate) held_since: Moment,
    pub(crate) ttl_since: Moment,
    pub(crate) sync_since: Moment,
    pub(crate) asked_since: Moment,
    pub(crate) wall_ms: u64,
    pub(crate) voters: usize,
    pub(crate) local: Own,
}

/// What [`Local`] borrows.
pub(crate) struct Own {
    pub(crate) me: MemberName,
    pub(crate) data: Data,
    pub(crate) process: Process,
    pub(crate) promised: (Epoch, bool),
    pub(crate) used: Epoch,
    pub(crate) running: Option<Epoch>,
    pub(crate) lease_epoch: Epoch,
    pub(crate) lease_until: Moment,
    pub(crate) guest: bool,
    pub(crate) leaving: bool,
}

const START: Moment = Moment(1_000_000);
const SYSTEM: u64 = 7;
const LEVEL: Lsn = Lsn(0x500_0000);

impl World {
    pub(crate) fn view(&self) -> View<'_> {
        View {
            now: self.now,
            state: &self.state,
            settings: &self.settings,
            heard: &self.heard,
            lead_since: self.lead_since,
            last_grant: self.last_grant,
            held_since: self.held_since,
            ttl_since: self.ttl_since,
            sync_since: self.sync_since,
            asked_since: self.asked_since,
            wall_ms: self.wall_ms,
            voters: self.voters,
        }
    }

    pub(crate) fn local(&self) -> Local<'_> {
        Local {
            me: &self.local.me,
            data: &self.local.data,
            fork: None,
            reached: None,
            primary: None,
            unconfirmed_ms: 60_000,
            promised: self.local.promised,
            process: self.local.process,
            used: self.local.used,
            running: self.local.running,
            lease_epoch: self.local.lease_epoch,
            lease_until: self.local.lease_until,
            guest: self.local.guest,
            leaving: self.local.leaving,
            hands_off: self.state.pause.is_on(),
        }
    }

    /// Members of a cluster that has no data yet; this node has led for a minute.
    pub(crate) fn empty(names: &[&str]) -> Self {
        let mut world = Self {
            now: START,
            state: State::default(),
            settings: Settings::default(),
            heard: BTreeMap::new(),
            lead_since: Moment(START.0 - 60_000),
            last_grant: None,
            held_since: Moment(START.0 - 60_000),
            ttl_since: Moment(START.0 - 60_000),
            sync_since: Moment(START.0 - 60_000),
            asked_since: START,
            wall_ms: 1_800_000_000_000,
            voters: names.len(),
            local: Own {
                me: MemberName::from(names.first().copied().unwrap_or("a")),
                data: Data::Absent,
                process: Process::Down,
                promised: (Epoch(0), false),
                used: Epoch(0),
                running: None,
                lease_epoch: Epoch(0),
                lease_until: Moment(0),
                guest: false,
                leaving: false,
            },
        };
        for (number, name) in names.iter().enumerate() {
            let info = member_info(name, number);
            let fitness = Fitness::Unfit("its copy of the data has not followed the primary yet".to_owned());
            let mut report = Report::first(info.clone());
            report.postgres = Some(PostgresReport::default());
            let member = Member { info, fitness };
            world.state.members.insert((*name).into(), member);
            let heard = Heard {
                report,
                at: START,
                followed_at: START,
                streamed_at: START,
                ended_at: None,
            };
            world.heard.insert((*name).into(), heard);
        }
        world
    }

    /// A healthy cluster: the first member has been primary of epoch 1 since its bootstrap, the others follow.
    pub(crate) fn herd(names: &[&str]) -> Self {
        let mut world = Self::empty(names);
        let primary = world.local.me.clone();
        world.state.system_id = Some(SYSTEM);
        world.state.epoch = Epoch(1);
        world.state.first = Some(Timeline(1));
        world.state.reserved = Timeline(1);
        world.state.ttl_ms = 2_000;
        world.state.wait_ttl_ms = 2_000;
        world.state.primacy = Primacy::Held {
            member: primary.clone(),
            epoch: Epoch(1),
            origin: Origin::Bootstrap,
            timeline: Some(Timeline(1)),
        };
        world.last_grant = Some(START);
        for (number, member) in world.state.members.values_mut().enumerate() {
            member.fitness = Fitness::Fit;
            member.info.incarnation = Some(Incarnation(number as u64 + 1));
        }
        for (name, heard) in &mut world.heard {
            heard.report.info = world.state.members[name].info.clone();
            let postgres = heard.report.postgres.as_mut().unwrap();
            postgres.state = PostgresState::Running;
            postgres.timeline = Some(Timeline(1));
            postgres.system_id = Some(SYSTEM);
            if *name == primary {
                heard.report.tenure = Tenure::Holding { epoch: Epoch(1) };
                postgres.role = Role::Primary;
                postgres.location = Some(LEVEL);
            } else {
                postgres.role = Role::Replica;
                postgres.received = Some(LEVEL);
                postgres.replayed = Some(LEVEL);
                postgres.streamed_in = Some(Epoch(1));
                postgres.replication_state = Some("streaming".to_owned());
            }
        }
        let end = Some(WalEnd {
            timeline: Timeline(1),
            lsn: LEVEL,
        });
        world.local.data = Data::Present {
            system_id: SYSTEM,
            end,
        };
        world
    }

    fn ago(&self, ms: &str) -> Moment {
        Moment(self.now.0 - number(ms))
    }

    /// Takes in one line; answers the question if it is one.
    pub(crate) fn hear_line<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
        match line.split_once(": ") {
            Some((subject, rest)) => self.tell(subject, &words(rest)),
            None if line.is_empty() => {}
            None => return Some(line),
        }
        None
    }

    fn tell(&mut self, subject: &str, words: &[(String, String)]) {
        match subject {
            "herd" => *self = Self::herd(&names(words)),
            "empty" => *self = Self::empty(&names(words)),
            "hear" => {
                for name in names(words) {
                    self.heard.get_mut(&MemberName::from(name)).unwrap().at = self.now;
                }
            }
            "time" => words.iter().for_each(|(key, value)| self.time(key, value)),
            "cluster" => words.iter().for_each(|(key, value)| self.cluster(key, value)),
            "settings" => words.iter().for_each(|(key, value)| self.setting(key, value)),
            "primacy" => self.primacy(words),
            "handover" => self.handover(words),
            "sync" => words
                .iter()
                .for_each(|(key, value)| script_sync::tell(self, key, value)),
            "local" => words.iter().for_each(|(key, value)| self.own(key, value)),
            name => {
                let name = MemberName::from(name);
                assert!(self.heard.contains_key(&name), "nobody is named {name}");
                for (key, value) in words {
                    self.member(&name, key, value);
                }
            }
        }
    }

    fn time(&mut self, key: &str, value: &str) {
        match key {
            "leads" => self.lead_since = self.ago(value),
            "granted" => self.last_grant = (value != "never").then(|| self.ago(value)),
            "held" => self.held_since = self.ago(value),
            "ttl" => self.ttl_since = self.ago(value),
            "agreed" => self.sync_since = self.ago(value),
            later => self.now = self.now.plus(number(later.strip_prefix('+').unwrap())),
        }
    }

    fn cluster(&mut self, key: &str, value: &str) {
        match key {
            "ttl" => self.state.ttl_ms = number(value),
            "waits" => self.state.wait_ttl_ms = number(value),
            "pause" => {
                self.state.pause = match value {
                    "on" => Pause::On,
                    "off" => Pause::Off,
                    since => Pause::Ending {
                        since: Revision(number(since)),
                    },
                }
            }
            "reserved" => self.state.reserved = timeline(value),
            "system" => self.state.system_id = (value != "none").then(|| number(value)),
            "removed" => drop(self.state.removed.insert(MemberName::from(value), 0)),
            "voters" => self.voters = usize::try_from(number(value)).unwrap(),
            "history" => {
                let fork = fork(value);
                let (member, epoch) = self.state.primacy.held().unwrap();
                self.state.timelines.push(Promotion {
                    timeline: fork.timeline,
                    parent: fork.parent,
                    switch: fork.switch,
                    member: member.clone(),
                    incarnation: None,
                    epoch,
                    rule: "lease-over".to_owned(),
                    at_ms: 0,
                });
            }
            _ => panic!("cluster: {key}"),
        }
    }

    fn setting(&mut self, key: &str, value: &str) {
        match key {
            "primary_start_timeout_s" => self.settings.primary_start_timeout_s = number(value),
            "maximum_lag_on_failover" => self.settings.maximum_lag_on_failover = number(value),
            "member_slots_ttl_ms" => self.settings.member_slots_ttl_ms = number(value),
            "use_slots" => self.settings.postgresql.use_slots = value != "no",
            "report_interval_ms" => self.settings.report_interval_ms = number(value),
            _ => panic!("settings: {key}"),
        }
    }

    /// `primacy: b epoch=2 promotion timeline=2`, and as if it was agreed just now.
    fn primacy(&mut self, words: &[(String, String)]) {
        let (mut epoch, mut origin, mut on) = (self.state.epoch.next(), Origin::Promotion, None);
        let (who, rest) = words.split_first().unwrap();
        for (key, value) in rest {
            match key.as_str() {
                "epoch" => epoch = Epoch(number(value)),
                "timeline" => on = Some(timeline(value)),
                "bootstrap" => origin = Origin::Bootstrap,
                "promotion" => origin = Origin::Promotion,
                "restart" => origin = Origin::Restart,
                _ => panic!("primacy: {key}"),
            }
        }
        self.state.epoch = epoch;
        self.state.reserved = self.state.reserved.max(on.unwrap_or_default());
        self.state.primacy = Primacy::Held {
            member: MemberName::from(who.0.as_str()),
            epoch,
            origin,
            timeline: on,
        };
        self.last_grant = None;
        self.held_since = self.now;
    }

    /// `handover: failover from=a to=b begun=1/b loss in=1000`; what is not begun is scheduled, in so many milliseconds.
    fn handover(&mut self, words: &[(String, String)]) {
        let mut asked = Handover {
            failover: false,
            from: None,
            to: None,
            at: None,
            accept_loss: false,
            under_way: None,
            asked: Revision(9),
        };
        for (key, value) in words {
            match key.as_str() {
                "failover" => asked.failover = true,
                "loss" => asked.accept_loss = true,
                "from" => asked.from = Some(value.as_str().into()),
                "to" => asked.to = Some(value.as_str().into()),
                "begun" => {
                    let (epoch, to) = value.split_once('/').unwrap();
                    asked.under_way = Some(UnderWay {
                        epoch: Epoch(number(epoch)),
                        to: to.into(),
                    });
                }
                "in" => {
                    let ms = self.wall_ms.checked_add_signed(value.parse().unwrap()).unwrap();
                    let iso = format!("{ms} ms");
                    asked.at = Some(When { ms, iso });
                }
                _ => panic!("handover: {key}"),
            }
        }
        self.state.handover = Some(asked);
        self.asked_since = self.now;
    }

    fn member(&mut self, name: &MemberName, key: &str, value: &str) {
        let ago = |ms: &str| Moment(self.now.0 - number(ms));
        let heard = self.heard.get_mut(name).unwrap();
        let member = self.state.members.get_mut(name);
        match (key, member) {
            ("age", _) => heard.at = ago(value),
            ("followed", _) => heard.followed_at = ago(value),
            ("streaming", _) => heard.streamed_at = ago(value),
            ("since", _) => heard.ended_at = Some(ago(value)),
            ("forgotten", _) => {
                self.state.members.remove(name);
            }
            ("fit", Some(member)) => member.fitness = Fitness::Fit,
            ("unfit", Some(member)) => member.fitness = Fitness::Unfit(value.to_owned()),
            ("nofailover" | "priority" | "witness", Some(member)) => {
                match key {
                    "nofailover" => member.info.tags.nofailover = true,
                    "priority" => member.info.tags.failover_priority = value.parse().unwrap(),
                    _ => {
                        member.info.postgres = None;
                        heard.report.postgres = None;
                    }
                }
                heard.report.info = member.info.clone();
            }
            ("again", _) => heard.report.again = Some(Epoch(number(value))),
            ("ended", _) => {
                heard.report.tenure = Tenure::Ended {
                    epoch: Epoch(number(value)),
                    end: None,
                    why: "postmaster died".to_owned(),
                };
                heard.ended_at.get_or_insert(self.now);
            }
            _ => said(&mut heard.report, key, value),
        }
    }

    fn own(&mut self, key: &str, value: &str) {
        let own = &mut self.local;
        match (key, value) {
            ("me", _) => own.me = value.into(),
            ("data", "unknown") => own.data = Data::Unknown,
            ("data", "absent") => own.data = Data::Absent,
            ("data", "unread") => {
                own.data = Data::Present {
                    system_id: SYSTEM,
                    end: None,
                }
            }
            ("data", _) => {
                own.data = Data::Present {
                    system_id: SYSTEM,
                    end: Some(wal_end(value)),
                }
            }
            ("alien", _) => {
                own.data = Data::Present {
                    system_id: number(value),
                    end: None,
                }
            }
            ("broken", _) => own.data = Data::Broken(value.to_owned()),
            ("down", _) => own.process = Process::Down,
            ("ending", _) => own.process = Process::Ending,
            ("up", "") => own.process = Process::Up(None),
            ("up", _) => own.process = Process::Up(Some(role(value))),
            ("used", _) => own.used = Epoch(number(value)),
            ("running", "none") => own.running = None,
            ("running", _) => own.running = Some(Epoch(number(value))),
            ("lease", _) => own.lease_epoch = Epoch(number(value)),
            ("left", _) => own.lease_until = self.now.plus(number(value)),
            ("guest", _) => own.guest = value != "no",
            ("leaving", _) => own.leaving = true,
            ("promised", _) => own.promised = (Epoch(number(value)), false),
            ("kept", _) => own.promised.1 = true,
            _ => panic!("local: {key}"),
        }
    }
}
