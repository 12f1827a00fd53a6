//! A new connection to a member: TCP, TLS, and the protocol that is agreed on.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::Incoming;
use super::http1::Wire;
use super::http2::{self, Multiplexed, Stream};
use super::message::Message;
use crate::proxy::io::{MemberStream, Way};
use crate::table::Member;
use crate::table::checks::Checkup;
use crate::table::load::Failure;
use crate::table::tally::MemberTally;
use crate::table::upstream::{ClientConfigs, MemberTls, Protocol, Trusted};

/// What the system says when it has no more sockets: ENFILE, EMFILE and ENOBUFS of Linux.
const OUT_OF_SOCKETS: [i32; 3] = [23, 24, 105];

/// All that is needed to connect, so that it can be done for more than one request.
pub struct Dial {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<Handshakes>,
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
        let tls = handshakes(member.tls.as_ref(), protocol, system)?;
        let tally = Arc::clone(&member.tally);
        Ok(Self { address: member.address, protocol, tls, within, tally })
    }

    /// For the checks of a member, which are counted elsewhere.
    ///
    /// # Errors
    /// When whom to trust cannot be had.
    pub fn to_check(checkup: &Checkup, system: &ClientConfigs) -> Result<Self, Failure> {
        let &Checkup { address, protocol, .. } = checkup;
        let tls = handshakes(checkup.tls.as_ref(), protocol, system)?;
        let within = checkup.check.timeout;
        Ok(Self { address, protocol, tls, within, tally: Arc::default() })
    }

    /// Connects, and no later than at `deadline`.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn connect(self, deadline: Option<Instant>) -> Result<Made, Failure> {
        let within = Instant::now() + self.within;
        let within = deadline.map_or(within, |deadline| deadline.min(within)).into();
        let making = async {
            let way = self.reach().await?;
            self.begin(way).await
        };
        timeout_at(within, making).await.map_err(|_| Failure::ConnectTimeout)?
    }

    /// Connects, with TLS where it is spoken, and says nothing.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn reach(&self) -> Result<Way, Failure> {
        let stream = TcpStream::connect(self.address);
        let stream = stream.await.map_err(|error| connect_failure(&error))?;
        let _unimportant = stream.set_nodelay(true);
        let Some((name, config)) = &self.tls else { return Ok(Way::Plain(stream)) };
        let stream = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await;
        let stream = stream.map_err(|error| {
            tracing::debug!(address = %self.address, %error, "a member's TLS failed");
            Failure::Tls
        })?;
        Ok(Way::Tls(Box::new(stream)))
    }

    /// Speaks the protocol, or the one that was agreed on.
    async fn begin(self, way: Way) -> Result<Made, Failure> {
        let http2 = match self.protocol {
            Protocol::Http1 | Protocol::Https1 => false,
            Protocol::Https => way.agreed_on_http2(),
            // Who agrees to nothing may still speak it.
            Protocol::H2 | Protocol::H2c => true,
        };
        self.tally.connected(http2);
        if !http2 {
            return Ok(Made::Http1(Wire::new(way)));
        }
        let (heard, news) = (Arc::default(), Arc::<Notify>::default());
        let stream = MemberStream { way, heard: Arc::clone(&heard), news: Arc::clone(&news) };
        http2::handshake(stream, heard, &news).await.map(Made::Http2)
    }
}

impl Made {
    /// Whether a request may be sent on it now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Http1(wire) => wire.is_free(),
            Self::Http2(connection) => connection.room() > 0,
        }
    }

    /// Sends a request, and waits for its answer as long as that takes.
    ///
    /// # Errors
    /// When the connection ends before there is an answer.
    pub async fn ask(
        &self,
        message: &Message<'_>,
        checkup: &Checkup,
    ) -> Result<Response<Incoming>, Failure> {
        match self {
            Self::Http1(wire) => wire.ask(message).await,
            Self::Http2(connection) => {
                let request = message.to_http2(checkup.protocol.is_tls(), checkup.address);
                let answer = Stream::on(connection).sender().send_request(request).await;
                answer.map(|answer| answer.map(Incoming::Shared)).map_err(|e| http2::classify(&e).0)
            }
        }
    }
}

type Handshakes = (ServerName<'static>, Arc<rustls::ClientConfig>);

/// What TLS by a protocol needs.
fn handshakes(
    tls: Option<&MemberTls>,
    protocol: Protocol,
    system: &ClientConfigs,
) -> Result<Option<Handshakes>, Failure> {
    let (name, handshakes) = match tls.map(|tls| (&tls.name, &tls.trusted)) {
        None if protocol.is_tls() => return Err(Failure::Tls),
        None => return Ok(None),
        Some((_, Trusted::Nobody)) => return Err(Failure::Tls),
        Some((name, Trusted::System)) => (name, system),
        Some((name, Trusted::Own(own))) => (name, &**own),
    };
    Ok(Some((name.clone(), Arc::clone(handshakes.of(protocol)))))
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
