//! HTTP/2 connections to members: each carries many requests, with a stream for each.
//!
//! The streams are counted here, for hyper queues what is above the member's limit, and what is
//! queued cannot go elsewhere.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, watch};

use super::Key;
use crate::proxy::Local;
use crate::proxy::body::Upload;
use crate::proxy::io::{MemberStream, Way};
use crate::table::Lookup;
use crate::table::load::Failure;

/// Streams on one connection at most, whatever more the member allows.
const STREAMS: u32 = 128;
/// What a member may send ahead of the client on one stream; and on all, so that no client that
/// stands still holds up the others on the connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// What of an upload waits for the member at most.
const SEND_BUFFER: usize = 128 * 1024;
/// A connection without a stream is kept for this time.
const IDLE: Duration = Duration::from_secs(60);
/// A member that is silent for so long on open streams is asked whether it is there. Servers of
/// gRPC end a connection on which that happens more often than every five minutes.
const PING: Duration = Duration::from_secs(330);
const PONG: Duration = Duration::from_secs(20);

type Driver = Connection<TokioIo<MemberStream>, Upload, Local>;

/// A connection that carries many requests.
pub struct Multiplexed {
    sender: SendRequest<Upload>,
    /// None when the connection takes no more requests.
    driver: Rc<RefCell<Option<Driver>>>,
    streams: Cell<usize>,
    /// Counts the bytes that came.
    heard: Arc<AtomicU64>,
    /// Nothing came for so long that nobody may be there any more.
    doubtful: Cell<bool>,
    /// It has had a stream.
    used: Cell<bool>,
    idle_since: Cell<Instant>,
}

impl fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Multiplexed({} streams)", self.streams.get())
    }
}

impl Multiplexed {
    /// How many more streams it takes now.
    pub fn room(&self) -> usize {
        limit(&self.driver).min(STREAMS as usize).saturating_sub(self.streams.get())
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.doubtful.get()
    }
}

/// The member's own limit on streams; 0 before it has told any.
fn limit(driver: &RefCell<Option<Driver>>) -> usize {
    driver.borrow().as_ref().map_or(0, Driver::current_max_send_streams)
}

/// Makes a connection; returns when the member has told its limits. `news` tells of each read.
///
/// # Errors
/// When the member speaks another protocol, or has closed the connection.
pub async fn handshake(
    stream: MemberStream,
    heard: Arc<AtomicU64>,
    news: &Arc<Notify>,
) -> Result<Rc<Multiplexed>, Failure> {
    // Who has asked for a certificate looks at it when the handshake has ended for Gibbon.
    let silent = match stream.way {
        Way::Plain(_) => Failure::Reset,
        Way::Tls(_) => Failure::Tls,
    };
    let handshake = Builder::new(Local)
        .timer(TokioTimer::new())
        // So that no request is on its way before the limit is known.
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(super::MAX_HEAD)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .handshake(TokioIo::new(stream));
    let (sender, driver) = handshake.await.map_err(|_| silent)?;
    let driver = Rc::new(RefCell::new(Some(driver)));
    tokio::task::spawn_local(drive(Rc::clone(&driver), Arc::clone(news)));
    while limit(&driver) == 0 {
        if sender.is_closed() {
            return Err(match heard.load(Relaxed) {
                0 => silent,
                _ => Failure::Protocol,
            });
        }
        news.notified().await;
        // What was read is understood when others have had their turn.
        tokio::task::yield_now().await;
    }
    Ok(Rc::new(Multiplexed {
        sender,
        driver,
        streams: Cell::new(0),
        heard,
        doubtful: Cell::new(false),
        used: Cell::new(false),
        idle_since: Cell::new(Instant::now()),
    }))
}

/// Takes requests until the member or Gibbon has had enough; those under way go on.
async fn drive(driver: Rc<RefCell<Option<Driver>>>, news: Arc<Notify>) {
    std::future::poll_fn(|cx| match driver.borrow_mut().as_mut() {
        Some(driver) => Pin::new(driver).poll(cx).map(drop),
        None => Poll::Ready(()),
    })
    .await;
    // What waits in it is given back, which must find the cell free.
    let ended = driver.borrow_mut().take();
    drop(ended);
    news.notify_one();
}

/// A place on a connection, held from the request to the end of its response.
#[derive(Debug)]
pub struct Stream(Rc<Multiplexed>);

impl Stream {
    /// Takes a place, whether there is one or not.
    pub fn on(connection: &Rc<Multiplexed>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }

    /// The way to send.
    pub fn sender(&self) -> SendRequest<Upload> {
        self.0.sender.clone()
    }

    /// It is the first one on its connection.
    pub fn is_first(&self) -> bool {
        !self.0.used.replace(true)
    }

