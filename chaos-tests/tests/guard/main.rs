//! The guard on real PostgreSQL: whatever dies or stops, nothing of a primary outlives its deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod margin;
mod ward;

use matriarch::clock;
use matriarch::cluster::{Epoch, Moment};
use matriarch::guard::{GuardError, Signal, StartSpec};
use matriarch_chaos::processes;
use nix::unistd::geteuid;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::Client;
use ward::{Ward, comm, cpu_ms, eventually, in_some_attempt, kill, memory_kb, postgres_user, until};

/// Whether this process could make itself the last to be chosen when memory runs out.
fn may_protect() -> bool {
    Command::new("sh")
        .args(["-c", "echo -1000 > /proc/self/oom_score_adj"])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[tokio::test]
async fn postgresql_starts_as_its_user_and_stops_clean() {
    let ward = Ward::new();
    let guard = ward.attach().await;
    assert!(guard.watch().borrow().clean);
    let (pid, client) = ward.start(&guard).await;
    let state = guard.watch().borrow().clone();
    assert_eq!((state.postmaster, state.clean), (Some(pid), false));

    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("MATRIARCH_TEST=given"));
    let own = |file| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let its = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    assert_eq!(its("oom_score_adj"), own("oom_score_adj"));
    // The guard itself is never chosen, where this process could have chosen the same for itself.
    let keeper = guard.pid().unwrap();
    let score = std::fs::read_to_string(format!("/proc/{keeper}/oom_score_adj")).unwrap();
    assert_eq!(score.trim() == "-1000", may_protect(), "{score}");
    let status = its("status");
    let line = |key| {
        status
            .lines()
            .find(|line: &&str| line.starts_with(key))
            .unwrap()
            .to_owned()
    };
    let uid = postgres_user().map_or(geteuid().as_raw(), |(uid, _)| uid);
    assert_eq!(line("Uid:").split_whitespace().nth(1).unwrap(), uid.to_string());
    assert_eq!(
        line("SigBlk:").split_whitespace().nth(1).unwrap(),
        "0000000000000000"
    );
    assert!(
        its("sched")
            .lines()
            .any(|line| line.starts_with("policy") && line.ends_with(" 0"))
    );

    assert!(
        matches!(guard.start(ward.spec()).await, Err(GuardError::Refused(_))),
        "one at a time"
    );
    assert!(
        matches!(guard.clone().quit().await, Err(GuardError::Refused(_))),
        "it has something to keep"
    );
    drop(client);
    guard.signal(Signal::SIGINT).await.unwrap();
    let state = until(&guard, "a clean exit", |state| state.exits == 1 && state.clean).await;
    assert_eq!(
        (state.postmaster, state.last_exit.as_deref()),
        (None, Some("exited with code 0"))
    );
    assert!(matches!(
        guard.signal(Signal::SIGINT).await,
        Err(GuardError::Refused(_))
    ));

    let keeper = guard.pid().unwrap();
    guard.quit().await.unwrap();
    eventually("the guard has gone", || comm(keeper) != "matriarch-guard").await;
    assert!(!ward.raft.path().join("guard.sock").exists());
}

