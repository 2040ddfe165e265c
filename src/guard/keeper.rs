//! The guard's one loop: beat, reap, enforce the lease, serve the daemon, wait.

use super::door::{Door, Visitor};
use super::herald::{self, Herald};
use super::launch::{Inherited, Launched};
use super::lease::{Lease, Phase};
use super::page::Page;
use super::process::say;
use super::ward::{ROUND_MS, Ward};
use super::watchdog::Watchdog;
use super::wire::{Answer, Ask, Event, LEVEL, Launch, Told};
use crate::clock;
use crate::cluster::{Epoch, Moment};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// A turn at least this often while something could have to be fenced, and at rest.
const WATCHFUL_MS: u64 = 100;
const RESTING_MS: u64 = 1000;
/// Between two rounds of a sweep when something will not die (a disk hangs).
const LONG_SWEEP_MS: u64 = 50;
/// So long after the deadline a fence that cannot end leaves time for the daemon again.
const FENCE_ALONE_MS: u64 = 1000;
/// Without a daemon and without anything to guard, the guard goes after this time.
const LONELY_MS: u64 = 10_000;
/// What a guard whose door was taken away gives PostgreSQL between SIGQUIT and SIGKILL.
const LOST_DOOR_MS: u64 = 1000;

/// The guard.
#[derive(Debug)]
pub(super) struct Keeper {
    door: Door,
    visitor: Option<Visitor>,
    page: Page,
    lease: Lease,
    ward: Ward,
    watchdog: Watchdog,
    herald: Herald,
    inherited: Inherited,
    signals: SignalFd,
    /// Wakes on the boot-time clock, which goes on while the machine is suspended.
    timer: TimerFd,
    timer_at: Option<Moment>,
    launching: Option<Launching>,
    waiting_start: Option<(u64, Launch)>,
    waiting_kills: Vec<u64>,
    answers: Vec<Answer>,
    told: Option<Told>,
    turns: u64,
    looked_at: Moment,
    swept_since: Option<Moment>,
    needed_at: Moment,
    leaving: bool,
}

/// A start whose exec has not been heard of yet.
#[derive(Debug)]
struct Launching {
    id: u64,
    launched: Launched,
    program: String,
    exits_before: (u64, Option<i32>),
}

impl Keeper {
    /// Takes the door; signals must be blocked already.
    pub(super) fn new(door: Door, data_dir: Option<PathBuf>, inherited: Inherited) -> io::Result<Self> {
        let (page, _) = Page::create()?;
        let now = clock::now();
        Ok(Self {
            door,
            visitor: None,
            page,
            lease: Lease::default(),
            ward: Ward::new(data_dir)?,
            watchdog: Watchdog::default(),
            herald: Herald::default(),
            inherited,
            signals: SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            timer: TimerFd::new(
                ClockId::CLOCK_BOOTTIME,
                TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
            )?,
            timer_at: None,
            launching: None,
            waiting_start: None,
            waiting_kills: Vec::new(),
            answers: Vec::new(),
            told: None,
            turns: 0,
            looked_at: now,
            swept_since: None,
            needed_at: now,
            leaving: false,
        })
    }

    /// Turns until nobody needs this guard any more.
    pub(super) fn run(mut self) {
        loop {
            self.turn();
            if self.may_leave(clock::now()) {
                self.door.close();
                return;
            }
            self.wait();
        }
    }

    fn turn(&mut self) {
        self.turns += 1;
        self.page.beat(self.turns);
        let now = clock::now();
        self.ward.reap(now);
        self.enforce(now);
        let deadline = self.lease.armed.map_or(Moment(0), |(_, deadline)| deadline);
        if self.lease.fencing.is_some() && now < deadline.plus(FENCE_ALONE_MS) {
            return;
        }
        self.set_timer();
        self.tend_watchdog(now);
        self.look_around(now);
        self.finish_launch();
        self.welcome();
        self.serve(now);
        self.tell();
        self.send_word(now);
    }

