//! What many connections cost at a server that does nothing: while they rest, and when they have gone.

use super::ways::{self, Way};
use matriarch::clock::boot_ns;
use matriarch_chaos::addresses::{Addresses, POSTGRES_PORT};
use matriarch_chaos::crowd;
use matriarch_chaos::lone_proxy::{LoneProxy, Orders};
use matriarch_chaos::processes;
use matriarch_chaos::sink::{self, Sink};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

const PORT: u16 = 5_000;
/// Clients that rest, and strangers, where descriptors allow.
const CLIENTS: usize = 10_000;
/// Counters are told every half a second.
const TOLD: Duration = Duration::from_millis(1_200);
/// How long what has gone may take to be put away.
const GONE_S: u64 = 10;

/// Everything of this page, as Markdown.
pub(super) async fn measure(visits: usize) -> Result<String, String> {
    let dir = ways::directory()?;
    let addresses = Addresses::take(1);
    let at = addresses.ip(0);
    let _sink = Sink::open(at, POSTGRES_PORT).await;
    let ways = ways::in_between(dir.path(), at, (at, POSTGRES_PORT))?;
    let mut text = idle(&ways, crowd::room(CLIENTS)).await?;
    drop(ways);
    let place = dir.path().join("proxy");
    std::fs::create_dir(&place).map_err(|error| error.to_string())?;
    let orders = Orders::new(at, PORT, (at, POSTGRES_PORT));
    let proxy = LoneProxy::start(&place, &orders);
    text.push_str(
        &churn(&proxy, at, visits)
            .await
            .map_err(|error| format!("visits: {error}"))?,
    );
    text.push_str(
        &garbage(&proxy, at, crowd::room(CLIENTS))
            .await
            .map_err(|error| format!("strangers: {error}"))?,
    );
    Ok(text)
}

fn resident_mib(pid: i32) -> f64 {
    processes::usage(pid).resident_kib as f64 / 1024.0
}

/// Resident memory of each program with so many clients that have logged in and rest.
async fn idle(ways: &[Way], count: usize) -> Result<String, String> {
    let mut text = format!(
        "Resident memory with {count} clients that rest (a server that does nothing)\n\n\
         | | without clients, MiB | with them, MiB | for 1,000, MiB |\n|---|---|---|---|\n"
    );
    for way in ways {
        let resident = || way.pid.map_or(0.0, resident_mib);
        let before = resident();
        let there = crowd::open(way.at, way.port, count).await;
        let there = there.map_err(|error| format!("{}: {error}", way.name))?;
        let after = resident();
        drop(there);
        let each = (after - before) * 1_000.0 / count as f64;
        text.push_str(&format!(
            "| {} | {before:.1} | {after:.1} | {each:.2} |\n",
            way.name
        ));
        eprintln!("{count} clients that rest: {}", way.name);
    }
    text.push('\n');
    Ok(text)
}

/// One session after another, each with one query: what is left of them.
async fn churn(proxy: &LoneProxy, at: Ipv4Addr, visits: usize) -> io::Result<String> {
    let mut text = "Sessions that come, ask one thing and go\n\n| so far | descriptors | resident, MiB |\n|---|---|---|\n".to_owned();
    let begun = boot_ns();
    let mut done = 0;
    for _ in 0..4 {
        done += crowd::come_and_go(at, PORT, visits / 4).await?;
        let (descriptors, resident) = (proxy.descriptors(), resident_mib(proxy.pid));
        text.push_str(&format!("| {done} | {descriptors} | {resident:.1} |\n"));
        eprintln!("sessions that came and went: {done}");
    }
    let seconds = (boot_ns() - begun) as f64 / 1e9;
    text.push_str(&format!(
        "\n{:.0} of them in a second.\n\n",
        done as f64 / seconds
    ));
    Ok(text)
}

/// Half hand-shakes that stay, and garbage, while a client works.
async fn garbage(proxy: &LoneProxy, at: Ipv4Addr, count: usize) -> io::Result<String> {
    let mut client = sink::log_in(at, PORT).await?;
    tokio::time::sleep(TOLD).await;
    let (counted, descriptors) = (proxy.counter("garbage"), proxy.descriptors());
    let before = resident_mib(proxy.pid);
    let calm = crowd::answers_in_us(&mut client).await?;
    let there = crowd::strangers(at, PORT, count).await?;
    let (during, crowded) = (resident_mib(proxy.pid), crowd::answers_in_us(&mut client).await?);
    drop(there);
    proxy.await_descriptors(descriptors, GONE_S).await;
    tokio::time::sleep(TOLD).await;
    Ok(format!(
        "{count} connections that are no clients (half of them garbage, half begin to shake hands and stay): resident \
         {before:.1} MiB before, {during:.1} with them, {:.1} after; a client's query took {calm} µs before, {crowded} with \
         them; no descriptor is left; counted: {}.\n",
        resident_mib(proxy.pid),
        proxy.counter("garbage") - counted
    ))
}
