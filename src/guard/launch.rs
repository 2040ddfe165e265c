//! Starts a postmaster: everything between fork and exec, and the way an error comes back.

use super::wire::{Identity, Launch};
use crate::sys::{self, Fork};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid};
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

const PG_ARENAS: &str = "PG_MALLOC_ARENA_MAX";

/// What the guard was started with and PostgreSQL shall have again.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) env: Vec<(OsString, OsString)>,
    /// The out-of-memory score before the guard changed its own.
    pub(super) oom_score: String,
}

impl Inherited {
    /// Remembers what is there now.
    pub(super) fn take() -> Self {
        let oom_score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        Self {
            env: for_postgres(std::env::vars_os().collect()),
            oom_score,
        }
    }
}

/// What PostgreSQL may inherit. Patroni's users limit its arenas, and not the daemon's, by a name of their own.
fn for_postgres(mut all: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    all.retain(|(name, _)| may_inherit(name.as_bytes()));
    if all.iter().any(|(name, _)| name == PG_ARENAS) {
        all.retain(|(name, _)| name != ARENAS);
        for (name, _) in all.iter_mut().filter(|(name, _)| name == PG_ARENAS) {
            *name = ARENAS.into();
        }
    }
    all
}

/// Secrets and settings of the daemon, and what belongs to its supervisor, are not for PostgreSQL. Nor is what an
/// operator's shell says to libpq: a standby's receiver would take that for whatever `primary_conninfo` leaves out, and
/// its password instead of the one in the password file.
pub(super) fn may_inherit(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 5] = [
        b"PATRONI_",
        b"MATRIARCH_",
        b"KUBERNETES_",
        b"LISTEN_",
        b"WATCHDOG_",
    ];
    const NAMES: [&[u8]; 7] = [
        b"NOTIFY_SOCKET",
        b"PGPASSWORD",
        b"PGOPTIONS",
        b"PGSERVICE",
        b"PGTARGETSESSIONATTRS",
        b"PGREQUIREAUTH",
        b"PGCHANNELBINDING",
    ];
    !NAMES.contains(&name) && !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A postmaster may be protected as the daemon is; the backends, which use the memory, are not: PostgreSQL's own way.
fn spare_backends(oom_score: &str) -> Vec<(OsString, OsString)> {
    let protected = oom_score.trim().parse::<i32>().is_ok_and(|score| score < 0);
    let variables = [
        ("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj"),
        ("PG_OOM_ADJUST_VALUE", "0"),
    ];
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    variables.into_iter().filter(|_| protected).collect()
}

/// What the environment holds that is not for PostgreSQL but for this program: settings and secrets of the node.
pub fn hidden_variables() -> Vec<(String, String)> {
    let ours = |name: &str| name.starts_with("PATRONI_") || name.starts_with("MATRIARCH_");
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| ours(name))
        .collect()
}

/// A postmaster that was forked; the report closes empty when it was executed.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) report: OwnedFd,
}

impl Launched {
    /// Reads why it could not be executed; `None` when it was. Call when the report is readable.
    pub(super) fn failure(&self, launch: &str) -> Option<String> {
        let mut bytes = [0; 5];
        let mut report = std::fs::File::from(self.report.try_clone().ok()?);
        report.read_exact(&mut bytes).ok()?;
        let [step, code @ ..] = bytes;
        let doing = match step {
            b'u' => "change to the user of its data directory",
            b'd' => "enter its data directory",
            b'p' => "outlive its guard, which was ending,",
            _ => "be executed",
        };
        let why = Errno::from_raw(i32::from_le_bytes(code)).desc();
        Some(format!("{launch} could not {doing}: {why}"))
    }
}

/// Forks and executes; returns as soon as the child exists.
pub(super) fn launch(launch: &Launch, inherited: &Inherited) -> io::Result<Launched> {
    let plan = Plan::new(launch, inherited)?;
    let (report, child_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let guard = nix::unistd::getpid();
    match sys::fork_single_threaded()? {
        Fork::Parent(pid) => Ok(Launched { pid, report }),
        Fork::Child => {
            let Err((step, errno)) = plan.carry_out(guard);
            let [a, b, c, d] = (errno as i32).to_le_bytes();
            let _ = nix::unistd::write(child_end.as_fd(), &[step, a, b, c, d]);
            sys::exit_now(127)
        }
    }
}

/// All that the child needs, laid out before the fork.
struct Plan<'a> {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    data_dir: CString,
    identity: Option<&'a Identity>,
    oom_score: &'a str,
}