    /// How many bytes have come on its connection, for whichever stream.
    pub fn heard(&self) -> u64 {
        self.0.heard.load(Relaxed)
    }

    /// Leaves the connection to the streams that it has.
    pub fn doubt(&self) {
        self.0.doubtful.set(true);
    }

    /// No other is on its connection, which may have been closed unnoticed.
    pub fn is_alone(&self) -> bool {
        self.0.streams.get() == 1
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let left = self.0.streams.get() - 1;
        self.0.streams.set(left);
        if left == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// Tells those who wait for a connection what came of it.
pub type Opening = watch::Receiver<Option<Result<(), Failure>>>;

/// What a worker has of one member.
#[derive(Debug, Default)]
struct Connections {
    open: Vec<Rc<Multiplexed>>,
    opening: Option<Opening>,
    /// The member agreed to HTTP/1.1 the last time it was asked.
    http1: bool,
}

impl Connections {
    fn room(&self) -> usize {
        self.open.iter().map(|connection| connection.room()).sum()
    }
}

/// A worker's HTTP/2 connections.
#[derive(Debug, Default)]
pub struct Shared(RefCell<Lookup<Key, Connections>>);

impl Shared {
    /// A place on a connection, if there is one; and whether it was the last.
    pub fn take(&self, key: Key) -> Option<(Stream, bool)> {
        let mut all = self.0.borrow_mut();
        let own = all.get_mut(&key)?;
        own.open.retain(|connection| !connection.is_closed());
        let stream = Stream::on(own.open.iter().find(|connection| connection.room() > 0)?);
        let last = own.room() == 0;
        Some((stream, last))
    }

    /// Whether a member that may speak either protocol speaks HTTP/1.1.
    pub fn speaks_http1(&self, key: Key) -> bool {
        self.0.borrow().get(&key).is_some_and(|own| own.http1)
    }

    /// Whether the member can be sent anything, now or when there is room.
    pub fn is_open(&self, key: Key) -> bool {
        let all = self.0.borrow();
        let is_open = |own: &Connections| own.open.iter().any(|open| !open.is_closed());
        all.get(&key).is_some_and(|own| own.http1 || is_open(own))
    }

    /// The connection that is being made, if one is.
    pub fn opening(&self, key: Key) -> Option<Opening> {
        self.0.borrow().get(&key)?.opening.clone()
    }

    /// One is being made from now on; returns who is to be told of it.
    pub fn begin(&self, key: Key) -> (watch::Sender<Option<Result<(), Failure>>>, Opening) {
        let (tell, told) = watch::channel(None);
        self.0.borrow_mut().entry(key).or_default().opening = Some(told.clone());
        (tell, told)
    }

    /// None is being made any more.
    pub fn end(&self, key: Key) {
        self.0.borrow_mut().entry(key).or_default().opening = None;
    }

    /// A connection is there.
    pub fn add(&self, key: Key, connection: Rc<Multiplexed>) {
        let mut all = self.0.borrow_mut();
        let own = all.entry(key).or_default();
        own.http1 = false;
        own.open.push(connection);
    }

    /// The member wants HTTP/1.1.
    pub fn note_http1(&self, key: Key) {
        self.0.borrow_mut().entry(key).or_default().http1 = true;
    }

    /// Closes what has been idle for too long, and forgets members that have no other connections.
    pub fn sweep(&self, now: Instant, has_others: impl Fn(&Key) -> bool) {
        let is_kept = |connection: &Rc<Multiplexed>| {
            let idle = now.saturating_duration_since(connection.idle_since.get());
            !connection.is_closed() && (connection.streams.get() > 0 || idle < IDLE)
        };
        self.0.borrow_mut().retain(|key, own| {
            own.open.retain(is_kept);
            !own.open.is_empty() || own.opening.is_some() || (own.http1 && has_others(key))
        });
    }
}

/// What an error says of the member, and whether the member has said that it did not begin with the
/// request (RFC 9113, section 8.7).
pub fn classify(error: &hyper::Error) -> (Failure, bool) {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    let Some(cause) = cause else {
        let failure = if error.is_timeout() { Failure::Timeout } else { Failure::Reset };
        return (failure, false);
    };
    match cause.reason() {
        Some(h2::Reason::REFUSED_STREAM) if cause.is_remote() => (Failure::StreamRefused, true),
        // Streams that the member had begun with go on, or end with the connection.
        _ if cause.is_go_away() && cause.is_remote() => (Failure::Reset, true),
        Some(h2::Reason::HTTP_1_1_REQUIRED) => (Failure::Protocol, false),
        _ if cause.is_library() => (Failure::Protocol, false),
        _ => (Failure::Reset, false),
    }
}
