//! One page that shows a run: verdict, time line of faults, roles and commits, and every number.

use crate::chaos::arena::{NODES, seconds};
use crate::chaos::run::Run;
use crate::chaos::watch::Look;
use std::fmt::Write as _;

/// Width of the time line.
const WIDTH: f64 = 1_200.0;
/// Left of it stand the names.
const LEFT: f64 = 150.0;
/// Height of a bar's line.
const LINE: f64 = 18.0;
/// A gap in the acknowledgements is shown from this length on.
const GAP_S: f64 = 1.0;

const STYLE: &str = "body{font:14px sans-serif;margin:2em;color:#222}h1{font-size:1.3em}\
 .ok{color:#176f2c}.bad{color:#b00020}table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left;\
 border-bottom:1px solid #ddd;vertical-align:top}svg{background:#fafafa;border:1px solid #ddd}text{font-size:11px}";

/// The page.
pub fn page(run: &Run) -> String {
    let class = if run.is_good() { "ok" } else { "bad" };
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>chaos, seed {}</title><style>{STYLE}</style>\
         <h1 class={class}>{}</h1>\n",
        run.seed,
        escape(&run.sentence())
    );
    html.push_str(&time_line(run));
    for (title, lines) in [
        ("Violations", &run.verdict.violations),
        ("Known limits that were seen", &run.verdict.excused),
        ("Skipped on this machine", &run.skipped),
        ("Aimed at nothing", &run.missed),
    ] {
        if lines.is_empty() {
            continue;
        }
        let _ = write!(html, "<h2>{title}</h2><ul>");
        for line in lines {
            let _ = write!(html, "<li>{}</li>", escape(line));
        }
        html.push_str("</ul>");
    }
    html.push_str("<h2>Faults</h2><table><tr><th>at, s<th>fault<th>lasted, s<th>witness<th>on healing</tr>");
    for healed in &run.faults {
        let _ = write!(
            html,
            "<tr><td>{:.1}<td>{}<td>{:.1}<td>{}<td>{}</tr>",
            seconds(healed.hurt.since - run.begun),
            healed.hurt.fault.name(),
            seconds(healed.over - healed.hurt.since),
            escape(&healed.hurt.witness),
            escape(&run.said(healed)),
        );
    }
    html.push_str("</table><h2>Numbers</h2><table>");
    for (what, value) in &run.verdict.counts {
        let _ = write!(html, "<tr><td>{what}<td>{value}</tr>");
    }
    html.push_str("</table></html>\n");
    html
}

struct Scale {
    begun: u64,
    length: f64,
}

impl Scale {
    fn x(&self, at: u64) -> f64 {
        LEFT + seconds(at.saturating_sub(self.begun)) / self.length * (WIDTH - LEFT - 10.0)
    }
}

fn time_line(run: &Run) -> String {
    let scale = Scale {
        begun: run.begun,
        length: seconds(run.ended - run.begun).max(1.0),
    };
    let mut kinds: Vec<&str> = run.faults.iter().map(|healed| healed.hurt.fault.name()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut body = String::new();
    let mut y = 10.0;
    for kind in kinds {
        label(&mut body, y, kind);
        for healed in run
            .faults
            .iter()
            .filter(|healed| healed.hurt.fault.name() == kind)
        {
            let (from, to) = (scale.x(healed.hurt.since), scale.x(healed.over));
            let title = format!("{kind}: {}", escape(&healed.hurt.witness));
            bar(&mut body, (from, to), y, "#d9822b", &title);
        }
        y += LINE;
    }
    for node in 0..NODES {
        y += 4.0;
        label(&mut body, y, &format!("node{}", node + 1));
        let samples: Vec<_> = run.samples.iter().filter(|sample| sample.node == node).collect();
        for pair in samples.windows(2) {
            let span = (scale.x(pair[0].at), scale.x(pair[1].at) + 0.3);
            bar(&mut body, span, y, colour(pair[0].look), "");
        }
        y += LINE;
    }
    y = commits(run, &scale, y + 10.0, &mut body);
    let step = if scale.length > 240.0 { 30.0 } else { 10.0 };
    let mut tick = 0.0;
    while tick < scale.length {
        let x = LEFT + tick / scale.length * (WIDTH - LEFT - 10.0);
        let _ = write!(
            body,
            "<line x1={x:.1} x2={x:.1} y1=0 y2={y:.0} stroke='#ddd'/><text x={x:.1} y={:.0}>{tick:.0} s</text>",
            y + 12.0
        );
        tick += step;
    }
    format!(
        "<svg width={WIDTH} height={:.0} xmlns='http://www.w3.org/2000/svg'>{body}</svg>\
         <p>node: <b style='color:#176f2c'>serving</b>, <b style='color:#9bd19b'>primary, not open</b>, \
         <b style='color:#4a78c2'>streaming</b>, <b style='color:#bbb'>something else</b>, \
         <b style='color:#444'>silent</b>; below: acknowledged commits each second, gaps of {GAP_S} s and more in red</p>",
        y + 20.0
    )
}

/// Commits each second, and the gaps between them.
fn commits(run: &Run, scale: &Scale, top: f64, body: &mut String) -> f64 {
    const HEIGHT: f64 = 80.0;
    label(body, top + HEIGHT / 2.0, "commits/s");
    let mut each = vec![0_u32; 1 + usize::try_from((run.ended - run.begun) / 1_000_000_000).unwrap()];
    for end in &run.acknowledged {
        let second = usize::try_from(end.saturating_sub(run.begun) / 1_000_000_000).unwrap();
        if let Some(count) = each.get_mut(second) {
            *count += 1;
        }
    }
    let most = f64::from(each.iter().copied().max().unwrap_or(1).max(1));
    for (second, count) in each.iter().enumerate() {
        let at = run.begun + u64::try_from(second).unwrap() * 1_000_000_000;
        let height = f64::from(*count) / most * HEIGHT;
        let (from, to) = (scale.x(at), scale.x(at + 1_000_000_000));
        let _ = write!(
            body,
            "<rect x={from:.1} y={:.1} width={:.1} height={height:.1} fill='#4a78c2'><title>{count}</title></rect>",
            top + HEIGHT - height,
            (to - from).max(0.5)
        );
    }
    for (from, to) in &run.gaps {
        if seconds(to - from) >= GAP_S {
            let title = format!("no acknowledgement for {:.1} s", seconds(to - from));
            bar(
                body,
                (scale.x(*from), scale.x(*to)),
                top + HEIGHT + 2.0,
                "#b00020",
                &title,
            );
        }
    }
    top + HEIGHT + LINE + 4.0
}

fn label(body: &mut String, y: f64, text: &str) {
    let _ = write!(body, "<text x=4 y={:.1}>{}</text>", y + 11.0, escape(text));
}

fn bar(body: &mut String, span: (f64, f64), y: f64, colour: &str, title: &str) {
    let width = (span.1 - span.0).max(1.5);
    let _ = write!(
        body,
        "<rect x={:.1} y={y:.1} width={width:.1} height={:.1} fill='{colour}'><title>{title}</title></rect>",
        span.0,
        LINE - 4.0
    );
}

fn colour(look: Look) -> &'static str {
    match look {
        Look::Serving => "#176f2c",
        Look::Closed => "#9bd19b",
        Look::Streaming => "#4a78c2",
        Look::Other => "#bbb",
        Look::Silent => "#444",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
