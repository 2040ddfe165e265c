//! The file with users' passwords: read when it is new, and again when it has changed.

use super::house::House;
use super::session::Userlist;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// What tells that a file has changed.
type Stamp = (SystemTime, u64);

/// What was read last.
#[derive(Default)]
pub(crate) struct Users {
    path: Option<PathBuf>,
    stamp: Option<Stamp>,
    said: String,
}

impl Users {
    /// Looks at the file; a file that cannot be read leaves what was read before. What an operator should know.
    pub(crate) fn look(&mut self, house: &House) -> Option<String> {
        let path = house.terms.borrow().auth_file.clone()?;
        if self.path.as_ref() != Some(&path) {
            (self.path, self.stamp) = (Some(path.clone()), None);
        }
        let note = match self.read(&path, house) {
            Ok(None) => return None,
            Ok(Some(note)) => note,
            Err(why) => format!("proxy.auth_file: {}: {why}", path.display()),
        };
        let news = self.said != note;
        self.said.clone_from(&note);
        (news && !note.is_empty()).then_some(note)
    }

    fn read(&mut self, path: &Path, house: &House) -> Result<Option<String>, String> {
        let found = std::fs::metadata(path).and_then(|data| Ok((data.modified()?, data.len())));
        let stamp = found.map_err(|why| why.to_string())?;
        if self.stamp == Some(stamp) {
            return Ok(None);
        }
        let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
        self.stamp = Some(stamp);
        let list = Userlist::parse(&text)?;
        let hashed = list.hashed();
        house.users.send_replace(Arc::new(list));
        Ok(Some(if hashed == 0 {
            String::new()
        } else {
            format!(
                "proxy.auth_file: {}: {hashed} users have no password there but a hash or nothing; their sessions go along only \
                 where the server trusts the proxy",
                path.display()
            )
        }))
    }
}
