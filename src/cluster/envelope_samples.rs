//! One of each noun that is stored or sent, with something in every field.

use crate::cluster::*;
use std::collections::BTreeMap;

pub(super) fn info() -> MemberInfo {
    MemberInfo {
        name: "a".into(),
        raft_id: 0x1234,
        raft_addr: "10.0.0.1:2222".to_owned(),
        api_url: "http://a:8008/patroni".to_owned(),
        postgres: Some(Endpoint {
            host: "a".to_owned(),
            port: 5432,
        }),
        tags: Tags {
            nofailover: true,
            failover_priority: -1,
            noloadbalance: false,
            clonefrom: true,
            nosync: false,
            sync_priority: 2,
            shown: "{}".to_owned(),
        },
        incarnation: Some(Incarnation(5)),
        level: 1,
        pooler: Some(Box::new(Endpoint {
            host: "a".to_owned(),
            port: 6432,
        })),
    }
}

pub(super) fn promotion() -> Promotion {
    Promotion {
        timeline: Timeline(3),
        parent: Timeline(1),
        switch: Lsn(0x500_0060),
        member: "b".into(),
        incarnation: None,
        epoch: Epoch(4),
        rule: "lease-over".to_owned(),
        at_ms: 1_700_000_000_000,
    }
}

pub(super) fn orders() -> Vec<(&'static str, Order)> {
    let handover = HandoverOrder {
        failover: true,
        leader: Some("a".to_owned()),
        candidate: Some("b".to_owned()),
        scheduled_at: None,
        accept_data_loss: true,
    };
    vec![
        (
            "OrderConfigure",
            Order::Configure {
                config: "{}".to_owned(),
                whole: true,
                if_match: Some("*".to_owned()),
            },
        ),
        ("OrderHandover", Order::Handover(handover)),
        ("OrderCancelHandover", Order::CancelHandover),
        (
            "OrderRemove",
            Order::Remove {
                member: "c".to_owned(),
                force: true,
            },
        ),
        (
            "OrderAdd",
            Order::Add {
                member: "c".to_owned(),
            },
        ),
        ("OrderLook", Order::Look),
    ]
}

pub(super) fn handover() -> Handover {
    Handover {
        failover: false,
        from: Some("a".into()),
        to: None,
        at: Some(When {
            ms: 4_070_908_800_000,
            iso: "2099-01-01T00:00:00+00:00".to_owned(),
        }),
        accept_loss: false,
        under_way: Some(UnderWay {
            epoch: Epoch(4),
            to: "b".into(),
        }),
        asked: Revision(8),
    }
}

pub(super) fn acts() -> Vec<(&'static str, Act)> {
    let (member, epoch, timeline) = (MemberName::from("b"), Epoch(4), Timeline(3));
    let config = "{\"ttl\":2}".to_owned();
    let ttl_ms = 2_000;
    let judge = |fitness| Act::Judge {
        member: "b".into(),
        fitness,
    };
    vec![
        ("Register", Act::Register(info())),
        (
            "Bootstrap",
            Act::Bootstrap {
                member: member.clone(),
                epoch,
                config: config.clone(),
                ttl_ms,
            },
        ),
        (
            "Initialized",
            Act::Initialized {
                member: member.clone(),
                epoch,
                system_id: 7_300_000_000_000_000_007,
                timeline,
            },
        ),
        (
            "Promote",
            Act::Promote {
                member: member.clone(),
                epoch,
                timeline,
            },
        ),
        (
            "Restart",
            Act::Restart {
                member: member.clone(),
                epoch,
            },
        ),
        ("Promoted", Act::Promoted(promotion())),
        ("Judge fit", judge(Fitness::Fit)),
        ("Judge unfit", judge(Fitness::Unfit("away".to_owned()))),
        (
            "Configure",
            Act::Configure {
                config,
                ttl_ms,
                paused: true,
            },
        ),
        ("TtlSettled", Act::TtlSettled { ttl_ms }),
        (
            "Forget",
            Act::Forget {
                member: member.clone(),
            },
        ),
        ("Fence", Act::Fence { epoch }),
        (
            "Elect",
            Act::Elect {
                member,
                copy: Some(Incarnation(6)),
                epoch,
                timeline,
                quorum: quorum(),
            },
        ),
        (
            "Resync",
            Act::Resync {
                quorum: Some(quorum()),
            },
        ),
        ("Resync off", Act::Resync { quorum: None }),
        ("Settle", Act::Settle { epoch, serial: 3 }),
        ("Ask", Act::Ask(handover())),
        (
            "Begin",
            Act::Begin {
                epoch,
                to: "b".into(),
            },
        ),
        ("CallOff", Act::CallOff { asked: Revision(8) }),
        ("Resumed", Act::Resumed { since: Revision(8) }),
        ("Dismiss", Act::Dismiss { member: "c".into() }),
        ("Readmit", Act::Readmit { member: "c".into() }),
    ]
}