    /// Every turn, so at least every 100 ms while it matters. A fence feeds nobody.
    fn tend_watchdog(&mut self, now: Moment) {
        if self.lease.fencing.is_some() {
            return;
        }
        let deadline = self.lease.armed.map(|(_, deadline)| deadline);
        // Without a deadline a postmaster is a standby: see `Guard::disarm`.
        let settled = self.ward.postmaster.is_some() || self.ward.clean;
        self.watchdog.tend(now, deadline, settled);
    }

    /// Who is fenced says so himself, if he lives; else somebody says it for him.
    fn send_word(&mut self, now: Moment) {
        let (page, connected) = (&self.page, self.visitor.is_some());
        let knows = |epoch| page.has_let_go_of(epoch);
        let near = page.position();
        self.herald.tell(now, connected, knows, near, &self.inherited);
    }

    /// The fence: no allocation, no file system, no waiting, nothing that can fail.
    fn enforce(&mut self, now: Moment) {
        let (epoch, word) = self.page.written();
        self.lease.observe(epoch, word);
        let begun = self.lease.fencing.is_some();
        if let Phase::Fence { kill_from } = self.lease.phase(now) {
            self.page.show_fence(self.lease.fencing, self.lease.fenced);
            if !begun {
                self.ward.end_all(kill_from);
            }
        }
        if self.ward.sweeping() {
            self.swept_since.get_or_insert(now);
        }
        if self.ward.sweep(now) {
            self.swept_since = None;
            let fenced = self.lease.fencing;
            self.lease.all_gone();
            self.page.show_fence(self.lease.fencing, self.lease.fenced);
            self.swept(now, fenced);
        }
    }

    /// Everything is gone: what waited for that goes on.
    fn swept(&mut self, now: Moment, fenced: Option<Epoch>) {
        if let Some(epoch) = fenced {
            say(format_args!(
                "epoch {epoch} is fenced: the lease was not renewed and nothing of PostgreSQL is left"
            ));
        }
        self.looked_at = now;
        if let Some(epoch) = fenced {
            self.herald.fenced(epoch, now);
        }
        if !self.waiting_kills.is_empty() && self.lease.armed.is_none() {
            self.watchdog.relieve();
        }
        while let Some(id) = self.waiting_kills.pop() {
            self.answer(id, Ok(0));
        }
        let Some((id, plan)) = self.waiting_start.take() else {
            self.ward.release();
            return;
        };
        if fenced.is_some() {
            self.answer(id, Err("the lease ended before the start".to_owned()));
            return;
        }
        if let Err(refusal) = self.is_leased(&plan) {
            self.answer(id, Err(refusal));
            return;
        }
        let exits_before = (self.ward.exits, self.ward.last_exit);
        match self.ward.start(&plan, &self.inherited) {
            Ok(launched) => {
                let program = plan.program.display().to_string();
                self.launching = Some(Launching {
                    id,
                    launched,
                    program,
                    exits_before,
                });
            }
            Err(error) => self.answer(id, Err(error)),
        }
    }

    /// Answers a start once the exec is known to have happened or failed.
    fn finish_launch(&mut self) {
        let Some(launching) = &self.launching else { return };
        let mut report = [PollFd::new(launching.launched.report.as_fd(), PollFlags::POLLIN)];
        if ppoll(&mut report, Some(TimeSpec::from(Duration::ZERO)), None) != Ok(1) {
            return;
        }
        let (id, pid) = (launching.id, launching.launched.pid);
        let result = match launching.launched.failure(&launching.program) {
            Some(failure) => {
                let (exits, last_exit) = launching.exits_before;
                self.ward.forget_child(pid, exits, last_exit, clock::now());
                Err(failure)
            }
            None => Ok(pid),
        };
        self.launching = None;
        self.answer(id, result);
    }

