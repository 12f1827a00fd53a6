//! A client's connection: bytes read ahead, and deadlines that hyper does not keep. An idle
//! client, a head that does not end and a client that does not read are each cut off in time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::body::{DRAIN_BYTES, DRAIN_TIME};
use super::error::Error;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at once while looking for the preface, and when an idle connection is used again; a whole
/// ordinary head.
const FIRST_READ: usize = 2048;
/// How the fields begin of the answer that hyper gives itself to a head that it cannot read; the
/// date is the last of them.
const UNEXPLAINED: &[u8] = b"connection: close\r\ncontent-length: 0\r\ndate: ";

/// A client that has reset so many streams at once, and more than half of all, does nothing else: each
/// costs a member a request (CVE-2023-44487).
const MAX_RESETS: usize = 200;

/// The length of a date and of a head's end (RFC 9110, section 5.6.7).
const DATE: usize = "Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n".len();

/// How long a client may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request's head, from its first byte.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// To take what is sent to it.
    pub write: Duration,
}

/// Parts that are no longer than this together are written as one: to copy them costs less than to
/// hand them over one by one. Longer ones are not copied.
const TOGETHER: usize = 2048;

thread_local! {
    /// Where they are put together.
    static TOGETHER_AS_ONE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What of the answers on one connection of HTTP/2 waits to be written. A client may leave a part
/// of each stream but one standing, and the one goes on.
const AHEAD: usize = super::MAX_STREAMS as usize * super::body::PART;

/// In the place of a deadline: the one of a head whose first bytes have just come. Most heads are complete
/// then, and need none.
const HEAD_HAS_BEGUN: u64 = u64::MAX;

/// How long a connection of HTTP/1.1 is idle before hyper's buffers for it are given back. Short, so that
/// of many that come at about the same time few have theirs at once.
const REST: Duration = Duration::from_millis(100);
/// How long an end of TLS may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a connection is doing; shared by its socket and the requests on it.
#[derive(Debug)]
pub struct Activity {
    born: Instant,
    patience: Patience,
    requests: AtomicUsize,
    /// Milliseconds after `born` at which reading ends; 0 while a request is under way.
    deadline: AtomicU64,
    /// No byte has come since the last request: the next one begins a head.
    between: AtomicBool,
    /// All of the last request's body was read, if it had one: what comes next is a head.
    read_to_end: AtomicBool,
    /// All that was answered has been written: what is written next, before another request, is
    /// hyper's own.
    flushed: AtomicBool,
    cut: AtomicBool,
    /// Streams of HTTP/2 that were begun, and those of them that the client reset at once.
    streams: AtomicUsize,
    resets: AtomicUsize,
    flooded: Notify,
    /// The client takes no more at the moment.
    full: AtomicBool,
    /// Nothing is under way, and nothing has come for a while: hyper may give back what it has.
    rests: AtomicBool,
    /// Bytes of HTTP/2 that wait to be written, and who wait for room.
    ahead: AtomicUsize,
    waiting: Mutex<VecDeque<Waker>>,
}

/// Bytes that wait to be written on a client's connection, counted until all who hold them are gone.
struct Ahead {
    part: Bytes,
    activity: Arc<Activity>,
}

impl AsRef<[u8]> for Ahead {
    fn as_ref(&self) -> &[u8] {
        &self.part
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.activity.written(self.part.len());
    }
}

impl Activity {
    /// Of a connection accepted just now: its first byte counts as the start of a head.
    #[must_use]
    pub fn new(patience: Patience, now: Instant) -> Arc<Self> {
        let activity = Self {
            born: now,
            patience,
            requests: AtomicUsize::new(0),
            deadline: AtomicU64::new(0),
            between: AtomicBool::new(false),
            read_to_end: AtomicBool::new(true),
            flushed: AtomicBool::new(true),
            cut: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
            flooded: Notify::new(),
            full: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            ahead: AtomicUsize::new(0),
            waiting: Mutex::default(),
        };
        activity.expect_within(patience.head, now);
        Arc::new(activity)
    }

    /// A request has begun, with a body or none: the connection is not idle before the guard is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>, has_body: bool) -> Request {
        self.read_to_end.store(!has_body, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        let number = self.streams.fetch_add(1, Relaxed) + 1;
        self.deadline.store(0, Relaxed);
        self.between.store(false, Relaxed);
        self.flushed.store(false, Relaxed);
        Request { activity: Arc::clone(self), number, ended: None }
    }

    /// Waits until the client resets streams for their own sake.
    pub async fn flooded(&self) {
        self.flooded.notified().await;
    }

    /// Ready while the client takes what is written to it, and not too much waits for that. All who ask
    /// are on the thread of the connection.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.full.load(Relaxed) && self.ahead.load(Relaxed) < AHEAD {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push_back(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The client has taken what was written to it, or has not.
    fn wrote(&self, full: bool) {
        if self.full.load(Relaxed) != full {
            self.full.store(full, Relaxed);
            if !full {
                self.wake(usize::MAX);
            }
        }
    }

    /// The part waits to be written from now on.
    fn hold(self: &Arc<Self>, part: Bytes) -> Bytes {
        self.ahead.fetch_add(part.len(), Relaxed);
        Bytes::from_owner(Ahead { part, activity: Arc::clone(self) })
    }

    /// So much of what waited is written, or is not going to be.
    fn written(&self, bytes: usize) {
        match self.ahead.fetch_sub(bytes, Relaxed) - bytes {
            0 => self.wake(usize::MAX),
            // Who is woken may have nothing to add now, or may be gone.
            left if left < AHEAD => self.wake((AHEAD - left).div_ceil(super::body::PART)),
            _ => {}
        }
    }

    fn wake(&self, most: usize) {
        let mut waiting = self.waiting();
        let most = most.min(waiting.len());
        let woken: Vec<_> = waiting.drain(..most).collect();
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A response broke off: the connection is to be reset, so that its end cannot be taken for
    /// the end of the response, as HTTP/1.0 would.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    fn expect_within(&self, patience: Duration, now: Instant) {
        let at = now.saturating_duration_since(self.born) + patience;
        let most = HEAD_HAS_BEGUN - 1;
        self.deadline.store(u64::try_from(at.as_millis()).unwrap_or(most).clamp(1, most), Relaxed);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.deadline.load(Relaxed) == HEAD_HAS_BEGUN {
            self.expect_within(self.patience.head, Instant::now());
        }
        match self.deadline.load(Relaxed) {
            0 => None,
            millis => Some(self.born + Duration::from_millis(millis)),
        }
    }

    /// Whether the socket is to be taken from hyper, which then gives back all that it has of the
    /// connection; said once.
    #[must_use]
    pub fn rests(&self) -> bool {
        // Nobody else changes it meanwhile.
        self.rests.load(Relaxed) && self.rests.swap(false, Relaxed)
    }

    /// When that may be.
    fn rest_at(&self) -> Option<Instant> {
        let is_between = || self.between.load(Relaxed) && self.read_to_end.load(Relaxed);
        let deadline = self.deadline().filter(|_| is_between())?;
        (deadline + REST).checked_sub(self.patience.idle)
    }

    /// All that was answered is on its way.
    fn is_quiet(&self) -> bool {
        self.flushed.load(Relaxed) && !self.full.load(Relaxed)
    }

    /// Bytes came while nothing was under way: a head has begun.
    fn read(&self) {
        if self.requests.load(Relaxed) == 0 && self.between.load(Relaxed) {
            self.between.store(false, Relaxed);
            self.deadline.store(HEAD_HAS_BEGUN, Relaxed);
        }
    }
}

/// Keeps its connection from being idle.
#[derive(Debug)]
pub struct Request {
    activity: Arc<Activity>,
    number: usize,
    ended: Option<Instant>,
}

impl Request {
    /// It ends now; its body was `read` to its end, or there was none.
    pub fn end(mut self, now: Instant, read: bool) {
        // The next one, if it has begun, has a body of its own.
        if read && self.activity.streams.load(Relaxed) == self.number {
            self.activity.read_to_end.store(true, Relaxed);
        }
        self.ended = Some(now);
    }

    /// The response broke off.
    pub fn cut(&self) {
        self.activity.cut();
    }

    /// Ready while the client takes what is written to it, and not too much waits for that.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.activity.poll_room(cx)
    }

    /// Counts the part until it is written.
    pub fn hold(&self, part: Bytes) -> Bytes {
        self.activity.hold(part)
    }

    /// The client has reset this stream of HTTP/2 as soon as it was begun.
    pub fn reset_at_once(&self) {
        let resets = self.activity.resets.fetch_add(1, Relaxed) + 1;
        if resets >= MAX_RESETS && resets * 2 > self.activity.streams.load(Relaxed) {
            self.activity.flooded.notify_one();
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.activity.requests.fetch_sub(1, Relaxed) == 1 {
            self.activity.between.store(true, Relaxed);
            let now = self.ended.unwrap_or_else(Instant::now);
            self.activity.expect_within(self.activity.patience.idle, now);
        }
    }
}

/// A client's connection below HTTP.
#[derive(Debug)]
pub enum ClientStream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl ClientStream {
    /// Whether HTTP/2 was agreed on.
    fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// The socket.
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// A client's socket.
#[derive(Debug)]
pub struct Client {
    stream: ClientStream,
    ahead: BytesMut,
    activity: Arc<Activity>,
    reading: Alarm,
    writing: Alarm,
    write_stalled: Option<Instant>,
    /// It was not quiet when it was to rest, and does not before this time.
    rests_from: Option<Instant>,
    /// Until when what the client still sends is read after the last answer, and how much that was.
    lingers: Option<Instant>,
    unread: usize,
    /// What goes out in place of hyper's own last answer.
    refusal: Bytes,
    /// Keeps to the idle time, for its frames come between requests too.
    http2: bool,
}

impl Client {
    /// Takes the socket over, reads its first bytes and says whether they are HTTP/2's preface.
    ///
    /// # Errors
    /// When the client goes away or says nothing in time.
    pub async fn greet(
        mut stream: ClientStream,
        activity: Arc<Activity>,
    ) -> io::Result<(Self, bool)> {
        let mut ahead = BytesMut::with_capacity(FIRST_READ);
        let patience = activity.patience.head;
        let preface = tokio::time::timeout(patience, preface(&mut stream, &mut ahead)).await??;
        // Who has agreed on HTTP/2 and does not begin it is told so by it.
        let preface = preface || stream.speaks_http2();
        if preface {
            activity.expect_within(activity.patience.idle, Instant::now());
        }
        let client = Self {
            stream,
            ahead,
            activity,
            reading: Alarm::default(),
            writing: Alarm::default(),
            write_stalled: None,
            rests_from: None,
            lingers: None,
            unread: 0,
            refusal: Bytes::new(),
            http2: preface,
        };
        Ok((client, preface))
    }

    /// A connection that hyper has given back, with what it had `read` of the next head.
    #[must_use]
    pub fn again(mut self, read: &[u8]) -> Self {
        self.reading = Alarm::default();
        self.writing = Alarm::default();
        self.rests_from = None;
        self.ahead = BytesMut::from(read);
        if !read.is_empty() {
            self.activity.read();
        }
        self
    }

    /// Waits until the client says something; nothing if that takes too long, or until `ends`.
    pub async fn woken(mut self, ends: impl Future<Output = ()>) -> Option<Self> {
        if self.ahead.has_remaining() {
            return Some(self);
        }
        let deadline = self.activity.deadline()?;
        let read = tokio::select! {
            biased;
            read = poll_fn(|cx| self.poll_first(cx)) => read.ok()?,
            () = ends => 0,
            () = tokio::time::sleep_until(deadline.into()) => 0,
        };
        if read == 0 {
            let _unimportant = tokio::time::timeout(LAST_WORDS, self.stream.shutdown()).await;
            return None;
        }
        self.activity.read();
        Some(self)
    }

    /// Reads the beginning of a head, most often all of it, without room for it before.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut first = [const { MaybeUninit::uninit() }; FIRST_READ];
        let mut first = ReadBuf::uninit(&mut first);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut first))?;
        self.ahead.extend_from_slice(first.filled());
        Poll::Ready(Ok(first.filled().len()))
    }

    /// The time at which the client has taken too long to say something. On the way there the
    /// connection may come to rest.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(deadline) = self.activity.deadline() else { return Poll::Pending };
            let rest = self.rest_at();
            ready!(self.reading.poll(rest.map_or(deadline, |at| at.min(deadline)), cx));
            let now = Instant::now();
            if deadline <= now {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            if self.activity.is_quiet() {
                self.activity.rests.store(true, Relaxed);
            }
            self.rests_from = Some(now + REST);
        }
    }

    fn rest_at(&self) -> Option<Instant> {
        let at = self.activity.rest_at().filter(|_| !self.http2)?;
        Some(self.rests_from.map_or(at, |from| from.max(at)))
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.write_stalled.get_or_insert_with(Instant::now);
        ready!(self.writing.poll(since + self.activity.patience.write, cx));
        Poll::Ready(ErrorKind::TimedOut.into())
    }

    /// Reads and forgets what the client still sends of a body that was answered before it had come.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.http2 || self.activity.read_to_end.load(Relaxed) {
            return Poll::Ready(());
        }
        let until = *self.lingers.get_or_insert_with(|| Instant::now() + DRAIN_TIME);
        let mut unread = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut unread);
            let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut buf) else {
                return self.writing.poll(until, cx);
            };
            self.unread += buf.filled().len();
            if read.is_err() || buf.filled().is_empty() || self.unread > DRAIN_BYTES {
                return Poll::Ready(());
            }
        }
    }

    /// Writes the explained form of an answer of hyper's own; done when all of it is written.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.refusal.has_remaining() {
            let result = Pin::new(&mut self.stream).poll_write(cx, &self.refusal);
            match ready!(self.written(result, cx))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                written => self.refusal.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn written<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        self.activity.wrote(result.is_pending());
        if result.is_pending() {
            return self.poll_stall(cx).map(Err);
        }
        self.write_stalled = None;
        result
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.http2 && self.activity.cut.load(Relaxed) {
            let _unimportant = self.stream.socket().set_zero_linger();
        }
    }
}

