//! Connections to members: connect, keep idle ones, send once → a response, *not sent* or *lost*.
//!
//! Whether a member has seen a request decides whether another may get it, so that is what this
//! module tells apart. Each worker has its own connections; nothing here is shared.

mod codec;
pub mod dial;
pub mod http1;
mod http2;
pub mod message;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::TrySendError;
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout_at;

use super::body::{DownloadError, Upload};
use super::fields::Fields;
use super::headers;
use super::io::{Alarm, is_tls};
use crate::table::load::Failure;
use crate::table::upstream::{ClientConfigs, Protocol, Trusted};
use crate::table::{Lookup, Member};
use dial::{Dial, Made};
use http1::Wire;
use http2::{Shared, Stream};
use message::Message;

/// An idle connection is not used after this time, unless the member promises more: popular
/// servers close at five seconds, and a request on its way then would be lost.
const IDLE: Duration = Duration::from_secs(4);
/// The longest promise that is believed.
const IDLE_MOST: Duration = Duration::from_secs(60);
/// How much earlier than a member says Gibbon stops using a connection.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// A connection that was in use just now is used again without a look at what has come of it, if the
/// request can be sent again should the member have closed it. What came up to the worker's last turn is
/// known anyway; stale bytes or an end that come after that race with the look as well, and no member
/// closes or reminds so soon after its answer.
const JUST_NOW: Duration = Duration::from_millis(500);
/// After so long an idle connection has no buffers.
const SLEEP: Duration = Duration::from_millis(500);
/// Idle connections kept to one member by one worker.
const IDLE_PER_MEMBER: usize = 64;
/// Bytes of a response's head.
const MAX_HEAD: u32 = 128 * 1024;
/// A shared connection on which nothing comes for so long, or for as long as a response may take, gets
/// no more requests when one has failed on it.
const SILENCE: Duration = Duration::from_secs(1);
/// How often a request may come back from shared connections that end.
const RETURNS: usize = 3;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How a request fared that got no response.
#[derive(Debug)]
pub struct Failed {
    /// What went wrong.
    pub failure: Failure,
    /// How far the request got.
    pub reach: Reach,
    /// It went out on a connection that was kept from before: the member may just have closed it.
    pub reused: bool,
}

/// How far a request got that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The member has certainly not seen it.
    Unsent,
    /// The member has said that it did not begin with it.
    Unprocessed,
    /// The member may have begun with it.
    Lost,
    /// The member has begun to answer, or said something before its answer.
    Answered,
}

/// A response's head, and the connection that its body comes on.
#[derive(Debug)]
pub struct Reply {
    /// The response.
    pub response: Box<Response<Incoming>>,
    /// What its head has.
    pub fields: Fields,
    /// To be given back when the body has ended.
    pub connection: Connection,
    /// When the member was asked: the last byte of the request, or its head.
    pub asked: Instant,
}

/// A connection to a member that is in use.
#[derive(Debug)]
pub enum Connection {
    /// For this request alone.
    Own(Own),
    /// With others.
    Shared(Stream),
}

/// A member's body.
#[derive(Debug)]
pub enum Incoming {
    /// With the connection that it comes on.
    Alone(Wire),
    /// From a stream.
    Shared(hyper::body::Incoming),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match self.get_mut() {
            Self::Alone(wire) => wire.poll_frame(cx).map_err(|_| DownloadError::Broken),
            Self::Shared(incoming) => {
                Pin::new(incoming).poll_frame(cx).map_err(|_| DownloadError::Broken)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Alone(wire) => wire.is_end_stream(),
            Self::Shared(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Alone(wire) => wire.size_hint(),
            Self::Shared(incoming) => incoming.size_hint(),
        }
    }
}

/// A connection for one request at a time, which is with what comes on it.
#[derive(Debug)]
pub struct Own {
    pool: Rc<Pool>,
    key: Key,
    idle: Duration,
}

impl Connection {
    /// Keeps the connection for the next request, idle `since` then, if what was `read` on it has ended.
    pub fn give_back(self, read: Option<Incoming>, since: Instant) {
        let (Self::Own(own), Some(Incoming::Alone(wire))) = (self, read) else { return };
        if wire.is_sent() {
            return own.keep(wire, since);
        }
        spawn_local(async move {
            wire.sent().await;
            own.keep(wire, Instant::now());
        });
    }
}

impl Own {
    fn keep(self, wire: Wire, since: Instant) {
        if !self.idle.is_zero() && wire.has_ended() {
            wire.rest();
            self.pool.keep(self.key, Idle { wire, since, until: since + self.idle });
        } else {
            wire.close();
        }
    }
}

/// What connections are kept for: the backend, with its protocol, and whom its TLS trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    backend: u64,
    trusted: u64,
}

