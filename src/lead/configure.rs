//! An order to change the dynamic configuration: merged, checked and proposed where Raft leads.

use super::orders::Judged;
use crate::cluster::{Act, Done, State};
use crate::config;

/// Patroni's code for a change that came too late, where HTTP would have 412 too.
const OTHER: &str =
    "the configuration is not the one that If-Match names any more: read it again, nothing was changed";

/// What the order comes to on this state. A change that changes nothing is answered with what is there.
pub(super) fn configure(change: &str, whole: bool, if_match: Option<&str>, state: &State) -> Judged {
    if state.config.is_empty() {
        return Judged::Answer(Done::text(503, "the cluster has no configuration yet"));
    }
    if if_match.is_some_and(|meant| !config::is_meant(meant, &state.config)) {
        return Judged::Answer(Done::text(409, OTHER));
    }
    let text = match config::amended(&state.config, change, whole) {
        Ok(Some(text)) => text,
        Ok(None) => return Judged::Answer(Done::json(200, state.config.clone())),
        Err(why) => return Judged::Answer(Done::text(400, why)),
    };
    let settings = match config::settings(&text) {
        Ok(settings) => settings,
        Err(problems) => {
            let sentences: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return Judged::Answer(Done::text(422, sentences.join("; ")));
        }
    };
    let act = Act::Configure {
        config: text.clone(),
        ttl_ms: settings.ttl_ms,
        paused: settings.paused,
    };
    let reason = if whole {
        "an operator replaced the dynamic configuration"
    } else {
        "an operator changed the dynamic configuration"
    };
    Judged::Propose(
        Box::new(act),
        "configure",
        reason.to_owned(),
        Done::json(200, text),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(change: &str, whole: bool) -> (Option<Act>, Done) {
        let state = State {
            config: r#"{"ttl":20,"loop_wait":2}"#.to_owned(),
            ..State::default()
        };
        match configure(change, whole, None, &state) {
            Judged::Answer(done) | Judged::NotYet(done) => (None, done),
            Judged::Propose(act, _, _, done) => (Some(*act), done),
        }
    }

    #[test]
    fn what_is_asked_is_proposed_whole() {
        let (act, done) = answered(r#"{"ttl":"2.5","foo":{"bar":1}}"#, false);
        let config = r#"{"ttl":"2.5","loop_wait":2,"foo":{"bar":1}}"#.to_owned();
        assert_eq!(done, Done::json(200, config.clone()));
        assert_eq!(
            act,
            Some(Act::Configure {
                config,
                ttl_ms: 2_500,
                paused: false
            })
        );
        let (act, done) = answered(r#"{"ttl":3}"#, true);
        let config = r#"{"ttl":3}"#.to_owned();
        assert_eq!(done, Done::json(200, config.clone()));
        assert_eq!(
            act,
            Some(Act::Configure {
                config,
                ttl_ms: 3_000,
                paused: false
            })
        );
    }

    #[test]
    fn what_changes_nothing_or_cannot_be_is_not_proposed() {
        let kept = Done::json(200, r#"{"ttl":20,"loop_wait":2}"#);
        assert_eq!(answered(r#"{"ttl":"20","foo":null}"#, false), (None, kept));
        let why = "dynamic configuration: ttl: 400 s is more than 300 s";
        assert_eq!(answered(r#"{"ttl":400}"#, false), (None, Done::text(422, why)));
        let empty = configure("{}", false, None, &State::default());
        assert!(matches!(empty, Judged::Answer(done) if done.status == 503));
    }

    #[test]
    fn only_the_configuration_that_is_meant_is_changed() {
        let state = |ttl: u64| State {
            config: format!(r#"{{"ttl":{ttl}}}"#),
            ..State::default()
        };
        let seen = config::entity_tag(&state(20).config);
        for (if_match, now, allowed) in [
            (seen.as_str(), 20, true),
            (seen.as_str(), 21, false),
            ("*", 21, true),
            (&format!("\"other\", {seen}"), 20, true),
            (&format!("W/{seen}"), 20, false),
        ] {
            let judged = configure(r#"{"ttl":22}"#, false, Some(if_match), &state(now));
            assert_eq!(matches!(judged, Judged::Propose(..)), allowed, "{if_match} {now}");
            assert!(allowed || matches!(judged, Judged::Answer(done) if done.status == 409));
        }
    }
}
