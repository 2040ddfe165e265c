//! Conversations and what is known after them, recorded in testdata/sessions.txt; and properties of any conversation.

use super::*;
use crate::decide::golden::recorded;
use proptest::prelude::*;
use std::fmt::Write;
use std::path::Path;

const STARTUP: &[u8] = b"\0\0\0\x1b\0\x03\0\0user\0app\0database\0d\0\0";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

/// `Q select 1`, `P name: select 1`, `S TimeZone=UTC` and so on.
fn client(line: &str) -> Vec<u8> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let kind = kind.as_bytes()[0];
    let body = match kind {
        b'Q' => format!("{rest}\0"),
        b'P' => {
            let (name, text) = rest.split_once(": ").unwrap();
            format!("{name}\0{text}\0\0\0")
        }
        b'C' => format!("S{rest}\0"),
        b'E' => "\0\0\0\0\0".to_owned(),
        _ => rest.to_owned(),
    };
    message(kind, body.as_bytes())
}

fn server(line: &str) -> Vec<u8> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let kind = kind.as_bytes()[0];
    let body = match kind {
        b'Z' => rest.as_bytes().to_vec(),
        b'S' => format!("{}\0", rest.replace('=', "\0")).into_bytes(),
        b'K' => b"\0\0\x01\x02real".to_vec(),
        b'R' => vec![0; 4],
        b'N' | b'E' => format!("SX\0R{rest}\0\0").into_bytes(),
        _ => format!("{rest}\0").into_bytes(),
    };
    message(kind, &body)
}

fn login() -> Vec<u8> {
    let lines = [
        "R",
        "S client_encoding=UTF8",
        "S standard_conforming_strings=on",
        "S TimeZone=UTC",
        "K",
        "Z I",
    ];
    lines.map(server).concat()
}

fn logged_in() -> Follower {
    let mut follower = Follower::new(STARTUP, [b'x'; SECRET]);
    follower.follow_text();
    follower.backend(&mut login()).unwrap();
    follower
}

fn state(follower: &Follower) -> String {
    let mut told = String::from(if follower.is_idle() {
        "| rests"
    } else {
        "| is at work"
    });
    match follower.movable() {
        Ok(replay) => {
            told.push_str(", movable\n");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', " ");
            for setting in &replay.settings {
                writeln!(told, "| {}", text(setting)).unwrap();
            }
            for statement in &replay.statements {
                writeln!(told, "| statement {}", text(statement).trim_end()).unwrap();
            }
        }
        Err(why) => writeln!(told, ", stays: {why}").unwrap(),
    }
    told
}

fn forward(forward: Forward, of: usize) -> String {
    match forward {
        Forward { now, held: true, .. } => format!("| {now} of {of} go on, the rest is held\n"),
        Forward {
            now, farewell: true, ..
        } => format!("| {now} of {of} go on, the rest is a farewell\n"),
        _ => String::new(),
    }
}

#[test]
fn conversations_go_as_recorded() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy/session/testdata/sessions.txt");
    let script = std::fs::read_to_string(&file).unwrap();
    let (mut found, mut follower) = (String::new(), logged_in());
    for line in script.lines().filter(|line| !line.starts_with('|')) {
        writeln!(found, "{line}").unwrap();
        match line.split_at_checked(2) {
            Some(("> ", asked)) => asked
                .split(" + ")
                .for_each(|part| follower.frontend(&client(part)).unwrap()),
            Some(("< ", said)) => {
                let mut bytes = said.split(" + ").flat_map(server).collect::<Vec<_>>();
                let told = follower.backend(&mut bytes).unwrap();
                found.push_str(&forward(told, bytes.len()));
            }
            _ if line.starts_with("##") => follower = logged_in(),
            _ if line == "?" => found.push_str(&state(&follower)),
            _ if line == "cancel" => follower.cancel_sent(),
            _ if line == "settled" => follower.settled(),
            _ if line == "landed" => follower.landed(Landed {
                key: BackendKey::of(b"\0\0\x03\x04other"),
                parameters: follower.parameters.clone(),
            }),
            _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
        }
    }
    recorded(&file, &found);
}