impl Key {
    fn of(member: &Member) -> Self {
        let trusted = match member.tls.as_ref().map(|tls| &tls.trusted) {
            Some(Trusted::Own(own)) => own.number(),
            Some(Trusted::System | Trusted::Nobody) | None => 0,
        };
        Self { backend: member.load.id(), trusted }
    }
}

#[derive(Debug)]
struct Idle {
    wire: Wire,
    since: Instant,
    until: Instant,
}

/// A worker's kept connections, newest last.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Lookup<Key, Vec<Idle>>>,
    shared: Shared,
}

impl Pool {
    fn keep(&self, key: Key, idle: Idle) {
        let mut pool = self.idle.borrow_mut();
        let kept = pool.entry(key).or_default();
        if kept.len() >= IDLE_PER_MEMBER {
            kept.remove(0).wire.close();
        }
        kept.push(idle);
    }

    fn take(&self, key: Key, now: Instant) -> Option<Idle> {
        let mut pool = self.idle.borrow_mut();
        let kept = pool.get_mut(&key)?;
        kept.pop_if(|idle| idle.until > now)
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, kept| {
            let is_over = |idle: &mut Idle| idle.until <= now || !idle.wire.is_free();
            kept.extract_if(.., is_over).for_each(|idle| idle.wire.close());
            let slept =
                kept.iter().filter(|idle| now.saturating_duration_since(idle.since) > SLEEP);
            slept.for_each(|idle| idle.wire.sleep());
            !kept.is_empty()
        });
        self.shared.sweep(now, |key| idle.contains_key(key));
    }

    /// Makes a shared connection, unless one is being made; whoever waits for it may go away.
    fn open(self: &Rc<Self>, key: Key, dial: Dial) -> http2::Opening {
        if let Some(opening) = self.shared.opening(key) {
            return opening;
        }
        let (tell, told) = self.shared.begin(key);
        let pool = Rc::clone(self);
        spawn_local(async move {
            let made = dial.connect(None).await;
            pool.shared.end(key);
            tell.send_replace(Some(made.map(|made| match made {
                Made::Http2(connection) => pool.shared.add(key, connection),
                Made::Http1(wire) => {
                    pool.shared.note_http1(key);
                    let since = Instant::now();
                    pool.keep(key, Idle { wire, since, until: since + IDLE });
                }
            })));
        });
        told
    }
}

/// How long to wait for what, and what is needed.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// For the connection.
    pub connect: Duration,
    /// For the response head, while the member is silent.
    pub response: Duration,
    /// When the whole request has failed.
    pub deadline: Option<Instant>,
    /// The request may be sent again if it is lost.
    pub repeatable: bool,
    /// No kept connection will do.
    pub fresh: bool,
    /// When the attempt begins: as good as now, where nothing has been waited for since.
    pub begun: Instant,
    /// How TLS is spoken with members whose rules ask for nothing.
    pub system: &'a ClientConfigs,
}

impl Terms<'_> {
    fn dial(&self, member: &Member, protocol: Protocol) -> Result<Dial, Failure> {
        Dial::new(member, protocol, self.system, self.connect)
    }
}

/// Sends a request to a member, once: on a kept connection if there is one.
/// A kept connection that turns out closed before it took the request does not count.
///
/// # Errors
/// Whether the member has seen the request, and what went wrong.
pub async fn send(
    pool: &Rc<Pool>,
    member: &Member,
    message: &Message<'_>,
    terms: &Terms<'_>,
) -> Result<Reply, Failed> {
    let key = Key::of(member);
    let protocol = match member.protocol {
        // What leaves HTTP takes a connection of its own.
        Protocol::Https if message.upgrade.is_some() => Protocol::Https1,
        protocol => protocol,
    };
    match protocol {
        Protocol::Http1 | Protocol::Https1 => {
            alone(pool, member, key, protocol, message, terms).await
        }
        // Apart, for it is larger than what most requests need.
        Protocol::Https | Protocol::H2 | Protocol::H2c => {
            Box::pin(together(pool, member, key, message, terms)).await
        }
    }
}

