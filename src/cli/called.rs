//! As whom the program was called, and what that changes: old scripts call it `patronictl`.

use std::ffi::OsStr;
use std::path::Path;

/// The name of the program in `argv[0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// Its own.
    Matriarch,
    /// A link of that name.
    Patronictl,
}

/// How a command that could be tried ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All that was asked has happened.
    Whole,
    /// Something was refused, and the output says what.
    Partly,
}

impl Called {
    /// What the first argument of the process says.
    pub(super) fn of(argv0: Option<&OsStr>) -> Self {
        let stem = argv0.and_then(|name| Path::new(name).file_stem());
        if stem.is_some_and(|stem| stem == "patronictl") {
            Self::Patronictl
        } else {
            Self::Matriarch
        }
    }

    /// The name as usage and versions show it.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Matriarch => "matriarch",
            Self::Patronictl => "patronictl",
        }
    }

    /// The exit code. Scripts made for patronictl know a refusal by its words: its code is 0.
    pub(super) fn code(self, done: Done) -> u8 {
        match (self, done) {
            (Self::Matriarch, Done::Partly) => 1,
            _ => 0,
        }
    }
}

impl Done {
    /// Whole where everything went well.
    pub(super) fn when(well: bool) -> Self {
        if well { Self::Whole } else { Self::Partly }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_enough() {
        for (argv0, called) in [
            ("/usr/local/bin/patronictl", Called::Patronictl),
            ("patronictl.py", Called::Patronictl),
            ("./matriarch", Called::Matriarch),
            ("patronictl-old", Called::Matriarch),
        ] {
            assert_eq!(Called::of(Some(OsStr::new(argv0))), called, "{argv0}");
        }
        assert_eq!(Called::of(None), Called::Matriarch);
    }
}
