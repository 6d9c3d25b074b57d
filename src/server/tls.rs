//! What TLS is spoken: rustls with ring, TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, and client
//! certificates when a CA for them is given.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{
        NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    pem::mistake,
    polled_files::{NamedFile, Poll, ReadError, Seen, read_together},
};

/// The one provider of cryptography, named wherever one is needed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The configuration of a server that presents what `certificates` resolves to, and asks clients for a
/// certificate if `client_ca` is given.
///
/// # Errors
/// Only if ring offered no cipher suite for TLS 1.2 or 1.3, which it does.
pub fn server_config(
    certificates: Arc<dyn ResolvesServerCert>,
    client_ca: Option<Arc<ClientCa>>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        Some(client_ca) => builder.with_client_cert_verifier(client_ca),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // No session is resumed: each handshake is checked against the certificates of now, a client's as well.
    // The API server's client does not try to (it sets no `ClientSessionCache`).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The CA that client certificates must come from; it can be replaced while serving.
#[derive(Debug)]
pub struct ClientCa {
    current: ArcSwap<Arc<dyn ClientCertVerifier>>,
}

impl ClientCa {
    /// A CA from PEM.
    ///
    /// # Errors
    /// When the PEM is malformed, or holds no CA certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        Ok(Self {
            current: ArcSwap::from_pointee(verifier(pem)?),
        })
    }

    fn replace(&self, pem: &[u8]) -> Result<(), String> {
        self.current.store(Arc::new(verifier(pem)?));
        Ok(())
    }
}

fn verifier(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| mistake(&error).to_owned())?;
        roots
            .add(certificate)
            .map_err(|error| format!("holds a certificate that cannot be a CA: {error}"))?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| format!("cannot be used: {error}"))
}

impl ClientCertVerifier for ClientCa {
    /// No hints: what they point to may be replaced. A client with one certificate needs none.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.current
            .load()
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current
            .load()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current
            .load()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().supported_verify_schemes()
    }
}

/// A client CA in a file.
#[derive(Debug)]
pub struct ClientCaFile {
    file: NamedFile,
    client_ca: Arc<ClientCa>,
    seen: Seen<1>,
}

impl ClientCaFile {
    /// Loads the file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no CA.
    pub fn load(file: NamedFile) -> Result<Self, ClientCaError> {
        let contents = read_together(&[&file])?;
        let client_ca = ClientCa::from_pem(&contents[0]).map_err(|reason| unusable(&file, reason))?;
        Ok(Self {
            file,
            client_ca: Arc::new(client_ca),
            seen: Seen::new(contents),
        })
    }

    /// The CA, which follows the file as it is [polled](Self::poll).
    pub fn client_ca(&self) -> Arc<ClientCa> {
        Arc::clone(&self.client_ca)
    }

    /// Looks at the file once. A bad one is refused and the last good one kept.
    pub fn poll(&mut self) -> Poll<ClientCaError> {
        let Self {
            file,
            client_ca,
            seen,
        } = self;
        let read = read_together(&[&*file]).map_err(ClientCaError::from);
        seen.take_in(read, |[pem]| {
            client_ca.replace(pem).map_err(|reason| unusable(file, reason))
        })
    }
}

fn unusable(file: &NamedFile, reason: String) -> ClientCaError {
    ClientCaError::Unusable {
        file: file.clone(),
        reason,
    }
}

/// Why a client CA was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It holds no CA.
    #[error("{file}: {reason}; give PEM with the certificates of the CAs that issue client certificates")]
    Unusable {
        /// Which file.
        file: NamedFile,
        /// What is wrong with it.
        reason: String,
    },
}
