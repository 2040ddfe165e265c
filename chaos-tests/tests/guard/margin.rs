//! How much of the guard's margin a fence needs under load: the last acknowledged commit, measured against the deadline.

use crate::ward::{PATIENCE, Ward, postgres_user, program, until};
use matriarch::clock;
use matriarch::cluster::Epoch;
use nix::time::{ClockId, clock_gettime};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CLIENTS: usize = 100;
/// From arming to the deadline; all clients are connected and busy when the fence begins.
const LEASE_MS: u64 = 3_000;

fn wall_us() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000
}

fn boot_us() -> i64 {
    i64::try_from(clock::boot_ns() / 1_000).unwrap()
}

/// As the user who may connect, and may write its log where the data lies.
fn pgbench(ward: &Ward, args: &[&str]) -> Command {
    let mut command = Command::new(program("pgbench"));
    command
        .arg("-h")
        .arg(ward.home.path())
        .args(["-U", "postgres"])
        .args(args)
        .arg("postgres")
        .current_dir(ward.home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some((uid, gid)) = postgres_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The load; killed when the measurement ends early.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The wall time of the last transaction that any client saw committed, from pgbench's own logs, and how many there were.
fn last_commit_us(dir: &Path) -> (i64, usize) {
    let (mut last, mut count) = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("load.") {
            continue;
        }
        for line in std::fs::read_to_string(entry.path()).unwrap().lines() {
            let fields: Vec<i64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            if let [_, _, _, _, seconds, micros] = fields[..] {
                last = last.max(seconds * 1_000_000 + micros);
                count += 1;
            }
        }
        std::fs::remove_file(entry.path()).unwrap();
    }
    (last, count)
}

fn spread(what: &str, values: &mut [i64]) {
    values.sort_unstable();
    let at = |part: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let index = ((values.len() as f64 * part).ceil() as usize).clamp(1, values.len());
        values[index - 1] as f64 / 1e3
    };
    println!(
        "| {what} | {:.1} | {:.1} | {:.1} | {:.1} |",
        at(0.0),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// `FENCES=30 cargo test -p matriarch-chaos --test guard margin -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes"]
async fn the_last_commit_under_a_hundred_connections_lies_before_the_deadline() {
    let fences: u64 = std::env::var("FENCES").map_or(30, |text| text.parse().unwrap());
    let ward = Ward::new();
    let guard = ward.attach().await;
    let mut spec = ward.spec();
    spec.args.extend(["-c", "max_connections=130"].map(str::to_owned));
    guard.start(spec.clone()).await.unwrap();
    drop(ward.client().await);
    assert!(
        pgbench(&ward, &["-i", "-q", "-s", "10"])
            .status()
            .unwrap()
            .success()
    );
    let (clients, prefix) = (CLIENTS.to_string(), "--log-prefix=load");
    let args = ["-n", "-N", "-j", "2", "-T", "600", "-l", prefix, "-c", &clients];
    let (mut commits, mut reaped, mut counts) = (Vec::new(), Vec::new(), 0);
    for epoch in 1..=fences {
        let mut load = Load(pgbench(&ward, &args).spawn().unwrap());
        let watcher = ward.client().await;
        let busy = "select count(*) from pg_stat_activity where application_name = 'pgbench'";
        let at_work = async {
            while watcher.query_one(busy, &[]).await.unwrap().get::<_, i64>(0) < 100 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let at_work = tokio::time::timeout(PATIENCE, at_work).await;
        at_work.expect("all clients are connected");
        let deadline = clock::now().plus(LEASE_MS);
        guard.arm(Epoch(epoch), deadline).unwrap();
        let offset = wall_us() - boot_us();
        until(&guard, "fenced", |state| state.fenced == Some(Epoch(epoch))).await;
        let deadline_us = i64::try_from(deadline.0).unwrap() * 1_000;
        reaped.push(boot_us() - deadline_us);
        load.0.wait().unwrap();
        let (last, count) = last_commit_us(ward.home.path());
        commits.push(last - offset - deadline_us);
        counts += count;
        assert!(ward.inhabitants().is_empty());
        guard.start(spec.clone()).await.unwrap();
        drop(ward.client().await);
    }
    println!("\n{fences} fences, {CLIENTS} connections, {counts} commits; ms relative to the deadline");
    println!("| | least | median | p99 | most |\n|---|---|---|---|---|");
    spread("last acknowledged commit", &mut commits);
    spread("every process reaped, and told", &mut reaped);
    assert!(
        commits.last().is_some_and(|last| *last < 0),
        "acknowledged after the deadline"
    );
}
