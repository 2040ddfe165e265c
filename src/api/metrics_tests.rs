//! The reference of the metrics, the alert rules and the dashboard, held against what `/metrics` answers.

use super::fixtures::{NOW, facts, promotion, recorded};
use super::metrics_text;
use crate::cluster::ProxyFacts;
use promql::{Node, ParserOptions, parse};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The answer of a node that has everything to tell.
fn everything() -> String {
    let mut facts = facts(0);
    facts.vitals.gap_ms = Some(1_234);
    facts.vitals.proxy = Some(ProxyFacts::default());
    Arc::make_mut(&mut facts.state).timelines = vec![promotion()];
    metrics_text(&facts, NOW)
}

struct Metric {
    name: String,
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Reads the exposition format, as strictly as Prometheus does: HELP, TYPE, then values of that name.
fn metrics(text: &str) -> Vec<Metric> {
    let mut found: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .map(|rest| rest.split_once(' ').unwrap())
        {
            assert!(
                found.iter().all(|metric| metric.name != name),
                "{name} comes twice"
            );
            found.push(Metric {
                name: name.to_owned(),
                kind: String::new(),
                help: help.to_owned(),
                labels: BTreeSet::new(),
            });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let metric = found.last_mut().unwrap();
            metric.kind = rest
                .strip_prefix(&format!("{} ", metric.name))
                .unwrap()
                .to_owned();
            assert!(["gauge", "counter"].contains(&metric.kind.as_str()), "{line}");
        } else if !line.starts_with('#') {
            let metric = found.last_mut().unwrap();
            let rest = line.strip_prefix(&format!("{}{{", metric.name)).unwrap();
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            value.parse::<f64>().unwrap();
            for label in labels.split(',') {
                metric.labels.insert(label.split_once('=').unwrap().0.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_reference_is_what_is_answered() {
    let mut page = read("docs/metrics.md");
    for prefix in ["patroni_", "matriarch_"] {
        let mut table = "\n| metric | type | meaning |\n|---|---|---|\n".to_owned();
        for metric in metrics(&everything()) {
            if !metric.name.starts_with(prefix) {
                continue;
            }
            let own = metric
                .labels
                .iter()
                .find(|label| !["scope", "name"].contains(&label.as_str()));
            let label = own.map(|own| format!("{{{own}}}")).unwrap_or_default();
            let _ = writeln!(
                table,
                "| `{}{label}` | {} | {} |",
                metric.name, metric.kind, metric.help
            );
        }
        let begin = format!("<!-- {prefix} -->\n");
        let (head, rest) = page.split_once(&begin).unwrap();
        let (_, tail) = rest.split_once("<!-- end -->").unwrap();
        page = format!("{head}{begin}{table}\n<!-- end -->{tail}");
    }
    recorded("../docs/metrics.md", &page);
}

#[test]
fn names_follow_the_conventions() {
    for metric in metrics(&everything()) {
        assert!(metric.labels.contains("scope") && metric.labels.contains("name"));
        if metric.name.starts_with("matriarch_") {
            assert_eq!(
                metric.kind == "counter",
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}

#[test]
fn a_counter_of_failovers_starts_with_every_rule_that_promotes() {
    let text = everything();
    for rule in super::metrics_ours::PROMOTING {
        assert!(
            crate::decide::rules::RULES.iter().any(|row| row.name == rule),
            "{rule}"
        );
        assert!(text.contains(&format!("rule=\"{rule}\"}} 0\n")), "{rule}");
    }
    assert!(
        text.contains("matriarch_failovers_total{scope=\"demo\",name=\"node0\",rule=\"holder-gone\"} 1\n")
    );
}

/// The functions and aggregations that may be used, so that a misspelt one is noticed.
const FUNCTIONS: [&str; 7] = ["count", "delta", "increase", "max", "min", "rate", "sum"];

/// The metrics an expression asks for.
fn asked(node: &Node, names: &mut BTreeSet<String>) {
    match node {
        Node::Operator { args, .. } => args.iter().for_each(|arg| asked(arg, names)),
        Node::Function { name, args, .. } => {
            assert!(FUNCTIONS.contains(&name.as_str()), "there is no function {name}");
            args.iter().for_each(|arg| asked(arg, names));
        }
        Node::Vector(vector) => {
            let name = vector
                .labels
                .iter()
                .find(|label| label.name == "__name__")
                .unwrap();
            names.insert(String::from_utf8(name.value.clone()).unwrap());
        }
        Node::Negation(inner) => asked(inner, names),
        Node::Scalar(_) | Node::String(_) => {}
    }
}

/// `up` is Prometheus' own; everything else must be there on some node.
#[track_caller]
fn assert_known(expression: &str, known: &BTreeSet<String>) {
    let tree =
        parse(expression, &ParserOptions::default()).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut names = BTreeSet::new();
    asked(&tree, &mut names);
    assert!(!names.is_empty(), "{expression} asks for nothing");
    for name in names {
        assert!(known.contains(&name), "{expression}: /metrics has no {name}");
    }
}

fn known() -> BTreeSet<String> {
    let own = metrics(&everything()).into_iter().map(|metric| metric.name);
    own.chain(["up".to_owned()]).collect()
}

#[test]
fn alerts_ask_for_what_is_there_and_lead_to_the_runbook() {
    let rules: Value = serde_saphyr::from_str(&read("configs/alerts.yaml")).unwrap();
    let anchors = anchors(&read("docs/runbook.md"));
    let known = known();
    let mut seen = BTreeSet::new();
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let text = |key: &str| {
                rule[key]
                    .as_str()
                    .unwrap_or_else(|| panic!("{rule}: no {key}"))
                    .to_owned()
            };
            let name = text("alert");
            assert_known(&text("expr"), &known);
            assert!(seen.insert(name.clone()), "{name} comes twice");
            let wait = text("for");
            assert!(
                wait.trim_end_matches(['s', 'm', 'h', 'd']).parse::<u32>().is_ok(),
                "{name}: {wait}"
            );
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
            let notes = &rule["annotations"];
            assert!(
                notes["summary"].is_string() && notes["description"].is_string(),
                "{name}"
            );
            let url = notes["runbook_url"].as_str().unwrap();
            let (_, anchor) = url.split_once("docs/runbook.md#").unwrap();
            assert!(
                anchors.contains_key(anchor),
                "{name}: docs/runbook.md has no heading #{anchor}"
            );
        }
    }
    assert!(seen.len() >= 12, "{seen:?}");
}

/// The anchors GitHub makes of a page's headings.
fn anchors(page: &str) -> BTreeMap<String, String> {
    page.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim();
            let kept = title.to_lowercase().replace(' ', "-");
            let anchor = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_')
                .collect();
            (anchor, title.to_owned())
        })
        .collect()
}

/// Links inside the documents lead somewhere.
#[test]
fn links_between_the_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in [
        "README.md",
        "docs/runbook.md",
        "docs/metrics.md",
        "docs/install.md",
        "docs/from-patroni.md",
    ] {
        let text = read(page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let link = link.0;
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let beside = root.join(page).parent().unwrap().to_owned();
            let target = if file.is_empty() {
                root.join(page)
            } else {
                beside.join(file)
            };
            assert!(target.exists(), "{page}: {link}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains_key(anchor), "{page}: {link}");
            }
        }
    }
}

#[test]
fn the_dashboard_asks_for_what_is_there() {
    let dashboard: Value = serde_json::from_str(&read("configs/grafana-dashboard.json")).unwrap();
    let known = known();
    let (mut panels, mut ids) = (0, BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        assert!(
            place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24,
            "{panel}"
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            // Grafana fills these in before Prometheus sees the text.
            let expression = target["expr"].as_str().unwrap();
            let filled = expression
                .replace("$__rate_interval", "1m")
                .replace("$scope", "demo");
            assert_known(&filled, &known);
            panels += 1;
        }
    }
    assert!(panels >= 12, "{panels}");
}

/// Where Prometheus' own checker is installed, it has the last word.
#[test]
fn promtool_agrees() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/alerts.yaml");
    match std::process::Command::new("promtool")
        .args(["check", "rules"])
        .arg(file)
        .output()
    {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(_) => {
            println!("skipped: promtool is not installed; the PromQL parser has checked the expressions")
        }
    }
}
