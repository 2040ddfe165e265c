//! Configuration files brought to their place, and carried along in copies of the data.
//!
//! initdb writes them into the data directory, and a base backup copies that only, without the links in it. So they are
//! copied out after the one where they lie elsewhere, and kept beside the data under Patroni's names
//! (`pg_hba.conf.backup`), from where a new copy gets those it lacks.

use super::{Postgres, PostgresError, files};

/// What is kept; the first is never brought back as it was, because we write it anew.
const FILES: [&str; 4] = [
    "postgresql.conf",
    "postgresql.base.conf",
    "pg_hba.conf",
    "pg_ident.conf",
];

impl Postgres {
    /// Whether the configuration lies outside the data directory.
    pub(super) fn has_config_apart(&self) -> bool {
        self.config_dir() != self.data_dir()
    }

    /// Sees to it that the directory holds what the server cannot do without.
    pub(super) fn bring_conf(&self) -> Result<(), PostgresError> {
        let (data, config, owner) = (self.data_dir(), self.config_dir(), self.owner());
        if self.has_config_apart() && !files::exists(config) {
            files::make_private_dir(config, owner)?;
        }
        for name in FILES {
            let place = config.join(name);
            let (made, kept) = (data.join(name), data.join(format!("{name}.backup")));
            if !files::exists(&place) {
                // Our own file is written anew, and must not be taken for the operator's.
                let lost = match files::read(&made)? {
                    Some(text) => Some(text),
                    None if name != "postgresql.conf" => files::read(&kept)?,
                    None => None,
                };
                if let Some(text) = lost {
                    files::replace(&place, &text, owner)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps them beside the data.
    pub(super) fn keep_conf(&self) -> Result<(), PostgresError> {
        for name in FILES {
            if let Some(text) = files::read(&self.config_dir().join(name))? {
                let kept = self.data_dir().join(format!("{name}.backup"));
                files::replace_changed(&kept, &text, self.owner())?;
            }
        }
        Ok(())
    }
}
