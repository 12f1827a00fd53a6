//! Handshakes with clients: the certificate by server name, out of the table in use.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ProtocolVersion;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::Metrics;
use crate::table::Table;
use crate::table::tls::SecretId;

/// The fatal alert `unrecognized_name` (RFC 6066, section 3), as a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A connection with TLS, and whose certificate it has.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub stream: Box<TlsStream<TcpStream>>,
    /// The Secret of the certificate.
    pub secret: SecretId,
}

/// Shakes hands; nothing if the client got no certificate or took too long.
pub async fn accept(
    stream: TcpStream,
    table: &ArcSwap<Table>,
    metrics: &Metrics,
    patience: Duration,
) -> Option<Secured> {
    let result = timeout(patience, shake_hands(stream, table)).await;
    let (version, label, secured) = match result {
        Ok(Ok(Some(secured))) => (version(&secured), "ok", Some(secured)),
        Ok(Ok(None)) => ("none", "unknown_name", None),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            ("none", "failed", None)
        }
        Err(_) => ("none", "timeout", None),
    };
    metrics.handshakes.with_label_values(&[version, label]).inc();
    secured
}

async fn shake_hands(stream: TcpStream, table: &ArcSwap<Table>) -> io::Result<Option<Secured>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let certificate = {
        let table = table.load();
        let certificates = &table.certificates;
        let found = match &name {
            Some(name) => certificates.find(name.strip_suffix('.').unwrap_or(name)),
            None => certificates.for_no_name(),
        };
        found.map(Arc::clone)
    };
    let Some(certificate) = certificate else {
        let (mut stream, _) = (start.io, start.accepted);
        stream.write_all(&UNRECOGNIZED_NAME).await?;
        stream.shutdown().await?;
        return Ok(None);
    };
    let stream = start.into_stream(Arc::clone(&certificate.config)).await?;
    Ok(Some(Secured { stream: Box::new(stream), secret: certificate.secret.clone() }))
}

fn version(secured: &Secured) -> &'static str {
    match secured.stream.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "none",
    }
}
