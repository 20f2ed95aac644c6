//! TLS for servers: certificates from files, replaced while connections live.
//!
//! A connection keeps the certificate it was opened with; the next one gets the newest that loaded. A replacement that
//! does not load, whose key does not fit or that has expired leaves the old one in place and is reported.

mod expiry;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM, or holds nothing of the kind that was wanted.
    #[error("{path} holds no {wanted} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// "certificate" or "private key".
        wanted: &'static str,
    },
    /// The certificate and the key do not fit together, or the TLS library refuses them.
    #[error("the certificate {path} cannot be used: {source}")]
    Refused {
        /// The certificate's file.
        path: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// The certificate that was to replace a valid one has expired.
    #[error("the certificate {path} has expired; the former one stays in use")]
    Expired {
        /// The certificate's file.
        path: PathBuf,
    },
}

/// What tells one state of a file from the next without reading it.
type Stamp = Option<(SystemTime, u64)>;

struct Loaded {
    config: Arc<ServerConfig>,
    not_after: Option<i64>,
    stamps: [Stamp; 2],
}

/// A certificate chain and its key, from two PEM files.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<Loaded>,
}

impl Certificate {
    /// Loads a chain and its key. An expired certificate is taken at the start: a server that is up with a bad
    /// certificate says more than one that is down.
    ///
    /// # Errors
    /// [`CertificateError`] where a file is missing, broken or does not fit the other.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let loaded = read(chain, key)?;
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), current: ArcSwap::from_pointee(loaded) })
    }

    /// What new connections are to use.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// When the certificate in use expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        self.current.load().not_after
    }

    /// Whether a file has changed since the certificate in use was loaded.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.current.load().stamps != [stamp(&self.chain), stamp(&self.key)]
    }

    /// Loads both files again. After an error everything is as it was, and [`Certificate::has_changed`] stays true.
    ///
    /// # Errors
    /// [`CertificateError`] says why the former certificate stays in use.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let loaded = read(&self.chain, &self.key)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let is_past = |moment: Option<i64>| moment.is_some_and(|moment| moment < now.cast_signed());
        if is_past(loaded.not_after) && !is_past(self.not_after()) {
            return Err(CertificateError::Expired { path: self.chain.clone() });
        }
        self.current.store(Arc::new(loaded));
        Ok(())
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(chain_path: &Path, key_path: &Path) -> Result<Loaded, CertificateError> {
    // The stamps are taken first: a change while reading is then seen as a change, not missed.
    let stamps = [stamp(chain_path), stamp(key_path)];
    let contents =
        |path: &Path| fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source });
    let pem = |path: &Path, wanted| CertificateError::Pem { path: path.to_owned(), wanted };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&contents(chain_path)?)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| pem(chain_path, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&contents(key_path)?).map_err(|_| pem(key_path, "private key"))?;
    let not_after = chain.first().and_then(|leaf| expiry::not_after(leaf));
    let refused = |source| CertificateError::Refused { path: chain_path.to_owned(), source };
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    Ok(Loaded { config: Arc::new(config), not_after, stamps })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Files {
        _folder: tempfile::TempDir,
        chain: PathBuf,
        key: PathBuf,
    }

    fn issue(year: i32) -> (String, String) {
        let mut parameters = rcgen::CertificateParams::new(vec!["stun.example".to_owned()]).expect("parameters");
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().expect("key");
        (parameters.self_signed(&key).expect("certificate").pem(), key.serialize_pem())
    }

    fn files() -> Files {
        let folder = tempfile::tempdir().expect("folder");
        let files =
            Files { chain: folder.path().join("chain.pem"), key: folder.path().join("key.pem"), _folder: folder };
        files.write(&issue(2050));
        files
    }

    impl Files {
        fn write(&self, (chain, key): &(String, String)) {
            // A modification time of its own for each state, whatever the file system's resolution.
            let time = SystemTime::now() + Duration::from_secs(u64::from(chain.as_bytes()[100]));
            for (path, text) in [(&self.chain, chain), (&self.key, key)] {
                fs::write(path, text).expect("written");
                fs::File::options().append(true).open(path).expect("file").set_modified(time).expect("time");
            }
        }

        fn load(&self) -> Certificate {
            Certificate::load(&self.chain, &self.key).expect("a certificate")
        }
    }

    #[test]
    fn a_replacement_is_noticed_and_taken() {
        let files = files();
        let certificate = files.load();
        let first = certificate.config();
        assert!(!certificate.has_changed());
        files.write(&issue(2060));
        assert!(certificate.has_changed());
        certificate.reload().expect("reloaded");
        assert!(!certificate.has_changed());
        assert!(!Arc::ptr_eq(&first, &certificate.config()));
        assert_eq!(certificate.not_after(), Some(2_840_140_800));
    }

    #[test]
    fn f28_a_bad_replacement_keeps_the_old_certificate() {
        let files = files();
        let certificate = files.load();
        let first = certificate.config();
        let (_, other_key) = issue(2050);
        fs::write(&files.key, other_key).expect("written");
        assert!(matches!(certificate.reload(), Err(CertificateError::Refused { .. })));
        fs::write(&files.chain, "no PEM").expect("written");
        assert!(matches!(certificate.reload(), Err(CertificateError::Pem { wanted: "certificate", .. })));
        files.write(&issue(2001));
        assert!(matches!(certificate.reload(), Err(CertificateError::Expired { .. })));
        fs::remove_file(&files.key).expect("removed");
        assert!(matches!(certificate.reload(), Err(CertificateError::Read { .. })));
        assert!(Arc::ptr_eq(&first, &certificate.config()));
        assert!(certificate.has_changed());
    }
}
