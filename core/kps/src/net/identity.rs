//! The server's side of TLS: its certificate chain and private key.

use std::{fmt, path::Path, sync::Arc};

use kps_proto::{Error, ErrorKind, Result};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A certificate chain with its private key, ready to serve.
#[derive(Clone)]
pub struct TlsIdentity(Arc<ServerConfig>);

impl TlsIdentity {
    /// From PEM files: the certificate (followed by its intermediates) and the private key.
    /// Fails with `invalid_argument` when they cannot be read or do not fit together.
    pub fn from_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self> {
        Self::from_pem(&read(certificate.as_ref())?, &read(key.as_ref())?)
    }

    /// From PEM text. Fails like [`TlsIdentity::from_files`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate)
                .collect::<Result<_, _>>()
                .map_err(|error| invalid(format!("the TLS certificate is no PEM: {error}")))?;
        if chain.is_empty() {
            return Err(invalid("the TLS certificate file holds no certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| invalid(format!("the TLS key is no PEM private key: {error}")))?;
        // The provider is given, not installed: the process may have another one.
        let config =
            ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .expect("ring has the suites of TLS 1.2 and 1.3")
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(|error| {
                    invalid(format!("the TLS certificate and key do not fit: {error}"))
                })?;
        Ok(TlsIdentity(Arc::new(config)))
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.0.clone().into()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity")
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))
}

fn invalid(sentence: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, sentence)
}
