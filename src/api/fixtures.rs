//! A herd of three for the tests: node0 leads, node1 and node2 stream from it, nothing lags.

use crate::cluster::{
    Bearing, Endpoint, Epoch, Event, Facts, Fitness, GuardFacts, Incarnation, LeaseFacts, Lsn, Member,
    MemberInfo, MemberName, Moment, Origin, PostgresReport, PostgresState, Primacy, Promotion, Quorum,
    RaftFacts, Report, Revision, Role, Seen, Settings, Standing, State, SyncMode, Tags, Tenure, Timeline,
    Vitals, WalSender,
};
use std::path::Path;
use std::sync::Arc;

/// The moment of every question.
pub(crate) const NOW: Moment = Moment(100_000);
const AT: Lsn = Lsn(83_886_176);
const TAGS: [&str; 3] = [
    r#"{"zone": "z0", "num": 1.4}"#,
    r#"{"clonefrom": true, "zone": "z1", "num": 1.4}"#,
    r#"{"zone": "z2", "num": 1.4}"#,
];
const STARTED: [&str; 3] = ["13.370277", "16.753995", "16.801222"];

/// What the node of that number knows.
pub(crate) fn facts(node: usize) -> Facts {
    let reports: Vec<Report> = (0..3).map(report).collect();
    Facts {
        me: name(node),
        scope: "demo".into(),
        state: Arc::new(state()),
        settings: Arc::new(Settings::default()),
        report: Arc::new(report(node)),
        members: Arc::new(
            reports
                .into_iter()
                .map(|report| Seen { report, age_ms: 50 })
                .collect(),
        ),
        members_at: Moment(NOW.0 - 100),
        lease: LeaseFacts {
            epoch: Epoch(1),
            until: if node == 0 { NOW.plus(1_734) } else { Moment(0) },
        },
        reign: LeaseFacts {
            epoch: Epoch(1),
            until: NOW.plus(1_500),
        },
        bears_until: Moment(0),
        gate_open: node == 0,
        raft: RaftFacts {
            id: 11,
            leader: Some(name(1)),
            leading: node == 1,
            term: 4,
            last_log: 17,
            applied: 17,
            voters: (0..3).map(|n| format!("127.0.0.1:222{n}")).collect(),
            voter_ids: (0..3).collect(),
            learner_ids: Vec::new(),
        },
        walsenders: if node == 0 {
            vec![walsender(1), walsender(2)]
        } else {
            Vec::new()
        },
        latest_end: (node != 0).then_some(AT),
        standing: Some(standing()),
        last_seen_s: 1_795_228_888,
        last_seen: Moment(NOW.0 - 120),
        loop_at: Moment(NOW.0 - 80),
        vitals: Vitals {
            guard: Some(GuardFacts {
                connected: true,
                ..GuardFacts::default()
            }),
            gap_ms: None,
            proxy: None,
        },
    }
}

/// The state they agree on.
pub(crate) fn state() -> State {
    State {
        revision: Revision(9),
        system_id: Some(7_710_449_293_417_045_261),
        members: (0..3)
            .map(|node| {
                (
                    name(node),
                    Member {
                        info: info(node),
                        fitness: Fitness::Fit,
                    },
                )
            })
            .collect(),
        primacy: Primacy::Held {
            member: name(0),
            epoch: Epoch(1),
            origin: Origin::Bootstrap,
            timeline: Some(Timeline(1)),
        },
        epoch: Epoch(1),
        first: Some(Timeline(1)),
        reserved: Timeline(1),
        events: vec![Event {
            revision: 4,
            epoch: Epoch(1),
            member: Some(name(0)),
            rule: "bootstrap".into(),
            reason: "all members are empty, node0 has the first name".into(),
            at_ms: 1_795_228_870_000,
        }],
        config: r#"{"ttl":20,"loop_wait":2,"postgresql":{"parameters":{"max_connections":100}}}"#.into(),
        ttl_ms: 2_000,
        wait_ttl_ms: 2_000,
        ..State::default()
    }
}

/// A promotion of node1.
pub(crate) fn promotion() -> Promotion {
    Promotion {
        timeline: Timeline(2),
        parent: Timeline(1),
        switch: Lsn(83_886_880),
        member: name(1),
        incarnation: None,
        epoch: Epoch(2),
        rule: "holder-gone".into(),
        at_ms: 1_795_228_944_394,
    }
}

