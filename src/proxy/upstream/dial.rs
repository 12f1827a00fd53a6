//! A new connection to a member: TCP, TLS, and the protocol that is agreed on.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::http2::{self, Multiplexed};
use super::{MAX_HEAD, Wire};
use crate::proxy::body::Upload;
use crate::proxy::io::{Alarm, MemberStream, Way};
use crate::table::Member;
use crate::table::load::Failure;
use crate::table::tally::MemberTally;
use crate::table::upstream::{ClientConfigs, Protocol, Trusted};

/// Fields a member's response may have.
const MAX_HEADERS: usize = 128;

/// What the system says when it has no more sockets: ENFILE, EMFILE and ENOBUFS of Linux.
const OUT_OF_SOCKETS: [i32; 3] = [23, 24, 105];

/// All that is needed to connect, so that it can be done for more than one request.
pub struct Dial {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<(ServerName<'static>, Arc<rustls::ClientConfig>)>,
    within: Duration,
    tally: Arc<MemberTally>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dial({}, {})", self.address, self.protocol.label())
    }
}

/// A connection that was made.
#[derive(Debug)]
pub enum Made {
    /// For one request at a time.
    Http1(Wire),
    /// For many.
    Http2(Rc<Multiplexed>),
}

impl Dial {
    /// To a member, by a protocol that may be narrower than its own. `system` is how members are
    /// spoken to whose rules ask for nothing.
    ///
    /// # Errors
    /// When whom to trust cannot be had.
    pub fn new(
        member: &Member,
        protocol: Protocol,
        system: &ClientConfigs,
        within: Duration,
    ) -> Result<Self, Failure> {
        let tls = match member.tls.as_ref().map(|tls| (&tls.name, &tls.trusted)) {
            None if protocol.is_tls() => return Err(Failure::Tls),
            None => None,
            Some((_, Trusted::Nobody)) => return Err(Failure::Tls),
            Some((name, Trusted::System)) => Some((name.clone(), system)),
            Some((name, Trusted::Own(own))) => Some((name.clone(), &**own)),
        };
        Ok(Self {
            address: member.address,
            protocol,
            tls: tls.map(|(name, handshakes)| (name, Arc::clone(handshakes.of(protocol)))),
            within,
            tally: Arc::clone(&member.tally),
        })
    }

    /// Connects, and no later than at `deadline`.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn connect(self, deadline: Option<Instant>) -> Result<Made, Failure> {
        let within = Instant::now() + self.within;
        let within = deadline.map_or(within, |deadline| deadline.min(within)).into();
        let making = async {
            let stream = TcpStream::connect(self.address);
            let stream = stream.await.map_err(|error| connect_failure(&error))?;
            let _unimportant = stream.set_nodelay(true);
            self.shake_hands(stream).await
        };
        timeout_at(within, making).await.map_err(|_| Failure::ConnectTimeout)?
    }

    async fn shake_hands(self, stream: TcpStream) -> Result<Made, Failure> {
        let (way, agreed) = match self.tls {
            None => (Way::Plain(stream), false),
            Some((name, config)) => {
                let stream = TlsConnector::from(config).connect(name, stream).await;
                let stream = stream.map_err(|error| {
                    tracing::debug!(address = %self.address, %error, "a member's TLS failed");
                    Failure::Tls
                })?;
                let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Way::Tls(Box::new(stream)), agreed)
            }
        };
        let http2 = match self.protocol {
            Protocol::Http1 | Protocol::Https1 => false,
            Protocol::Https => agreed,
            // Who agrees to nothing may still speak it.
            Protocol::H2 | Protocol::H2c => true,
        };
        let heard = Arc::default();
        let news = http2.then(Arc::<Notify>::default);
        let stream = MemberStream { way, heard: Arc::clone(&heard), news: news.clone() };
        self.tally.connected(http2);
        match news {
            Some(news) => http2::handshake(stream, &heard, &news).await.map(Made::Http2),
            None => {
                let sender = http1(stream).await?;
                Ok(Made::Http1(Wire { sender, alarm: Alarm::default(), heard }))
            }
        }
    }
}

fn connect_failure(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::TimedOut => Failure::ConnectTimeout,
        ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory => Failure::Local,
        _ if error.raw_os_error().is_some_and(|code| OUT_OF_SOCKETS.contains(&code)) => {
            Failure::Local
        }
        _ => Failure::Refused,
    }
}

async fn http1(stream: MemberStream) -> Result<SendRequest<Upload>, Failure> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD as usize)
        .max_buf_size(MAX_HEAD as usize)
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Reset)?;
    // Errors of the connection reach the request that is on it; an idle one may just end.
    tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}
