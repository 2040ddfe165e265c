//! The words of SQL that say what a statement leaves behind in its session.

use std::collections::HashSet;
use std::sync::LazyLock;

/// A word that changes how a statement is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    All,
    As,
    Authorization,
    Characteristics,
    Constraints,
    Create,
    Execute,
    Global,
    Hold,
    Insert,
    Into,
    Local,
    Merge,
    Names,
    Prepare,
    /// SELECT, VALUES, UPDATE, DELETE: from here on functions are called.
    Query,
    Recursive,
    References,
    Replace,
    Role,
    Schema,
    Seed,
    Session,
    Table,
    Temp,
    Time,
    To,
    Transaction,
    With,
    Xml,
    Zone,
    Other,
}

impl Word {
    pub(super) fn of(word: &[u8]) -> Self {
        match word {
            b"all" => Self::All,
            b"as" => Self::As,
            b"authorization" => Self::Authorization,
            b"characteristics" => Self::Characteristics,
            b"constraints" => Self::Constraints,
            b"create" => Self::Create,
            b"execute" => Self::Execute,
            b"global" => Self::Global,
            b"hold" => Self::Hold,
            b"insert" => Self::Insert,
            b"into" => Self::Into,
            b"local" => Self::Local,
            b"merge" => Self::Merge,
            b"names" => Self::Names,
            b"prepare" => Self::Prepare,
            b"select" | b"values" | b"update" | b"delete" => Self::Query,
            b"recursive" => Self::Recursive,
            b"references" => Self::References,
            b"replace" => Self::Replace,
            b"role" => Self::Role,
            b"schema" => Self::Schema,
            b"seed" => Self::Seed,
            b"session" => Self::Session,
            b"table" => Self::Table,
            b"temp" | b"temporary" => Self::Temp,
            b"time" => Self::Time,
            b"to" => Self::To,
            b"transaction" => Self::Transaction,
            b"with" => Self::With,
            b"xml" => Self::Xml,
            b"zone" => Self::Zone,
            _ => Self::Other,
        }
    }

    /// What follows is a name; a parenthesis behind it opens a list, not a call.
    pub(super) fn names(self) -> bool {
        matches!(
            self,
            Self::As
                | Self::Execute
                | Self::Into
                | Self::Recursive
                | Self::References
                | Self::Table
                | Self::With
        )
    }
}

/// What kind of statement a first word begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads or writes rows, and may call functions from its first word on.
    Rows,
    /// Leaves nothing in the session as such; may hold a query further on.
    Plain,
    Set,
    Reset,
    Discard,
    Deallocate,
    Prepare,
    Declare,
    Listen,
    Load,
    /// Runs what cannot be seen, or is not known.
    Unknown,
}

impl Kind {
    pub(super) fn of(first: &[u8]) -> Self {
        match first {
            b"select" | b"with" | b"values" | b"insert" | b"update" | b"delete" | b"merge" | b"table"
            | b"fetch" | b"move" | b"execute" => Self::Rows,
            b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint" | b"release"
            | b"show" | b"explain" | b"copy" | b"vacuum" | b"analyze" | b"analyse" | b"checkpoint"
            | b"create" | b"alter" | b"drop" | b"truncate" | b"grant" | b"revoke" | b"comment" | b"lock"
            | b"notify" | b"unlisten" | b"close" | b"cluster" | b"reindex" | b"refresh" | b"reassign"
            | b"security" | b"import" => Self::Plain,
            b"set" => Self::Set,
            b"reset" => Self::Reset,
            b"discard" => Self::Discard,
            b"deallocate" => Self::Deallocate,
            b"prepare" => Self::Prepare,
            b"declare" => Self::Declare,
            b"listen" => Self::Listen,
            b"load" => Self::Load,
            _ => Self::Unknown,
        }
    }
}

/// Whether a parenthesis behind this word calls nothing that could leave something in the session.
pub(super) fn is_harmless(word: &[u8]) -> bool {
    HARMLESS.contains(word)
}

static HARMLESS: LazyLock<HashSet<&'static [u8]>> = LazyLock::new(|| {
    let lines = include_str!("harmless.txt").lines();
    let words = lines.filter(|line| !line.starts_with('#'));
    words.flat_map(str::split_whitespace).map(str::as_bytes).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_leaves_something_behind_is_not_harmless() {
        for word in [
            "set_config",
            "pg_advisory_lock",
            "pg_try_advisory_lock_shared",
            "currval",
            "lastval",
            "setseed",
            "dblink_connect",
            "pg_backend_pid",
            "my_function",
        ] {
            assert!(!is_harmless(word.as_bytes()), "{word}");
        }
        for word in ["count", "in", "coalesce", "pg_advisory_xact_lock", "varchar"] {
            assert!(is_harmless(word.as_bytes()), "{word}");
        }
    }
}
