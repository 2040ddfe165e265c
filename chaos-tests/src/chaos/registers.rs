//! Registers: one value for each version, and versions that never go back for whoever looks later.

use crate::chaos::history::{Fate, RegisterOp};
use std::collections::BTreeMap;

/// What is wrong. Where commits may be lost, each timeline is a world of its own.
pub fn check(ops: &[&RegisterOp], each_timeline: bool) -> Vec<String> {
    let mut groups: BTreeMap<(i64, i32), Vec<&RegisterOp>> = BTreeMap::new();
    for op in ops
        .iter()
        .filter(|op| op.call.fate == Fate::Ok && op.saw.is_some())
    {
        let world = if each_timeline { op.call.timeline } else { 0 };
        groups.entry((op.key, world)).or_default().push(op);
    }
    groups
        .iter()
        .flat_map(|((key, world), group)| check_one(*key, *world, group))
        .collect()
}

fn check_one(key: i64, world: i32, group: &[&RegisterOp]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut values: BTreeMap<i64, i64> = BTreeMap::new();
    for (value, version) in group.iter().filter_map(|op| op.saw) {
        let known = *values.entry(version).or_insert(value);
        if known != value {
            wrong.push(format!(
                "register {key} (timeline {world}): version {version} is both {known} and {value}"
            ));
        }
    }
    let version = |op: &RegisterOp| op.saw.map_or(0, |(_, version)| version);
    let mut by_end: Vec<&RegisterOp> = group.to_vec();
    by_end.sort_by_key(|op| op.call.end);
    let mut by_begin: Vec<&RegisterOp> = group.to_vec();
    by_begin.sort_by_key(|op| op.call.begin);
    let mut over = by_end.iter().peekable();
    let mut newest: Option<&RegisterOp> = None;
    for op in by_begin {
        while let Some(ended) = over.next_if(|ended| ended.call.end < op.call.begin) {
            if newest.is_none_or(|newest| version(ended) > version(newest)) {
                newest = Some(ended);
            }
        }
        let floor = newest.map_or(-1, version);
        let is_new = version(op) > floor || (op.wrote.is_none() && version(op) == floor);
        if !is_new {
            wrong.push(format!(
                "register {key} (timeline {world}): {op:?} came after {newest:?}"
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::history::Call;

    fn op(begin: u64, end: u64, timeline: i32, wrote: Option<i64>, saw: (i64, i64)) -> RegisterOp {
        let call = Call {
            client: 0,
            node: 0,
            begin,
            end,
            fate: Fate::Ok,
            timeline,
            lsn: 0,
        };
        RegisterOp {
            call,
            key: 1,
            wrote,
            saw: Some(saw),
        }
    }

    fn wrong(ops: &[RegisterOp], each_timeline: bool) -> usize {
        check(&ops.iter().collect::<Vec<_>>(), each_timeline).len()
    }

    #[test]
    fn values_in_order_are_right_and_a_value_read_late_is_not() {
        let first = op(0, 1, 1, Some(10), (10, 1));
        let second = op(2, 3, 1, Some(20), (20, 2));
        assert_eq!(
            wrong(
                &[first.clone(), second.clone(), op(2, 3, 1, None, (10, 1))],
                false
            ),
            0
        );
        assert_eq!(
            wrong(
                &[first.clone(), second.clone(), op(4, 5, 1, None, (10, 1))],
                false
            ),
            1
        );
        // Another timeline may have lost the newest, but then it is another world.
        let late = op(4, 5, 2, None, (10, 1));
        assert_eq!(wrong(&[first.clone(), second.clone(), late.clone()], true), 0);
        assert_eq!(wrong(&[first, second, late], false), 1);
    }

    #[test]
    fn one_version_with_two_values_and_one_version_written_twice_are_found() {
        let first = op(0, 1, 1, Some(10), (10, 1));
        assert_eq!(wrong(&[first.clone(), op(0, 2, 1, None, (11, 1))], false), 1);
        assert_eq!(wrong(&[first, op(2, 3, 1, Some(12), (12, 1))], false), 2);
    }
}
