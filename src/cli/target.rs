//! Which cluster a command is about, and how its nodes are reached.

use super::out::CliError;
use super::talk::Talk;
use crate::config::{self, Credentials, Operator};
use crate::tls_client::ClientIdentity;
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a node answers when nothing else is said.
const DEFAULT_URL: &str = "http://127.0.0.1:8008";

/// Addresses of the stores that patronictl speaks to; here there is none to speak to.
const STORES: [&str; 7] = [
    "etcd",
    "etcd3",
    "consul",
    "zookeeper",
    "exhibitor",
    "kubernetes",
    "raft",
];

/// Options of every command that asks a cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct Target {
    /// Node file; its `restapi`, `raft`, `ctl` and `scope` say whom to ask
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Cluster")]
    config_file: Option<PathBuf>,
    /// REST address of any node, or several with commas between
    #[arg(
        short = 'd',
        long = "url",
        visible_alias = "dcs-url",
        alias = "dcs",
        value_name = "URL",
        help_heading = "Cluster"
    )]
    url: Option<String>,
    /// Accept any certificate
    #[arg(short = 'k', long, help_heading = "Cluster")]
    insecure: bool,
    /// Authorities that may have signed the nodes' certificates (PEM)
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Cluster")]
    cacert: Option<PathBuf>,
}

/// How the nodes' certificates are judged, and how we are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Accept any certificate.
    pub insecure: bool,
    /// Authorities (PEM).
    pub cacert: Option<PathBuf>,
    /// Our own certificate, for nodes that ask for one.
    pub identity: Option<ClientIdentity>,
    /// Name and password, for whatever changes something.
    pub login: Option<Credentials>,
}

/// A cluster to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterAddress {
    /// Its name, where a file or the environment says it.
    pub scope: Option<String>,
    /// REST addresses, the best first.
    pub urls: Vec<String>,
    /// TLS and login.
    pub trust: Trust,
}

impl Target {
    /// These options, and `outer`'s where these are silent.
    pub(super) fn or(self, outer: &Self) -> Self {
        Self {
            config_file: self.config_file.or_else(|| outer.config_file.clone()),
            url: self.url.or_else(|| outer.url.clone()),
            insecure: self.insecure || outer.insecure,
            cacert: self.cacert.or_else(|| outer.cacert.clone()),
        }
    }

    /// Whom to ask: the command line, else the node file, else the environment, else this machine.
    pub(super) fn resolve(&self, talk: &mut Talk<'_>) -> Result<ClusterAddress, CliError> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let (address, notes) = self.resolve_in(&env)?;
        for note in notes {
            talk.note(&note);
        }
        Ok(address)
    }

    fn resolve_in(&self, env: &BTreeMap<String, String>) -> Result<(ClusterAddress, Vec<String>), CliError> {
        let file = self.file(env);
        let operator = match config::operator(file.as_deref().unwrap_or(Path::new("")), env) {
            Ok(operator) => operator,
            Err(problems) => {
                return Err(CliError::Config(
                    problems.iter().map(ToString::to_string).collect(),
                ));
            }
        };
        let mut address = from_operator(operator);
        let mut notes = Vec::new();
        let variable = env.get("DCS_URL").filter(|url| !url.is_empty());
        if let Some(urls) = self.url.as_ref().or(variable) {
            let (stores, nodes): (Vec<&str>, Vec<&str>) =
                urls.split(',').map(str::trim).partition(|url| is_store(url));
            for store in stores {
                let what = "there is no such store here, the nodes themselves are asked";
                notes.push(format!("note: {} is ignored: {what}", without_login(store)));
            }
            if !nodes.is_empty() {
                address.urls = nodes.into_iter().map(with_scheme).collect();
            }
        }
        address.trust.insecure |= self.insecure;
        if self.cacert.is_some() {
            address.trust.cacert.clone_from(&self.cacert);
        }
        Ok((address, notes))
    }

    /// The file that is named, else the one where patronictl looks, if it is there.
    fn file(&self, env: &BTreeMap<String, String>) -> Option<PathBuf> {
        let set = |key: &str| env.get(key).filter(|value| !value.is_empty());
        let named = self.config_file.clone();
        named
            .or_else(|| set("PATRONICTL_CONFIG_FILE").map(PathBuf::from))
            .or_else(|| {
                let home = set("XDG_CONFIG_HOME").map(PathBuf::from);
                let home = home.or_else(|| Some(Path::new(set("HOME")?).join(".config")))?;
                Some(home.join("patroni/patronictl.yaml")).filter(|file| file.is_file())
            })
    }
}

