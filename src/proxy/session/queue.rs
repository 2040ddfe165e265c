//! What the client asked and the server has not answered yet.

use std::collections::VecDeque;

/// A pipeline that is deeper is not followed: its session counts as busy for good.
const DEEPEST: usize = 4096;
/// An emptied queue keeps room for so many.
const ROOM: usize = 32;

/// A message of the client whose answer says something about the session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Query, FunctionCall: answered by a ReadyForQuery.
    Query,
    /// Sync: likewise.
    Sync,
    /// Parse; with the body if the statement has a name.
    Parse(Option<Box<[u8]>>),
    /// Close; with the name if it is a statement's.
    Close(Option<Box<[u8]>>),
}

/// In order, what is not answered.
#[derive(Debug, Default)]
pub(super) struct Queue {
    asked: VecDeque<Asked>,
    /// Something was said that only a Sync completes.
    unsynced: bool,
    /// The server takes in COPY data, and ignores a Sync until that has ended.
    copying: bool,
    /// Questions and answers did not fit together, or were too many: it is never empty again.
    lost: bool,
}

impl Queue {
    /// Everything was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && !self.unsynced && !self.copying && !self.lost
    }

    /// Questions and answers did not fit together.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Nothing is known of this session's requests any more.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.asked = VecDeque::new();
    }

    pub(super) fn ask(&mut self, asked: Asked) {
        match asked {
            Asked::Sync if self.copying => return,
            Asked::Sync => self.unsynced = false,
            Asked::Query => {}
            Asked::Parse(_) | Asked::Close(_) => self.unsynced = true,
        }
        if self.lost {
            return;
        }
        if self.asked.len() >= DEEPEST {
            return self.lose();
        }
        self.asked.push_back(asked);
    }

    /// The client said something else that a Sync completes.
    pub(super) fn go_on(&mut self) {
        self.unsynced = true;
    }

    /// ParseComplete. The body, if the statement has a name.
    pub(super) fn parsed(&mut self) -> Option<Box<[u8]>> {
        match self.asked.pop_front() {
            Some(Asked::Parse(body)) => body,
            _ => {
                self.lose();
                None
            }
        }
    }

    /// CloseComplete. The name, if it was a statement.
    pub(super) fn closed(&mut self) -> Option<Box<[u8]>> {
        match self.asked.pop_front() {
            Some(Asked::Close(name)) => name,
            _ => {
                self.lose();
                None
            }
        }
    }

    /// ReadyForQuery: what was asked before the question that it answers has failed, or it would have been answered.
    pub(super) fn ready(&mut self) {
        self.copying = false;
        loop {
            match self.asked.pop_front() {
                Some(Asked::Query | Asked::Sync) => break,
                Some(_) => {}
                None => return self.lose(),
            }
        }
        if self.asked.is_empty() && self.asked.capacity() > ROOM {
            self.asked = VecDeque::new();
        }
    }

    /// CopyInResponse. The server reads a Sync that came early as part of the copying, and ignores it.
    pub(super) fn copy_in(&mut self) {
        self.copying = true;
        if self.asked.front() == Some(&Asked::Query) {
            return;
        }
        while self.asked.front() == Some(&Asked::Sync) {
            self.asked.pop_front();
        }
        self.unsynced = true;
        if !self.asked.is_empty() {
            self.lose();
        }
    }

    /// The client has no more data, or the server takes none.
    pub(super) fn copied(&mut self) {
        self.copying = false;
    }
}