/// The answer with which hyper refuses a head, if these bytes are one, with a reason.
fn explain(bytes: &[u8]) -> Option<Bytes> {
    let before_date = bytes.len().checked_sub(UNEXPLAINED.len() + DATE)?;
    let (line, fields) = bytes.split_at(before_date);
    let date = fields.strip_prefix(UNEXPLAINED)?.strip_suffix(b"\r\n\r\n")?;
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let status = line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let error = Error::unreadable(status).filter(|_| !line.contains('\n'))?;
    Some(error.last_answer(std::str::from_utf8(date).ok()?))
}

/// Reads until the bytes are the preface, or cannot be.
async fn preface(stream: &mut ClientStream, ahead: &mut BytesMut) -> io::Result<bool> {
    loop {
        if stream.read_buf(ahead).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let seen = ahead.len().min(PREFACE.len());
        if ahead[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
    }
}

impl Read for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let take = self.ahead.len().min(buf.remaining());
            let taken = self.ahead.split_to(take);
            buf.put_slice(&taken);
            return Poll::Ready(Ok(()));
        }
        self.ahead = BytesMut::new();
        let this = &mut *self;
        let read = hyper_util::rt::TokioIo::new(&mut this.stream);
        match Read::poll_read(pin!(read), cx, buf) {
            Poll::Ready(result) => {
                if !this.http2 {
                    this.activity.read();
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_silence(cx),
        }
    }
}

