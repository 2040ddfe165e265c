//! Which cluster a command is about, and how its nodes are reached.

use super::out::CliError;
use crate::config::{Config, load};
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a node answers when nothing else is said.
const DEFAULT_URL: &str = "http://127.0.0.1:8008";

/// Options of every command that asks a cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct Target {
    /// Node file; its `restapi` and `scope` say whom to ask
    #[arg(short, long, global = true, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// REST address of any node, or several with commas between
    #[arg(
        short = 'd',
        long = "url",
        visible_alias = "dcs-url",
        alias = "dcs",
        global = true,
        value_name = "URL"
    )]
    url: Option<String>,
    /// Accept any certificate
    #[arg(short = 'k', long, global = true)]
    insecure: bool,
    /// Authorities that may have signed the nodes' certificates (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
}

/// How the nodes' certificates are judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Accept any certificate.
    pub insecure: bool,
    /// Authorities (PEM).
    pub cacert: Option<PathBuf>,
    /// Our own certificate and key (PEM), for nodes that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A cluster to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterAddress {
    /// Its name, where a file or the environment says it.
    pub scope: Option<String>,
    /// REST addresses, the best first.
    pub urls: Vec<String>,
    /// TLS.
    pub trust: Trust,
}

impl Target {
    /// Whom to ask: the command line, else the node file, else the environment, else this machine.
    pub(super) fn resolve(&self) -> Result<ClusterAddress, CliError> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        self.resolve_in(&env)
    }

    fn resolve_in(&self, env: &BTreeMap<String, String>) -> Result<ClusterAddress, CliError> {
        let named = |key: &str| {
            let ours = env.get(&format!("MATRIARCH_{key}"));
            ours.or_else(|| env.get(&format!("PATRONI_{key}")))
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let file = self
            .config_file
            .clone()
            .or_else(|| env.get("PATRONICTL_CONFIG_FILE").map(PathBuf::from));
        let mut address = match &file {
            Some(path) => from_config(&read(path, env)?),
            None => {
                let urls = named("RESTAPI_CONNECT_ADDRESS").map(|address| vec![with_scheme(&address)]);
                ClusterAddress {
                    scope: named("SCOPE"),
                    urls: urls.unwrap_or_else(|| vec![DEFAULT_URL.to_owned()]),
                    trust: Trust::default(),
                }
            }
        };
        if let Some(urls) = &self.url {
            address.urls = urls.split(',').map(|url| with_scheme(url.trim())).collect();
        }
        address.trust.insecure |= self.insecure;
        if self.cacert.is_some() {
            address.trust.cacert.clone_from(&self.cacert);
        }
        Ok(address)
    }
}

fn read(path: &Path, env: &BTreeMap<String, String>) -> Result<Config, CliError> {
    match load(path, env) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => Err(CliError::Config(
            problems.iter().map(ToString::to_string).collect(),
        )),
    }
}

/// The file's own node first, then its partners: a REST door is taken to have the same port everywhere.
fn from_config(config: &Config) -> ClusterAddress {
    let rest = &config.restapi;
    let scheme = if rest.certfile.is_some() { "https" } else { "http" };
    let mut urls = vec![format!("{scheme}://{}", rest.connect_address)];
    if let Some((_, port)) = rest.connect_address.rsplit_once(':') {
        for (host, _) in config
            .raft
            .partner_addrs
            .iter()
            .filter_map(|addr| addr.rsplit_once(':'))
        {
            let url = format!("{scheme}://{host}:{port}");
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    let certificate = config.ctl.certfile.clone();
    let identity = certificate.map(|cert| (cert.clone(), config.ctl.keyfile.clone().unwrap_or(cert)));
    ClusterAddress {
        scope: Some(config.scope.clone()),
        urls,
        trust: Trust {
            insecure: config.ctl.insecure,
            cacert: config.ctl.cacert.clone().or_else(|| rest.cafile.clone()),
            identity,
        },
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
        target.resolve_in(&env).unwrap()
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
        let address = target.resolve_in(&BTreeMap::new()).unwrap();
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
