//! Users and their passwords, from a file in the format of pgBouncer's `auth_file`.

use std::collections::HashMap;

/// What the proxy can prove of a user.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing: only `trust` and `cert` let it in.
    None,
    /// A password.
    Password(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
        })
    }
}

/// The passwords of all users that are known.
#[derive(Clone, Debug, Default)]
pub struct Userlist {
    users: HashMap<String, Credentials>,
}

impl Userlist {
    /// Reads lines of `"user" "password"`; a quotation mark inside is doubled, what follows is ignored, as are empty lines and
    /// those that begin with `;` or `#`.
    ///
    /// # Errors
    /// A sentence that names the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let both = quoted(line).and_then(|(user, rest)| Some((user, quoted(rest.trim_start())?.0)));
            let Some((user, password)) = both.filter(|(user, _)| !user.is_empty()) else {
                return Err(format!(
                    "line {number}: \"user\" \"password\" is expected, with the quotation marks"
                ));
            };
            let credentials = if is_hash(&password) || password.is_empty() {
                Credentials::None
            } else {
                Credentials::Password(password)
            };
            if users.insert(user.clone(), credentials).is_some() {
                return Err(format!("line {number}: the user \"{user}\" is there twice"));
            }
        }
        Ok(Self { users })
    }

    /// What is known of this user.
    pub fn of(&self, user: &str) -> Credentials {
        self.users.get(user).cloned().unwrap_or(Credentials::None)
    }

    /// Users without a password: a hash stands there, which proves nothing to a server.
    pub fn hashed(&self) -> usize {
        let without = |known: &&Credentials| **known == Credentials::None;
        self.users.values().filter(without).count()
    }
}

/// What a server stores of a password.
fn is_hash(password: &str) -> bool {
    let md5 = |hash: &str| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    password.starts_with("SCRAM-SHA-256$") || password.strip_prefix("md5").is_some_and(md5)
}

/// A quoted text, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut content = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        content.push_str(part);
        let Some(more) = behind.strip_prefix('"') else {
            return Some((content, behind));
        };
        content.push('"');
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_pgbouncer_is_read() {
        let text = "; users\n\n\"app\" \"it's\"\"so\" \"\"\n  \"old\" \"md5d41d8cd98f00b204e9800998ecf8427e\"\n\
                    \"new\" \"SCRAM-SHA-256$4096:c2FsdA==$a:b\"\n\"md\" \"md5 is old\"\n";
        let list = Userlist::parse(text).unwrap();
        assert_eq!(list.of("app"), Credentials::Password("it's\"so".to_owned()));
        assert_eq!(list.of("md"), Credentials::Password("md5 is old".to_owned()));
        for user in ["old", "new", "nobody"] {
            assert_eq!(list.of(user), Credentials::None);
        }
        assert_eq!(list.hashed(), 2);
        assert!(!format!("{list:?}").contains("so"));
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for (text, expected) in [
            ("app secret", "line 1: "),
            ("\n\"app\"", "line 2: "),
            ("\"app\" \"secret", "line 1: "),
            ("\"\" \"x\"", "line 1: "),
            (
                "\"a\" \"b\"\n\"a\" \"c\"",
                "line 2: the user \"a\" is there twice",
            ),
        ] {
            let error = Userlist::parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