pub(super) fn command(act: Act) -> Command {
    Command {
        expected: Some(Revision(9)),
        vote: Vote {
            term: 6,
            node: 0x1234,
        },
        rule: "rule".to_owned(),
        reason: "why".to_owned(),
        at_ms: 1_700_000_000_000,
        act,
    }
}

pub(super) fn state(origin: Origin) -> State {
    let fitness = Fitness::Unfit("away".to_owned());
    let member = Member {
        info: info(),
        fitness,
    };
    State {
        revision: Revision(9),
        system_id: Some(7),
        members: BTreeMap::from([("a".into(), member)]),
        primacy: Primacy::Held {
            member: "b".into(),
            epoch: Epoch(4),
            origin,
            timeline: Some(Timeline(3)),
        },
        epoch: Epoch(4),
        first: Some(Timeline(1)),
        reserved: Timeline(3),
        timelines: vec![promotion()],
        events: vec![Event {
            revision: 8,
            epoch: Epoch(4),
            member: Some("b".into()),
            rule: "rule".to_owned(),
            reason: "why".to_owned(),
            at_ms: 1,
        }],
        config: "{}".to_owned(),
        ttl_ms: 2_000,
        wait_ttl_ms: 30_000,
        sync: Sync {
            quorums: vec![quorum()],
            serial: 3,
        },
        handover: Some(handover()),
        pause: Pause::Ending { since: Revision(9) },
        removed: BTreeMap::from([("c".into(), 0x4321)]),
        retired: [0x4321].into(),
    }
}

pub(super) fn quorum() -> Quorum {
    Quorum {
        primary: "b".into(),
        copy: Some(Incarnation(6)),
        members: BTreeMap::from([("a".into(), Incarnation(5))]),
        count: 1,
    }
}

pub(super) fn report(tenure: Tenure) -> Report {
    Report {
        info: info(),
        run: 77,
        sent_at: Moment(123_456),
        revision: Revision(9),
        tenure,
        postgres: Some(PostgresReport {
            state: PostgresState::Running,
            role: Role::Replica,
            server_version: 150_013,
            postmaster_start_time: Some("2026-11-21 02:41:13.370277+00:00".to_owned()),
            system_id: Some(7),
            timeline: Some(Timeline(3)),
            location: Some(Lsn(1)),
            received: Some(Lsn(2)),
            replayed: Some(Lsn(3)),
            replayed_timestamp: Some("2026-11-21".to_owned()),
            replay_paused: true,
            replication_state: Some("streaming".to_owned()),
            checkpointed: true,
            fork: Some(Fork {
                timeline: Timeline(3),
                parent: Timeline(1),
                switch: Lsn(4),
            }),
            streamed_in: Some(Epoch(4)),
            pending_restart: vec![("port".to_owned(), "1".to_owned(), "2".to_owned())],
            senders: vec![Sender {
                name: "c".to_owned(),
                streaming: true,
                flushed: Some(Lsn(5)),
                sync_state: "quorum".to_owned(),
            }],
            oldest: Some(Lsn(8)),
            said_ms: 40,
        }),
        unpromotable: Some("no".to_owned()),
        activity: Some("initdb".to_owned()),
        offer: Some(Offer {
            config: "{}".to_owned(),
            ttl_ms: 2_000,
            existing: Some(7),
            end: None,
            standby: true,
        }),
        promise: Some(Promise {
            epoch: Epoch(5),
            end: WalEnd {
                timeline: Timeline(3),
                lsn: Lsn(6),
            },
        }),
        synced: Some(Synced {
            epoch: Epoch(4),
            serial: 3,
        }),
        primary_answers: Some(true),
        rearmed: Some(Revision(9)),
        again: Some(Epoch(8)),
        scheduled_restart: Some(r#"{"schedule":"2099-01-01T00:00:00+00:00"}"#.to_owned()),
        serves: true,
        proxy: Some(Endpoint {
            host: "b".to_owned(),
            port: 5000,
        }),
        bearing: Bearing::Bears,
    }
}

pub(super) fn answer() -> Answer {
    Answer {
        sent_at: Moment(123_456),
        revision: Revision(9),
        grant: Some(Grant {
            epoch: Epoch(4),
            ttl_ms: 2_000,
        }),
        duplicate_of: Some("b:1".to_owned()),
        standing: Standing {
            rule: "healthy".to_owned(),
            reason: "why".to_owned(),
            candidates: vec![("a".into(), Some("no".to_owned())), ("b".into(), None)],
        },
        digest: vec![Seen {
            report: Report::first(info()),
            age_ms: 12,
        }],
        reign: Some((Epoch(4), 1_900)),
        bears_ms: Some(2_000),
    }
}
