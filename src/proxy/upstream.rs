//! Connections to members: connect, keep idle ones, send once → a response, *not sent* or *lost*.
//!
//! Whether a member has seen a request decides whether another may get it, so that is what this
//! module tells apart. Each worker has its own connections; nothing here is shared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::body::Upload;
use super::headers;
use super::io::{Alarm, MemberStream, Way};
use crate::table::Member;
use crate::table::load::Failure;

/// An idle connection is not used after this time, unless the member promises more: popular
/// servers close at five seconds, and a request on its way then would be lost.
const IDLE: Duration = Duration::from_secs(4);
/// The longest promise that is believed.
const IDLE_MOST: Duration = Duration::from_secs(60);
/// How much earlier than a member says Gibbon stops using a connection.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// Idle connections kept to one member by one worker.
const IDLE_PER_MEMBER: usize = 64;
/// Fields a member's response may have, and bytes of its head.
const MAX_HEADERS: usize = 128;
const MAX_HEAD: usize = 128 * 1024;

/// What the system says when it has no more sockets: ENFILE, EMFILE and ENOBUFS of Linux.
const OUT_OF_SOCKETS: [i32; 3] = [23, 24, 105];

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How a request fared that got no response.
#[derive(Debug)]
pub struct Failed {
    /// What went wrong.
    pub failure: Failure,
    /// The request itself, if the member has certainly not seen it.
    pub request: Option<Box<Request<Upload>>>,
    /// It went out on a connection that was kept from before: the member may just have closed it.
    pub reused: bool,
    /// The member has begun to answer, or said something before its answer.
    pub answered: bool,
}

/// A response's head, and the connection that its body comes on.
#[derive(Debug)]
pub struct Reply {
    /// The response.
    pub response: Response<Incoming>,
    /// To be given back when the body has ended.
    pub connection: Connection,
    /// When the member was asked: the last byte of the request, or its head.
    pub asked: Instant,
}

/// A connection to a member that is in use.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    pool: Rc<Pool>,
    member: u64,
    idle: Duration,
}

impl Connection {
    /// Keeps the connection for the next request.
    pub fn give_back(self) {
        if !self.idle.is_zero() {
            let until = Instant::now() + self.idle;
            self.pool.keep(self.member, Idle { wire: self.wire, until });
        }
    }
}

/// The way to send on a connection, with a timer that stays with it: to set one anew for each
/// request would cost more than most of what else is done.
#[derive(Debug)]
struct Wire {
    sender: SendRequest<Upload>,
    alarm: Alarm,
    heard: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Idle {
    wire: Wire,
    until: Instant,
}

/// A worker's kept connections, newest last. One may still be busy with the end of its request, and
/// is left alone until it is really free.
#[derive(Debug, Default)]
pub struct Pool(RefCell<HashMap<u64, Vec<Idle>>>);

impl Pool {
    fn keep(&self, member: u64, idle: Idle) {
        let mut pool = self.0.borrow_mut();
        let kept = pool.entry(member).or_default();
        if kept.len() >= IDLE_PER_MEMBER {
            kept.remove(0);
        }
        kept.push(idle);
    }

    fn take(&self, member: u64, now: Instant) -> Option<Wire> {
        let mut pool = self.0.borrow_mut();
        let kept = pool.get_mut(&member)?;
        let free = kept.iter().rposition(|idle| idle.until > now && idle.wire.sender.is_ready());
        free.map(|at| kept.remove(at).wire)
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|_, kept| {
            kept.retain(|idle| idle.until > now && !idle.wire.sender.is_closed());
            !kept.is_empty()
        });
    }
}

/// How long to wait for what, and how TLS is spoken.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// For the connection.
    pub connect: Duration,
    /// For the response head, while the member is silent.
    pub response: Duration,
    /// When the whole request has failed.
    pub deadline: Option<Instant>,
    /// How members that want TLS are spoken to.
    pub tls: &'a Arc<rustls::ClientConfig>,
}

