//! What happens when: made from the seed alone, before anything runs.

use crate::chaos::dice::Dice;
use crate::chaos::fault::Fault;

/// Calm before the first fault, milliseconds.
const CALM_MS: u64 = 4_000;

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in milliseconds after the load has started.
    pub at_ms: u64,
    /// Which.
    pub fault: Fault,
    /// How long until it is undone.
    pub hold_ms: u64,
    /// Chooses where the fault's name leaves a choice.
    pub pick: u64,
}

/// Faults for so many milliseconds. Each kind comes once before one comes a second time.
pub fn draw(seed: u64, length_ms: u64, kinds: &[Fault]) -> Vec<Entry> {
    let mut dice = Dice::new(seed);
    let mut entries = Vec::new();
    let mut at_ms = CALM_MS;
    let mut deck: Vec<Fault> = Vec::new();
    while at_ms < length_ms && !kinds.is_empty() {
        if deck.is_empty() {
            deck = kinds.to_vec();
            for i in (1..deck.len()).rev() {
                let other = dice.below(u64::try_from(i + 1).unwrap());
                deck.swap(i, usize::try_from(other).unwrap());
            }
        }
        let Some(fault) = deck.pop() else { break };
        // Short ones end before a lease does, long ones after it.
        let hold_ms = if dice.one_in(4) {
            dice.between(100, 1_500)
        } else {
            dice.between(2_500, 9_000)
        };
        entries.push(Entry {
            at_ms,
            fault,
            hold_ms,
            pick: dice.next_u64(),
        });
        // One in four comes while the last one lasts.
        at_ms += if dice.one_in(4) {
            hold_ms / 2
        } else {
            hold_ms + dice.between(500, 7_000)
        };
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_no_kind_comes_twice_before_all_came() {
        let first = draw(7, 600_000, Fault::ALL);
        assert_eq!(first, draw(7, 600_000, Fault::ALL));
        assert_ne!(first, draw(8, 600_000, Fault::ALL));
        let mut deck: Vec<Fault> = first
            .iter()
            .take(Fault::ALL.len())
            .map(|entry| entry.fault)
            .collect();
        deck.sort_unstable();
        assert_eq!(deck, Fault::ALL);
        assert!(draw(7, 600_000, &[]).is_empty());
    }

    #[test]
    fn every_fault_is_found_by_its_name() {
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(*fault));
        }
        assert_eq!(Fault::named("no-such"), None);
    }
}
