//! Certificate authorities of a test's own, and clients that speak TLS.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Gibbon, LIMIT, Seen, read_answer, secret_of};

/// An authority of the test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: Certificate,
    pub roots: RootCertStore,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Other names than those that it vouches for, else they look as if they vouched for themselves.
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { issuer: Issuer::new(params, key), certificate, roots }
    }

    /// A certificate of its own for this key.
    pub fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// A Secret with a certificate for these names.
    pub fn secret(&self, name: &str, names: &[&str]) -> String {
        self.secret_with(name, names, &KeyPair::generate().unwrap())
    }

    pub fn secret_with(&self, name: &str, names: &[&str], key: &KeyPair) -> String {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let certificate = self.sign(&CertificateParams::new(names).unwrap(), key);
        secret_of(name, &certificate.pem(), &key.serialize_pem())
    }

    /// A client that trusts this authority.
    pub fn config(&self) -> ClientConfig {
        let builder = ClientConfig::builder().with_root_certificates(self.roots.clone());
        builder.with_no_client_auth()
    }

    /// One that has a certificate of its own besides.
    pub fn config_as(&self, client: &Credentials) -> ClientConfig {
        let builder = ClientConfig::builder().with_root_certificates(self.roots.clone());
        let (chain, key) = client;
        builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap()
    }

    /// A certificate for a client.
    pub fn client(&self, name: &str) -> Credentials {
        self.client_with(name, |_| {})
    }

    pub fn client_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credentials {
        let (certificate, key) = self.client_and_key(name, change);
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        (vec![certificate.der().clone()], key)
    }

    /// The same in PEM.
    pub fn client_pem(&self, name: &str) -> (String, String) {
        let (certificate, key) = self.client_and_key(name, |_| {});
        (certificate.pem(), key.serialize_pem())
    }

    fn client_and_key(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Site");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        (self.sign(&params, &key), key)
    }

    pub fn connect(&self, gibbon: &Gibbon, name: &str) -> std::io::Result<Secured> {
        connect(&Arc::new(self.config()), gibbon, name)
    }

    /// A request on a connection of its own.
    pub fn get(&self, gibbon: &Gibbon, host: &str, path: &str) -> Seen {
        self.connect(gibbon, host).unwrap().ask(host, path)
    }
}

/// A certificate with its chain, and its key.
pub type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Connects, and shakes hands.
pub fn connect(
    config: &Arc<ClientConfig>,
    gibbon: &Gibbon,
    name: &str,
) -> std::io::Result<Secured> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = TcpStream::connect(gibbon.secure)?;
    stream.set_read_timeout(Some(LIMIT))?;
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    Ok(Secured(BufReader::new(StreamOwned::new(client, stream))))
}

/// A connection with TLS.
pub struct Secured(pub BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Secured {
    pub fn ask(&mut self, host: &str, path: &str) -> Seen {
        self.try_ask(host, path, "").unwrap()
    }

    /// Asks with more fields; nothing if the connection ends first.
    pub fn try_ask(&mut self, host: &str, path: &str, fields: &str) -> Option<Seen> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).ok()?;
        read_answer(&mut self.0, "GET")
    }

    /// Whether the session of an earlier connection was taken up again.
    pub fn is_resumed(&self) -> bool {
        self.0.get_ref().conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// What is there until the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }
}