/// Sends a request to a member, once: on a kept connection if there is one (`fresh` forbids it).
/// A kept connection that turns out closed before it took the request does not count.
///
/// # Errors
/// Whether the member has seen the request, and what went wrong.
pub async fn send(
    pool: &Rc<Pool>,
    member: &Member,
    mut request: Request<Upload>,
    fresh: bool,
    terms: &Terms<'_>,
) -> Result<Reply, Failed> {
    let key = member.load.id();
    while !fresh && let Some(wire) = pool.take(key, Instant::now()) {
        // Lets the connection see what the member has sent or closed meanwhile: stale bytes must
        // not be taken for the answer, and a closed connection must not swallow the request.
        tokio::task::yield_now().await;
        match exchange(pool, key, wire, request, true, terms).await {
            Err(Failed { request: Some(back), .. }) => request = *back,
            done => return done,
        }
    }
    let wire = match connect(member, terms).await {
        Ok(wire) => wire,
        Err(failure) => {
            let request = Some(Box::new(request));
            return Err(Failed { failure, request, reused: false, answered: false });
        }
    };
    member.tally.connections.inc();
    exchange(pool, key, wire, request, false, terms).await
}

async fn exchange(
    pool: &Rc<Pool>,
    member: u64,
    mut wire: Wire,
    request: Request<Upload>,
    reused: bool,
    terms: &Terms<'_>,
) -> Result<Reply, Failed> {
    let upload = request.body().clone();
    upload.begin();
    let heard = Arc::clone(&wire.heard);
    let before = heard.load(Relaxed);
    let lost = |failure| {
        let answered = heard.load(Relaxed) > before;
        Failed { failure, request: None, reused, answered }
    };
    let mut sent = std::pin::pin!(wire.sender.try_send_request(request));
    let answer = std::future::poll_fn(|cx| match sent.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => poll_silence(&upload, terms, &mut wire.alarm, cx).map(|()| None),
    });
    let Some(answer) = answer.await else { return Err(lost(Failure::Timeout)) };
    match answer {
        Ok(response) if !headers::is_framed_once(response.headers()) => {
            Err(lost(Failure::Protocol))
        }
        Ok(response) => {
            let idle = idle_time(response.headers());
            let connection = Connection { wire, pool: Rc::clone(pool), member, idle };
            Ok(Reply { asked: upload.moved(), response, connection })
        }
        Err(mut error) => {
            let request = error.take_message().map(Box::new);
            Err(Failed { request, ..lost(classify(error.error())) })
        }
    }
}

/// Ready when the member has been silent for too long, or the request's time is over. While the
/// client is still sending, it is not the member that is silent.
fn poll_silence(
    upload: &Upload,
    terms: &Terms<'_>,
    alarm: &mut Alarm,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let now = Instant::now();
        let since = if upload.waits_for_client() { now } else { upload.moved() };
        let silent = since + terms.response;
        let until = terms.deadline.map_or(silent, |deadline| deadline.min(silent));
        if until <= now {
            return Poll::Ready(());
        }
        ready!(alarm.poll(until, cx));
    }
}

/// How long the connection may be kept: what the member promises, less a margin.
fn idle_time(headers: &HeaderMap) -> Duration {
    let Some(value) = headers.get(KEEP_ALIVE).and_then(|value| value.to_str().ok()) else {
        return IDLE;
    };
    let timeout = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="));
    match timeout.and_then(|seconds| seconds.trim().parse().ok()) {
        Some(seconds) => Duration::from_secs(seconds).min(IDLE_MOST).saturating_sub(IDLE_MARGIN),
        None => IDLE,
    }
}

fn classify(error: &hyper::Error) -> Failure {
    if error.is_parse() {
        Failure::Protocol
    } else if error.is_timeout() {
        Failure::Timeout
    } else {
        Failure::Reset
    }
}

async fn connect(member: &Member, terms: &Terms<'_>) -> Result<Wire, Failure> {
    let within = Instant::now() + terms.connect;
    let within = terms.deadline.map_or(within, |deadline| deadline.min(within)).into();
    let stream = timeout_at(within, TcpStream::connect(member.address))
        .await
        .map_err(|_| Failure::ConnectTimeout)?
        .map_err(|error| connect_failure(&error))?;
    let _unimportant = stream.set_nodelay(true);
    let way = match &member.tls {
        None => Way::Plain(stream),
        Some(name) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(terms.tls));
            let stream = timeout_at(within, connector.connect(name.clone(), stream))
                .await
                .map_err(|_| Failure::ConnectTimeout)?
                .map_err(|_| Failure::Tls)?;
            Way::Tls(Box::new(stream))
        }
    };
    let heard = Arc::default();
    let stream = MemberStream { way, heard: Arc::clone(&heard) };
    Ok(Wire { sender: handshake(stream).await?, alarm: Alarm::default(), heard })
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

async fn handshake(stream: MemberStream) -> Result<SendRequest<Upload>, Failure> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Reset)?;
    // Errors of the connection reach the request that is on it; an idle one may just end.
    tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}
