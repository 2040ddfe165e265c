//! The table of rules as a golden file, situations as text in `testdata/plan`, and what no situation may bring about.

use super::super::script::{recorded, run_all, testdata};
use super::*;
use std::fmt::Write;

#[test]
fn the_table_is_the_one_that_was_reviewed() {
    let mut text = String::new();
    for rule in RULES {
        writeln!(text, "{:<17} {}", rule.name, rule.says).unwrap();
    }
    recorded(&testdata("rules.txt"), &text);
}

#[test]
fn situations_and_every_rule_is_met_in_one() {
    let fired = run_all("plan");
    let silent: Vec<_> = RULES
        .iter()
        .map(|rule| rule.name)
        .chain(["nobody"])
        .filter(|name| !fired.contains(name))
        .collect();
    assert!(silent.is_empty(), "no situation for {silent:?}");
}
