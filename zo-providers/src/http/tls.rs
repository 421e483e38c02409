//! TLS without process-wide state: rustls with the *ring* provider, handed over explicitly, and the roots of the operating
//! system, so that a company's own authority and its revocations count.

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt;
use std::sync::Arc;
use zo_traits::{Error, ErrorKind, Result};

/// A TLS set-up. Without `trust` it trusts nobody: enough for plain HTTP, and it spares a local model the reading of the
/// system's certificates, or the lack of them in a bare container.
pub(crate) fn config(trust: bool) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    Ok(if trust {
        builder.with_platform_verifier().map_err(refused)?.with_no_client_auth()
    } else {
        builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    })
}

fn refused(e: rustls::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "provider.tls",
        format_args!(
            "TLS cannot be set up: {e}. Does this machine have root certificates (package ca-certificates)?"
        ),
    )
}