    fn welcome(&mut self) {
        while let Some(visitor) = self.door.visitor() {
            // A page of its own: what an older daemon, stopped and continued, writes into its page reaches nobody.
            let Ok((page, memory)) = Page::create() else {
                return;
            };
            page.carry_over(self.lease.armed);
            page.show_fence(self.lease.fencing, self.lease.fenced);
            page.beat(self.turns);
            if visitor.greet(memory.as_fd()).is_ok() {
                self.dismiss();
                self.page = page;
                self.visitor = Some(visitor);
                self.ward.look();
            }
        }
    }

    fn serve(&mut self, now: Moment) {
        while let Some(visitor) = &mut self.visitor {
            match visitor.request() {
                Ok(Some(request)) => self.handle(request.id, request.ask, now),
                Ok(None) => return,
                Err(_) => self.dismiss(),
            }
        }
    }

    fn handle(&mut self, id: u64, ask: Ask, now: Moment) {
        let result = match ask {
            Ask::Look => {
                self.enforce(now);
                self.tend_watchdog(now);
                Ok(0)
            }
            Ask::Orders(orders) => {
                self.herald.messenger = orders.messenger;
                self.watchdog.order(orders.watchdog);
                self.tend_watchdog(now);
                Ok(0)
            }
            Ask::Adopt(adoption) => {
                if self.waiting_start.is_some() || self.launching.is_some() || self.lease.fencing.is_some() {
                    Err("a start or a fence is under way".to_owned())
                } else {
                    let adopted = self.ward.adopt(adoption.pid, &adoption.data_dir);
                    adopted.map(|()| adoption.pid)
                }
            }
            Ask::Signal(signal) => self.ward.signal(signal).map(|()| 0),
            Ask::Start(plan) => match self.may_start(&plan) {
                Ok(()) => {
                    self.waiting_start = Some((id, plan));
                    self.ward.end_all(now);
                    return;
                }
                Err(refusal) => Err(refusal),
            },
            Ask::KillAll => match self.ward.claim(None) {
                Ok(()) => {
                    self.waiting_kills.push(id);
                    self.ward.end_all(now);
                    return;
                }
                Err(refusal) => Err(refusal),
            },
            Ask::Quit => {
                self.leaving = self.ward.idle() && self.lease.armed.is_none();
                if self.leaving {
                    Ok(0)
                } else {
                    Err("PostgreSQL runs or a lease is armed".to_owned())
                }
            }
        };
        self.answer(id, result);
    }

    fn may_start(&mut self, plan: &Launch) -> Result<(), String> {
        if let Some(pid) = self.ward.postmaster {
            return Err(format!("postmaster {pid} runs already"));
        }
        if self.waiting_start.is_some() || self.lease.fencing.is_some() {
            return Err("another start or a fence is under way".to_owned());
        }
        self.is_leased(plan)?;
        self.ward.claim(Some(&plan.data_dir))
    }