#[tokio::test]
async fn a_protected_daemon_protects_its_postmaster_and_not_the_backends() {
    if !may_protect() {
        eprintln!("no process may be protected here: nothing is shown");
        return;
    }
    let ward = Ward::new();
    let wrapper = ward.raft.path().join("protected");
    let program = ward::matriarch();
    let script = format!(
        "#!/bin/sh\necho -500 > /proc/self/oom_score_adj\nexec '{}' \"$@\"\n",
        program.display()
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let guard = ward.attach_as(wrapper).await;
    let (pid, client) = ward.start(&guard).await;
    let score = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse::<i32>().unwrap()
    };
    let backend: i32 = client
        .query_one("select pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!((score(pid), score(backend)), (-500, 0));
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_an_error_and_no_exit() {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let program = PathBuf::from("/nowhere/postgres");
    let missing = guard
        .start(StartSpec {
            program,
            ..ward.spec()
        })
        .await;
    let Err(GuardError::Refused(why)) = missing else {
        panic!("{missing:?}")
    };
    assert_eq!(
        why,
        "/nowhere/postgres could not be executed: No such file or directory"
    );
    let state = until(&guard, "clean again", |state| state.clean).await;
    assert_eq!((state.exits, state.postmaster), (0, None));
    let (_, client) = ward.start(&guard).await;
    client.query_one("select 1", &[]).await.unwrap();
}

#[tokio::test]
async fn orphans_of_a_killed_postmaster_never_block_a_start() {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let mut times = Vec::new();
    for round in 1..=10 {
        let (pid, _client) = ward.start(&guard).await;
        let orphan = ward.busy_backend().await;
        let all = ward.inhabitants();
        assert!(
            all.contains(&pid) && all.contains(&orphan) && all.len() > 4,
            "{all:?}"
        );
        let killed = clock::boot_ns();
        kill(pid, Signal::SIGKILL);
        let state = until(&guard, "an exit", |state| state.exits == round).await;
        let known = clock::boot_ns();
        assert_eq!(state.last_exit.as_deref(), Some("killed by signal 9 (SIGKILL)"));
        until(&guard, "all gone", |state| state.exits == round && state.clean).await;
        times.push((
            (known - killed) / 1_000_000,
            (clock::boot_ns() - killed) / 1_000_000,
        ));
        assert_eq!(ward.inhabitants(), Vec::<i32>::new());
    }
    println!("postmaster killed: (exit known, all reaped) after ms: {times:?}");
}

#[tokio::test]
async fn the_log_collector_writes_down_the_last_words() {
    in_some_attempt(async || last_words_written().await).await;
}

async fn last_words_written() -> Result<(), String> {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let mut spec = ward.spec();
    spec.args
        .extend(["-c", "logging_collector=on", "-c", "log_filename=all.log"].map(str::to_owned));
    let pid = guard.start(spec).await.unwrap();
    ward.client().await;
    let orphan = ward.busy_backend().await;
    let killed = clock::now();
    guard.signal(Signal::SIGQUIT).await.unwrap();
    until(&guard, "a clean exit", |state| state.exits == 1 && state.clean).await;
    println!(
        "SIGQUIT with a log collector: all reaped after {} ms",
        clock::now().since(killed)
    );
    let log = std::fs::read_to_string(ward.data().join("log/all.log")).unwrap();
    assert_ne!(
        (comm(pid).as_str(), comm(orphan).as_str()),
        ("postgres", "postgres")
    );
    assert_eq!(ward.inhabitants(), Vec::<i32>::new());
    log.ends_with("database system is shut down\n")
        .then_some(())
        .ok_or(log)
}

/// Commits as fast as it can; the moment of the last acknowledgement.
async fn writer(client: Client) -> Arc<AtomicU64> {
    client
        .batch_execute("create table if not exists written (n bigserial)")
        .await
        .unwrap();
    let last = Arc::new(AtomicU64::new(0));
    let seen = last.clone();
    tokio::spawn(async move {
        while client
            .execute("insert into written default values", &[])
            .await
            .is_ok()
        {
            seen.store(clock::boot_ns(), Ordering::SeqCst);
        }
    });
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_renewed_is_fenced_by_the_deadline() {
    in_some_attempt(async || renewed_and_fenced().await).await;
}

async fn renewed_and_fenced() -> Result<(), String> {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let (pid, client) = ward.start(&guard).await;
    let busy = ward.busy_backend().await;
    let writes = writer(client).await;
    let begun = clock::now();
    let mut deadline = Moment(0);
    while clock::now().since(begun) < 3000 {
        deadline = clock::now().plus(2000);
        guard
            .arm(Epoch(7), deadline)
            .map_err(|why| format!("not renewed: {why}"))?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let state = guard.watch().borrow().clone();
    if (state.postmaster, state.fencing) != (Some(pid), false) {
        return Err(format!("renewing does not keep it alive: {state:?}"));
    }

    let state = until(&guard, "fenced", |state| {
        state.fenced == Some(Epoch(7)) && state.clean
    })
    .await;
    let told = clock::boot_ns() / 1000;
    let last = writes.load(Ordering::SeqCst) / 1000;
    if last <= (deadline.0 - 1000) * 1000 {
        return Err(format!("the last row {last} us, long before {deadline:?}"));
    }
    if last >= deadline.0 * 1000 {
        return Err(format!("an acknowledgement at {last} us, after {deadline:?}"));
    }
    assert_eq!((state.postmaster, state.armed, state.exits), (None, None, 1));
    assert_eq!(ward.inhabitants(), Vec::<i32>::new());
    assert_ne!(comm(busy), "postgres");
    assert!(matches!(
        guard.arm(Epoch(7), deadline.plus(60_000)),
        Err(GuardError::Fenced(Epoch(7)))
    ));
    let quit_at = (deadline.0 - 300) * 1000;
    println!(
        "fence: last acknowledgement {} us, all reaped and told {} us after deadline - 300 ms",
        last.saturating_sub(quit_at),
        told.saturating_sub(quit_at)
    );

    guard.arm(Epoch(8), clock::now().plus(60_000)).unwrap();
    let (_, client) = ward.start(&guard).await;
    client
        .query_one("select count(*) from written", &[])
        .await
        .unwrap();
    Ok(())
}

#[tokio::test]
async fn stopped_processes_are_killed_in_time() {
    in_some_attempt(async || stopped_and_fenced().await).await;
}

async fn stopped_and_fenced() -> Result<(), String> {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let (pid, client) = ward.start(&guard).await;
    let stopped = ward.busy_backend().await;
    drop(client);
    let deadline = clock::now().plus(1000);
    guard.arm(Epoch(1), deadline).unwrap();
    kill(stopped, Signal::SIGSTOP);
    kill(pid, Signal::SIGSTOP);
    until(&guard, "fenced", |state| state.fenced == Some(Epoch(1))).await;
    let told = clock::now();
    assert_eq!(ward.inhabitants(), Vec::<i32>::new());
    println!(
        "fence of stopped processes: all reaped and told {} ms before the deadline",
        deadline.since(told)
    );
    (told < deadline)
        .then_some(())
        .ok_or_else(|| format!("told {} ms late", told.since(deadline)))
}

#[tokio::test]
async fn a_daemon_that_comes_back_finds_its_postgresql_and_one_that_does_not_is_fenced() {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let keeper = guard.pid();
    let (pid, client) = ward.start(&guard).await;
    let deadline = clock::now().plus(60_000);
    guard.arm(Epoch(2), deadline).unwrap();
    until(&guard, "armed", |state| state.armed == Some((Epoch(2), deadline))).await;
    drop(guard);

    let guard = ward.attach().await;
    let state = guard.watch().borrow().clone();
    assert_eq!((guard.pid(), state.postmaster), (keeper, Some(pid)));
    assert_eq!((state.armed, state.exits), (Some((Epoch(2), deadline)), 0));
    client.query_one("select 1", &[]).await.unwrap();
    assert!(
        matches!(guard.arm(Epoch(1), deadline), Err(GuardError::Refused(_))),
        "epoch 1 is over"
    );

    guard.disarm();
    until(&guard, "disarmed", |state| state.armed.is_none()).await;
    guard.arm(Epoch(3), clock::now().plus(3_000)).unwrap();
    // A busy machine may see no more than the fence.
    until(&guard, "armed again", |state| {
        state.armed.is_some() || state.fenced == Some(Epoch(3))
    })
    .await;
    drop(guard);
    eventually("fenced without a daemon", || ward.inhabitants().is_empty()).await;
    let guard = ward.attach().await;
    assert_eq!(guard.watch().borrow().fenced, Some(Epoch(3)));
}

#[tokio::test]
async fn postgresql_ends_with_its_guard_and_starts_under_the_next() {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let (_, client) = ward.start(&guard).await;
    let orphan = ward.busy_backend().await;
    let keeper = guard.pid().unwrap();
    kill(keeper, Signal::SIGKILL);
    until(&guard, "the loss", |state| !state.connected).await;
    let state = until(&guard, "another guard", |state| state.connected).await;
    let next = guard.pid().unwrap();
    ward.guards.lock().unwrap().push(next);
    assert_ne!(next, keeper);
    assert_eq!((state.postmaster, state.exits), (None, 1));
    assert_eq!(state.last_exit.as_deref(), Some("its guard died"));
    assert!(matches!(guard.heartbeat(), 1..));

    guard.kill_all().await.unwrap();
    assert!(guard.watch().borrow().clean);
    assert_eq!(ward.inhabitants(), Vec::<i32>::new());
    assert_ne!(comm(orphan), "postgres");
    drop(client);
    let (_, client) = ward.start(&guard).await;
    client.query_one("select 1", &[]).await.unwrap();
}

/// An operator's program in the data directory.
struct Bystander(Child);

impl Bystander {
    fn in_dir(dir: &Path) -> Self {
        Self(Command::new("sleep").arg("600").current_dir(dir).spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_operators_program_in_the_data_directory_survives() {
    let ward = Ward::new();
    let mut operator = Bystander::in_dir(&ward.data());
    let guard = ward.attach().await;
    ward.start(&guard).await;
    guard.kill_all().await.unwrap();
    ward.start(&guard).await;
    guard.arm(Epoch(1), clock::now().plus(400)).unwrap();
    until(&guard, "fenced", |state| {
        state.fenced == Some(Epoch(1)) && state.clean
    })
    .await;
    assert!(operator.lives());
}

#[tokio::test]
async fn a_postgresql_that_somebody_else_started_is_fenced_too() {
    in_some_attempt(async || found_and_fenced().await).await;
}

async fn found_and_fenced() -> Result<(), String> {
    let ward = Ward::new();
    let spec = ward.spec();
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).current_dir(ward.data());
    if let Some((uid, gid)) = spec.user {
        command.uid(uid).gid(gid);
    }
    let mut postmaster = command.spawn().unwrap();
    let client = ward.client().await;
    client.query_one("select 1", &[]).await.unwrap();
    let guard = ward.attach().await;
    assert!(!guard.watch().borrow().clean);
    let deadline = clock::now().plus(800);
    guard.arm(Epoch(1), deadline).unwrap();
    let state = until(&guard, "fenced", |state| state.fenced == Some(Epoch(1))).await;
    let told = clock::now();
    assert!(state.clean);
    postmaster.wait().unwrap();
    assert_eq!(ward.inhabitants(), Vec::<i32>::new());
    (told < deadline)
        .then_some(())
        .ok_or_else(|| format!("told {} ms late", told.since(deadline)))
}

#[tokio::test]
async fn a_guard_whose_directory_was_wiped_stops_postgresql_and_goes() {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let keeper = guard.pid().unwrap();
    ward.start(&guard).await;
    for entry in std::fs::read_dir(ward.raft.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    drop(guard);
    let next = ward.attach().await;
    assert_ne!(next.pid(), Some(keeper));
    eventually("the old guard has gone", || comm(keeper) != "matriarch-guard").await;
    ward.start(&next).await;
}

#[tokio::test]
async fn the_guard_is_small_and_idle_and_shows_its_heartbeat() {
    let ward = Ward::new();
    let guard = ward.attach().await;
    let (_, _client) = ward.start(&guard).await;
    guard.arm(Epoch(1), clock::now().plus(3000)).unwrap();
    let keeper = guard.pid().unwrap();
    let (beats, cpu, since) = (guard.heartbeat(), cpu_ms(keeper), clock::now());
    eventually("ten turns", || guard.heartbeat() >= beats + 10).await;
    let wall = clock::now().since(since);
    let used = cpu_ms(keeper) - cpu;
    println!("guard while armed: {used:.2} ms of processor time in {wall} ms");
    assert!(used < 20.0, "{used} ms in {wall} ms");

    processes::freeze(keeper);
    let stopped = guard.heartbeat();
    // Several turns long.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(guard.heartbeat(), stopped, "a stopped guard shows no heartbeat");
    kill(keeper, Signal::SIGCONT);

    until(&guard, "fenced", |state| state.fenced == Some(Epoch(1))).await;
    let anonymous = memory_kb(keeper, "RssAnon:");
    println!(
        "guard: RssAnon {anonymous} kB, locked {} kB",
        memory_kb(keeper, "VmLck:")
    );
    assert!(anonymous <= 3 * 1024, "{anonymous} kB");
}
