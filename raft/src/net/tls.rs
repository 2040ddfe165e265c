//! Mutual TLS 1.3, and the rule that a certificate's name is the member's name.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::errors::StartError;
use crate::settings::TlsFiles;

/// Both directions of mutual TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
    /// Of this member's certificate.
    pub(crate) serial: String,
}

impl Tls {
    /// Reads the files and checks that they fit each other and this member's name.
    pub(crate) fn load(files: &TlsFiles, name: &str) -> Result<Tls, StartError> {
        let chain = certificates(&files.certfile)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.cafile)? {
            roots
                .add(authority)
                .map_err(|e| bad(&files.cafile, format!("is not an authority: {e}")))?;
        }
        let key = PrivateKeyDer::from_pem_file(&files.keyfile)
            .map_err(|e| bad(&files.keyfile, format!("holds no readable private key: {e}")))?;
        let names = chain.first().map(names_of).unwrap_or_default();
        if !names.iter().any(|n| n == name) {
            let why = format!("is made out to {names:?}, but this member is called {name:?}");
            return Err(bad(&files.certfile, why));
        }
        let serial = chain.first().map(serial_of).unwrap_or_default();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| bad(&files.cafile, e.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad(&files.certfile, e.to_string()))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| bad(&files.keyfile, format!("does not fit the certificate: {e}")))?;
        // Tickets would arrive unasked and make an idle connection look as if it had something to say.
        server.send_tls13_tickets = 0;
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| bad(&files.cafile, e.to_string()))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad(&files.certfile, e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::AuthorityOnly::new(verifier)))
            .with_client_auth_cert(chain, key)
            .map_err(|e| bad(&files.keyfile, format!("does not fit the certificate: {e}")))?;
        Ok(Tls {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
            serial,
        })
    }
}

/// The name sent in TLS' own greeting; who answers is checked against the hello instead.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())
}

/// Every name a certificate is made out to: common name and DNS names.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let common = certificate
        .subject()
        .iter_common_name()
        .filter_map(|cn| cn.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(
            alternatives
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(dns) => Some((*dns).to_owned()),
                    _ => None,
                }),
        );
    }
    names
}

fn serial_of(certificate: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate.raw_serial_as_string())
        .unwrap_or_default()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let unreadable = |e: rustls::pki_types::pem::Error| bad(file, format!("cannot be read: {e}"));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(unreadable)?.collect();
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(bad(file, "holds no certificate".to_owned()));
    }
    Ok(found)
}

fn bad(file: &Path, why: String) -> StartError {
    StartError::Certificate {
        file: file.to_owned(),
        why,
    }
}

/// The verifier of the calling side.
mod verify {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

    /// Checks chain, validity and signature as always. Only the comparison with the dialled name is left to the
    /// handshake, which compares with the member's name instead: members are dialled by address.
    #[derive(Debug)]
    pub(super) struct AuthorityOnly(Arc<WebPkiServerVerifier>);

    impl AuthorityOnly {
        pub(super) fn new(inner: Arc<WebPkiServerVerifier>) -> AuthorityOnly {
            AuthorityOnly(inner)
        }
    }

    impl ServerCertVerifier for AuthorityOnly {
        fn verify_server_cert(
            &self,
            end: &CertificateDer<'_>,
            chain: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            match self.0.verify_server_cert(end, chain, name, ocsp, now) {
                // The name is compared last, so everything else has been found good.
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                other => other,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }
}
