//! A server that takes connections over TLS only, from whoever shows a certificate.

use super::site::{Server, Site, until};
use matriarch::postgres::{Login, Postgres, PostgresError, Probe, Session};
use matriarch_chaos::herd::postgres_ids;
use nix::unistd::chown;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const KEY_PASSWORD: &str = "opens the key";

/// A certificate that signs itself, its key, and the key behind a password, all the server's owner's.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    sealed: PathBuf,
}

impl Identity {
    fn new(dir: &Path) -> Self {
        let [certificate, key, sealed] = ["pg.crt", "pg.key", "sealed.key"].map(|name| dir.join(name));
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let signed = params.self_signed(&pair).unwrap();
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let made = std::process::Command::new("openssl")
            .args(["pkcs8", "-topk8", "-v2", "aes256", "-passout"])
            .arg(format!("pass:{KEY_PASSWORD}"))
            .arg("-in")
            .arg(&key)
            .arg("-out")
            .arg(&sealed)
            .status();
        assert!(made.unwrap().success());
        for file in [&certificate, &key, &sealed] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((uid, gid)) = postgres_ids() {
                chown(file, Some(uid), Some(gid)).unwrap();
            }
        }
        Self {
            certificate,
            key,
            sealed,
        }
    }

    fn shown_by(&self, login: &mut Login, mode: &str) {
        let path = |file: &Path| file.display().to_string();
        let options = [
            ("sslmode", mode.to_owned()),
            ("sslcert", path(&self.certificate)),
            ("sslkey", path(&self.sealed)),
        ];
        login.options = options.map(|(name, value)| (name.to_owned(), value)).into();
        login.key_password = Some(KEY_PASSWORD.to_owned());
    }
}

/// A node that comes by TCP.
fn node(site: &Site, index: usize, identity: Option<(&Identity, &str)>) -> Server {
    let mut server = site.server(index);
    server.setup.unix_socket_dir = None;
    if let Some((identity, mode)) = identity {
        for login in [
            &mut server.setup.superuser,
            &mut server.setup.replication,
            &mut server.setup.rewind,
        ] {
            identity.shown_by(login, mode);
        }
    }
    server.postgres = Postgres::new(server.setup.clone()).unwrap();
    server.session = Session::new(&server.postgres);
    server
}

async fn configure(server: &Server, identity: &Identity, primary: Option<&Server>) {
    let mut conf = Server::conf_with("", primary);
    let file = |path: &Path| path.display().to_string();
    for (name, value) in [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", file(&identity.certificate)),
        ("ssl_key_file", file(&identity.key)),
        ("ssl_ca_file", file(&identity.certificate)),
    ] {
        conf.parameters.insert(name.to_owned(), value);
    }
    let rules = ["all", "replication"]
        .map(|database| format!("hostssl {database} all 127.0.0.0/8 scram-sha-256 clientcert=verify-ca"));
    conf.hba = Some(rules.into());
    server.postgres.write_conf(&conf).await.unwrap();
}

/// What comes of a probe; a machine that was busy for a second is asked again.
async fn probed(session: &Session) -> Result<Probe, PostgresError> {
    let mut answer = None;
    until("an answer in time", 20, async || {
        let now = session.probe().await;
        let in_time = !matches!(now, Err(PostgresError::Late { .. }));
        answer = Some(now);
        in_time
    })
    .await;
    answer.unwrap()
}

#[tokio::test]
async fn who_takes_tls_and_a_certificate_only_is_administered_and_copied_all_the_same() {
    let site = Site::new();
    let identity = Identity::new(site.path());
    let mut primary = node(&site, 0, Some((&identity, "prefer")));
    primary.postgres.initdb(&[]).await.unwrap();
    configure(&primary, &identity, None).await;
    primary.start().await;
    primary
        .postgres
        .create_roles(&primary.session, true)
        .await
        .unwrap();
    for mode in ["require", "verify-full", "prefer", "allow"] {
        let session = node(&site, 0, Some((&identity, mode))).session;
        probed(&session)
            .await
            .unwrap_or_else(|why| panic!("{mode}: {why}"));
    }
    for stranger in [None, Some((&identity, "disable"))] {
        let why = probed(&node(&site, 0, stranger).session).await.unwrap_err();
        assert!(matches!(why, PostgresError::Unreachable { .. }), "{why}");
    }
    let mut wrong = node(&site, 0, Some((&identity, "require")));
    wrong.setup.superuser.key_password = Some("another".to_owned());
    let session = Session::new(&Postgres::new(wrong.setup.clone()).unwrap());
    let why = probed(&session).await.unwrap_err().to_string();
    assert!(why.contains("sealed.key: sslpassword does not open it"), "{why}");
    // The key opens for the programs and the stream, and its password is on no command line and in no public file.
    let mut standby = node(&site, 1, Some((&identity, "require")));
    standby.copy(&primary).await.unwrap();
    configure(&standby, &identity, Some(&primary)).await;
    standby.postgres.set_standby_signal(true).unwrap();
    standby.start().await;
    standby.until("it streams", 20, Probe::is_streaming).await;
    let services = standby.setup.pgpass.with_file_name("pgpass1.service");
    let mode = std::fs::metadata(&services).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
