//! A long cable: a thread carries the frames between two devices, each late by another time, so that some overtake
//! others, and some twice. What `tc netem` does, for kernels without it.

use crate::chaos::dice::Dice;
use crate::chaos::netns::Netns;
use crate::sys;
use matriarch::clock::boot_ns;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Every frame is late by at least this,
const LATE_NS: u64 = 3_000_000;
/// and by up to this more.
const MORE_NS: u64 = 22_000_000;
/// One frame of so many arrives twice.
const TWICE: u64 = 100;
/// The largest frame, before it is cut into segments, and the header before it.
const FRAME: usize = 1 << 17;
/// Longest sleep between two looks at whether the cable is to be taken away.
const LOOK_MS: u64 = 20;

/// The cable. Dropping it takes it away, and what is in it is lost.
pub struct Cable {
    counts: Arc<Counts>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    carried: AtomicU64,
    overtook: AtomicU64,
    twice: AtomicU64,
}

impl Cable {
    /// Between these two devices of a network, which nothing else may connect.
    pub fn new(netns: &Netns, devices: [&str; 2], seed: u64) -> Result<Self, String> {
        let ends = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                netns.enter()?;
                let open = |device| sys::frames(device).map_err(|why| format!("frames of {device}: {why}"));
                Ok::<_, String>([open(devices[0])?, open(devices[1])?])
            });
            thread.join().expect("the thread that opens the devices")
        })?;
        let (counts, over) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let carrier = Carrier {
            ends,
            dice: Dice::new(seed),
            counts: counts.clone(),
            on_the_way: BinaryHeap::new(),
            entered: 0,
            newest: [0; 2],
        };
        let stop = over.clone();
        let thread = std::thread::Builder::new()
            .name("cable".into())
            .spawn(move || carrier.run(&stop))
            .map_err(|why| format!("the cable's thread: {why}"))?;
        Ok(Self {
            counts,
            over,
            thread: Some(thread),
        })
    }

    /// Frames carried, how many of them had overtaken another, and how many came twice.
    pub fn counts(&self) -> [u64; 3] {
        [&self.counts.carried, &self.counts.overtook, &self.counts.twice].map(|n| n.load(Ordering::Relaxed))
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame on its way: when it arrives, its number, the end it leaves by, its bytes.
type Frame = (u64, u64, usize, Vec<u8>);

struct Carrier {
    ends: [OwnedFd; 2],
    dice: Dice,
    counts: Arc<Counts>,
    on_the_way: BinaryHeap<Reverse<Frame>>,
    entered: u64,
    /// The highest number that left by each end.
    newest: [u64; 2],
}

impl Carrier {
    fn run(mut self, over: &AtomicBool) {
        let mut buffer = vec![0; FRAME];
        while !over.load(Ordering::Relaxed) {
            let next = self.on_the_way.peek().map_or(u64::MAX, |Reverse(frame)| frame.0);
            let wait_ms = (next.saturating_sub(boot_ns()).div_ceil(1_000_000)).min(LOOK_MS);
            let wait = PollTimeout::from(u16::try_from(wait_ms).unwrap());
            let mut both = [0, 1].map(|end: usize| PollFd::new(self.ends[end].as_fd(), PollFlags::POLLIN));
            // An interrupted or failed look is made again.
            let _ = poll(&mut both, wait);
            self.take_in(&mut buffer);
            self.let_out();
        }
    }

    fn take_in(&mut self, buffer: &mut [u8]) {
        for from in 0..2 {
            while let Ok(length) = read(&self.ends[from], buffer) {
                let copies = if self.dice.one_in(TWICE) { 2 } else { 1 };
                self.counts.twice.fetch_add(copies - 1, Ordering::Relaxed);
                for _ in 0..copies {
                    self.entered += 1;
                    let due = boot_ns() + LATE_NS + self.dice.below(MORE_NS);
                    let frame = (due, self.entered, 1 - from, buffer[..length].to_vec());
                    self.on_the_way.push(Reverse(frame));
                }
            }
        }
    }

    fn let_out(&mut self) {
        while let Some(Reverse(frame)) = self.on_the_way.peek() {
            if frame.0 > boot_ns() {
                return;
            }
            let Some(Reverse((_, number, to, bytes))) = self.on_the_way.pop() else {
                return;
            };
            if number < self.newest[to] {
                self.counts.overtook.fetch_add(1, Ordering::Relaxed);
            }
            self.newest[to] = self.newest[to].max(number);
            // A device that is gone, busy or too small for it: lost, as cables lose frames.
            let _ = write(&self.ends[to], &bytes);
            self.counts.carried.fetch_add(1, Ordering::Relaxed);
        }
    }
}
