//! The device that resets the machine: opened when a deadline is armed, fed while the lease lives, closed when nothing is left.
//!
//! **When it is fed.** Food lasts for the device's whole timeout. So it gets some only while that ends before anybody
//! else could be made primary: `now + timeout <= deadline + slack`. Whatever moment the machine, or this guard, stops
//! at, the reset comes when the lease ends and not a timeout later. The same rule lets a lease that is not renewed run
//! dry: the fence, which begins 300 ms before the deadline, ends in time and disarms the device.
//!
//! **When it is disarmed.** With the magic `V`, and only when nothing of the data directory is left, or when the
//! daemon has taken the deadline away from a postmaster that runs on: that one is a standby, or the cluster is paused.

use super::process::say;
use super::state::{WatchdogDriver, WatchdogFault, WatchdogOrder, WatchdogState};
use crate::cluster::Moment;
use crate::decide::lease::{GUARD_SLACK_MS, is_endless};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// Between two feedings.
const FEED_EVERY_MS: u64 = 50;
/// Between two attempts to open a device that cannot be used.
const RETRY_MS: u64 = 1000;
/// A healthy lease is never older than this when it is renewed.
const RENEWED_MS: u64 = 500;

/// The watchdog as the guard keeps it.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    order: Option<WatchdogOrder>,
    open: Option<Open>,
    /// The newest deadline.
    until: Moment,
    fault: Option<WatchdogFault>,
    tried_at: Option<Moment>,
}

/// An armed device.
#[derive(Debug)]
struct Open {
    device: OwnedFd,
    timeout_s: u32,
    fed_at: Moment,
    /// What the timeout was chosen for.
    ttl_ms: u64,
}

/// The timeout that fits a lease, in whole seconds: shorter than it by the margin, or half of it where that is wished
/// or leaves nothing; and never so long that a lease which is renewed in time could not be fed on.
fn timeout_s(ttl_ms: u64, safety_margin_s: i64) -> Option<u32> {
    let margin_ms = u64::try_from(safety_margin_s)
        .ok()
        .map(|margin| margin.saturating_mul(1000));
    let wished = margin_ms
        .and_then(|margin| ttl_ms.checked_sub(margin))
        .filter(|left| *left >= 1000)
        .unwrap_or((ttl_ms / 2).max(1000));
    let seconds = wished.min(ttl_ms.saturating_sub(RENEWED_MS)) / 1000;
    u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

impl Watchdog {
    /// From now on this holds; an open device of another order is disarmed.
    pub(super) fn order(&mut self, order: Option<WatchdogOrder>) {
        let place =
            |order: &Option<WatchdogOrder>| order.as_ref().map(|order| (order.device.clone(), order.driver));
        if place(&self.order) != place(&order) {
            self.disarm();
        }
        if self.order != order {
            self.fault = None;
            self.tried_at = None;
        }
        self.order = order;
    }

    /// For people and for the daemon.
    pub(super) fn state(&self) -> WatchdogState {
        match (&self.open, self.fault) {
            (_, Some(fault)) => WatchdogState::Unusable(fault),
            (Some(open), None) => WatchdogState::Armed {
                timeout_s: open.timeout_s,
            },
            (None, None) => WatchdogState::Off,
        }
    }

    /// Why nothing may be started as primary now.
    pub(super) fn refusal(&self) -> Option<String> {
        let order = self.order.as_ref().filter(|order| order.required)?;
        let why = match self.state() {
            WatchdogState::Armed { .. } => return None,
            WatchdogState::Unusable(fault) => fault.to_string(),
            WatchdogState::Off => "it is not armed".to_owned(),
        };
        Some(format!("watchdog {}: {why}", order.device.display()))
    }

    /// Opens, feeds or disarms; not to be called while a fence is carried out. `settled` says that no process is left
    /// that a deadline was given for.
    pub(super) fn tend(&mut self, now: Moment, deadline: Option<Moment>, settled: bool) {
        match deadline {
            // Hands off: nobody takes over, so nothing has to be reset before somebody does.
            Some(deadline) if is_endless(deadline, now) => return self.disarm(),
            Some(deadline) => {
                self.until = deadline;
                self.arm(now);
            }
            None if settled => return self.disarm(),
            None => {}
        }
        self.feed(now);
    }

    /// Everything is gone, and whoever guarded it before may have left the device running.
    pub(super) fn relieve(&mut self) {
        if self.open.is_some() {
            return;
        }
        let Some(order) = &self.order else { return };
        if let Ok(device) = open(order) {
            let _ = nix::unistd::write(&device, b"V");
        }
    }

    fn arm(&mut self, now: Moment) {
        let Some(order) = &self.order else { return };
        if self.open.as_ref().is_some_and(|open| open.ttl_ms == order.ttl_ms)
            || self.tried_at.is_some_and(|at| now.since(at) < RETRY_MS)
        {
            return;
        }
        self.tried_at = Some(now);
        let opened = match self.open.take() {
            Some(open) => Ok(open.device),
            None => open(order).map_err(|errno| WatchdogFault::Open(errno as i32)),
        };
        let armed = opened.and_then(|device| match fit(order, &device) {
            Ok(timeout_s) => Ok(Open {
                device,
                timeout_s,
                fed_at: Moment(0),
                ttl_ms: order.ttl_ms,
            }),
            Err(fault) => {
                // Opening has started it.
                let _ = nix::unistd::write(&device, b"V");
                Err(fault)
            }
        });
        let before = self.fault;
        match armed {
            Ok(open) => {
                say(format_args!(
                    "watchdog {} is armed: the machine is reset when it is not fed for {} s",
                    order.device.display(),
                    open.timeout_s
                ));
                self.open = Some(open);
                self.fault = None;
                self.tried_at = None;
            }
            Err(fault) => {
                self.fault = Some(fault);
                if before != self.fault {
                    say(format_args!("watchdog {}: {fault}", order.device.display()));
                }
            }
        }
    }

    fn feed(&mut self, now: Moment) {
        let Some(open) = &mut self.open else { return };
        let lasts = now.plus(u64::from(open.timeout_s) * 1000);
        if now.since(open.fed_at) < FEED_EVERY_MS || lasts > self.until.plus(GUARD_SLACK_MS) {
            return;
        }
        let fed = nix::unistd::write(&open.device, b"1");
        open.fed_at = now;
        let fault = fed.err().map(|errno| WatchdogFault::Feed(errno as i32));
        if let Some(fault) = fault
            && self.fault.is_none()
        {
            say(format_args!("the watchdog: {fault}"));
        }
        self.fault = fault;
    }

    fn disarm(&mut self) {
        if let Some(open) = self.open.take() {
            let _ = nix::unistd::write(&open.device, b"V");
            say(format_args!("the watchdog is disarmed"));
        }
        self.fault = None;
        self.tried_at = None;
    }
}

/// Never waits: a pipe without a reader is an error.
fn open(order: &WatchdogOrder) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    nix::fcntl::open(&order.device, flags, Mode::empty())
}

