//! Golden bytes of everything that is stored or sent (`testdata/envelope.txt`), and what is refused.
//!
//! A line that changes means that bytes of yesterday's program no longer decode: append variants at the end,
//! or raise the schema version and keep reading the old one.

use super::samples::*;
use super::*;
use crate::cluster::*;
use crate::decide::golden::recorded;
use std::fmt::{Debug, Write};
use std::path::Path;

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
    let about = PeerMessage::HeardOf(MemberName::from("a"));
    line(&mut text, Kind::Message, "HeardOf", &about);
    let age = PeerReply::HeardOf(Some(250));
    line(&mut text, Kind::Reply, "HeardOf", &age);
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
