//! TLS towards servers: whom we believe, and the certificate that we show.

use crate::config::Secret;
use crate::private_key::private_key;
use crate::tls_pinned::Pinned;
use crate::tls_signatures::signatures_by_provider;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The certificate of whoever connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The key's password.
    pub password: Option<Secret>,
}

/// Believes everybody when `credulous`, else whoever has a certificate of `authorities`; shows `identity` to whoever
/// asks.
pub(crate) fn client_config(
    credulous: bool,
    authorities: Option<&Path>,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if credulous {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous { provider }))
    } else {
        let pins = authorities.map(certificates).transpose()?.unwrap_or_default();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pins.clone());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier: Arc<dyn ServerCertVerifier> = verifier.build().map_err(|error| error.to_string())?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(pins, provider, verifier)))
    };
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let key = private_key(&identity.key, identity.password.as_ref())
        .map_err(|why| format!("{}: {why}", identity.key.display()))?;
    builder
        .with_client_auth_cert(certificates(&identity.certificate)?, key)
        .map_err(|error| error.to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Believes any certificate, because the operator said so; signatures are still checked.
#[derive(Debug)]
struct Credulous {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ServerConfig, SupportedProtocolVersion, sign};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// Greets a server that shows this certificate and signs with that key.
    async fn greet(
        client: ClientConfig,
        shown: &CertificateDer<'static>,
        key: &KeyPair,
        version: &'static SupportedProtocolVersion,
    ) -> Result<(), String> {
        let provider = rustls::crypto::ring::default_provider();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = provider.key_provider.load_private_key(key).unwrap();
        let pair = sign::SingleCertAndKey::from(sign::CertifiedKey::new(vec![shown.clone()], key));
        let server = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(pair));
        let (near, far) = tokio::io::duplex(1 << 16);
        let accepting = TlsAcceptor::from(Arc::new(server)).accept(far);
        let name = ServerName::try_from("db.example").unwrap();
        let greeting = TlsConnector::from(Arc::new(client)).connect(name, near);
        let (greeted, _) = tokio::join!(greeting, accepting);
        greeted.map(drop).map_err(|why| why.to_string())
    }

    /// A certificate is public: only its key shows whose it is.
    #[tokio::test]
    async fn whoever_shows_a_certificate_without_its_key_is_refused_even_where_anybody_is_believed() {
        let (its, stolen) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&its).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let authority = dir.path().join("authority.pem");
        std::fs::write(&authority, made.pem()).unwrap();
        for version in [&TLS12, &TLS13] {
            for credulous in [true, false] {
                let client = || client_config(credulous, Some(&authority), None).unwrap();
                greet(client(), made.der(), &its, version).await.unwrap();
                let why = greet(client(), made.der(), &stolen, version).await.unwrap_err();
                assert!(why.contains("BadSignature"), "{version:?} {credulous}: {why}");
            }
        }
    }
}