/// Commits wait for one of node1 and node2, or for node1 alone, as the mode says.
pub(crate) fn make_synchronous(facts: &mut Facts, mode: SyncMode) {
    let copy = |node: usize| Incarnation(node as u64 + 100);
    Arc::make_mut(&mut facts.settings).synchronous_mode = mode;
    let state = Arc::make_mut(&mut facts.state);
    for (node, member) in state.members.values_mut().enumerate() {
        member.info.incarnation = Some(copy(node));
    }
    for (node, seen) in Arc::make_mut(&mut facts.members).iter_mut().enumerate() {
        seen.report.info.incarnation = Some(copy(node));
    }
    let me = state.members.get(&facts.me).map(|member| member.info.clone());
    Arc::make_mut(&mut facts.report).info.incarnation = me.and_then(|info| info.incarnation);
    let members = if mode == SyncMode::On { 1..2 } else { 1..3 };
    state.sync.quorums = vec![Quorum {
        primary: name(0),
        copy: Some(copy(0)),
        members: members.map(|node| (name(node), copy(node))).collect(),
        count: 1,
    }];
    for sender in &mut facts.walsenders {
        let counts = state.sync.quorums[0]
            .members
            .contains_key(&sender.application_name.as_str().into());
        sender.sync_state = match mode {
            SyncMode::Quorum if counts => "quorum",
            SyncMode::On if counts => "sync",
            _ => "async",
        }
        .into();
        sender.sync_priority = i32::from(counts);
    }
}

/// A third voter without data.
pub(crate) fn add_witness(facts: &mut Facts) {
    let mut witness = info(2);
    witness.name = "witness".into();
    witness.postgres = None;
    let state = Arc::make_mut(&mut facts.state);
    state.members.insert(
        witness.name.clone(),
        Member {
            info: witness.clone(),
            fitness: Fitness::Fit,
        },
    );
    let report = Report {
        info: witness,
        postgres: None,
        ..report(2)
    };
    Arc::make_mut(&mut facts.members).push(Seen { report, age_ms: 40 });
}

pub(crate) fn name(node: usize) -> MemberName {
    MemberName(format!("node{node}"))
}

fn info(node: usize) -> MemberInfo {
    let tags = Tags {
        clonefrom: node == 1,
        shown: TAGS[node].into(),
        ..Tags::default()
    };
    let number = u16::try_from(node).unwrap();
    MemberInfo {
        name: name(node),
        raft_id: u64::from(number) + 10,
        raft_addr: format!("127.0.0.1:222{node}"),
        api_url: format!("http://127.0.0.1:{}/patroni", 8108 + number),
        postgres: Some(Endpoint {
            host: "127.0.0.1".into(),
            port: 5461 + number,
        }),
        tags,
        incarnation: None,
        level: 1,
        pooler: None,
    }
}

fn report(node: usize) -> Report {
    let standby = node != 0;
    let postgres = PostgresReport {
        state: PostgresState::Running,
        role: if standby { Role::Replica } else { Role::Primary },
        server_version: 150_018,
        postmaster_start_time: Some(format!("2026-11-21 02:41:{}+00:00", STARTED[node])),
        system_id: Some(7_710_449_293_417_045_261),
        timeline: Some(Timeline(1)),
        location: (!standby).then_some(AT),
        received: standby.then_some(AT),
        replayed: standby.then_some(AT),
        replication_state: standby.then(|| "streaming".into()),
        ..PostgresReport::default()
    };
    Report {
        again: None,
        scheduled_restart: None,
        proxy: None,
        bearing: Bearing::No,
        sent_at: Moment(NOW.0 - 150),
        tenure: if standby {
            Tenure::None
        } else {
            Tenure::Holding { epoch: Epoch(1) }
        },
        postgres: Some(postgres),
        info: info(node),
        run: 7,
        revision: Revision(9),
        unpromotable: None,
        activity: None,
        offer: None,
        promise: None,
        synced: None,
        primary_answers: None,
        rearmed: None,
        serves: node == 0,
    }
}

fn standing() -> Standing {
    Standing {
        rule: "healthy".into(),
        reason: "node0 renews its lease".into(),
        candidates: vec![
            (name(0), Some("it is the primary".into())),
            (name(1), None),
            (name(2), Some("it is 3 MB behind".into())),
        ],
    }
}

fn walsender(node: usize) -> WalSender {
    WalSender {
        flushed: Some(AT),
        usename: "replicator".into(),
        application_name: name(node).0,
        client_addr: Some("127.0.0.1".into()),
        state: "streaming".into(),
        sync_state: "async".into(),
        sync_priority: 0,
    }
}

/// Changes the local PostgreSQL's report.
pub(crate) fn postgres(facts: &mut Facts) -> &mut PostgresReport {
    Arc::make_mut(&mut facts.report).postgres.as_mut().unwrap()
}

/// Compares `actual` with a recorded file below `src/`; `MATRIARCH_RECORD=1` records it instead.
#[track_caller]
pub(crate) fn recorded(path: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path);
    if std::env::var_os("MATRIARCH_RECORD").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; now it is:\n{actual}",
        path.display()
    );
}