impl Write for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.http2
            && self.activity.flushed.load(Relaxed)
            && let Some(explained) = explain(buf)
        {
            if self.refusal.is_empty() {
                self.refusal = explained;
            }
            return self.poll_refusal(cx).map_ok(|()| buf.len());
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(result, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has nothing left to write.
        if self.activity.requests.load(Relaxed) == 0 {
            self.activity.flushed.store(true, Relaxed);
        }
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        // What is encrypted waits behind the writes.
        ready!(self.written(result, cx))?;
        // hyper does not read again after an answer until it is woken; once is enough.
        if let Some(at) = self.rest_at()
            && self.reading.poll(at, cx).is_ready()
        {
            self.rests_from = Some(Instant::now() + REST);
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_unread(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [one] = bufs {
            return self.poll_write(cx, one);
        }
        let whole: usize = bufs.iter().map(|part| part.len()).sum();
        let result = if whole > TOGETHER {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        } else {
            TOGETHER_AS_ONE.with_borrow_mut(|one| {
                one.clear();
                for part in bufs {
                    one.extend_from_slice(part);
                }
                Pin::new(&mut self.stream).poll_write(cx, one)
            })
        };
        self.written(result, cx)
    }
}

/// A timer that is set again only when it rings too early.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when `deadline` has passed.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep =
            self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        loop {
            // A timer that was set for later than the deadline must be brought forward.
            if sleep.deadline().into_std() > deadline {
                sleep.as_mut().reset(deadline.into());
            }
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline().into_std() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
    }
}

/// A connection of HTTP/2 to a member, which tells how much it has said.
#[derive(Debug)]
pub struct MemberStream {
    /// The connection.
    pub way: Way,
    /// Counts the bytes that came.
    pub heard: Arc<AtomicU64>,
    /// Is told of each read.
    pub news: Arc<Notify>,
}

/// Whether it is TLS that failed, and not what is below or above it.
#[must_use]
pub fn is_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.is_some()
}