fn from_operator(operator: Operator) -> ClusterAddress {
    let scheme = if operator.tls { "https" } else { "http" };
    let mut urls: Vec<String> = operator
        .doors
        .iter()
        .map(|door| format!("{scheme}://{door}"))
        .collect();
    if urls.is_empty() {
        urls.push(DEFAULT_URL.to_owned());
    }
    let ctl = operator.ctl;
    let key = ctl.keyfile;
    ClusterAddress {
        scope: operator.scope,
        urls,
        trust: Trust {
            insecure: ctl.insecure,
            cacert: ctl.cacert,
            identity: ctl.certfile.map(|certificate| ClientIdentity {
                key: key.unwrap_or_else(|| certificate.clone()),
                certificate,
                password: ctl.keyfile_password,
            }),
            login: ctl.authentication,
        },
    }
}

fn is_store(url: &str) -> bool {
    url.split_once("://")
        .is_some_and(|(scheme, _)| STORES.contains(&scheme))
}

/// An address as it may be shown: what stands before an `@` may be a password.
fn without_login(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or(rest)),
        None => url.to_owned(),
    }
}

fn with_scheme(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(url: Option<&str>, env: &[(&str, &str)]) -> ClusterAddress {
        let target = Target {
            url: url.map(str::to_owned),
            ..Target::default()
        };
        let env = env
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        target.resolve_in(&env).unwrap().0
    }

    #[test]
    fn nearest_word_wins() {
        assert_eq!(resolved(None, &[]).urls, [DEFAULT_URL]);
        let env = [
            ("PATRONI_RESTAPI_CONNECT_ADDRESS", "10.0.0.1:8008"),
            ("PATRONI_SCOPE", "a"),
        ];
        assert_eq!(resolved(None, &env).urls, ["http://10.0.0.1:8008"]);
        let both = resolved(Some("https://x:1/, y:2"), &env);
        assert_eq!(
            (both.urls, both.scope),
            (vec!["https://x:1".into(), "http://y:2".into()], Some("a".into()))
        );
    }

    #[test]
    fn a_store_is_passed_over_and_its_password_not_shown() {
        let target = Target {
            url: Some("etcd3://me:secret@10.0.0.9:2379/service".to_owned()),
            ..Target::default()
        };
        let (address, notes) = target.resolve_in(&BTreeMap::new()).unwrap();
        assert_eq!(address.urls, [DEFAULT_URL]);
        assert!(
            notes[0].starts_with("note: etcd3://10.0.0.9:2379/service is ignored"),
            "{notes:?}"
        );
        assert!(!notes[0].contains("secret"));
    }

    #[test]
    fn the_file_of_patronictl_is_found_and_may_be_small() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(".config/patroni");
        std::fs::create_dir_all(&dir).unwrap();
        let env = BTreeMap::from([("HOME".to_owned(), home.path().display().to_string())]);
        assert_eq!(Target::default().resolve_in(&env).unwrap().0.scope, None);
        let small = "\
            scope: demo\netcd3: {host: '10.0.0.9:2379'}\n\
            restapi: {connect_address: '10.0.0.1:8009', authentication: {username: door, password: d}}\n\
            ctl: {insecure: on, authentication: {username: me, password: '0123'}}\n";
        std::fs::write(dir.join("patronictl.yaml"), small).unwrap();
        let address = Target::default().resolve_in(&env).unwrap().0;
        assert_eq!(
            (address.scope.as_deref(), address.urls),
            (Some("demo"), vec!["http://10.0.0.1:8009".to_owned()])
        );
        let login = address.trust.login.unwrap();
        assert_eq!((login.username.as_str(), login.password.reveal()), ("me", "0123"));
        assert!(address.trust.insecure);
    }

    #[test]
    fn a_node_file_says_whom_to_ask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.yml");
        let file = "\
            scope: demo\nname: node1\n\
            restapi: {listen: '0.0.0.0:8118', connect_address: '127.0.0.1:8118'}\n\
            raft: {self_addr: '127.0.0.1:2222', data_dir: /nowhere, partner_addrs: ['127.0.0.2:2222', '127.0.0.3:2222']}\n";
        std::fs::write(&path, file).unwrap();
        let target = Target {
            config_file: Some(path),
            ..Target::default()
        };
        let address = target.resolve_in(&BTreeMap::new()).unwrap().0;
        assert_eq!(address.scope.as_deref(), Some("demo"));
        assert_eq!(
            address.urls,
            [
                "http://127.0.0.1:8118",
                "http://127.0.0.2:8118",
                "http://127.0.0.3:8118"
            ]
        );
        let missing = Target {
            config_file: Some(dir.path().join("no.yml")),
            ..Target::default()
        };
        assert!(matches!(
            missing.resolve_in(&BTreeMap::new()),
            Err(CliError::Config(_))
        ));
    }
}
