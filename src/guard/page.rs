//! The lease page: the shared memory through which the daemon moves the deadline without waking anybody.

use super::lease::{Word, Written};
use super::state::GuardError;
use crate::cluster::{Epoch, Lsn, Moment};
use crate::sys::SharedPage;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const MAGIC: u64 = u64::from_le_bytes(*b"mtrlease");
const VERSION: u64 = 1;

/// The page's words by name; the order is part of the protocol.
struct Words<'a> {
    magic: &'a AtomicU64,
    version: &'a AtomicU64,
    boot_high: &'a AtomicU64,
    boot_low: &'a AtomicU64,
    /// Written by the daemon: the epoch of the deadline, always before the deadline.
    epoch: &'a AtomicU64,
    /// Written by the daemon: the deadline, see [`Word`].
    deadline: &'a AtomicU64,
    /// Written by the guard: its turns.
    heartbeat: &'a AtomicU64,
    /// Written by the guard: the newest epoch whose fence has begun.
    fencing: &'a AtomicU64,
    /// Written by the guard: the newest epoch whose fence is carried out.
    fenced: &'a AtomicU64,
    /// Written by the daemon: a position near the end of the log, where a later reader begins.
    position: &'a AtomicU64,
}

/// One mapping of the page.
#[derive(Debug)]
pub(super) struct Page(SharedPage);

impl Page {
    /// A new page in memory of its own, sealed so that no holder can pull it from under another.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let memory = memfd_create(
            "matriarch-lease",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )?;
        nix::unistd::ftruncate(&memory, 4096)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
        let page = Self(SharedPage::map(memory.as_fd())?);
        let (high, low) = boot_id()?;
        let words = page.words();
        words.boot_high.store(high, SeqCst);
        words.boot_low.store(low, SeqCst);
        words.version.store(VERSION, SeqCst);
        words.magic.store(MAGIC, SeqCst);
        Ok((page, memory))
    }

    /// The page that a guard has handed over.
    pub(super) fn open(memory: BorrowedFd<'_>) -> io::Result<Self> {
        let page = Self(SharedPage::map(memory)?);
        let words = page.words();
        let boot = (words.boot_high.load(SeqCst), words.boot_low.load(SeqCst));
        if words.magic.load(SeqCst) != MAGIC || words.version.load(SeqCst) != VERSION {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this is no lease page of version 1",
            ));
        }
        if boot != boot_id()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the lease page is of another boot",
            ));
        }
        Ok(page)
    }

    fn words(&self) -> Words<'_> {
        let [
            magic,
            version,
            boot_high,
            boot_low,
            epoch,
            deadline,
            heartbeat,
            fencing,
            fenced,
            position,
            ..,
        ] = self.0.words();
        Words {
            magic,
            version,
            boot_high,
            boot_low,
            epoch,
            deadline,
            heartbeat,
            fencing,
            fenced,
            position,
        }
    }

    /// Sets or extends a deadline; true when the guard has to be told to look at once.
    pub(super) fn arm(&self, epoch: Epoch, deadline: Moment) -> Result<bool, GuardError> {
        let word = Word::new(epoch, deadline).ok_or(GuardError::Deadline(deadline.0))?;
        let words = self.words();
        if words.fencing.load(SeqCst) >= epoch.0 {
            return Err(GuardError::Fenced(epoch));
        }
        let known = Epoch(words.epoch.load(SeqCst));
        let fresh = match Word(words.deadline.load(SeqCst)).of(known) {
            _ if known > epoch => {
                return Err(GuardError::Refused(format!(
                    "epoch {epoch} is older than epoch {known}"
                )));
            }
            Written::Deadline(old) if known == epoch && old >= deadline => return Ok(false),
            Written::Deadline(_) => known != epoch,
            Written::Nothing | Written::Torn => true,
        };
        words.epoch.store(epoch.0, SeqCst);
        words.deadline.store(word.0, SeqCst);
        // The guard may have begun between the first look and the store.
        if words.fencing.load(SeqCst) >= epoch.0 {
            return Err(GuardError::Fenced(epoch));
        }
        Ok(fresh)
    }

    /// Takes the deadline away; true when there was one.
    pub(super) fn disarm(&self) -> bool {
        let words = self.words();
        let none = Word::none(Epoch(words.epoch.load(SeqCst)));
        words.deadline.swap(none.0, SeqCst) != none.0
    }

    /// Notes how far the log reaches.
    pub(super) fn note_position(&self, position: Lsn) {
        self.words().position.store(position.0, SeqCst);
    }

    /// How far the log reached when the daemon last looked; zero when it never did.
    pub(super) fn position(&self) -> Lsn {
        Lsn(self.words().position.load(SeqCst))
    }

    /// The daemon knows that this epoch is over: it has taken its deadline away, or gone on to a newer epoch.
    pub(super) fn has_let_go_of(&self, epoch: Epoch) -> bool {
        let (written, word) = self.written();
        written > epoch || written == epoch && word.of(epoch) == Written::Nothing
    }

    /// What the daemon has written: epoch and deadline.
    pub(super) fn written(&self) -> (Epoch, Word) {
        let words = self.words();
        // The deadline first: the epoch is stored before it, so a deadline of a new epoch is never paired
        // with the epoch before; the other way round shows as torn.
        let word = Word(words.deadline.load(SeqCst));
        (Epoch(words.epoch.load(SeqCst)), word)
    }

    /// Puts down what another page had, for a daemon that has just come.
    pub(super) fn carry_over(&self, armed: Option<(Epoch, Moment)>) {
        let words = self.words();
        if let Some((epoch, deadline)) = armed
            && let Some(word) = Word::new(epoch, deadline)
        {
            words.epoch.store(epoch.0, SeqCst);
            words.deadline.store(word.0, SeqCst);
        }
    }

    /// Shows that the guard lives.
    pub(super) fn beat(&self, turns: u64) {
        self.words().heartbeat.store(turns, SeqCst);
    }

    /// The guard's turns.
    pub(super) fn heartbeat(&self) -> u64 {
        self.words().heartbeat.load(SeqCst)
    }

    /// Shows which fences have begun and which are carried out.
    pub(super) fn show_fence(&self, begun: Option<Epoch>, done: Option<Epoch>) {
        let words = self.words();
        words.fencing.store(begun.max(done).map_or(0, |e| e.0), SeqCst);
        words.fenced.store(done.map_or(0, |e| e.0), SeqCst);
    }
}

