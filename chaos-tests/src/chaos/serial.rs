//! Strict serializability of transactions on lists: who must come before whom, and whether that goes round in a circle.
//!
//! A list that is only ever appended to tells its own history: the order of its values is the order of the transactions
//! that appended them, and a read shows exactly which of them came before it. That gives the edges
//!
//! - `ww`: appended before, `wr`: was read by, `rw`: read before this was appended,
//! - `rt`: was over before the other began (through one node per moment, so that there are few).
//!
//! A history is strictly serializable exactly when these edges make no circle, if the whole order of each list is
//! known. serial_test.rs compares this with trying all orders.

use crate::chaos::history::{Fate, ListTxn, Step};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// The order of each list's values.
pub type Orders = BTreeMap<i64, Vec<i64>>;

/// Why one transaction must come before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Appended(i64),
    ReadBy(i64),
    ReadBefore(i64),
    Time,
}

/// What is wrong with these transactions, given the order of the lists; nothing when it is empty. Where the orders are
/// not `complete`, a value that they lack says nothing.
pub fn check(txns: &[&ListTxn], orders: &Orders, complete: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut writer: HashMap<i64, usize> = HashMap::new();
    for (i, txn) in txns.iter().enumerate() {
        for step in &txn.steps {
            if let Step::Append(_, value) = step {
                writer.insert(*value, i);
            }
        }
    }
    let known: HashSet<i64> = orders.values().flatten().copied().collect();
    for (key, order) in orders {
        let mut seen = HashSet::new();
        for value in order {
            if !seen.insert(value) {
                wrong.push(format!("list {key} holds {value} twice"));
            }
            match writer.get(value).map(|i| txns[*i].call.fate) {
                Some(Fate::Failed) => {
                    wrong.push(format!("list {key} holds {value} of a transaction that failed"))
                }
                None => wrong.push(format!("list {key} holds {value}, which nobody appended")),
                Some(_) => {}
            }
        }
    }
    let counts: Vec<bool> = txns.iter().map(|txn| takes_part(txn, &known)).collect();
    let mut graph = Graph::new(txns.len());
    for (i, txn) in txns.iter().enumerate().filter(|(i, _)| counts[*i]) {
        let appends = txn.steps.iter().filter_map(|step| match step {
            Step::Append(_, value) => Some(value),
            Step::Read(..) => None,
        });
        let (there, gone): (Vec<i64>, Vec<i64>) = appends.partition(|value| known.contains(value));
        if complete && !gone.is_empty() {
            wrong.push(format!(
                "of a transaction ({:?}) {gone:?} are gone and {there:?} are there",
                txn.call.fate
            ));
        }
        own_order(txn, orders, &mut wrong);
        let reads = reads(i, txn, orders, complete, &writer, &mut graph);
        wrong.extend(reads);
    }
    for (key, order) in orders {
        for pair in order.windows(2) {
            if let (Some(a), Some(b)) = (writer.get(&pair[0]), writer.get(&pair[1])) {
                graph.add(*a, *b, Why::Appended(*key));
            }
        }
    }
    graph.add_time(txns, &counts);
    wrong.extend(graph.circles().into_iter().map(|circle| describe(&circle, txns)));
    wrong
}

/// Whether a transaction is part of what happened: it was acknowledged, or its effect is there.
fn takes_part(txn: &ListTxn, known: &HashSet<i64>) -> bool {
    let is_there = |step: &Step| matches!(step, Step::Append(_, value) if known.contains(value));
    match txn.call.fate {
        Fate::Ok => true,
        Fate::Unknown => txn.steps.iter().any(is_there),
        Fate::Failed => false,
    }
}

/// A transaction's own values stand in the order in which it appended them.
fn own_order(txn: &ListTxn, orders: &Orders, wrong: &mut Vec<String>) {
    let mut last: BTreeMap<i64, usize> = BTreeMap::new();
    for step in &txn.steps {
        let Step::Append(key, value) = step else { continue };
        let order = orders.get(key).map_or(&[][..], Vec::as_slice);
        let Some(place) = order.iter().position(|other| other == value) else {
            continue;
        };
        if last.insert(*key, place).is_some_and(|before| before > place) {
            wrong.push(format!(
                "list {key} holds {value} before an earlier one of its transaction"
            ));
        }
    }
}

/// Edges of a transaction's reads, and what is wrong with these.
fn reads(
    i: usize,
    txn: &ListTxn,
    orders: &Orders,
    complete: bool,
    writer: &HashMap<i64, usize>,
    graph: &mut Graph,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let empty = Vec::new();
    let mut own: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for step in &txn.steps {
        let (key, seen) = match step {
            Step::Append(key, value) => {
                own.entry(*key).or_default().push(*value);
                continue;
            }
            Step::Read(key, seen) => (key, seen),
        };
        let mine = own.get(key).unwrap_or(&empty);
        let Some(others) = seen.strip_suffix(mine.as_slice()) else {
            wrong.push(format!("{seen:?} of list {key} lacks the reader's own {mine:?}"));
            continue;
        };
        let order = orders.get(key).unwrap_or(&empty);
        let goes_beyond = !complete && others.starts_with(order);
        if !order.starts_with(others) && !goes_beyond {
            wrong.push(format!(
                "{} of list {key} is no beginning of {}",
                tail(others),
                tail(order)
            ));
            continue;
        }
        if let Some(before) = others.last().and_then(|value| writer.get(value)) {
            graph.add(*before, i, Why::ReadBy(*key));
        }
        let rest = order.get(others.len()..).unwrap_or_default();
        let next = rest.iter().find(|value| !mine.contains(value));
        if let Some(after) = next.and_then(|value| writer.get(value)) {
            graph.add(i, *after, Why::ReadBefore(*key));
        }
    }
    wrong
}

