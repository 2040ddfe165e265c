//! `GET /ui`: the herd at a glance, a page without build step, framework or foreign address, compiled in.
//!
//! ```text
//! /ui            page.html   what is there, for people and for screen readers
//! /ui/style.css  style.css   light and dark, wide and narrow
//! /ui/page.js    page.js     listens to /ui/events and writes it down, as text only
//! /ui/events     stream.rs   server-sent events: /explain and /cluster as they are now, several times a second
//! ```
//!
//! The page only reads. Its policy forbids the browser everything that does not come from this node, scripts within
//! the page included, so a name that carries markup stays a name.

use super::{cluster_document, explain_document};
use crate::cluster::{Facts, Moment};

const PAGE: &str = include_str!("ui/page.html");
const STYLE: &str = include_str!("ui/style.css");
const SCRIPT: &str = include_str!("ui/page.js");

/// What the browser may do with the page.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Something below `/ui`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ui {
    /// A file: its type and its text.
    File(&'static str, String),
    /// The stream of events.
    Events,
}

/// What a path below `/ui` stands for; links are relative, so that the page works behind a proxy's prefix too.
pub(super) fn find(path: &str) -> Option<Ui> {
    let page = |base: &str, root: &str| {
        let text = PAGE.replace("{base}", base).replace("{root}", root);
        Some(Ui::File("text/html;charset=utf-8", text))
    };
    match path {
        "/ui" => page("ui/", ""),
        "/ui/" => page("", "../"),
        "/ui/style.css" => Some(Ui::File("text/css;charset=utf-8", STYLE.to_owned())),
        "/ui/page.js" => Some(Ui::File("text/javascript;charset=utf-8", SCRIPT.to_owned())),
        "/ui/events" => Some(Ui::Events),
        _ => None,
    }
}

/// One event: one line of JSON.
pub(super) fn event(facts: Option<&Facts>, starting: &str, now: Moment) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match facts {
        None => format!("data: {{\"version\": \"{version}\", \"starting\": {starting}}}\n\n"),
        Some(facts) => format!(
            "data: {{\"version\": \"{version}\", \"explain\": {}, \"cluster\": {}}}\n\n",
            explain_document(facts, now),
            cluster_document(facts, now)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{NOW, facts};
    use super::*;
    use serde_json::Value;

    #[test]
    fn links_lead_back_from_both_spellings() {
        let Some(Ui::File(_, below)) = find("/ui/") else {
            panic!()
        };
        let Some(Ui::File(_, beside)) = find("/ui") else {
            panic!()
        };
        assert!(beside.contains("src=\"ui/page.js\"") && beside.contains("href=\"explain\""));
        assert!(below.contains("src=\"page.js\"") && below.contains("href=\"../explain\""));
        assert_eq!(find("/ui/nonsense"), None);
    }

    /// Nothing is fetched from elsewhere, and nothing from the cluster is ever markup.
    #[test]
    fn the_page_is_closed() {
        for text in [PAGE, STYLE, SCRIPT] {
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("://"), "an address of somebody else's");
        }
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!SCRIPT.contains(word), "{word}");
        }
        assert!(!PAGE.contains("<script>") && !PAGE.contains("style=") && !PAGE.contains(" onclick"));
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        for facts in [Some(facts(0)), None] {
            let event = event(facts.as_ref(), "{\"state\": \"starting\"}", NOW);
            let line = event
                .strip_prefix("data: ")
                .unwrap()
                .strip_suffix("\n\n")
                .unwrap();
            assert!(!line.contains('\n'));
            let _: Value = serde_json::from_str(line).unwrap();
        }
    }
}