/// Sends on a connection that carries nothing else.
async fn alone(
    pool: &Rc<Pool>,
    member: &Member,
    key: Key,
    protocol: Protocol,
    message: &Message<'_>,
    terms: &Terms<'_>,
) -> Result<Reply, Failed> {
    let mut now = terms.begun;
    while !terms.fresh
        && let Some(Idle { wire, since, .. }) = pool.take(key, now)
    {
        // Stale bytes must not be taken for the answer, and a closed connection must not swallow the
        // request: lets what the member has sent or closed meanwhile be known.
        if !terms.repeatable || now.saturating_duration_since(since) > JUST_NOW {
            yield_now().await;
            now = Instant::now();
        }
        if !wire.is_free() {
            wire.close();
            continue;
        }
        match exchange(pool, key, wire, message, true, terms, now).await {
            Err(Failed { reach: Reach::Unsent, .. }) => {}
            done => return done,
        }
        now = Instant::now();
    }
    let made = match terms.dial(member, protocol) {
        // Apart, as most requests need none.
        Ok(dial) => Box::pin(dial.connect(terms.deadline)).await,
        Err(failure) => Err(failure),
    };
    match made {
        Ok(Made::Http1(wire)) => {
            exchange(pool, key, wire, message, false, terms, Instant::now()).await
        }
        Ok(Made::Http2(connection)) => {
            let stream = Stream::on(&connection);
            pool.shared.add(key, connection);
            let request = message.to_http2(protocol.is_tls(), member.address);
            Box::pin(share(stream, request, &Terms { fresh: true, ..*terms })).await
        }
        Err(failure) => Err(unsent(failure)),
    }
}

/// Sends on a connection that carries others' requests too, unless the member wants HTTP/1.1.
async fn together(
    pool: &Rc<Pool>,
    member: &Member,
    key: Key,
    message: &Message<'_>,
    terms: &Terms<'_>,
) -> Result<Reply, Failed> {
    let protocol = member.protocol;
    let until = Instant::now() + terms.connect;
    let mut returned = 0;
    loop {
        if let Some((stream, last)) = pool.shared.take(key) {
            if last && let Ok(dial) = terms.dial(member, protocol) {
                // The next request finds a place.
                drop(pool.open(key, dial));
            }
            if stream.is_alone() {
                yield_now().await;
            }
            let request = message.to_http2(protocol.is_tls(), member.address);
            match share(stream, request, terms).await {
                Err(Failed { reach: Reach::Unsent, .. }) if returned < RETURNS => {}
                done => return done,
            }
            returned += 1;
        } else if pool.shared.speaks_http1(key) {
            let terms = &Terms { begun: Instant::now(), ..*terms };
            return alone(pool, member, key, protocol, message, terms).await;
        } else if let Err(failure) = opened(pool, member, key, terms).await {
            return Err(unsent(failure));
        } else if !pool.shared.is_open(key) {
            return Err(unsent(Failure::Reset));
        } else if Instant::now() >= until {
            // Others were quicker to take the places on each connection that was made.
            return Err(unsent(Failure::ConnectTimeout));
        }
    }
}

/// Waits until a connection was made.
async fn opened(
    pool: &Rc<Pool>,
    member: &Member,
    key: Key,
    terms: &Terms<'_>,
) -> Result<(), Failure> {
    let mut opening = pool.open(key, terms.dial(member, member.protocol)?);
    let done = async {
        let told = opening.wait_for(Option::is_some).await;
        // Whoever makes it always says what came of it.
        told.map_or(Err(Failure::Local), |told| told.unwrap_or(Err(Failure::Local)))
    };
    match terms.deadline {
        Some(deadline) => {
            let done = timeout_at(deadline.into(), done).await;
            done.unwrap_or(Err(Failure::ConnectTimeout))
        }
        None => done.await,
    }
}

fn unsent(failure: Failure) -> Failed {
    Failed { failure, reach: Reach::Unsent, reused: false }
}

