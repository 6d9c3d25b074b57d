//! The serving certificate, whichever source replaces it while serving; one source, files, is here.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::{
    InconsistentKeys,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    pem::mistake,
    polled_files::{NamedFile, Poll, ReadError, Seen, read_together},
    tls,
};

/// A certificate chain with its key and the instant of its expiry, checked to belong together.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    not_after: Timestamp,
}

impl Certificate {
    /// A certificate from its chain, leaf first, and the leaf's private key (PKCS#8, PKCS#1 or SEC1), both in
    /// PEM.
    ///
    /// # Errors
    /// When one cannot be used, or the key is not the leaf's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Unusable::Certificate(mistake(&error).to_owned()))?;
        let leaf = chain
            .first()
            .ok_or_else(|| Unusable::Certificate("holds no certificate".to_owned()))?;
        let not_after = not_after(leaf)
            .ok_or_else(|| Unusable::Certificate("holds a certificate that cannot be read".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => Unusable::PrivateKey("holds no private key".to_owned()),
            error => Unusable::PrivateKey(mistake(&error).to_owned()),
        })?;
        let key = tls::provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| Unusable::PrivateKey(format!("holds a key that cannot be used: {error}")))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            // A key that cannot tell its public half can still be used; all of ring's can tell.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(Unusable::Mismatch),
            Err(error) => {
                let reason = format!("holds a certificate that cannot be used: {error}");
                return Err(Unusable::Certificate(reason));
            }
        }
        Ok(Self {
            key: Arc::new(key),
            not_after,
        })
    }
}

/// Why a chain and a key make no [`Certificate`]; the texts go on from the name of where they stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The chain is at fault.
    #[error("the certificate {0}")]
    Certificate(String),
    /// Each is good, but they do not belong together.
    #[error("the private key is not the certificate's")]
    Mismatch,
    /// The key is at fault.
    #[error("the private key {0}")]
    PrivateKey(String),
}

/// What each new handshake presents. Whoever holds it may replace it; a handshake under way keeps what it
/// has.
#[derive(Debug)]
pub struct CertificateResolver {
    current: ArcSwapOption<Certificate>,
}

impl CertificateResolver {
    /// Presents `certificate` from now on.
    pub fn new(certificate: Certificate) -> Self {
        Self {
            current: ArcSwapOption::from_pointee(certificate),
        }
    }

    /// Has nothing to present yet: until there is, every handshake fails.
    pub fn empty() -> Self {
        Self {
            current: ArcSwapOption::empty(),
        }
    }

    /// Presents another one from now on.
    pub fn replace(&self, certificate: Certificate) {
        self.current.store(Some(Arc::new(certificate)));
    }

    /// The chain that is presented, leaf first; None while nothing is.
    pub fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.current
            .load()
            .as_ref()
            .map(|current| current.key.cert.clone())
    }

    /// When what is presented expires (`notAfter` of the leaf); None while nothing is.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.current.load().as_ref().map(|current| current.not_after)
    }
}

impl ResolvesServerCert for CertificateResolver {
    /// One certificate for every name: the API server asks for the Service's name or the URL's host, and
    /// checks.
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current
            .load()
            .as_ref()
            .map(|current| Arc::clone(&current.key))
    }
}

/// The two files of a serving certificate.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, leaf first, in PEM.
    pub certificate: NamedFile,
    /// The leaf's private key, in PEM: PKCS#8, PKCS#1 or SEC1.
    pub private_key: NamedFile,
}

impl CertificateFiles {
    /// Reads and checks both.
    ///
    /// # Errors
    /// When one cannot be read or used, or the key is not the certificate's.
    pub fn load(self) -> Result<PolledCertificate, CertificateError> {
        let contents = self.read()?;
        let certificate = self.parse(&contents)?;
        Ok(PolledCertificate {
            files: self,
            resolver: Arc::new(CertificateResolver::new(certificate)),
            seen: Seen::new(contents),
        })
    }

    fn read(&self) -> Result<[Vec<u8>; 2], CertificateError> {
        Ok(read_together(&[&self.certificate, &self.private_key])?)
    }

    fn parse(&self, [chain, key]: &[Vec<u8>; 2]) -> Result<Certificate, CertificateError> {
        Certificate::from_pem(chain, key).map_err(|unusable| match unusable {
            Unusable::Certificate(reason) => CertificateError::Certificate {
                file: self.certificate.clone(),
                reason,
            },
            Unusable::PrivateKey(reason) => CertificateError::PrivateKey {
                file: self.private_key.clone(),
                reason,
            },
            Unusable::Mismatch => CertificateError::Mismatch(Box::new(self.clone())),
        })
    }
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_rest, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// A serving certificate that follows its files.
#[derive(Debug)]
pub struct PolledCertificate {
    files: CertificateFiles,
    resolver: Arc<CertificateResolver>,
    seen: Seen<2>,
}

impl PolledCertificate {
    /// What presents it.
    pub fn resolver(&self) -> Arc<CertificateResolver> {
        Arc::clone(&self.resolver)
    }

    /// Looks at the files once: if either changed and both are good, they are presented from now on. Bad ones
    /// are refused and the last good ones kept.
    pub fn poll(&mut self) -> Poll<CertificateError> {
        let Self {
            files,
            resolver,
            seen,
        } = self;
        seen.take_in(files.read(), |contents| {
            resolver.replace(files.parse(contents)?);
            Ok(())
        })
    }
}

/// Why certificate files were refused.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// One of them cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The certificate cannot be used.
    #[error("{file}: {reason}; give a PEM certificate chain, the server's own certificate first")]
    Certificate {
        /// Which file.
        file: NamedFile,
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be used.
    #[error("{file}: {reason}; give the certificate's private key in PEM, not encrypted")]
    PrivateKey {
        /// Which file.
        file: NamedFile,
        /// What is wrong with it.
        reason: String,
    },
    /// Each is good, but they do not belong together.
    #[error("{}: is not the key of the certificate in {}; give the two files that were issued together", .0.private_key, .0.certificate)]
    Mismatch(Box<CertificateFiles>),
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::{
        super::pem::tests::{ensure_nothing_is_quoted, mangled},
        *,
    };

    #[test]
    fn no_error_quotes_the_key_or_the_certificate() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["guard.system.svc".to_owned()]).unwrap();
        let (certificate, key) = (certificate.self_signed(&key).unwrap().pem(), key.serialize_pem());
        assert!(Certificate::from_pem(certificate.as_bytes(), key.as_bytes()).is_ok());
        for mangled_key in mangled(&key) {
            let told = Certificate::from_pem(certificate.as_bytes(), mangled_key.as_bytes()).unwrap_err();
            assert!(matches!(told, Unusable::PrivateKey(_)), "{told}");
            ensure_nothing_is_quoted(&format!("{told} {told:?}"), &key);
            // A key where the certificate should be is no less a secret.
            let told = Certificate::from_pem(mangled_key.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(matches!(told, Unusable::Certificate(_)), "{told}");
            ensure_nothing_is_quoted(&format!("{told} {told:?}"), &key);
        }
        for mangled in mangled(&certificate) {
            let told = Certificate::from_pem(mangled.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(matches!(told, Unusable::Certificate(_)), "{told}");
            ensure_nothing_is_quoted(&format!("{told} {told:?}"), &certificate);
            let told = tls::ClientCa::from_pem(mangled.as_bytes()).unwrap_err();
            ensure_nothing_is_quoted(&told, &certificate);
        }
    }
}
