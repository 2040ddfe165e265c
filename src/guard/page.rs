//! The lease page: six numbers in memory that the daemon and the guard share.

use crate::cluster::{Epoch, Moment};
use crate::sys::SharedPage;
use std::io;
use std::os::fd::BorrowedFd;

const EPOCH: usize = 0;
const DEADLINE_NS: usize = 1;
const HEARTBEAT: usize = 2;
const FENCING: usize = 3;
const FENCED: usize = 4;

/// Size of the file behind the page.
pub const SIZE: i64 = 4_096;

/// The page, as either side sees it. The daemon writes epoch and deadline, the guard the rest.
pub struct Page(SharedPage);

impl Page {
    /// Maps it.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        SharedPage::map(fd).map(Self)
    }

    /// Sets the deadline of `epoch`; false when a fence of that epoch has begun, or for a shorter deadline.
    /// The epoch is written first: a guard that looks in between sees the new epoch with an older, earlier deadline.
    pub fn arm(&self, epoch: Epoch, deadline: Moment) -> bool {
        if self.0.get(FENCING) == epoch.0 || self.0.get(FENCED) == epoch.0 {
            return false;
        }
        let deadline = deadline.0.saturating_mul(1_000_000);
        if self.0.get(EPOCH) == epoch.0 && self.0.get(DEADLINE_NS) > deadline {
            return false;
        }
        self.0.set(EPOCH, epoch.0);
        self.0.set(DEADLINE_NS, deadline);
        true
    }

    /// There is no deadline any more, unless a fence has begun.
    pub fn disarm(&self) {
        if self.0.get(FENCING) == 0 {
            self.0.set(DEADLINE_NS, 0);
        }
    }

    /// The armed epoch and its deadline in nanoseconds of the boot-time clock.
    pub fn armed(&self) -> Option<(Epoch, u64)> {
        let deadline = self.0.get(DEADLINE_NS);
        (deadline > 0).then(|| (Epoch(self.0.get(EPOCH)), deadline))
    }

    /// The guard passed once more.
    pub fn beat(&self) {
        self.0.set(HEARTBEAT, self.0.get(HEARTBEAT).wrapping_add(1));
    }

    /// How often the guard has passed.
    pub fn heartbeat(&self) -> u64 {
        self.0.get(HEARTBEAT)
    }

    /// A fence of `epoch` begins; from here there is no way back.
    pub fn begin_fence(&self, epoch: Epoch) {
        self.0.set(FENCING, epoch.0);
    }

    /// Nothing of `epoch` lives any more.
    pub fn end_fence(&self, epoch: Epoch) {
        self.0.set(FENCED, epoch.0);
        self.0.set(DEADLINE_NS, 0);
        self.0.set(FENCING, 0);
    }

    /// The epoch that was fenced last.
    pub fn fenced(&self) -> Option<Epoch> {
        Some(self.0.get(FENCED)).filter(|epoch| *epoch > 0).map(Epoch)
    }

    /// The epoch that is being fenced.
    pub fn fencing(&self) -> Option<Epoch> {
        Some(self.0.get(FENCING)).filter(|epoch| *epoch > 0).map(Epoch)
    }
}
