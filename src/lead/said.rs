//! Which verdicts of the leader are worth a line in the log: a judgement is made many times a second, and two rules may
//! take turns while reports come in one by one.

use crate::cluster::Moment;
use std::collections::VecDeque;

/// What was said this lately is not said again.
const MEMORY_MS: u64 = 2_000;

/// The lines of the last moments.
#[derive(Debug, Default)]
pub(super) struct Said {
    current: String,
    lately: VecDeque<(Moment, String)>,
}

impl Said {
    /// Whether this line, which holds now, is to be written.
    pub(super) fn is_news(&mut self, line: &str, now: Moment) -> bool {
        if line == self.current {
            return false;
        }
        line.clone_into(&mut self.current);
        while self
            .lately
            .front()
            .is_some_and(|(at, _)| now.since(*at) > MEMORY_MS)
        {
            self.lately.pop_front();
        }
        if self.lately.iter().any(|(_, said)| said == line) {
            return false;
        }
        self.lately.push_back((now, line.to_owned()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_said_once_and_what_takes_turns_is_not_said_at_every_turn() {
        let mut said = Said::default();
        let mut lines = |told: &[(&str, u64)]| -> Vec<bool> {
            let each = told.iter().map(|(line, at)| said.is_news(line, Moment(*at)));
            each.collect()
        };
        let turns = [
            ("a", 0),
            ("a", 9_000),
            ("b", 9_010),
            ("a", 9_020),
            ("b", 9_030),
            ("c", 9_040),
        ];
        assert_eq!(lines(&turns), [true, false, true, true, false, true]);
        assert_eq!(
            lines(&[("b", 11_100), ("a", 11_110), ("b", 11_120)]),
            [true, true, false]
        );
    }
}
