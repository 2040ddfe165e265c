//! The node file as it holds now: read again on SIGHUP and `POST /reload`, handed on to whoever uses it.

use super::model::Config;
use super::{load, reread};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Keeps the configuration in force. The environment is that of the start: nobody can change it from outside.
pub struct Renewal {
    env: BTreeMap<String, String>,
    publish: watch::Sender<Arc<Config>>,
}

impl Renewal {
    /// Begins with what the daemon was started with.
    pub fn new(config: Arc<Config>, env: BTreeMap<String, String>) -> Self {
        let (publish, _) = watch::channel(config);
        Self { env, publish }
    }

    /// Hears of every reading, also of one that changed nothing: PostgreSQL's own files are written again then.
    pub fn watch(&self) -> watch::Receiver<Arc<Config>> {
        self.publish.subscribe()
    }

    /// Reads the file again. One that is wrong changes nothing; what was read is logged, a line for each oddity.
    pub fn renew(&self) {
        let old = self.publish.borrow().clone();
        let loaded = match load(&old.path, &self.env) {
            Ok(loaded) => loaded,
            Err(problems) => {
                for problem in problems {
                    tracing::error!("not reloaded: {problem}");
                }
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let new = reread(&old, loaded.config);
        if !new.kept.is_empty() {
            let keys = new.kept.join(", ");
            tracing::warn!("reloaded; a change of {keys} takes effect at the next start of the daemon only");
        } else if new.config == *old {
            tracing::info!("reloaded; the node file has not changed");
        } else {
            tracing::info!("reloaded the node file");
        }
        self.publish.send_replace(Arc::new(new.config));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "scope: demo\nname: n1\nrestapi:\n  listen: 127.0.0.1:8008\nraft:\n  self_addr: 127.0.0.1:2222\n  \
         partner_addrs: ['127.0.0.1:2223', '127.0.0.1:2224']\n  data_dir: /r\n";

    #[test]
    fn a_broken_file_changes_nothing_and_a_good_one_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.yml");
        std::fs::write(&path, FILE).unwrap();
        let env = BTreeMap::new();
        let config = Arc::new(load(&path, &env).unwrap().config);
        let renewal = Renewal::new(config.clone(), env);
        let mut watch = renewal.watch();
        std::fs::write(&path, format!("{FILE}tags: [\n")).unwrap();
        renewal.renew();
        assert!(!watch.has_changed().unwrap());
        std::fs::write(&path, format!("{FILE}tags:\n  nosync: true\n")).unwrap();
        renewal.renew();
        assert!(watch.has_changed().unwrap());
        assert!(watch.borrow_and_update().tags.nosync);
        renewal.renew();
        assert!(
            watch.has_changed().unwrap(),
            "PostgreSQL's files are written again"
        );
    }
}
