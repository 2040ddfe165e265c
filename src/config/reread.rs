//! A node file that was read again: what of it takes effect at once, and what only a new start of the daemon can.

use super::model::Config;

/// A new configuration as far as it can be used without a new start.
#[derive(Clone, Debug, PartialEq)]
pub struct Reread {
    /// The new values, and the old ones of the keys that cannot change.
    pub config: Config,
    /// The keys that were changed in vain, in the order of the file.
    pub kept: Vec<&'static str>,
}

/// Takes over what can change while the daemon runs. Who this node is, where its log and its data lie, and where
/// others find them, was promised at the start: to the group, to the guard, to a running PostgreSQL.
pub fn reread(old: &Config, mut new: Config) -> Reread {
    let mut kept = Vec::new();
    let mut keep = Keeper(&mut kept);
    keep.same("name", &old.name, &mut new.name);
    keep.same("scope", &old.scope, &mut new.scope);
    keep.same("raft", &old.raft, &mut new.raft);
    match (&old.postgresql, &mut new.postgresql) {
        (Some(old), Some(new)) => {
            keep.same("postgresql.listen", &old.listen, &mut new.listen);
            if new.config_dir == new.data_dir {
                // Not written down: it follows the other.
                new.config_dir.clone_from(&old.config_dir);
            }
            keep.same("postgresql.data_dir", &old.data_dir, &mut new.data_dir);
            keep.same("postgresql.config_dir", &old.config_dir, &mut new.config_dir);
            keep.same("postgresql.bin_dir", &old.bin_dir, &mut new.bin_dir);
            keep.same("postgresql.bin_name", &old.bin_name, &mut new.bin_name);
        }
        (None, None) => {}
        _ => keep.same("postgresql", &old.postgresql, &mut new.postgresql),
    }
    keep.same("vip", &old.vip, &mut new.vip);
    keep.same("notify", &old.notify, &mut new.notify);
    Reread { config: new, kept }
}

struct Keeper<'a>(&'a mut Vec<&'static str>);

impl Keeper<'_> {
    fn same<T: PartialEq + Clone>(&mut self, key: &'static str, old: &T, new: &mut T) {
        if old != new {
            new.clone_from(old);
            self.0.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const FILE: &str = "scope: demo\nname: n1\nrestapi:\n  listen: 127.0.0.1:8008\nraft:\n  self_addr: 127.0.0.1:2222\n  \
         partner_addrs: ['127.0.0.1:2223', '127.0.0.1:2224']\n  data_dir: /r\npostgresql:\n  listen: 127.0.0.1:5532\n  \
         data_dir: /d\n  authentication:\n    superuser: {username: postgres}\n    replication: {username: repl}\n  \
         parameters:\n    work_mem: 4MB\n";

    fn config(text: &str) -> Config {
        let env = BTreeMap::from([("MATRIARCH_CONFIGURATION".to_owned(), text.to_owned())]);
        super::super::load(std::path::Path::new(""), &env).unwrap().config
    }

    #[test]
    fn what_can_change_changes_and_what_cannot_is_named() {
        let old = config(FILE);
        let text = FILE
            .replace("4MB", "8MB")
            .replace("data_dir: /d", "data_dir: /elsewhere")
            .replace(":2223", ":2229")
            + "tags: {nofailover: true}\n";
        let reread = reread(&old, config(&text));
        assert_eq!(reread.kept, ["raft", "postgresql.data_dir"]);
        assert!(reread.config.tags.nofailover);
        let section = reread.config.postgresql.unwrap();
        assert_eq!(section.parameters["work_mem"], "8MB");
        assert_eq!(section.data_dir, std::path::Path::new("/d"));
        assert_eq!(reread.config.raft, old.raft);
    }

    #[test]
    fn a_node_does_not_become_a_witness_by_an_edit() {
        let old = config(FILE);
        let witness: String = FILE.split("postgresql:").next().unwrap().to_owned();
        let reread = reread(&old, config(&witness));
        assert_eq!(reread.kept, ["postgresql"]);
        assert_eq!(reread.config, old);
    }
}
