//! The end of a session: why it came, and the one thing that its client is told.

use super::moving::Stranded;
use super::relay::{Pause, Relay, SHARED};
use super::session::{self, Fixed};
use super::words::Refusal;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One side has gone.
    Gone,
    /// Its primary is not the primary any more.
    Deposed,
    /// Its server has gone without a word to the client.
    Lost,
    /// Its server wanted to be rid of it, and said so.
    SentAway,
    /// The proxy ends.
    Stopping,
    /// A side does not speak PostgreSQL's protocol.
    Garbled,
    /// A commit's wait for standbys was given up, and nobody can tell whether one of them has it.
    InDoubt,
}

/// Why a session with a primary was not taken to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmoved {
    /// It has something that cannot be taken along.
    Fixed(Fixed),
    /// It could have been, and did not arrive.
    Stranded(Stranded),
}

impl Unmoved {
    /// The word in the metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fixed(Fixed::NotFollowed) => "not_followed",
            Self::Fixed(Fixed::Busy) => "busy",
            Self::Fixed(Fixed::Lost | Fixed::Unreadable) => "unreadable",
            Self::Fixed(Fixed::Calls | Fixed::Loaded | Fixed::Sequence) => "functions",
            Self::Fixed(Fixed::Listens) => "listens",
            Self::Fixed(Fixed::Temporary) => "temporary",
            Self::Fixed(Fixed::Locks) => "locks",
            Self::Fixed(Fixed::Cursor) => "cursor",
            Self::Fixed(Fixed::Role | Fixed::Settings) => "settings",
            Self::Fixed(Fixed::Statements) => "statements",
            Self::Fixed(Fixed::TooMuch) => "too_much",
            Self::Stranded(Stranded::Late) => "no_server",
            Self::Stranded(Stranded::Refused | Stranded::SentAway) => "refused",
        }
    }
}

impl Relay {
    /// What it means that the server has gone.
    pub(crate) fn end_of_server(&self) -> End {
        let reader = self.epoch.is_none();
        let told = self
            .follower
            .as_ref()
            .is_none_or(|follower| follower.is_told_the_end());
        if reader || self.dismissed || told {
            End::Gone
        } else {
            End::Lost
        }
    }

    /// The last words to the client, as far as it takes them at once.
    pub(crate) fn close(mut self, end: End) {
        let pause = self.pause.take();
        if let Some(why) = self.why_not_moved(end) {
            self.counts.unmoved(why.word());
        }
        let words = match end {
            End::SentAway => match pause {
                Some(Pause::Move(_, words)) => words,
                _ => return,
            },
            End::Deposed | End::Lost => self.why_it_ends(),
            End::Stopping if self.is_asked() => session::unanswered(),
            End::Stopping => Refusal::Stopping.spoken(),
            End::InDoubt => session::unknown_commit(),
            End::Gone | End::Garbled => return,
        };
        self.say(&words);
    }

    /// Something was asked, and what came of it was not told. An answer that is withheld may be the commit's.
    fn is_asked(&self) -> bool {
        let follower = self.follower.as_ref().filter(|follower| follower.is_ready());
        follower.is_some_and(|follower| follower.is_asked() || !self.to_client.is_empty())
    }

    /// What a client is told whose server is not the primary any more.
    fn why_it_ends(&self) -> Vec<u8> {
        let Some(follower) = &self.follower else {
            return Refusal::Deposed.spoken();
        };
        if !follower.is_ready() {
            return Refusal::NoPrimary.spoken();
        }
        if self.is_asked() {
            return session::unanswered();
        }
        match follower.movable() {
            Err(why) => session::moved_away(why),
            Ok(_) => Refusal::Deposed.spoken(),
        }
    }

    /// Why a session with a primary ends in place of being taken along; nothing if that is not why it ends.
    fn why_not_moved(&self, end: End) -> Option<Unmoved> {
        let epoch = self.epoch?;
        let told = self.dismissed || self.follower.as_ref()?.is_told_the_end();
        let ends = match end {
            End::Deposed | End::Lost | End::InDoubt => true,
            // Its server has said so itself: because it goes, if it is not open any more.
            End::Gone => told && !self.house.is_open(epoch),
            _ => false,
        };
        if !ends {
            return None;
        }
        if let Some(stranded) = self.stranded {
            return Some(Unmoved::Stranded(stranded));
        }
        let follower = self.follower.as_ref()?;
        Some(match follower.movable() {
            Err(why) => Unmoved::Fixed(why),
            Ok(_) => Unmoved::Fixed(Fixed::Busy),
        })
    }

    fn say(&self, words: &[u8]) {
        // What is kept may end anywhere, and what a deposed primary has answered is not forwarded any more.
        let follower = self.follower.as_ref();
        let at_boundary = self.cut || follower.is_some_and(|follower| follower.may_speak());
        if !self.withheld && (!at_boundary || !self.to_client.is_empty()) {
            return;
        }
        let _ = self.client.try_write(words);
        // A socket that is closed with bytes unread is reset, and the words would be lost.
        SHARED.with_borrow_mut(|shared| {
            let _ = self.client.try_read(shared);
        });
    }
}
