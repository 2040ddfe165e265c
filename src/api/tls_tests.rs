//! The door over TLS: clients with and without a certificate, and certificates that change while it is open.

use super::fixtures::facts;
use super::{Access, ApiHandle, ApiOptions, Identity, Operator, TlsOptions, VerifyClient, serve};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// An authority and the files it made.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Certificate and key in one file, as `certfile` may be.
    fn certify(&self, name: &str, serial: u64) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(serial.into());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(name), certificate.pem() + &key.serialize_pem()).unwrap();
    }

    fn options(&self, verify_client: VerifyClient) -> ApiOptions {
        ApiOptions {
            identity: Identity {
                scope: "demo".into(),
                name: "node0".into(),
            },
            listen: "127.0.0.1:0".into(),
            tls: Some(TlsOptions {
                certfile: self.path("server.pem"),
                keyfile: None,
                keyfile_password: None,
                cafile: Some(self.path("ca.pem")),
                verify_client,
                ciphers: None,
            }),
            access: match verify_client {
                VerifyClient::None => Access::default(),
                _ => Access::needing_certificate(),
            },
            extra_headers: Vec::new(),
            server_tokens: None,
        }
    }

    async fn open(&self, verify_client: VerifyClient) -> ApiHandle {
        self.open_as(self.options(verify_client)).await
    }

    async fn open_as(&self, options: ApiOptions) -> ApiHandle {
        let (_, seen) = watch::channel(Some(Arc::new(facts(0))));
        serve(options, seen, Operator::default(), std::future::pending())
            .await
            .unwrap()
    }

    async fn connect(
        &self,
        door: &ApiHandle,
        identity: Option<&Path>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(door, identity, rustls::crypto::ring::default_provider())
            .await
    }

    async fn connect_with(
        &self,
        door: &ApiHandle,
        identity: Option<&Path>,
        provider: CryptoProvider,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap())
            .unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(path) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(path).unwrap()],
                    PrivateKeyDer::from_pem_file(path).unwrap(),
                )
                .unwrap(),
        };
        let tcp = TcpStream::connect(door.addresses()[0]).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    /// The answer, empty where the door refuses to talk at all.
    async fn say(&self, door: &ApiHandle, identity: Option<&Path>, head: &str) -> String {
        let talk = async {
            let Ok(mut stream) = self.connect(door, identity).await else {
                return String::new();
            };
            let text = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(text.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        timeout(PATIENCE, talk).await.unwrap()
    }
}

fn serial_of(stream: &TlsStream<TcpStream>) -> String {
    super::tls::serial(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

#[tokio::test]
async fn who_must_show_a_certificate() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    ours.certify("server.pem", 1);
    ours.certify("client.pem", 2);
    strangers.certify("client.pem", 3);
    let (known, unknown) = (ours.path("client.pem"), strangers.path("client.pem"));

    let door = ours.open(VerifyClient::Optional).await;
    let say = |who, head| ours.say(&door, who, head);
    assert!(say(None, "GET /patroni").await.starts_with("HTTP/1.1 200 "));
    let refused = say(None, "POST /reload").await;
    assert!(
        refused.starts_with("HTTP/1.1 403 ") && refused.ends_with("client certificate required"),
        "{refused}"
    );
    let welcome = say(Some(&known), "POST /reload").await;
    assert!(
        welcome.starts_with("HTTP/1.1 ") && !welcome.contains(" 403 "),
        "{welcome}"
    );
    assert_eq!(say(Some(&unknown), "GET /patroni").await, "");

    let door = ours.open(VerifyClient::Required).await;
    let say = |who, head| ours.say(&door, who, head);
    assert_eq!(say(None, "GET /patroni").await, "");
    assert_eq!(say(Some(&unknown), "GET /patroni").await, "");
    assert!(
        say(Some(&known), "GET /patroni")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn a_certificate_changes_under_open_connections_and_a_broken_one_does_not_count() {
    let ours = Authority::new();
    ours.certify("server.pem", 0x11);
    let door = ours.open(VerifyClient::None).await;
    let control = door.control();
    let mut open = ours.connect(&door, None).await.unwrap();
    assert_eq!(serial_of(&open), "11");

    ours.certify("server.pem", 0x22);
    control.reload(ours.options(VerifyClient::None)).await.unwrap();
    assert_eq!(serial_of(&ours.connect(&door, None).await.unwrap()), "22");

    std::fs::write(ours.path("server.pem"), "not a certificate").unwrap();
    let error = control
        .reload(ours.options(VerifyClient::None))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("restapi.certfile: ") && !error.contains('\n'),
        "{error}"
    );
    assert_eq!(serial_of(&ours.connect(&door, None).await.unwrap()), "22");

    open.write_all(b"GET /patroni HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, open.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

/// A client that can do this suite only.
fn only(suite: u16) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .retain(|known| u16::from(known.suite()) == suite);
    assert_eq!(provider.cipher_suites.len(), 1);
    provider
}

#[tokio::test]
async fn only_the_suites_of_the_list_are_spoken_and_in_its_order() {
    let (aes_256, aes_128) = (0xc02c, 0xc02b);
    let (new_aes_256, new_aes_128) = (0x1302, 0x1301);
    let ours = Authority::new();
    ours.certify("server.pem", 1);
    let options = |ciphers: &[u16]| {
        let mut options = ours.options(VerifyClient::None);
        if let Some(tls) = &mut options.tls {
            tls.ciphers = Some(ciphers.to_vec());
        }
        options
    };
    let door = ours.open_as(options(&[new_aes_128, aes_256])).await;
    let suite = async |provider| {
        let stream = timeout(PATIENCE, ours.connect_with(&door, None, provider))
            .await
            .unwrap();
        let suite = stream.ok()?.get_ref().1.negotiated_cipher_suite()?.suite();
        Some(u16::from(suite))
    };
    for (offered, spoken) in [
        (aes_256, true),
        (aes_128, false),
        (new_aes_128, true),
        (new_aes_256, false),
    ] {
        assert_eq!(
            suite(only(offered)).await,
            spoken.then_some(offered),
            "{offered:x}"
        );
    }

    // The client would rather have it the other way round.
    let all = rustls::crypto::ring::default_provider;
    door.control()
        .reload(options(&[new_aes_128, new_aes_256]))
        .await
        .unwrap();
    assert_eq!(suite(all()).await, Some(new_aes_128));
    assert_eq!(suite(only(aes_256)).await, None, "TLS 1.2 is not spoken any more");

    door.control().reload(options(&[aes_128])).await.unwrap();
    assert_eq!(
        suite(all()).await,
        Some(aes_128),
        "TLS 1.3 is not spoken any more"
    );
}