    /// What is started as a primary has a deadline, or would have none for ever.
    fn is_leased(&self, plan: &Launch) -> Result<(), String> {
        match plan.epoch {
            Some(epoch) if self.lease.armed.is_none_or(|(armed, _)| armed != epoch) => {
                Err(format!("the deadline of epoch {epoch} does not stand"))
            }
            Some(_) => self.watchdog.refusal().map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    fn answer(&mut self, id: u64, result: Result<i32, String>) {
        self.answers.push(Answer { id, result });
    }

    /// Tells the state when it is news, then the answers: who has an answer has seen what it did.
    fn tell(&mut self) {
        let told = Told {
            postmaster: self.ward.postmaster,
            exits: self.ward.exits,
            last_exit: self.ward.last_exit,
            clean: self.ward.clean,
            fencing: self.lease.fencing.is_some(),
            fenced: self.lease.fenced,
            armed: self.lease.armed,
            heartbeat: self.turns,
            level: LEVEL,
            watchdog: self.watchdog.state(),
        };
        let Some(visitor) = &mut self.visitor else {
            self.answers.clear();
            return;
        };
        if !self.told.is_some_and(|known| known.says_the_same(&told)) && !visitor.has_mail() {
            visitor.tell(&Event::State(told));
            self.told = Some(told);
        }
        for answer in self.answers.drain(..) {
            visitor.tell(&Event::Answer(answer));
        }
        if visitor.flush().is_err() {
            self.dismiss();
        }
    }

    /// The visitor has gone, and what it asked for concerns nobody any more.
    fn dismiss(&mut self) {
        self.visitor = None;
        self.told = None;
        self.waiting_start = None;
        self.waiting_kills.clear();
        self.answers.clear();
        if let Some(launching) = &mut self.launching {
            launching.id = 0;
        }
    }

    fn set_timer(&mut self) {
        let at = self.lease.fence_at();
        if at == self.timer_at {
            return;
        }
        let set = match at {
            Some(at) => self.timer.set(
                Expiration::OneShot(TimeSpec::from(Duration::from_millis(at.0))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => self.timer.unset(),
        };
        // Without the timer the turns alone see the deadline, WATCHFUL_MS late at worst.
        if set.is_ok() {
            self.timer_at = at;
        }
    }

    fn look_around(&mut self, now: Moment) {
        if now.since(self.looked_at) < RESTING_MS {
            return;
        }
        self.looked_at = now;
        self.ward.look();
        if self.visitor.is_none() && !self.door.stands() && self.ward.postmaster.is_some() {
            // Nobody can ever come back to this guard (its directory was wiped): PostgreSQL has no keeper.
            self.ward.end_all(now.plus(LOST_DOOR_MS));
        }
    }

    fn may_leave(&mut self, now: Moment) -> bool {
        let guarding = self.ward.postmaster.is_some() || self.ward.sweeping() || self.lease.armed.is_some();
        if guarding || self.visitor.is_some() {
            self.needed_at = now;
        }
        let alone = !guarding && self.visitor.is_none();
        self.leaving || alone && (now.since(self.needed_at) >= LONELY_MS || !self.door.stands())
    }

    /// Waits for something to happen, or for the next turn.
    fn wait(&mut self) {
        let signals = self.signals.as_fd();
        let mut all = std::array::from_fn::<_, 6, _>(|_| PollFd::new(signals, PollFlags::POLLIN));
        if let ([_, adopted, ..], Some(postmaster)) = (&mut all, self.ward.adopted()) {
            *adopted = PollFd::new(postmaster, PollFlags::POLLIN);
        }
        // A fence listens to nobody; its children's ends are all it waits for.
        if let [_, _, timer, door, visitor, launch] = &mut all
            && self.lease.fencing.is_none()
        {
            *timer = PollFd::new(self.timer.as_fd(), PollFlags::POLLIN);
            *door = PollFd::new(self.door.as_fd(), PollFlags::POLLIN);
            if let Some(connected) = &self.visitor {
                let mail = if connected.has_mail() {
                    PollFlags::POLLOUT
                } else {
                    PollFlags::empty()
                };
                *visitor = PollFd::new(connected.as_fd(), PollFlags::POLLIN | mail);
            }
            if let Some(launching) = &self.launching {
                *launch = PollFd::new(launching.launched.report.as_fd(), PollFlags::POLLIN);
            }
        }
        let pause = Duration::from_millis(self.pause_ms(clock::now()));
        // Interrupted or not, the next turn looks at everything.
        let _ = ppoll(&mut all, Some(TimeSpec::from(pause)), None);
        // A timer whose clock runs ahead of ours (a preloaded fake of it) would wake us for ever.
        let _ = self.timer.wait();
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let asked = i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32);
            self.leaving |= asked && self.ward.idle() && self.lease.armed.is_none();
        }
    }

    fn pause_ms(&self, now: Moment) -> u64 {
        match self.swept_since {
            Some(since) if now.since(since) > FENCE_ALONE_MS => LONG_SWEEP_MS,
            _ if self.ward.sweeping() => ROUND_MS,
            _ if self.herald.has_news() => herald::LOOK_MS,
            _ if self.ward.postmaster.is_some() || self.lease.armed.is_some() => WATCHFUL_MS,
            _ => RESTING_MS,
        }
    }
}