/// The kernel's identity of this boot, as two numbers.
fn boot_id() -> io::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map(|id| ((id >> 64) as u64, id as u64))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_one_page() {
        let (guard, memory) = Page::create().unwrap();
        let daemon = Page::open(memory.as_fd()).unwrap();
        assert!(
            daemon.arm(Epoch(1), Moment(5000)).unwrap(),
            "a first deadline is news"
        );
        assert!(
            !daemon.arm(Epoch(1), Moment(6000)).unwrap(),
            "an extension wakes nobody"
        );
        assert!(
            !daemon.arm(Epoch(1), Moment(5500)).unwrap(),
            "a shorter one is not written"
        );
        assert_eq!(
            guard.written(),
            (Epoch(1), Word::new(Epoch(1), Moment(6000)).unwrap())
        );
        guard.beat(7);
        assert_eq!(daemon.heartbeat(), 7);
        assert!(daemon.disarm() && !daemon.disarm());
    }

    #[test]
    fn arming_is_refused_once_the_fence_has_begun_and_for_old_epochs() {
        let (page, _memory) = Page::create().unwrap();
        page.arm(Epoch(4), Moment(5000)).unwrap();
        assert!(matches!(
            page.arm(Epoch(3), Moment(9000)),
            Err(GuardError::Refused(_))
        ));
        page.show_fence(Some(Epoch(4)), None);
        assert!(matches!(
            page.arm(Epoch(4), Moment(9000)),
            Err(GuardError::Fenced(Epoch(4)))
        ));
        page.show_fence(None, Some(Epoch(4)));
        assert!(matches!(
            page.arm(Epoch(4), Moment(9000)),
            Err(GuardError::Fenced(Epoch(4)))
        ));
        assert!(page.arm(Epoch(5), Moment(9000)).unwrap());
        assert!(matches!(
            page.arm(Epoch(5), Moment(u64::MAX)),
            Err(GuardError::Deadline(_))
        ));
    }
}