/// Gives the device its timeout, or finds out whether the one it has will do.
fn fit(order: &WatchdogOrder, device: &OwnedFd) -> Result<u32, WatchdogFault> {
    let wished =
        timeout_s(order.ttl_ms, order.safety_margin_s).ok_or(WatchdogFault::TtlTooShort(order.ttl_ms))?;
    if order.driver == WatchdogDriver::Testing {
        let mut line = [0; 32];
        let mut rest = line.as_mut_slice();
        let written = writeln!(rest, "Ctimeout={wished}").map(|()| rest.len());
        let length = written.map_or(0, |left| 32 - left);
        return nix::unistd::write(device, line.get(..length).unwrap_or_default())
            .map(|_| wished)
            .map_err(|errno| WatchdogFault::Feed(errno as i32));
    }
    let timeout_s = match sys::set_watchdog_timeout(device.as_fd(), wished) {
        Ok(timeout_s) => timeout_s,
        // It keeps a timeout of its own, or is no watchdog at all: the next call tells.
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL) => {
            sys::watchdog_timeout(device.as_fd()).map_err(|errno| WatchdogFault::NoWatchdog(errno as i32))?
        }
        Err(errno) => return Err(WatchdogFault::NoWatchdog(errno as i32)),
    };
    let fits = timeout_s > 0 && u64::from(timeout_s) * 1000 <= order.ttl_ms.saturating_sub(RENEWED_MS);
    fits.then_some(timeout_s).ok_or(WatchdogFault::Timeout {
        timeout_s,
        ttl_ms: order.ttl_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::lease;
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};

    fn order(device: PathBuf, driver: WatchdogDriver) -> WatchdogOrder {
        WatchdogOrder {
            device,
            driver,
            required: true,
            ttl_ms: 2000,
            safety_margin_s: 5,
        }
    }

    /// A pipe in place of the device, and its reader.
    struct Kennel {
        dir: tempfile::TempDir,
        pipe: File,
    }

    impl Kennel {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("watchdog");
            nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
            let pipe = File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .unwrap();
            Self { dir, pipe }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("watchdog")
        }

        fn read(&mut self) -> String {
            let mut bytes = [0; 4096];
            let length = self.pipe.read(&mut bytes).unwrap_or(0);
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        }
    }

    #[test]
    fn the_timeout_follows_the_lease() {
        assert_eq!(timeout_s(20_000, 5), Some(15));
        assert_eq!(timeout_s(20_000, -1), Some(10));
        assert_eq!(timeout_s(2_000, 5), Some(1), "the margin leaves nothing: half");
        assert_eq!(
            timeout_s(30_000, 0),
            Some(29),
            "a lease is renewed before it is fed on"
        );
        assert_eq!(timeout_s(1_200, 5), None);
    }

    #[test]
    fn it_is_armed_fed_while_the_lease_lives_and_disarmed_when_nothing_is_left() {
        let mut kennel = Kennel::new();
        let mut dog = Watchdog::default();
        dog.order(Some(order(kennel.path(), WatchdogDriver::Testing)));
        assert_eq!(kennel.read(), "", "nothing is opened before a deadline stands");
        assert!(dog.refusal().is_some());
        dog.tend(Moment(1000), Some(Moment(3000)), false);
        assert_eq!(kennel.read(), "Ctimeout=1\n1");
        assert_eq!(dog.state(), WatchdogState::Armed { timeout_s: 1 });
        assert_eq!(dog.refusal(), None);
        dog.tend(Moment(1100), Some(Moment(3000)), false);
        assert_eq!(kennel.read(), "1");
        dog.tend(Moment(2100), Some(Moment(3000)), false);
        assert_eq!(kennel.read(), "1", "what it gets now lasts until the lease ends");
        dog.tend(Moment(2101 + FEED_EVERY_MS), Some(Moment(3000)), false);
        assert_eq!(kennel.read(), "", "later it would outlast the lease");
        dog.tend(Moment(2300), Some(Moment(4000)), false);
        assert_eq!(kennel.read(), "1", "renewed");
        dog.tend(Moment(2400), None, false);
        assert_eq!(kennel.read(), "1", "backends are left: it stays armed");
        dog.tend(Moment(3200), None, false);
        assert_eq!(kennel.read(), "", "and bites when they outlive the lease");
        dog.tend(Moment(3300), None, true);
        assert_eq!(kennel.read(), "V");
        assert_eq!(dog.state(), WatchdogState::Off);
    }

    #[test]
    fn in_a_pause_it_rests() {
        let mut kennel = Kennel::new();
        let mut dog = Watchdog::default();
        dog.order(Some(order(kennel.path(), WatchdogDriver::Testing)));
        dog.tend(Moment(1000), Some(Moment(3000)), false);
        assert_eq!(kennel.read(), "Ctimeout=1\n1");
        dog.tend(Moment(1100), Some(Moment(1000).plus(lease::ENDLESS_MS)), false);
        assert_eq!(kennel.read(), "V");
        dog.tend(Moment(1200), Some(Moment(1000).plus(lease::ENDLESS_MS)), false);
        assert_eq!(kennel.read(), "");
        dog.tend(Moment(1300), None, true);
        dog.tend(Moment(1400), Some(Moment(3400)), false);
        assert_eq!(kennel.read(), "Ctimeout=1\n1");
    }

    #[test]
    fn another_ttl_is_another_timeout() {
        let mut kennel = Kennel::new();
        let mut dog = Watchdog::default();
        let mut plan = order(kennel.path(), WatchdogDriver::Testing);
        dog.order(Some(plan.clone()));
        dog.tend(Moment(1000), Some(Moment(3000)), false);
        assert_eq!(kennel.read(), "Ctimeout=1\n1");
        plan.ttl_ms = 20_000;
        dog.order(Some(plan));
        dog.tend(Moment(1100), Some(Moment(21_000)), false);
        assert_eq!(kennel.read(), "Ctimeout=15\n1");
        dog.order(None);
        assert_eq!(kennel.read(), "V");
    }

    fn fault(path: &Path) -> WatchdogState {
        let mut dog = Watchdog::default();
        dog.order(Some(order(path.to_owned(), WatchdogDriver::Kernel)));
        dog.tend(Moment(1000), Some(Moment(3000)), false);
        assert!(dog.refusal().is_some());
        dog.state()
    }

    #[test]
    fn what_is_no_watchdog_is_refused_by_the_kernels_answer() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let none = WatchdogState::Unusable(WatchdogFault::NoWatchdog(libc::ENOTTY));
        assert_eq!(fault(&file), none);
        assert_eq!(fault(Path::new("/dev/null")), none);
        assert_eq!(
            fault(&dir.path().join("missing")),
            WatchdogState::Unusable(WatchdogFault::Open(libc::ENOENT))
        );
        let kennel = Kennel::new();
        assert_eq!(fault(&kennel.path()), none);
        let alone = Kennel::new();
        let path = alone.path();
        drop(alone.pipe);
        assert_eq!(
            fault(&path),
            WatchdogState::Unusable(WatchdogFault::Open(libc::ENXIO)),
            "a pipe nobody reads does not make the guard wait"
        );
        assert_eq!(
            WatchdogFault::NoWatchdog(libc::ENOTTY).to_string(),
            "it is no watchdog: Not a typewriter"
        );
    }

    #[test]
    fn a_device_that_takes_no_food_is_told_and_tried_again() {
        let mut kennel = Kennel::new();
        let mut dog = Watchdog::default();
        dog.order(Some(order(kennel.path(), WatchdogDriver::Testing)));
        dog.tend(Moment(1000), Some(Moment(3000)), false);
        let path = kennel.path();
        kennel.pipe = File::open("/dev/null").unwrap();
        // SIGPIPE is ignored by the test harness as the guard blocks it.
        dog.tend(Moment(1100), Some(Moment(3000)), false);
        assert_eq!(
            dog.state(),
            WatchdogState::Unusable(WatchdogFault::Feed(libc::EPIPE))
        );
        kennel.pipe = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .unwrap();
        dog.tend(Moment(1200), Some(Moment(3000)), false);
        assert_eq!(dog.state(), WatchdogState::Armed { timeout_s: 1 });
    }
}
