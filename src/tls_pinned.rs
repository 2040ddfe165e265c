//! Certificates that are believed because they themselves stand among the authorities.
//!
//! `openssl req -x509` makes a certificate that may sign others, and people show that one itself, on both sides, and name
//! it as the authority. OpenSSL believes it then; rustls refuses every certificate that may sign others. It was trusted by
//! hand, and signs its own handshake like any other, so only its time and, of a server, its name are left to be judged.

use crate::tls_signatures::signatures_by_provider;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Judges by `inner` whatever is not pinned.
#[derive(Debug)]
pub(crate) struct Pinned<V: ?Sized> {
    pins: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    inner: Arc<V>,
}

impl<V: ?Sized> Pinned<V> {
    pub(crate) fn new(
        pins: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
        inner: Arc<V>,
    ) -> Self {
        Self {
            pins,
            provider,
            inner,
        }
    }

    fn holds(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pins.iter().any(|pin| pin.as_ref() == certificate.as_ref())
    }
}

/// Its time has come and is not over.
fn timely(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
        .ok_or(Error::FailedToGetCurrentTime)?;
    if now < parsed.validity().not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

impl ClientCertVerifier for Pinned<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.holds(end_entity) {
            return timely(end_entity, now).map(|()| ClientCertVerified::assertion());
        }
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }

    signatures_by_provider!();
}

impl ServerCertVerifier for Pinned<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.holds(end_entity) {
            timely(end_entity, now)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    signatures_by_provider!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::server::WebPkiClientVerifier;

    fn now() -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000))
    }

    /// Authorities, and what the library needs to believe in them.
    fn trusted(
        pins: &[CertificateDer<'static>],
    ) -> (Arc<RootCertStore>, Arc<rustls::crypto::CryptoProvider>) {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pins.to_vec());
        (
            Arc::new(roots),
            Arc::new(rustls::crypto::ring::default_provider()),
        )
    }

    fn certificate(years: [i32; 2]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let [from, until] = years.map(|year| date_time_ymd(year, 1, 1));
        (params.not_before, params.not_after) = (from, until);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        made.der().clone()
    }

    #[test]
    fn a_server_that_signs_itself_is_believed_where_it_is_named_in_its_time_by_its_name() {
        let (pin, stranger) = (certificate([2000, 2100]), certificate([2000, 2100]));
        let (early, late) = (certificate([2090, 2100]), certificate([2000, 2001]));
        let pins = vec![pin.clone(), early.clone(), late.clone()];
        let (roots, provider) = trusted(&pins);
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let inner: Arc<dyn ServerCertVerifier> = inner.build().unwrap();
        let pinned = Pinned::new(pins, provider, inner.clone());
        let ask = |by: &dyn ServerCertVerifier, one: &CertificateDer<'_>, name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            by.verify_server_cert(one, &[], &name, &[], now()).map(|_| ())
        };
        assert!(
            ask(&*inner, &pin, "db.example").is_err(),
            "the library alone refuses it"
        );
        ask(&pinned, &pin, "db.example").unwrap();
        assert!(ask(&pinned, &pin, "other.example").is_err());
        assert!(ask(&pinned, &stranger, "db.example").is_err());
        let why = |one| ask(&pinned, one, "db.example").unwrap_err();
        assert_eq!(why(&early), CertificateError::NotValidYet.into());
        assert_eq!(why(&late), CertificateError::Expired.into());
    }

    /// The same for whoever connects: a client has no name that could be wrong.
    #[test]
    fn a_client_that_signs_itself_is_believed_where_it_is_named_in_its_time() {
        let (pin, stranger) = (certificate([2000, 2100]), certificate([2000, 2100]));
        let (early, late) = (certificate([2090, 2100]), certificate([2000, 2001]));
        let pins = vec![pin.clone(), early.clone(), late.clone()];
        let (roots, provider) = trusted(&pins);
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let inner: Arc<dyn ClientCertVerifier> = inner.build().unwrap();
        let pinned = Pinned::new(pins, provider, inner.clone());
        let ask = |by: &dyn ClientCertVerifier, one: &CertificateDer<'_>| {
            by.verify_client_cert(one, &[], now()).map(|_| ())
        };
        assert!(ask(&*inner, &pin).is_err(), "the library alone refuses it");
        ask(&pinned, &pin).unwrap();
        assert!(ask(&pinned, &stranger).is_err());
        let why = |one| ask(&pinned, one).unwrap_err();
        assert_eq!(why(&early), CertificateError::NotValidYet.into());
        assert_eq!(why(&late), CertificateError::Expired.into());
        // A certificate is asked for exactly where the library would.
        assert_eq!(
            (pinned.offer_client_auth(), pinned.client_auth_mandatory()),
            (inner.offer_client_auth(), inner.client_auth_mandatory())
        );
    }
}
