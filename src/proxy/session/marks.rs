//! What ties a session to its server: things it may have there that no other server has.

/// Why a session cannot be moved to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fixed {
    /// Moving is not configured.
    #[error("its state was not followed")]
    NotFollowed,
    /// It is in a transaction, or waits for an answer.
    #[error("it is at work")]
    Busy,
    /// Questions and answers did not fit together, or it speaks the replication protocol.
    #[error("its conversation was not understood")]
    Lost,
    /// Text that is not read with certainty: an encoding or a way of quoting.
    #[error("its SQL cannot be read with certainty")]
    Unreadable,
    /// A procedure, a DO block or a function that is not known to leave nothing behind.
    #[error("it called a function or procedure that may have left something in the session")]
    Calls,
    /// LOAD.
    #[error("it loaded a library")]
    Loaded,
    /// LISTEN.
    #[error("it listens for notifications")]
    Listens,
    /// A temporary table, view or sequence.
    #[error("it has temporary tables")]
    Temporary,
    /// An advisory lock of the session.
    #[error("it holds advisory locks")]
    Locks,
    /// A cursor WITH HOLD.
    #[error("it has an open cursor")]
    Cursor,
    /// SET ROLE, SET SESSION AUTHORIZATION.
    #[error("it changed its role")]
    Role,
    /// A setting whose value is not known.
    #[error("it changed settings in a way that cannot be repeated")]
    Settings,
    /// PREPARE, or DEALLOCATE of it is not known what.
    #[error("it has prepared statements that cannot be repeated")]
    Statements,
    /// currval, lastval.
    #[error("it asked for the value that a sequence had in this session")]
    Sequence,
    /// More statements or settings than are kept.
    #[error("it has more prepared statements or settings than are kept")]
    TooMuch,
}

/// In the order of how much they say; `true` if DISCARD ALL takes it away.
const ALL: [(Fixed, bool); 13] = [
    (Fixed::Lost, false),
    (Fixed::Unreadable, false),
    (Fixed::Temporary, true),
    (Fixed::Locks, true),
    (Fixed::Listens, true),
    (Fixed::Cursor, true),
    (Fixed::Role, true),
    (Fixed::Loaded, false),
    (Fixed::Settings, true),
    (Fixed::Statements, true),
    (Fixed::Sequence, true),
    (Fixed::TooMuch, true),
    (Fixed::Calls, false),
];

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u16);

impl Marks {
    pub(super) fn add(&mut self, why: Fixed) {
        self.0 |= Self::of(why).0;
    }

    pub(super) fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub(super) fn remove(&mut self, why: Fixed) {
        self.0 &= !Self::of(why).0;
    }

    /// What DISCARD ALL leaves.
    pub(super) fn discard(&mut self) {
        for (why, _) in ALL.iter().filter(|(_, goes)| *goes) {
            self.remove(*why);
        }
    }

    /// The one that says most.
    pub(super) fn first(self) -> Option<Fixed> {
        let mut all = ALL.iter().map(|(why, _)| *why);
        all.find(|why| self.0 & Self::of(*why).0 != 0)
    }

    fn of(why: Fixed) -> Self {
        let place = ALL.iter().position(|(known, _)| *known == why);
        Self(
            place
                .and_then(|place| 1_u16.checked_shl(u32::try_from(place).ok()?))
                .unwrap_or(0),
        )
    }
}
