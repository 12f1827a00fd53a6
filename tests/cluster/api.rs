//! The API server over HTTPS, as an administrator: kubectl takes 0.2 s for what takes this 10 ms.

use std::io::{BufReader, Error, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::support::{LIMIT, read_body, read_head};

/// Where the API server listens, on loopback.
pub const PORT: u16 = 6443;

/// A client of the API server, with a new connection for each request.
pub struct Api {
    tls: Arc<ClientConfig>,
}

impl Api {
    pub fn new(ca: CertificateDer<'static>, own: CertificateDer<'static>, key: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)
            .unwrap();
        Self { tls: Arc::new(tls) }
    }

    /// Sends a request; returns the status code and what came with it.
    ///
    /// # Errors
    /// When there is no complete answer.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), Error> {
        let content = match method {
            "PATCH" if path.contains("fieldManager=") => "application/apply-patch+yaml",
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\nAccept: application/json\r\n\
             Content-Type: {content}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(Error::other)?;
        let mut stream = StreamOwned::new(tls, stream);
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut head = read_head(&mut reader).ok_or_else(|| Error::other("no answer"))?;
        if !read_body(&mut reader, &mut head) {
            return Err(Error::other("the answer breaks off"));
        }
        let status = head.line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let text = String::from_utf8_lossy(&head.body);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(&*text));
        Ok((status.ok_or_else(|| Error::other("no status"))?, value))
    }
}
