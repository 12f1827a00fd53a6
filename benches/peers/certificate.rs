//! A certificate for the site, which its clients trust.

use std::fs;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};

use crate::load::HOST;
use crate::proxies::Certificate;

/// The site's certificate.
pub struct Site {
    /// For proxies.
    pub files: Certificate,
    /// For clients.
    pub client: Arc<ClientConfig>,
}

impl Site {
    /// Another one each time.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
        let folder = std::env::temp_dir().join(format!("gibbon-peers-{}-tls", std::process::id()));
        fs::create_dir_all(&folder)?;
        let file = |name: &str, text: &str| -> Result<_> {
            let path = folder.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let (pem, key) = (certificate.pem(), key.serialize_pem());
        let files = Certificate {
            chain: file("certificate.pem", &pem)?,
            key: file("key.pem", &key)?,
            both: file("both.pem", &format!("{pem}{key}"))?,
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone())?;
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { files, client: Arc::new(client) })
    }
}
