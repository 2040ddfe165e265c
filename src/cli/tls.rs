//! TLS of the command line: whom it believes.

use super::target::Trust;
use crate::tls_client::client_config;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// What speaks to nodes over https, or why that is impossible.
pub(super) fn connector(trust: &Trust) -> Result<TlsConnector, String> {
    if trust.cacert.is_none() && !trust.insecure {
        return Err(
            "https needs --cacert FILE (or ctl.cacert, restapi.cafile in the node file), or --insecure"
                .to_owned(),
        );
    }
    let config = client_config(trust.insecure, trust.cacert.as_deref(), trust.identity.as_ref())?;
    Ok(TlsConnector::from(Arc::new(config)))
}
