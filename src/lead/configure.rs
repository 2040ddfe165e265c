//! An order to change the dynamic configuration: merged, checked and proposed where Raft leads.

use super::orders::Judged;
use crate::cluster::{Act, Done, State};
use crate::config;

/// What the order comes to on this state. A change that changes nothing is answered with what is there.
pub(super) fn configure(change: &str, whole: bool, state: &State) -> Judged {
    if state.config.is_empty() {
        return Judged::Answer(Done::text(503, "the cluster has no configuration yet"));
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
        match configure(change, whole, &state) {
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
        let empty = configure("{}", false, &State::default());
        assert!(matches!(empty, Judged::Answer(done) if done.status == 503));
    }
}
