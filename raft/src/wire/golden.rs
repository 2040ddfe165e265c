//! The bytes of every stored and sent type, one by one, in golden.txt. A changed line there breaks files that exist and
//! peers that run: raise the type's version instead. MATRIARCH_RECORD=1 writes the file anew.

use proptest::prelude::*;

use crate::types::{Entry, Membership, SnapshotMeta};
use crate::wire::envelope::{EnvelopeError, Sealed, open, seal};
use crate::wire::message::*;
use crate::wire::stored::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The golden text under construction.
#[derive(Default)]
struct Text(String);

impl Text {
    fn add<T: Sealed + PartialEq + std::fmt::Debug>(&mut self, value: T) {
        let bytes = seal(&value).unwrap();
        assert_eq!(open::<T>(&bytes).unwrap(), value);
        self.0 += &format!("{value:?}\n    {}\n", hex(&bytes));
    }
}

fn log_id(index: u64) -> LogIdBytes {
    LogIdBytes {
        term: 3,
        node: 700,
        index,
    }
}

fn vote() -> VoteBytes {
    VoteBytes {
        term: 3,
        node: 700,
        committed: true,
    }
}

fn membership() -> MembershipBytes {
    let member = MemberBytes {
        id: 700,
        addr: "a:1".to_owned(),
        incarnation: 5,
        generation: 9,
    };
    MembershipBytes {
        voters: vec![vec![700]],
        members: vec![member],
    }
}

fn entry(payload: PayloadBytes) -> EntryBytes {
    EntryBytes {
        id: log_id(8),
        payload,
    }
}

fn stored_values(text: &mut Text) {
    text.add(log_id(8));
    text.add(vote());
    text.add(entry(PayloadBytes::Blank));
    text.add(entry(PayloadBytes::Command(vec![1, 2, 255])));
    text.add(entry(PayloadBytes::Membership(membership())));
    text.add(SnapshotHead {
        last: Some(log_id(8)),
        membership_at: Some(log_id(0)),
        membership: membership(),
    });
    text.add(NodeBytes {
        addr: "a:1".to_owned(),
        incarnation: 5,
        generation: 9,
        foundation: 1,
        admitted: true,
    });
    text.add(FormationBytes {
        founders: vec!["a:1".to_owned()],
        seen: vec![("b:1".to_owned(), 6)],
    });
}

fn handshake(text: &mut Text) {
    let hello = Hello {
        protocol: (1, 2),
        cluster: "demo".to_owned(),
        name: "n1".to_owned(),
        addr: "a:1".to_owned(),
        id: 700,
        incarnation: 5,
        generation: 9,
        foundation: 1,
        to: 701,
        lane: Lane::Message,
        nonce: [7; 32],
    };
    text.add(Hello {
        lane: Lane::Leisure,
        ..hello.clone()
    });
    text.add(hello);
    let (cluster, name) = ("demo".to_owned(), "n1".to_owned());
    text.add(Welcome {
        protocol: 1,
        cluster,
        name,
        id: 700,
        foundation: 1,
        nonce: [7; 32],
    });
    text.add(Proof { mac: [9; 32] });
    text.add(Verdict {
        mac: [9; 32],
        accepted: Acceptance::Yes,
    });
    text.add(Verdict {
        mac: [9; 32],
        accepted: Acceptance::OtherId,
    });
    text.add(Verdict {
        mac: [9; 32],
        accepted: Acceptance::Replaced,
    });
    text.add(Verdict {
        mac: [9; 32],
        accepted: Acceptance::NotReady,
    });
    text.add(Verdict {
        mac: [9; 32],
        accepted: Acceptance::Foreign,
    });
}

fn requests(text: &mut Text) {
    let append = AppendBytes {
        vote: vote(),
        previous: Some(log_id(7)),
        entries: vec![entry(PayloadBytes::Blank)],
        commit: None,
    };
    let ballot = || BallotBytes {
        vote: vote(),
        last: Some(log_id(8)),
        transfer: true,
    };
    let piece = PieceBytes {
        vote: vote(),
        head: SnapshotHead::default(),
        total: 3,
        offset: 1,
        bytes: vec![1, 2],
    };
    text.add(Request::Append(append));
    text.add(Request::Vote(ballot()));
    text.add(Request::PreVote(ballot()));
    text.add(Request::Transfer {
        from: vote(),
        to: 701,
        last: None,
    });
    text.add(Request::Piece(piece));
    text.add(Request::Standing {
        founders: vec!["a:1".to_owned()],
        claim: 6,
    });
    text.add(Request::Join {
        addr: "a:1".to_owned(),
        incarnation: 6,
    });
    text.add(Request::Propose(vec![1]));
    text.add(Request::Message(vec![1]));
    text.add(Request::Watch {
        applied: 8,
        leader: 700,
    });
    text.add(Request::Tell(vec![1]));
}