/// The end of a list, for people.
fn tail(list: &[i64]) -> String {
    format!(
        "[..{} values.. {:?}]",
        list.len().saturating_sub(6),
        &list[list.len().saturating_sub(6)..]
    )
}

fn describe(circle: &[(usize, Why)], txns: &[&ListTxn]) -> String {
    let steps = circle.iter().map(|(i, why)| {
        let call = &txns.get(*i).map(|txn| &txn.call);
        let name = call.map_or("a moment".to_owned(), |call| {
            format!(
                "client {} on node{} [{}..{} ms, timeline {}, {:?}]",
                call.client,
                call.node + 1,
                call.begin / 1_000_000,
                call.end / 1_000_000,
                call.timeline,
                call.fate
            )
        });
        format!("{name} -{why:?}->")
    });
    format!("a circle: {}", steps.collect::<Vec<_>>().join(" "))
}

/// Who must come before whom.
struct Graph {
    after: Vec<Vec<(usize, Why)>>,
}

impl Graph {
    fn new(nodes: usize) -> Self {
        Self {
            after: vec![Vec::new(); nodes],
        }
    }

    fn add(&mut self, before: usize, after: usize, why: Why) {
        if before != after {
            self.after[before].push((after, why));
        }
    }

    /// Nodes for moments: what was over before a moment comes before what began after it.
    fn add_time(&mut self, txns: &[&ListTxn], counts: &[bool]) {
        let mut ends: Vec<(u64, usize)> = txns
            .iter()
            .enumerate()
            .filter(|(i, txn)| counts[*i] && txn.call.fate == Fate::Ok)
            .map(|(i, txn)| (txn.call.end, i))
            .collect();
        ends.sort_unstable();
        let first = self.after.len();
        for (moment, (_, txn)) in ends.iter().enumerate() {
            self.after.push(Vec::new());
            self.add(*txn, first + moment, Why::Time);
            if moment > 0 {
                self.add(first + moment - 1, first + moment, Why::Time);
            }
        }
        for (i, txn) in txns.iter().enumerate().filter(|(i, _)| counts[*i]) {
            let over = ends.partition_point(|(end, _)| *end < txn.call.begin);
            if over > 0 {
                self.add(first + over - 1, i, Why::Time);
            }
        }
    }

    /// One short circle of every knot.
    fn circles(&self) -> Vec<Vec<(usize, Why)>> {
        let knots = self.knots();
        knots
            .iter()
            .filter(|knot| knot.len() > 1)
            .map(|knot| self.shortest(knot))
            .collect()
    }

    /// Strongly connected components (Tarjan's algorithm, without recursion: histories are long).
    fn knots(&self) -> Vec<Vec<usize>> {
        let count = self.after.len();
        let (mut index, mut low) = (vec![usize::MAX; count], vec![0; count]);
        let (mut on_stack, mut stack, mut knots) = (vec![false; count], Vec::new(), Vec::new());
        let mut next = 0;
        for root in 0..count {
            if index[root] != usize::MAX {
                continue;
            }
            let mut work = vec![(root, 0)];
            while let Some((node, edge)) = work.pop() {
                if edge == 0 {
                    (index[node], low[node]) = (next, next);
                    next += 1;
                    stack.push(node);
                    on_stack[node] = true;
                }
                if let Some((after, _)) = self.after[node].get(edge) {
                    work.push((node, edge + 1));
                    if index[*after] == usize::MAX {
                        work.push((*after, 0));
                    } else if on_stack[*after] {
                        low[node] = low[node].min(index[*after]);
                    }
                    continue;
                }
                if low[node] == index[node] {
                    let start = stack.iter().rposition(|other| *other == node).unwrap();
                    let knot = stack.split_off(start);
                    knot.iter().for_each(|other| on_stack[*other] = false);
                    knots.push(knot);
                }
                if let Some((parent, _)) = work.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
            }
        }
        knots
    }

    /// A shortest circle through the first node of a knot.
    fn shortest(&self, knot: &[usize]) -> Vec<(usize, Why)> {
        let inside: HashSet<usize> = knot.iter().copied().collect();
        let start = knot.iter().copied().min().unwrap();
        let mut from: HashMap<usize, (usize, Why)> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for (after, why) in self.after[node]
                .iter()
                .filter(|(after, _)| inside.contains(after))
            {
                if from.contains_key(after) {
                    continue;
                }
                from.insert(*after, (node, *why));
                if *after == start {
                    return walk_back(start, &from);
                }
                queue.push_back(*after);
            }
        }
        Vec::new()
    }
}

fn walk_back(start: usize, from: &HashMap<usize, (usize, Why)>) -> Vec<(usize, Why)> {
    let mut circle = Vec::new();
    let mut node = start;
    loop {
        let (before, why) = from[&node];
        circle.push((before, why));
        node = before;
        if node == start {
            circle.reverse();
            return circle;
        }
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod tests;