impl<'a> Plan<'a> {
    fn new(launch: &'a Launch, inherited: &'a Inherited) -> io::Result<Self> {
        let program = CString::new(launch.program.as_os_str().as_bytes())?;
        let args = launch.args.iter().map(|arg| CString::new(arg.as_str()));
        let given = |name: &OsString| {
            launch
                .env
                .iter()
                .any(|(set, _)| set.as_bytes() == name.as_bytes())
        };
        let kept = inherited.env.iter().filter(|(name, _)| !given(name)).cloned();
        let set = launch
            .env
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let oom = spare_backends(&inherited.oom_score);
        let oom = oom.into_iter().filter(|(name, _)| !given(name));
        let env = kept.chain(oom).chain(set).map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec())
        });
        Ok(Self {
            args: std::iter::once(Ok(program.clone()))
                .chain(args)
                .collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            data_dir: CString::new(launch.data_dir.as_os_str().as_bytes())?,
            identity: launch.identity.as_ref(),
            oom_score: &inherited.oom_score,
            program,
        })
    }

    /// Becomes the postmaster; comes back only with the step that failed. Real-time priority has gone with the
    /// fork, locked memory goes with the exec.
    fn carry_out(&self, guard: Pid) -> Result<std::convert::Infallible, (u8, Errno)> {
        let _ = nix::unistd::setsid();
        // Before the user changes: only root may lower the guard's protection to what it was again.
        let _ = std::fs::write("/proc/self/oom_score_adj", self.oom_score);
        if let Some(identity) = self.identity {
            become_user(identity).map_err(|errno| (b'u', errno))?;
        }
        // The kernel forgets this signal when the user changes, so it is asked for only now. A guard that
        // died before is noticed by the new parent.
        nix::sys::prctl::set_pdeathsig(Signal::SIGQUIT).map_err(|errno| (b'p', errno))?;
        if nix::unistd::getppid() != guard {
            return Err((b'p', Errno::ECANCELED));
        }
        nix::unistd::chdir(self.data_dir.as_c_str()).map_err(|errno| (b'd', errno))?;
        sys::default_signals();
        sys::close_on_exec_from(3);
        nix::unistd::execve(&self.program, &self.args, &self.env).map_err(|errno| (b'x', errno))
    }
}

fn become_user(identity: &Identity) -> nix::Result<()> {
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::{for_postgres, may_inherit, spare_backends};

    #[test]
    fn backends_are_spared_a_protection_only_where_there_is_one() {
        for (score, variables) in [("-900\n", 2), ("0\n", 0), ("300\n", 0), ("", 0)] {
            assert_eq!(spare_backends(score).len(), variables, "{score:?}");
        }
    }

    #[test]
    fn the_arenas_of_postgresql_have_a_name_of_their_own() {
        let given =
            |pairs: &[(&str, &str)]| for_postgres(pairs.iter().map(|(a, b)| (a.into(), b.into())).collect());
        let ours = ("MALLOC_ARENA_MAX", "8");
        assert_eq!(given(&[ours]), [(ours.0.into(), ours.1.into())]);
        let both = given(&[ours, ("PG_MALLOC_ARENA_MAX", "1"), ("KUBERNETES_PORT", "x")]);
        assert_eq!(both, [("MALLOC_ARENA_MAX".into(), "1".into())]);
    }

    #[test]
    fn secrets_of_the_daemon_are_not_inherited() {
        for name in [
            "PATRONI_SUPERUSER_PASSWORD",
            "MATRIARCH_RAFT_PASSWORD",
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "PGPASSWORD",
        ] {
            assert!(!may_inherit(name.as_bytes()), "{name}");
        }
        for name in ["PATH", "LANG", "LD_LIBRARY_PATH", "PGPASSFILE"] {
            assert!(may_inherit(name.as_bytes()), "{name}");
        }
    }
}
