//! The client's side of TLS: which roots it trusts.

use std::{fmt, io, path::PathBuf, sync::Arc};

use kps_proto::{Error, ErrorKind, Result};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// TLS for `wss://`.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Trusted instead of the system's roots.
    pub ca: Option<Ca>,
    /// Accept any certificate. For experiments: whoever sits on the line can read and change
    /// everything.
    pub insecure: bool,
}

/// Where a custom certificate authority comes from.
#[derive(Clone)]
pub enum Ca {
    /// A PEM file.
    File(PathBuf),
    /// PEM text.
    Pem(Vec<u8>),
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca.is_some())
            .field("insecure", &self.insecure)
            .finish()
    }
}

impl TlsOptions {
    /// A client configuration. Fails with `invalid_argument` when the CA cannot be read.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring supports TLS 1.2 and 1.3");
        let mut config = if self.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
                .with_no_client_auth()
        } else {
            builder.with_root_certificates(self.roots()?).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let Some(ca) = &self.ca else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        let pem = match ca {
            Ca::File(path) => std::fs::read(path).map_err(|error| {
                bad_ca(format!("cannot read the CA {}: {error}", path.display()))
            })?,
            Ca::Pem(pem) => pem.clone(),
        };
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate =
                certificate.map_err(|error| bad_ca(format!("the CA is not PEM: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| bad_ca(format!("the CA holds a bad certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(bad_ca("the CA holds no certificate; expected PEM".into()));
        }
        Ok(roots)
    }
}

fn bad_ca(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// A failed TLS handshake, told with its reason.
pub(crate) fn handshake_error(host: &str, error: &io::Error) -> Error {
    let what_to_do = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; if the server has its own CA, give it as `ca`"
        }
        Some(rustls::Error::InvalidMessage(_)) => "; does the server speak TLS on this port?",
        _ => "",
    };
    Error::new(ErrorKind::ConnectFailed, format!("TLS with {host} failed: {error}{what_to_do}"))
}

/// Behind `insecure`: checks signatures, trusts everybody.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
