//! Handshakes with clients: the certificate by server name, out of the table in use.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::UnixTime;
use rustls::server::Acceptor;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::handshakes::Handshakes;
use super::identity::Identity;
use crate::table::Table;
use crate::table::tls::{Certificate, ClientPolicy, SecretId};

/// The fatal alert `unrecognized_name` (RFC 6066, section 3), as a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The fatal alert `access_denied` (RFC 8446, section 6.2), likewise.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// A connection with TLS.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub stream: Box<TlsStream<TcpStream>>,
    /// What is known of it.
    pub seen: Seen,
}

/// What both sides have seen of each other.
#[derive(Debug)]
pub struct Seen {
    /// The Secret of the certificate that the client has seen.
    pub secret: SecretId,
    /// Who the client is, if it was asked.
    pub identity: Option<Identity>,
}

/// How a handshake ended.
enum Shaken {
    Hands(Secured),
    /// Nobody has the name.
    UnknownName,
    /// There are no authorities to verify the client by.
    NoCa,
    /// The certificate of a session that was taken up again is not good any more.
    Outdated,
}

/// Shakes hands; nothing if the client got no certificate, took too long, or had to make room.
pub async fn accept(
    stream: TcpStream,
    client: IpAddr,
    shared: &Shared,
    handshakes: &Handshakes,
) -> Option<Secured> {
    let shaking = shake_hands(stream, &shared.table);
    let result = handshakes.run(client, shared.settings.patience.head, shaking).await;
    let (label, secured) = match result {
        Ok(Ok(Shaken::Hands(secured))) => ("ok", Some(secured)),
        Ok(Ok(Shaken::UnknownName)) => ("unknown_name", None),
        Ok(Ok(Shaken::NoCa)) => ("no_client_ca", None),
        Ok(Ok(Shaken::Outdated)) => ("client_certificate", None),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            (if is_of_client(&error) { "client_certificate" } else { "failed" }, None)
        }
        Err(cut) => (cut.label(), None),
    };
    let version = secured.as_ref().map_or("none", version);
    shared.metrics.handshakes.with_label_values(&[version, label]).inc();
    secured
}

/// Whether the client has shown no certificate where it must, or one that is not good.
fn is_of_client(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_))
    )
}

async fn shake_hands(stream: TcpStream, table: &ArcSwap<Table>) -> io::Result<Shaken> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let (certificate, policy) = terms(&table.load(), name.as_deref());
    let Some(certificate) = certificate else {
        refuse(start.io, &UNRECOGNIZED_NAME).await?;
        return Ok(Shaken::UnknownName);
    };
    let ca = match policy {
        None => None,
        Some(ClientPolicy { ca: Some(ca), strict, .. }) => Some((ca, strict)),
        Some(ClientPolicy { ca: None, .. }) => {
            refuse(start.io, &ACCESS_DENIED).await?;
            return Ok(Shaken::NoCa);
        }
    };
    let config = match &ca {
        None => Arc::clone(&certificate.config),
        Some((ca, strict)) => Arc::new(ca.config(&certificate, *strict)),
    };
    let stream = start.into_stream(config).await?;
    let tls = stream.get_ref().1;
    let identity = match ca {
        None => None,
        Some((ca, _)) => {
            let chain = tls.peer_certificates();
            let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
            let is_good = chain.is_none_or(|chain| !resumed || ca.accepts(chain, UnixTime::now()));
            let Some(identity) = Identity::new(ca, chain).filter(|_| is_good) else {
                return Ok(Shaken::Outdated);
            };
            Some(identity)
        }
    };
    let seen = Seen { secret: certificate.secret.clone(), identity };
    Ok(Shaken::Hands(Secured { stream: Box::new(stream), seen }))
}

/// The certificate for a server name, and how its clients are verified.
fn terms(table: &Table, name: Option<&str>) -> (Option<Arc<Certificate>>, Option<ClientPolicy>) {
    let (certificates, clients) = (&table.certificates, &table.clients);
    let (certificate, policy) = match name {
        Some(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            (certificates.find(name), clients.find(name))
        }
        None => (certificates.for_no_name(), clients.for_no_name()),
    };
    (certificate.map(Arc::clone), policy.cloned())
}

async fn refuse(mut stream: TcpStream, alert: &[u8]) -> io::Result<()> {
    stream.write_all(alert).await?;
    stream.shutdown().await
}

fn version(secured: &Secured) -> &'static str {
    match secured.stream.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "none",
    }
}
