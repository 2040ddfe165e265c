//! The web page in a real browser, before a real cluster whose primary is lost.
//!
//! `MATRIARCH_PICTURES=DIR` keeps what the browser saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

mod browser;

use browser::Browser;
use matriarch_chaos::{FORM_S, Herd};

/// Longest wait for anything the page should show.
const PATIENCE_S: u64 = 60;

fn keep(name: &str, picture: &[u8]) {
    assert!(picture.len() > 10_000, "{name}: an empty picture");
    if let Some(dir) = std::env::var_os("MATRIARCH_PICTURES") {
        std::fs::write(std::path::Path::new(&dir).join(name), picture).unwrap();
    }
}

/// The page of a node that stays, while the primary is lost: what a person reads is what is so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_who_leads_and_follows_a_failover() {
    let Some(program) = Browser::program() else {
        println!("skipped: no Chromium is installed, so the web page was not looked at");
        return;
    };
    let mut herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    herd.await_whole(FORM_S).await;
    let witness = herd.others(old)[0];
    let (ip, port) = herd.nodes[witness].rest_addr();
    let mut page = Browser::open(&program, &format!("http://{ip}:{port}/ui"));
    let primary = format!("node{}", old + 1);
    let headline = "document.getElementById('headline').textContent";
    let is = |name: &str| format!("{headline} === '{name} is the primary.'");
    page.until("the primary's name", PATIENCE_S, &is(&primary));
    let streaming = "[...document.querySelectorAll('#members .state')].filter(e => e.textContent === 'streaming').length === 2";
    page.until("two replicas that stream", PATIENCE_S, streaming);
    // The lines move: every member's has points, and more of them after a while.
    let lines = "[...document.querySelectorAll('svg.lag .line')].every(e => e.getAttribute('d').split('L').length > 8)";
    page.until("three moving lines", PATIENCE_S, lines);
    page.until(
        "why-nots",
        PATIENCE_S,
        "document.querySelectorAll('#members .yes-no').length === 3",
    );
    for (name, width, dark) in [
        ("healthy.png", 1200, false),
        ("healthy-dark.png", 1200, true),
        ("healthy-small.png", 390, false),
    ] {
        keep(name, &page.look(width, dark));
        let wide = page.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth");
        assert_eq!(wide, true, "{name}: the page is wider than the screen");
    }

    herd.nodes[old].kill_whole();
    page.until(
        "another primary",
        PATIENCE_S,
        &format!("/^node. is the primary\\.$/.test({headline}) && !{headline}.startsWith('{primary}')"),
    );
    page.until(
        "the lost member's row",
        PATIENCE_S,
        &format!("document.querySelector('tr.absent th a').textContent === '{primary}'"),
    );
    let newest = "Number(/epoch (\\d+)/.exec(document.querySelector('#history li.now').textContent)[1])";
    page.until("the change in the history", PATIENCE_S, &format!("{newest} > 1"));
    keep("failover.png", &page.look(1200, false));
    assert!(page.complaints.is_empty(), "{:?}", page.complaints);
}
