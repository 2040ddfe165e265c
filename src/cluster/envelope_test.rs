//! Golden bytes of everything that is stored or sent (`testdata/envelope.txt`), and what is refused.
//!
//! A line that changes means that bytes of yesterday's program no longer decode: append variants at the end,
//! or raise the schema version and keep reading the old one.

use super::*;
use crate::cluster::*;
use crate::decide::golden::recorded;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::path::Path;

fn info() -> MemberInfo {
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

fn promotion() -> Promotion {
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

fn orders() -> Vec<(&'static str, Order)> {
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

fn handover() -> Handover {
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

fn acts() -> Vec<(&'static str, Act)> {
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

fn command(act: Act) -> Command {
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

fn state(origin: Origin) -> State {
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

fn quorum() -> Quorum {
    Quorum {
        primary: "b".into(),
        copy: Some(Incarnation(6)),
        members: BTreeMap::from([("a".into(), Incarnation(5))]),
        count: 1,
    }
}

fn report(tenure: Tenure) -> Report {
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

fn answer() -> Answer {
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

/// One line of golden bytes, after reading them back.
fn line<T>(text: &mut String, kind: Kind, what: &str, noun: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = seal(kind, noun);
    assert_eq!(open::<T>(kind, &bytes).as_ref(), Ok(noun));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(text, "{kind:?} {what}: {hex}").unwrap();
}

#[test]
fn golden_bytes() {
    let mut text = String::new();
    for (what, act) in acts() {
        line(&mut text, Kind::Command, what, &command(act));
    }
    let unbound = Command {
        expected: None,
        ..command(Act::TtlSettled { ttl_ms: 0 })
    };
    line(&mut text, Kind::Command, "of any revision", &unbound);
    let applied = Outcome::Applied(Revision(9));
    let refused = Outcome::Refused("no".to_owned());
    line(&mut text, Kind::Outcome, "Applied", &applied);
    line(&mut text, Kind::Outcome, "Stale", &Outcome::Stale(Revision(9)));
    line(&mut text, Kind::Outcome, "Refused", &refused);
    line(&mut text, Kind::State, "empty", &State::default());
    for origin in [Origin::Bootstrap, Origin::Promotion, Origin::Restart] {
        line(&mut text, Kind::State, &format!("{origin:?}"), &state(origin));
    }
    let epoch = Epoch(4);
    let ended = |end| Tenure::Ended {
        epoch,
        end,
        why: "died".to_owned(),
    };
    let end = WalEnd {
        timeline: Timeline(3),
        lsn: Lsn(5),
    };
    let message = |tenure| PeerMessage::Report(Box::new(report(tenure)));
    for (what, tenure) in [
        ("None", Tenure::None),
        ("Holding", Tenure::Holding { epoch }),
        ("Ended", ended(Some(end))),
        ("Ended somewhere", ended(None)),
    ] {
        line(
            &mut text,
            Kind::Message,
            &format!("Report {what}"),
            &message(tenure),
        );
    }
    let first = PeerMessage::Report(Box::new(Report::first(info())));
    line(&mut text, Kind::Message, "Report first", &first);
    line(&mut text, Kind::Message, "Poke", &PeerMessage::Poke);
    line(&mut text, Kind::Reply, "Answer", &PeerReply::Answer(answer()));
    line(&mut text, Kind::Reply, "NotLeader", &PeerReply::NotLeader);
    line(&mut text, Kind::Reply, "Heard", &PeerReply::Heard);
    for (name, order) in orders() {
        line(
            &mut text,
            Kind::Message,
            name,
            &PeerMessage::Order(Box::new(order)),
        );
    }
    let done = Done::json(200, "{}").at(Revision(7));
    line(&mut text, Kind::Reply, "Done", &PeerReply::Done(done));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/testdata/envelope.txt");
    recorded(&file, &text);
}

/// The order of these is stored as a number.
#[test]
fn every_state_and_role_of_postgresql_has_its_number() {
    let states = [
        PostgresState::Initdb,
        PostgresState::InitdbFailed,
        PostgresState::CustomBootstrap,
        PostgresState::CustomBootstrapFailed,
        PostgresState::CreatingReplica,
        PostgresState::Running,
        PostgresState::Starting,
        PostgresState::BootstrapStarting,
        PostgresState::StartFailed,
        PostgresState::Restarting,
        PostgresState::RestartFailed,
        PostgresState::Stopping,
        PostgresState::Stopped,
        PostgresState::StopFailed,
        PostgresState::Crashed,
        PostgresState::Unknown,
    ];
    for (number, state) in states.iter().enumerate() {
        assert_eq!(seal(Kind::Message, state)[HEAD..], [number as u8]);
    }
    let roles = [Role::Uninitialized, Role::Primary, Role::Replica, Role::Demoted];
    for (number, role) in roles.iter().enumerate() {
        assert_eq!(seal(Kind::Message, role)[HEAD..], [number as u8]);
    }
}

fn sealed() -> Vec<u8> {
    seal(Kind::State, &state(Origin::Restart))
}

fn refused(bytes: &[u8]) -> BadBytes {
    open::<State>(Kind::State, bytes).unwrap_err()
}

#[test]
fn every_damaged_bit_is_noticed() {
    let damaged = BadBytes::Damaged(Kind::State);
    for at in 0..sealed().len() * 8 {
        let mut bytes = sealed();
        bytes[at / 8] ^= 1 << (at % 8);
        // Bits of the version byte make it a newer one, or version 0, which nobody wrote.
        let newer = matches!(refused(&bytes), BadBytes::Newer { .. });
        assert!(newer == (at / 8 == 3 && bytes[3] > VERSION), "bit {at}");
    }
    for length in 0..sealed().len() {
        assert_eq!(refused(&sealed()[..length]), damaged, "cut to {length} bytes");
    }
    let mut longer = sealed();
    longer.push(0);
    assert_eq!(refused(&longer), damaged);
}

#[test]
fn what_follows_the_noun_is_refused_even_with_a_right_checksum() {
    let mut payload = sealed()[HEAD..].to_vec();
    payload.push(0);
    let mut bytes = sealed()[..4].to_vec();
    bytes.extend(crc32c::crc32c(&payload).to_be_bytes());
    bytes.extend(payload);
    assert_eq!(refused(&bytes), BadBytes::Damaged(Kind::State));
}

#[test]
fn another_kind_is_refused() {
    let bytes = sealed();
    let wrong = open::<State>(Kind::Command, &bytes).unwrap_err();
    assert_eq!(wrong, BadBytes::Damaged(Kind::Command));
}

#[test]
fn a_newer_schema_says_so_whatever_it_holds() {
    let mut bytes = sealed();
    bytes[3] = VERSION + 1;
    bytes.truncate(HEAD);
    let why = refused(&bytes).to_string();
    assert_eq!(
        why,
        "State bytes have schema version 2, this program knows 1: upgrade this node"
    );
}

#[test]
fn an_unknown_variant_is_refused() {
    let mut payload = vec![0xfa];
    payload.extend([0; 30]);
    let mut bytes = b"Mt\x03\x01".to_vec();
    bytes[2] = Kind::Reply as u8;
    bytes.extend(crc32c::crc32c(&payload).to_be_bytes());
    bytes.extend(payload);
    let wrong = open::<PeerReply>(Kind::Reply, &bytes).unwrap_err();
    assert_eq!(wrong, BadBytes::Damaged(Kind::Reply));
}
