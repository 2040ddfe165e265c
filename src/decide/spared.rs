//! A node that could not become primary is not asked again at once, so that another one is; but where no other can, it
//! must not be long: it may be the only one that has everything, and what hindered it may be over.

use crate::cluster::Moment;

/// After the first failure; twice as long after each further one.
const FIRST_MS: u64 = 1_000;
/// At most.
const LONGEST_MS: u64 = 60_000;

/// Whether it is spared, and why.
#[derive(Clone, Debug, Default)]
pub struct Spared {
    why: String,
    until: Moment,
    failures: u32,
}

impl Spared {
    /// It did not become primary, for this reason.
    pub fn failed(&mut self, why: String, now: Moment) {
        let twice = self.failures.min(10);
        self.failures = self.failures.saturating_add(1);
        self.until = now.plus((FIRST_MS << twice).min(LONGEST_MS));
        self.why = why;
    }

    /// The operator's script was against it.
    pub fn declined(&mut self, why: String, until: Moment) {
        self.until = self.until.max(until);
        self.why = why;
    }

    /// It became primary.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Why it is not to be asked at this moment.
    pub fn why(&self, now: Moment) -> Option<&str> {
        (now < self.until).then_some(self.why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_spares_it_twice_as_long_up_to_a_minute() {
        let mut spared = Spared::default();
        let start = Moment(1_000_000);
        assert_eq!(spared.why(start), None);
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            spared.failed("it broke".to_owned(), start);
            assert_eq!(spared.why(start.plus(expected - 1)), Some("it broke"));
            assert_eq!(spared.why(start.plus(expected)), None);
        }
        spared.succeeded();
        spared.failed("again".to_owned(), start);
        assert_eq!(spared.why(start.plus(1_000)), None);
    }
}
