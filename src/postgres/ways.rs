//! The ways to the local server: by its socket, and by TCP as the superuser's `sslmode` has it.

use super::session::{PROBE, words};
use super::{Login, Setup};
use crate::config::Secret;
use crate::tls_client::{ClientIdentity, client_config};
use std::path::PathBuf;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// We are the superuser: nobody's function may stand in for one of the system's, and the bounds are ours.
const SETTINGS: &str = "-c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0";

/// One way.
#[derive(Clone)]
pub(super) struct Way {
    config: Config,
    /// Without it in plain text; or why there is none.
    tls: Option<Result<MakeRustlsConnect, String>>,
    /// What it is called in an error.
    pub(super) at: String,
}

impl Way {
    /// The client, and the task that serves it; or why it does not lead there.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), String> {
        let told = |why: Error| words(&why);
        // Whoever uses the client hears of the end of its connection.
        match &self.tls {
            Some(Ok(tls)) => {
                let (client, connection) = self.config.connect(tls.clone()).await.map_err(told)?;
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            }
            Some(Err(why)) => Err(format!("postgresql.authentication.superuser: {why}")),
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(told)?;
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            }
        }
    }
}

/// All ways, the best first. Where the rules of pg_hba.conf turn us away at one (`peer`, when we are root; `hostssl`),
/// they may let us in at the next.
pub(super) fn ways(setup: &Setup) -> Vec<Way> {
    let mut common = Config::new();
    common
        .port(setup.port)
        .user(&setup.superuser.username)
        .dbname(&setup.database)
        .application_name("matriarch")
        .connect_timeout(PROBE)
        .options(SETTINGS);
    if let Some(password) = &setup.superuser.password {
        common.password(password);
    }
    let way = |host: &str, mode: SslMode, tls: Option<Result<MakeRustlsConnect, String>>| {
        let mut config = common.clone();
        config.host(host).ssl_mode(mode);
        let at = format!("{host}:{}", setup.port);
        Way { config, tls, at }
    };
    let mut found = Vec::new();
    for host in hosts(setup) {
        if host.starts_with('/') {
            found.push(way(&host, SslMode::Disable, None));
            continue;
        }
        for mode in modes(&setup.superuser) {
            let tls = (mode != SslMode::Disable).then(|| tls(&setup.superuser));
            found.push(way(&host, mode, tls));
        }
    }
    found
}

/// What libpq tries in its turn. `prefer` begins with TLS, as libpq does.
fn modes(login: &Login) -> Vec<SslMode> {
    match login.options.get("sslmode").map_or("prefer", String::as_str) {
        "disable" => vec![SslMode::Disable],
        "allow" => vec![SslMode::Disable, SslMode::Require],
        "prefer" => vec![SslMode::Prefer, SslMode::Disable],
        _ => vec![SslMode::Require],
    }
}

/// Any certificate of the server is believed: it is our own, at an address of this machine, which its certificate need
/// not name.
fn tls(login: &Login) -> Result<MakeRustlsConnect, String> {
    let file = |name: &str| login.options.get(name).map(PathBuf::from);
    let identity = file("sslcert")
        .zip(file("sslkey"))
        .map(|(certificate, key)| ClientIdentity {
            certificate,
            key,
            password: login.key_password.clone().map(Secret::new),
        });
    client_config(true, None, identity.as_ref())
        .map(MakeRustlsConnect::new)
        // Here the key's password goes by libpq's name.
        .map_err(|why| why.replace("keyfile_password", "sslpassword"))
}

/// Where the local server listens for us, the best way first.
pub(super) fn hosts(setup: &Setup) -> Vec<String> {
    let socket = setup.unix_socket_dir.iter().map(|dir| dir.display().to_string());
    let first = setup.listen_addresses.split(',').map(str::trim).next();
    let tcp = match first.unwrap_or_default() {
        "*" | "0.0.0.0" | "localhost" => Some("127.0.0.1"),
        "::" => Some("::1"),
        // It listens on no address when there is none, and then the socket is all there is.
        "" => None,
        other => Some(other),
    };
    socket.chain(tcp.map(str::to_owned)).collect()
}