#[test]
fn the_key_is_exchanged_while_it_passes() {
    for size in 1..=login().len() {
        let mut follower = Follower::new(STARTUP, [b'x'; SECRET]);
        let mut passed = Vec::new();
        for piece in login().chunks_mut(size) {
            assert!(!follower.is_ready());
            assert_eq!(follower.backend(piece).unwrap().now, piece.len());
            passed.extend_from_slice(piece);
        }
        assert!(follower.is_ready() && follower.is_idle());
        assert_eq!(follower.key(), BackendKey::of(b"\0\0\x01\x02real").as_ref());
        assert_eq!(
            follower.handed_key(),
            BackendKey::of(b"\0\0\x01\x02xxxx").as_ref()
        );
        let text = String::from_utf8_lossy(&passed).into_owned();
        assert!(text.contains("xxxx") && !text.contains("real"), "{text}");
    }
}

#[test]
fn a_session_that_is_not_followed_still_tells_whether_it_rests() {
    let mut follower = Follower::new(STARTUP, [0; SECRET]);
    follower.backend(&mut login()).unwrap();
    follower.frontend(&client("P : select my_function()")).unwrap();
    assert!(!follower.is_idle());
    follower.frontend(&client("S")).unwrap();
    follower
        .backend(&mut [server("1"), server("Z I")].concat())
        .unwrap();
    assert!(follower.is_idle());
    assert_eq!(follower.movable(), Err(Fixed::NotFollowed));
}

#[test]
fn more_than_is_kept_makes_a_session_stay() {
    let mut follower = logged_in();
    let text = "x".repeat(100 << 10);
    for (name, why) in [("a", None), ("b", None), ("c", Some(Fixed::TooMuch))] {
        let parse = client(&format!("P {name}: select '{text}'"));
        for piece in parse.chunks(1000) {
            follower.frontend(piece).unwrap();
        }
        follower.frontend(&client("S")).unwrap();
        follower
            .backend(&mut [server("1"), server("Z I")].concat())
            .unwrap();
        assert_eq!(follower.movable().err(), why);
    }
    follower.frontend(&client("Q deallocate all")).unwrap();
    follower
        .backend(&mut [server("C DEALLOCATE ALL"), server("Z I")].concat())
        .unwrap();
    assert_eq!(follower.movable().err(), Some(Fixed::TooMuch));
    let mut follower = logged_in();
    for at in 0..5000 {
        follower.frontend(&client("S")).unwrap();
        assert!(!follower.is_idle(), "{at}");
    }
    for _ in 0..5000 {
        follower.backend(&mut server("Z I")).unwrap();
    }
    assert!(!follower.is_idle(), "a pipeline that deep is not followed");
}

#[test]
fn what_is_no_protocol_is_an_error() {
    let http = b"GET / HTTP/1.1\r\n\r\n";
    assert_eq!(logged_in().frontend(http), Err(Garbled));
    assert_eq!(logged_in().backend(&mut http.to_vec()), Err(Garbled));
    assert_eq!(logged_in().frontend(b"Q\0\0\0\x03"), Err(Garbled));
    assert_eq!(logged_in().frontend(b"Q\x7f\xff\xff\xff"), Err(Garbled));
    assert_eq!(logged_in().backend(&mut message(b'Z', b"X")), Err(Garbled));
    assert_eq!(logged_in().backend(&mut message(b'Z', b"II")), Err(Garbled));
}