/// With or without TLS.
#[derive(Debug)]
pub enum Way {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Way {
    /// Whether HTTP/2 was agreed on.
    #[must_use]
    pub fn agreed_on_http2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }
}

/// Passes calls on to the stream that it is.
macro_rules! passes_on {
    ($stream:ident) => {
        impl AsyncRead for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
                    Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
                }
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
                    Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
                    Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::Plain(stream) => stream.is_write_vectored(),
                    Self::Tls(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                    Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                }
            }
        }
    };
}

passes_on!(ClientStream);
passes_on!(Way);

impl AsyncRead for MemberStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.way).poll_read(cx, buf);
        // Nobody else adds to it.
        let heard = self.heard.load(Relaxed) + (buf.filled().len() - before) as u64;
        self.heard.store(heard, Relaxed);
        if result.is_ready() {
            self.news.notify_one();
        }
        result
    }
}

impl AsyncWrite for MemberStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.way).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.way).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.way).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.way.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.way).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::body::{Body, Incoming};

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn hypers_own(status: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: {DATE}\r\n\r\n"
        )
    }

    #[test]
    fn an_answer_of_hypers_own_is_explained() {
        for (status, reason) in [
            ("400 Bad Request", "Bad Request: the request's head is malformed\n"),
            ("414 URI Too Long", "URI Too Long: the request's target is too long\n"),
            (
                "431 Request Header Fields Too Large",
                "Request Header Fields Too Large: the request's head is too large\n",
            ),
        ] {
            let explained = explain(hypers_own(status).as_bytes()).unwrap();
            let explained = std::str::from_utf8(&explained).unwrap();
            let (head, body) = explained.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, reason);
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
            for field in [
                format!("content-length: {}", body.len()),
                format!("date: {DATE}"),
                "connection: close".into(),
            ] {
                assert!(head.split("\r\n").any(|line| line == field), "{field}: {head}");
            }
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn what_waits_on_a_connection_is_bounded_and_those_who_wait_for_room_are_woken() {
        let patience = Duration::from_secs(1);
        let patience = Patience { head: patience, idle: patience, write: patience };
        let activity = Activity::new(patience, Instant::now());
        let part = Bytes::from(vec![0; crate::proxy::body::PART]);
        let woken: [Arc<Woken>; 3] = std::array::from_fn(|_| Arc::default());
        let counts = || woken.each_ref().map(|woken| woken.0.load(Relaxed));
        let poll = |which: usize| {
            let waker = Waker::from(Arc::clone(&woken[which]));
            activity.poll_room(&Context::from_waker(&waker)).is_ready()
        };
        let mut held = Vec::new();
        while poll(0) {
            held.push(activity.hold(part.clone()));
        }
        assert_eq!(held.iter().map(Bytes::len).sum::<usize>(), AHEAD);
        assert!(!poll(1) && !poll(2) && !poll(0));
        // A share of a part keeps all of it.
        let share = held[0].slice(..1);
        held.swap_remove(0);
        assert_eq!(counts(), [0, 0, 0]);
        drop(share);
        assert_eq!(counts(), [1, 0, 0], "as many as there is room for, in turn");
        held.push(activity.hold(part.clone()));
        assert!(!poll(0));
        held.pop();
        assert_eq!(counts(), [1, 1, 0]);
        held.truncate(1);
        assert!(poll(1) && counts() == [2, 1, 1], "{:?}", counts());
        assert!(activity.waiting().is_empty());
        held.clear();
        assert_eq!(activity.ahead.load(Relaxed), 0);
    }

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// A client that has asked, and its connection as hyper gets it.
    async fn asked() -> (TcpStream, Client, Arc<Activity>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let patience = Duration::from_secs(60);
        let patience = Patience { head: patience, idle: patience, write: patience };
        let activity = Activity::new(patience, Instant::now());
        let accepted = ClientStream::Plain(listener.accept().await.unwrap().0);
        client.write_all(ASK).await.unwrap();
        let (own, http2) = Client::greet(accepted, Arc::clone(&activity)).await.unwrap();
        assert!(!http2);
        (client, own, activity)
    }

    /// Serves as a worker does, until the connection rests; it has answered then.
    async fn served(own: Client, activity: &Arc<Activity>, read: bool) -> Client {
        let service = hyper::service::service_fn(|asked: http::Request<Incoming>| {
            let request = activity.request(!asked.body().is_end_stream());
            async move {
                let mut body = asked.into_body();
                if read {
                    while body.frame().await.is_some() {}
                } else {
                    // Somebody may still want it.
                    tokio::spawn(async move {
                        let _unread = body;
                        std::future::pending::<()>().await;
                    });
                }
                request.end(Instant::now(), read);
                let answer = http::Response::new(http_body_util::Full::new(Bytes::new()));
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut served = hyper::server::conn::http1::Builder::new().serve_connection(own, service);
        std::future::poll_fn(|cx| match Pin::new(&mut served).poll(cx) {
            Poll::Pending if activity.rests() => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
            Poll::Ready(ended) => panic!("{ended:?}"),
        })
        .await;
        let parts = served.into_parts();
        parts.io.again(&parts.read_buf)
    }

    async fn answered(client: &mut TcpStream) {
        let mut answer = [0; 1024];
        let length = client.read(&mut answer).await.unwrap();
        let answer = std::str::from_utf8(&answer[..length]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_idle_connection_leaves_hyper_and_keeps_its_socket_and_what_was_read() {
        let (mut client, mut own, activity) = asked().await;
        let began = Instant::now();
        for next in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /",
        ] {
            own = served(own, &activity, true).await;
            answered(&mut client).await;
            client.write_all(next.as_bytes()).await.unwrap();
            own = own.woken(std::future::pending()).await.unwrap();
            assert_eq!(*own.ahead, *next.as_bytes());
        }
        // Not the idle time of 60 s.
        assert!(began.elapsed() >= 4 * REST && began.elapsed() < Duration::from_secs(30));
        own = served(own, &activity, true).await;
        answered(&mut client).await;
        own = own.woken(std::future::pending()).await.unwrap();
        assert_eq!(&*own.ahead, b"GET /");
        assert_eq!(activity.deadline.load(Relaxed), HEAD_HAS_BEGUN);
    }

    #[tokio::test]
    async fn a_connection_does_not_rest_with_a_body_that_nobody_has_read() {
        let (mut client, own, activity) = asked().await;
        let own = served(own, &activity, true).await;
        answered(&mut client).await;
        client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n").await.unwrap();
        let own = own.woken(std::future::pending()).await.unwrap();
        assert!(tokio::time::timeout(REST * 3, served(own, &activity, false)).await.is_err());
    }

    #[tokio::test]
    async fn who_may_rest_and_cannot_is_seldom_woken() {
        let (_client, mut own, activity) = asked().await;
        let mut head = [0; 64];
        let mut head = hyper::rt::ReadBuf::new(&mut head);
        std::future::poll_fn(|cx| Pin::new(&mut own).poll_read(cx, head.unfilled())).await.unwrap();
        drop(activity.request(false));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        // hyper that has more to do than to read, so that the connection cannot rest.
        let began = Instant::now();
        while began.elapsed() < 3 * REST {
            let flushed = Pin::new(&mut own).poll_flush(&mut Context::from_waker(&waker));
            assert!(flushed.is_ready());
            tokio::time::sleep(REST / 50).await;
        }
        // Once of the flush, and once of the timer, each time.
        let woken = woken.0.load(Relaxed);
        assert!((1..=6).contains(&woken), "{woken}");
    }

    #[test]
    fn nothing_else_is_changed() {
        let own = hypers_own("400 Bad Request");
        for written in [
            hypers_own("404 Not Found"),
            own.replace("connection", "x: y\r\nconnection"),
            own.replace("connection: close\r\n", ""),
            own.clone() + "x",
            own[1..].to_owned(),
            format!("HTTP/1.1 200 OK\r\n\r\n{own}"),
            String::new(),
        ] {
            assert_eq!(explain(written.as_bytes()), None, "{written}");
        }
    }
}
