//! Who carries the address that stands where a proxy lives: whoever has it, as long as it can; then the first that could.
//!
//! It is guarded by a lease as primacy is, but is nobody's agreed office: what the leader granted it remembers, and a new
//! leader waits until whatever the last one granted has run out, unless the bearer itself asks on. So it stands on one node
//! at most, and a change of leader moves nothing.

use super::lease;
use super::view::Heard;
use crate::cluster::{Bearing, MemberName, Moment};
use std::collections::BTreeMap;

/// A node that was not heard of for so long is not chosen.
const SILENT_MS: u64 = 1_000;
/// An address outlives a daemon that cannot remove it by as much as the kernel's coarse clock for addresses allows.
const KERNEL_SLACK_MS: u64 = 500;

/// What the leader granted last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// To whom.
    pub to: MemberName,
    /// When.
    pub at: Moment,
}

/// Who may carry the address now, if anybody may. `lead_since` is when this leader began to lead.
pub fn bearer<'a>(
    heard: &'a BTreeMap<MemberName, Heard>,
    granted: Option<&'a Granted>,
    lead_since: Moment,
    wait_ttl_ms: u64,
    now: Moment,
) -> Option<&'a MemberName> {
    let is_over =
        |from: Option<Moment>| now >= lease::move_at(lead_since, from, wait_ttl_ms).plus(KERNEL_SLACK_MS);
    let fresh = || heard.iter().filter(|(_, heard)| now.since(heard.at) < SILENT_MS);
    let bears = || fresh().find(|(_, heard)| heard.report.bearing == Bearing::Bears);
    let free = match granted {
        Some(granted) => {
            let said = heard.get(&granted.to).filter(|heard| heard.at > granted.at);
            let gave_up = said.is_some_and(|heard| heard.report.bearing == Bearing::No);
            if !gave_up && !is_over(Some(granted.at)) {
                return Some(&granted.to);
            }
            true
        }
        None => match bears() {
            Some((name, _)) => return Some(name),
            None => is_over(None),
        },
    };
    fresh()
        .find(|(_, heard)| free && heard.report.bearing != Bearing::No)
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Report;

    const TTL: u64 = 2_000;
    /// When a lease that was granted at zero is surely over.
    const OVER: u64 = 2_620;

    fn heard(said: &[(&str, Bearing, u64)]) -> BTreeMap<MemberName, Heard> {
        let one = |(name, bearing, at): &(&str, Bearing, u64)| {
            let mut report = Report::first(crate::decide::script_words::member_info(name, 1));
            report.bearing = *bearing;
            let heard = Heard {
                report,
                at: Moment(*at),
                followed_at: Moment(0),
                streamed_at: Moment(0),
                ended_at: None,
            };
            ((*name).into(), heard)
        };
        said.iter().map(one).collect()
    }

    fn who(said: &[(&str, Bearing, u64)], granted: Option<(&str, u64)>, now: u64) -> Option<String> {
        let granted = granted.map(|(to, at)| Granted {
            to: to.into(),
            at: Moment(at),
        });
        let heard = heard(said);
        bearer(&heard, granted.as_ref(), Moment(0), TTL, Moment(now)).map(ToString::to_string)
    }

    #[test]
    fn the_first_that_can_gets_what_nobody_may_still_have() {
        use Bearing::{Able, No};
        let said = |at| [("a", No, at), ("b", Able, at), ("c", Able, at)];
        assert_eq!(
            who(&said(OVER - 1), None, OVER - 1),
            None,
            "a leader that has only begun"
        );
        assert_eq!(who(&said(OVER), None, OVER).as_deref(), Some("b"));
        assert_eq!(
            who(&said(OVER), None, OVER + 1_000),
            None,
            "heard of too long ago"
        );
    }

    #[test]
    fn who_bears_it_goes_on_under_a_new_leader_at_once() {
        use Bearing::{Able, Bears};
        let said = [("a", Able, 10), ("c", Bears, 10)];
        assert_eq!(who(&said, None, 20).as_deref(), Some("c"));
    }

    #[test]
    fn it_moves_when_its_bearer_gives_it_up_or_is_silent() {
        use Bearing::{Able, Bears, No};
        let at = 5_000;
        let others = |bearing, heard_at| [("a", Able, at + OVER), ("b", bearing, heard_at)];
        let granted = Some(("b", at));
        assert_eq!(
            who(&others(Bears, at), granted, at + OVER - 1).as_deref(),
            Some("b")
        );
        assert_eq!(who(&others(Bears, at), granted, at + OVER).as_deref(), Some("a"));
        let gave_up = [("a", Able, at + 9), ("b", No, at + 9)];
        assert_eq!(who(&gave_up, granted, at + 10).as_deref(), Some("a"));
        let before = [("a", Able, at + 9), ("b", No, at)];
        assert_eq!(
            who(&before, granted, at + 10).as_deref(),
            Some("b"),
            "said before the grant"
        );
    }
}