fn responses(text: &mut Text) {
    let founders = || vec!["a:1".to_owned()];
    let seen = || vec![("b:1".to_owned(), 6)];
    let leader = || Some("a:1".to_owned());
    text.add(Response::Append(AppendAnswer::Success));
    text.add(Response::Append(AppendAnswer::Partial(Some(log_id(8)))));
    text.add(Response::Append(AppendAnswer::Conflict));
    text.add(Response::Append(AppendAnswer::HigherVote(vote())));
    text.add(Response::Vote {
        vote: vote(),
        granted: true,
        last: None,
    });
    text.add(Response::Transfer { accepted: true });
    text.add(Response::Piece { vote: vote() });
    text.add(Response::Standing(Standing::Empty {
        founders: founders(),
        claim: 6,
    }));
    text.add(Response::Standing(Standing::Formed {
        founders: founders(),
        seen: seen(),
    }));
    text.add(Response::Standing(Standing::Member {
        leader: leader(),
        founders: founders(),
        seen: seen(),
    }));
    text.add(Response::Standing(Standing::Joiner));
    text.add(Response::Join(JoinAnswer::Admitted {
        generation: 9,
        foundation: 1,
    }));
    text.add(Response::Join(JoinAnswer::Elsewhere { leader: leader() }));
    text.add(Response::Join(JoinAnswer::Later { why: "no".to_owned() }));
    text.add(Response::Propose(ProposeAnswer::Applied(vec![1])));
    text.add(Response::Propose(ProposeAnswer::NotLeading));
    text.add(Response::Propose(ProposeAnswer::Unknown("no".to_owned())));
    text.add(Response::Message(vec![1]));
    text.add(Response::Refused("no".to_owned()));
    text.add(Response::Removed("no".to_owned()));
    text.add(Response::Watch(WatchBytes {
        foundation: 1,
        term: 3,
        applied: 8,
        leader: 700,
        voters: vec![(700, "n1".to_owned(), "a:1".to_owned())],
        learners: Vec::new(),
        state: Some(vec![1]),
    }));
}

#[test]
fn every_stored_and_sent_type_keeps_its_bytes() {
    let mut text = Text::default();
    stored_values(&mut text);
    handshake(&mut text);
    requests(&mut text);
    responses(&mut text);
    if std::env::var_os("MATRIARCH_RECORD").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/golden.txt"),
            &text.0,
        )
        .unwrap();
        return;
    }
    for (ours, recorded) in text.0.lines().zip(include_str!("golden.txt").lines()) {
        assert_eq!(ours, recorded);
    }
    assert_eq!(text.0.lines().count(), include_str!("golden.txt").lines().count());
}

#[test]
fn ids_are_a_function_of_cluster_address_and_incarnation() {
    assert_eq!(
        crate::types::node_id("demo", "127.0.0.1:2222", 0),
        13612239902693266022
    );
    assert_ne!(
        crate::types::node_id("demo", "a:1", 0),
        crate::types::node_id("demo", "a:1", 1)
    );
    assert_ne!(
        crate::types::node_id("demo", "a:1", 0),
        crate::types::node_id("dem", "oa:1", 0)
    );
}

#[test]
fn openrafts_values_survive_the_way_through_ours() {
    for payload in [
        PayloadBytes::Blank,
        PayloadBytes::Command(vec![1]),
        PayloadBytes::Membership(membership()),
    ] {
        let there: Entry = entry(payload.clone()).into_entry().unwrap();
        assert_eq!(EntryBytes::from(&there), entry(payload));
    }
    let members = Membership::try_from(membership()).unwrap();
    assert_eq!(MembershipBytes::from(&members), membership());
    let head = SnapshotHead {
        last: Some(log_id(8)),
        membership_at: None,
        membership: membership(),
    };
    assert_eq!(
        SnapshotHead::from(&SnapshotMeta::try_from(head.clone()).unwrap()),
        head
    );
    let voter_without_member = MembershipBytes {
        voters: vec![vec![1]],
        members: Vec::new(),
    };
    assert!(Membership::try_from(voter_without_member).is_err());
}

#[test]
fn damage_is_refused_by_its_name() {
    let good = seal(&vote()).unwrap();
    assert!(matches!(
        open::<LogIdBytes>(&good),
        Err(EnvelopeError::Kind {
            found: 2,
            expected: 1
        })
    ));
    let reseal = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good[..good.len() - 4].to_vec();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes).to_le_bytes();
        bytes.extend(crc);
        open::<VoteBytes>(&bytes)
    };
    assert!(matches!(
        reseal(&|b| b[3] = 9),
        Err(EnvelopeError::Version { found: 9, known: 1 })
    ));
    assert!(
        matches!(reseal(&|b| b.push(0)), Err(EnvelopeError::Damaged(_))),
        "trailing bytes"
    );
    assert!(
        matches!(reseal(&|b| b[0] = 0), Err(EnvelopeError::Damaged(_))),
        "magic"
    );
    // A length prefix that claims 2^60 bytes must not be believed.
    let mut bomb = vec![b'M', b'R', Request::KIND, 1, 8, 253];
    bomb.extend((1u64 << 60).to_le_bytes());
    bomb.extend(crc32c::crc32c(&bomb).to_le_bytes());
    assert!(matches!(open::<Request>(&bomb), Err(EnvelopeError::Damaged(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 1u8..22) {
        let mut sealed = vec![b'M', b'R', kind, 1];
        sealed.extend(&bytes);
        let crc = crc32c::crc32c(&sealed).to_le_bytes();
        sealed.extend(crc);
        let _ = open::<Request>(&sealed);
        let _ = open::<Response>(&sealed);
        let _ = open::<Hello>(&sealed);
        let _ = open::<EntryBytes>(&bytes);
    }

    #[test]
    fn one_flipped_bit_is_noticed(at in 0usize..20, bit in 0u8..8) {
        let mut bytes = seal(&log_id(8)).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(open::<LogIdBytes>(&bytes).is_err());
    }
}