/// One side says something.
#[derive(Clone, Debug)]
enum Said {
    Client(&'static str),
    Server(&'static str),
}

fn said() -> impl Strategy<Value = Said> {
    let client = prop::sample::select(vec![
        "Q select 1",
        "Q set work_mem = '1MB'",
        "Q set work_mem = 1; listen x",
        "Q discard all",
        "P : select 1",
        "P a: select 2",
        "P b: set x.y = 1",
        "B",
        "E",
        "S",
        "C a",
        "d xyz",
        "c",
        "f no",
        "F",
        "H",
        "X",
    ]);
    let server = prop::sample::select(vec![
        "Z I",
        "Z T",
        "Z E",
        "C SET",
        "C DISCARD ALL",
        "1",
        "2",
        "3",
        "E x",
        "N x",
        "N SyncRepWaitForLSN",
        "G",
        "H",
        "D row",
        "S TimeZone=Asia/Tokyo",
        "S a=b",
        "K",
    ]);
    prop_oneof![client.prop_map(Said::Client), server.prop_map(Said::Server)]
}

/// The state after a conversation whose neighbouring bytes of one side come in pieces of this size, and what went on.
fn converse(all: &[Said], size: usize) -> (String, Vec<u8>) {
    let (mut follower, mut passed) = (logged_in(), Vec::new());
    let mut told = String::new();
    let one_side = |a: &Said, b: &Said| matches!(a, Said::Client(_)) == matches!(b, Said::Client(_));
    for run in all.chunk_by(one_side) {
        let mut bytes = run
            .iter()
            .flat_map(|said| match said {
                Said::Client(line) => client(line),
                Said::Server(line) => server(line),
            })
            .collect::<Vec<_>>();
        let mut kept = false;
        for piece in bytes.chunks_mut(size) {
            if matches!(run.first(), Some(Said::Client(_))) {
                follower.frontend(piece).unwrap();
            } else {
                let forward = follower.backend(piece).unwrap();
                let now = if kept { 0 } else { forward.now };
                kept |= forward.held || forward.farewell;
                passed.extend_from_slice(&piece[..now]);
            }
        }
        if kept {
            told.push('h');
            follower.settled();
        }
        told.push_str(&state(&follower));
    }
    (told, passed)
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_result(all in prop::collection::vec(said(), 0..30), size in 1_usize..40) {
        prop_assert_eq!(converse(&all, size), converse(&all, 1 << 20));
    }

    #[test]
    fn garbage_never_panics(
        client in prop::collection::vec(any::<u8>(), 0..200),
        mut server in prop::collection::vec(any::<u8>(), 0..200),
        kind in any::<u8>(),
    ) {
        let mut follower = logged_in();
        let _ = follower.frontend(&client);
        let _ = follower.backend(&mut server);
        let mut follower = logged_in();
        let _ = follower.frontend(&message(kind, &client));
        let _ = follower.backend(&mut message(kind, &server));
        let _ = follower.movable();
    }
}

#[test]
fn what_was_asked_and_not_answered_may_have_been_committed() {
    let mut follower = logged_in();
    assert!(!follower.is_asked());
    follower.frontend(&client("Q insert into t values (1)")).unwrap();
    assert!(follower.is_asked());
    let answer = [server("C INSERT 0 1"), server("Z I")].concat();
    follower.backend(&mut answer.clone()).unwrap();
    assert!(!follower.is_asked());
    // A wait for a standby that was given up: the answer may come, and is not known to be true.
    follower.frontend(&client("Q insert into t values (2)")).unwrap();
    let answer = [server("N SyncRepWaitForLSN"), answer].concat();
    assert!(follower.backend(&mut answer.clone()).unwrap().held);
    assert!(follower.is_asked());
    follower.settled();
    assert!(!follower.is_asked());
}

#[test]
fn a_client_knows_the_end_that_it_asked_for_or_that_its_server_told() {
    let mut follower = logged_in();
    follower.frontend(&client("Q select 1")).unwrap();
    follower.backend(&mut server("E ProcessInterrupts")).unwrap();
    assert!(follower.is_told_the_end());
    follower.backend(&mut server("Z I")).unwrap();
    assert!(!follower.is_told_the_end(), "that was one statement's error");
    follower.frontend(&client("X")).unwrap();
    assert!(follower.is_told_the_end());
}
