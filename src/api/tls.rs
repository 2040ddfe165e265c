//! TLS of the REST door: certificate, key, cipher suites, and whether clients must show a certificate.

use crate::config::Secret;
use crate::private_key::private_key;
use crate::tls_pinned::Pinned;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Whether clients must show a certificate (`verify_client`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; a wrong one is refused.
    Optional,
    /// Without one nothing is answered.
    Required,
}

/// What TLS needs.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Certificate chain, PEM (`restapi.certfile`).
    pub certfile: PathBuf,
    /// Private key, PEM; absent means that the certificate's file holds it too (`restapi.keyfile`).
    pub keyfile: Option<PathBuf>,
    /// Password of the private key (`restapi.keyfile_password`).
    pub keyfile_password: Option<Secret>,
    /// Certificates that sign clients' certificates (`restapi.cafile`).
    pub cafile: Option<PathBuf>,
    /// Whether clients must show a certificate (`restapi.verify_client`).
    pub verify_client: VerifyClient,
    /// IANA numbers of the only suites that are spoken, most wanted first; `None`: all (`restapi.ciphers`).
    pub ciphers: Option<Vec<u16>>,
}

/// TLS cannot be offered with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds something else.
    #[error("restapi.{key}: {path} holds no usable PEM {what}: {reason}", path = path.display())]
    File {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Clients shall be verified and nothing says against what.
    #[error(
        "restapi.verify_client needs restapi.cafile, the certificates that clients' ones are signed with"
    )]
    NoCa,
    /// Certificate and key do not fit together.
    #[error("restapi.certfile and restapi.keyfile cannot be used together: {0}")]
    Pair(rustls::Error),
    /// The suites that are left cannot be spoken.
    #[error("restapi.ciphers: {0}")]
    Ciphers(rustls::Error),
}

/// How TLS is spoken, and the serial number of the certificate that is shown.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) serial: String,
}

/// Reads the files, so that a mistake is found before anybody calls.
pub(super) fn tls(options: &TlsOptions) -> Result<Tls, TlsError> {
    let provider = Arc::new(provider(options.ciphers.as_deref()));
    let chain = certificates("certfile", &options.certfile)?;
    let (key_name, key_path) = match &options.keyfile {
        Some(path) => ("keyfile", path),
        None => ("certfile", &options.certfile),
    };
    let key = private_key(key_path, options.keyfile_password.as_ref())
        .map_err(|reason| bad(key_name, key_path, "private key", &reason))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(&provider))
        .map_err(TlsError::Ciphers)?;
    let builder = match options.verify_client {
        VerifyClient::None => builder.with_no_client_auth(),
        asked => {
            let cafile = options.cafile.as_ref().ok_or(TlsError::NoCa)?;
            let mut roots = RootCertStore::empty();
            let authorities = certificates("cafile", cafile)?;
            roots.add_parsable_certificates(authorities.clone());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let verifier = if asked == VerifyClient::Optional {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            let verifier = verifier
                .build()
                .map_err(|e| bad("cafile", cafile, "certificate", &e.to_string()))?;
            builder.with_client_cert_verifier(Arc::new(Pinned::new(authorities, provider, verifier)))
        }
    };
    let serial = chain.first().map(serial).unwrap_or_default();
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
    // Whoever writes a list has put it in order.
    config.ignore_client_order = options.ciphers.is_some();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        serial,
    })
}

/// The library with the suites that are wanted, in their order.
fn provider(wanted: Option<&[u16]>) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    if let Some(wanted) = wanted {
        let place = |suite: &SupportedCipherSuite| {
            let number = u16::from(suite.suite());
            wanted.iter().position(|wanted| *wanted == number)
        };
        provider.cipher_suites.retain(|suite| place(suite).is_some());
        provider.cipher_suites.sort_by_key(place);
    }
    provider
}

/// The protocol versions for which a suite is left.
fn versions(provider: &CryptoProvider) -> Vec<&'static SupportedProtocolVersion> {
    let spoken = |version: &&&SupportedProtocolVersion| {
        let mut suites = provider.cipher_suites.iter();
        suites.any(|suite| suite.version() == **version)
    };
    rustls::ALL_VERSIONS.iter().filter(spoken).copied().collect()
}

pub(super) fn serial(certificate: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed.raw_serial_as_string())
        .unwrap_or_default()
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(list) if list.is_empty() => Err(bad(key, path, "certificate", "there is none in it")),
        Ok(list) => Ok(list),
        Err(e) => Err(bad(key, path, "certificate", &e.to_string())),
    }
}

fn bad(key: &'static str, path: &Path, what: &'static str, reason: &str) -> TlsError {
    TlsError::File {
        key,
        path: path.to_owned(),
        what,
        reason: reason.to_owned(),
    }
}