async fn exchange(
    pool: &Rc<Pool>,
    key: Key,
    wire: Wire,
    message: &Message<'_>,
    reused: bool,
    terms: &Terms<'_>,
    now: Instant,
) -> Result<Reply, Failed> {
    let upload = &message.upload;
    upload.begin(now);
    wire.begin(message);
    let answer = std::future::poll_fn(|cx| match wire.poll_answer(message, cx) {
        Poll::Pending => wire
            .with_alarm(|alarm| poll_silence(upload, terms, alarm, cx))
            .map(|()| Err(Failure::Timeout)),
        answer @ Poll::Ready(_) => answer,
    });
    match answer.await {
        Ok((response, fields)) => {
            let promises = fields.has(Fields::KEEP_ALIVE);
            let idle = if promises { idle_time(response.headers()) } else { IDLE };
            let connection = Connection::Own(Own { pool: Rc::clone(pool), key, idle });
            Ok(Reply { asked: upload.moved(), response, fields, connection })
        }
        Err(failure) => {
            let reach = match (wire.has_heard(), wire.has_sent()) {
                (true, _) => Reach::Answered,
                (false, false) if upload.is_whole() && upload.error().is_none() => Reach::Unsent,
                (false, _) => Reach::Lost,
            };
            Err(Failed { failure, reach, reused })
        }
    }
}

/// Sends on a stream.
async fn share(
    stream: Stream,
    request: Request<Upload>,
    terms: &Terms<'_>,
) -> Result<Reply, Failed> {
    let upload = request.body().clone();
    if let Some(gate) = upload.gate() {
        // hyper does not tell of a 100 (Continue) on a stream.
        gate.open();
    }
    let reused = !stream.is_first() && !terms.fresh;
    let (began, before) = (Instant::now(), stream.heard());
    upload.begin(began);
    let lost = |failure| Failed { failure, reach: Reach::Lost, reused };
    let sent = std::pin::pin!(stream.sender().try_send_request(request));
    match answer(sent, &upload, terms).await {
        Ok((response, fields)) => {
            let connection = Connection::Shared(stream);
            Ok(Reply { asked: upload.moved(), response, fields, connection })
        }
        Err(Unanswered::Failure(failure)) => {
            let silent = began.elapsed() >= terms.response.min(SILENCE);
            if silent && stream.heard() == before {
                // The next request would wait as long.
                stream.doubt();
            }
            Err(lost(failure))
        }
        Err(Unanswered::Error(mut error)) => {
            let (failure, unprocessed) = http2::classify(error.error());
            let reach = match error.take_message() {
                Some(_) => Reach::Unsent,
                None if unprocessed => Reach::Unprocessed,
                None => Reach::Lost,
            };
            Err(Failed { reach, ..lost(failure) })
        }
    }
}

/// Why there is no response.
enum Unanswered {
    Failure(Failure),
    Error(Box<TrySendError<Request<Upload>>>),
}

/// Waits for the head of a stream's response.
async fn answer<F>(
    mut sent: Pin<&mut F>,
    upload: &Upload,
    terms: &Terms<'_>,
) -> Result<(Box<Response<Incoming>>, Fields), Unanswered>
where
    F: Future<Output = Result<Response<hyper::body::Incoming>, TrySendError<Request<Upload>>>>,
{
    let mut alarm = Alarm::default();
    // Heads are large: they are moved as one word.
    let answer = std::future::poll_fn(|cx| match sent.as_mut().poll(cx) {
        Poll::Ready(Ok(response)) => Poll::Ready(Ok(Box::new(response.map(Incoming::Shared)))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(Unanswered::Error(Box::new(error)))),
        Poll::Pending => poll_silence(upload, terms, &mut alarm, cx)
            .map(|()| Err(Unanswered::Failure(Failure::Timeout))),
    });
    let response = answer.await?;
    let fields = Fields::of(response.headers());
    if fields.has(Fields::FRAMING) && !headers::is_framed_once(response.headers(), fields) {
        return Err(Unanswered::Failure(Failure::Protocol));
    }
    Ok((response, fields))
}

/// Ready when the member has been silent for too long, or the request's time is over. While the
/// client is still sending, it is not the member that is silent.
fn poll_silence(
    upload: &Upload,
    terms: &Terms<'_>,
    alarm: &mut Alarm,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let until = || {
        let since = if upload.waits_for_client() { Instant::now() } else { upload.moved() };
        let silent = since + terms.response;
        terms.deadline.map_or(silent, |deadline| deadline.min(silent))
    };
    loop {
        ready!(alarm.poll(until(), cx));
        // Much may have come since the alarm was set.
        if until() <= Instant::now() {
            return Poll::Ready(());
        }
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

fn io_failure(error: &std::io::Error) -> Failure {
    if is_tls(error) { Failure::Tls } else { Failure::Reset }
}
