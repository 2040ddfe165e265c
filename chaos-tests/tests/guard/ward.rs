//! One guard with its data directory and its PostgreSQL, and waiting for what they do.

use matriarch::guard::{Guard, GuardOptions, GuardState, Signal, StartSpec};
use nix::unistd::{Pid, User, geteuid};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One of PostgreSQL's programs.
pub(crate) fn program(name: &str) -> PathBuf {
    matriarch_chaos::plain::bin_dir().join(name)
}

/// The built program, beside this test's own directory.
pub(crate) fn matriarch() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().unwrap().parent().unwrap().join("matriarch");
    assert!(
        program.exists(),
        "{} is missing: run `cargo build` first",
        program.display()
    );
    program
}

/// PostgreSQL refuses to run as root; whoever else runs the tests runs it as himself.
pub(crate) fn postgres_user() -> Option<(u32, u32)> {
    let user = geteuid()
        .is_root()
        .then(|| User::from_name("postgres").unwrap().expect("a user postgres"));
    user.map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

pub(crate) fn run(name: &str, args: &[&str]) {
    let mut command = Command::new(program(name));
    command.args(args);
    if let Some((uid, gid)) = postgres_user() {
        command.uid(uid).gid(gid);
    }
    let output = command.current_dir("/").output().unwrap();
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (uid, gid) = postgres_user().unzip();
    std::os::unix::fs::chown(dir.path(), uid, gid).unwrap();
    dir
}

/// One guard and its data directory. Dropping it kills, by pid, whatever is left.
pub(crate) struct Ward {
    pub(crate) raft: TempDir,
    pub(crate) home: TempDir,
    pub(crate) guards: Mutex<Vec<i32>>,
}

impl Ward {
    pub(crate) fn new() -> Self {
        let home = directory();
        let data = home.path().join("data");
        run(
            "initdb",
            &[
                "-N",
                "-A",
                "trust",
                "-U",
                "postgres",
                "-D",
                data.to_str().unwrap(),
            ],
        );
        Self {
            raft: tempfile::tempdir().unwrap(),
            home,
            guards: Mutex::default(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub(crate) async fn attach(&self) -> Guard {
        self.attach_as(matriarch()).await
    }

    /// With a guard started by this program.
    pub(crate) async fn attach_as(&self, exe: PathBuf) -> Guard {
        let options = GuardOptions {
            dir: self.raft.path().to_owned(),
            data_dir: Some(self.data()),
            exe,
        };
        let guard = Guard::attach(options).await.unwrap();
        self.guards.lock().unwrap().push(guard.pid().unwrap());
        guard
    }

    pub(crate) fn spec(&self) -> StartSpec {
        let home = self.home.path().display();
        let set = [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={home}"),
            "fsync=off".to_owned(),
        ];
        let args = set.iter().flat_map(|set| ["-c".to_owned(), set.clone()]);
        let args = ["-D".to_owned(), self.data().display().to_string()]
            .into_iter()
            .chain(args)
            .collect();
        StartSpec {
            program: program("postgres"),
            args,
            env: vec![("MATRIARCH_TEST".to_owned(), "given".to_owned())],
            data_dir: self.data(),
            user: postgres_user(),
            epoch: None,
        }
    }

    /// Starts PostgreSQL and waits until it answers.
    pub(crate) async fn start(&self, guard: &Guard) -> (i32, Client) {
        let pid = guard.start(self.spec()).await.unwrap();
        (pid, self.client().await)
    }

    pub(crate) async fn client(&self) -> Client {
        let host = format!(
            "host={} user=postgres dbname=postgres",
            self.home.path().display()
        );
        let connected = async {
            loop {
                if let Ok((client, connection)) = tokio_postgres::connect(&host, NoTls).await {
                    tokio::spawn(connection);
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connected)
            .await
            .expect("PostgreSQL answers")
    }

    /// A backend that never looks at its postmaster; its pid.
    pub(crate) async fn busy_backend(&self) -> i32 {
        let client = self.client().await;
        let pid = client
            .query_one("select pg_backend_pid()", &[])
            .await
            .unwrap()
            .get(0);
        tokio::spawn(async move { client.batch_execute("do $$ begin loop end loop; end $$").await });
        let watcher = self.client().await;
        let busy = "select 1 from pg_stat_activity where pid = $1 and state = 'active' and query like 'do %'";
        let at_work = async {
            while watcher.query(busy, &[&pid]).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, at_work)
            .await
            .expect("a busy backend");
        pid
    }

    /// Every process that stands in the data directory.
    pub(crate) fn inhabitants(&self) -> Vec<i32> {
        let data = self.data();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        for guard in self.guards.get_mut().unwrap() {
            if comm(*guard) == "matriarch-guard" {
                kill(*guard, Signal::SIGKILL);
            }
        }
        for pid in self.inhabitants() {
            kill(pid, Signal::SIGKILL);
        }
        matriarch::postgres::free_memory_below(self.home.path());
    }
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}

pub(crate) fn comm(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Attempts at what a busy machine may be too late to see: when the guard has done something is known here only when this
/// program runs.
const ATTEMPTS: usize = 5;

/// Whether one of some attempts succeeds; the others say why not.
pub(crate) async fn in_some_attempt(once: impl AsyncFn() -> Result<(), String>) {
    let mut failures = Vec::new();
    for _ in 0..ATTEMPTS {
        match once().await {
            Ok(()) => return,
            Err(why) => failures.push(why),
        }
    }
    panic!("in each of {ATTEMPTS} attempts: {failures:#?}");
}

/// Waits for a state of the guard.
pub(crate) async fn until(guard: &Guard, what: &str, wanted: impl FnMut(&GuardState) -> bool) -> GuardState {
    let mut watch = guard.watch();
    let seen = tokio::time::timeout(PATIENCE, watch.wait_for(wanted)).await;
    match seen {
        Ok(state) => state.unwrap().clone(),
        Err(_) => panic!("not seen: {what}; {:?}", *guard.watch().borrow()),
    }
}

/// Waits until something is so that sends no event.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not seen: {what}");
}

/// `KEY: n kB` of a process.
pub(crate) fn memory_kb(pid: i32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time of a process in milliseconds.
pub(crate) fn cpu_ms(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
}
