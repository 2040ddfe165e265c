//! Texts of clients and what they are read as, recorded in testdata/sql.txt.

use super::*;
use crate::decide::golden::recorded;
use proptest::prelude::*;
use std::fmt::Write;
use std::path::Path;

fn read(text: &[u8], size: usize) -> Reading {
    let mut reader = Reader::default();
    text.chunks(size).for_each(|piece| reader.read(piece));
    reader.finish()
}

fn told(reading: &Reading) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut told = String::new();
    let mut marks = reading.marks;
    while let Some(why) = marks.first() {
        writeln!(told, "| {why}").unwrap();
        marks.remove(why);
    }
    for name in &reading.configured {
        writeln!(told, "| set_config of {}", text(name)).unwrap();
    }
    for change in &reading.changes {
        let change = match change {
            Change::Set(name, whole) => format!("set {}: {}", text(name), text(whole)),
            Change::Reset(name) => format!("reset {}", text(name)),
            Change::Deallocate(name) => format!("deallocate {}", text(name)),
            other => format!("{other:?}"),
        };
        writeln!(told, "| {change}").unwrap();
    }
    if reading.statements != 1 {
        writeln!(told, "| {} statements", reading.statements).unwrap();
    }
    told
}

#[test]
fn texts_are_read_as_recorded_however_they_are_cut() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy/session/testdata/sql.txt");
    let script = std::fs::read_to_string(&file).unwrap();
    let mut found = String::new();
    for line in script.lines().filter(|line| !line.starts_with('|')) {
        writeln!(found, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let sql = line.replace("\\n", "\n");
        let reading = read(sql.as_bytes(), sql.len());
        for size in 1..sql.len().min(20) {
            assert_eq!(read(sql.as_bytes(), size), reading, "{sql} in pieces of {size}");
        }
        found.push_str(&told(&reading));
    }
    recorded(&file, &found);
}

proptest! {
    #[test]
    fn any_text_is_read_alike_in_pieces(text in "[a-zA-Z'\"$/*;(),.=0-9\\-\\\\ \n]{0,60}", size in 1_usize..9) {
        prop_assert_eq!(read(text.as_bytes(), size), read(text.as_bytes(), text.len().max(1)));
    }

    #[test]
    fn what_stands_behind_a_literal_is_still_seen(text in "[a-z$ ]{0,20}", way in 0..4) {
        let literal = match way {
            0 => format!("'{text}'"),
            1 => format!("E'{text}\\''"),
            2 => format!("\"{text}x\""),
            _ => format!("$q${text}$q$"),
        };
        // A name of its own directly behind a dollar sign would be a tag.
        prop_assume!(way != 3 || !text.contains("$q$"));
        let reading = read(format!("select {literal} ; listen x").as_bytes(), 7);
        prop_assert_eq!(reading.marks.first(), Some(Fixed::Listens), "{}", literal);
    }
}
