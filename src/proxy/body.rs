//! Bodies on their way through: the upload that can be sent again while nothing of it was taken,
//! and the response that holds the in-flight guard until its last byte.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use http_body_util::BodyExt;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use super::grpc;
use super::headers;
use super::io::Alarm;
use super::upstream::{self, Connection};

/// How long a member that was sent `Expect: 100-continue` may keep silent before it gets the body
/// all the same (RFC 9110, section 10.1.1).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// How much of a body that nobody wants is read, and for how long: a connection that is closed with bytes
/// unread is reset, and the reset may overtake the answer (RFC 9112, section 9.6).
pub const DRAIN_BYTES: usize = 64 << 20;
/// See [`DRAIN_BYTES`].
pub const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How much of a member's body that nobody wants is read.
const SKIP_BYTES: usize = 256 << 10;

/// Why an upload ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadError {
    /// The client broke off, or its framing is malformed.
    Broken,
    /// It is longer than the rule allows.
    TooLarge,
    /// The client was silent for too long.
    Timeout,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the request's body broke off or is malformed",
            Self::TooLarge => "the request's body is larger than allowed",
            Self::Timeout => "the request's body did not arrive in time",
        })
    }
}

impl StdError for UploadError {}

/// The body of a request, and what became of it. Clones are the same upload.
#[derive(Clone, Debug)]
pub struct Upload {
    inner: Rc<Inner>,
    attempt: u32,
}

#[derive(Debug)]
struct Inner {
    incoming: RefCell<Option<Incoming>>,
    gate: Option<Gate>,
    alarm: RefCell<Alarm>,
    limit: u64,
    patience: Duration,
    bytes: Cell<u64>,
    taken: Cell<bool>,
    ended: Cell<bool>,
    moved: Cell<Instant>,
    waiting_since: Cell<Option<Instant>>,
    error: Cell<Option<UploadError>>,
    attempt: Cell<u32>,
}

impl Upload {
    /// Of a request that has `begun`; at most `limit` bytes, and no longer silent than `patience`.
    #[must_use]
    pub fn new(
        incoming: Incoming,
        limit: Option<u64>,
        patience: Duration,
        expects: bool,
        begun: Instant,
    ) -> Self {
        Self::of(Some(incoming), limit, patience, expects, begun)
    }

    /// Of a request without a body that no client has sent.
    #[must_use]
    pub fn none() -> Self {
        Self::of(None, None, Duration::MAX, false, Instant::now())
    }

    fn of(
        incoming: Option<Incoming>,
        limit: Option<u64>,
        patience: Duration,
        expects: bool,
        begun: Instant,
    ) -> Self {
        let inner = Inner {
            incoming: RefCell::new(incoming),
            gate: expects.then(Gate::default),
            alarm: RefCell::default(),
            limit: limit.unwrap_or(u64::MAX),
            patience,
            bytes: Cell::new(0),
            taken: Cell::new(false),
            ended: Cell::new(false),
            moved: Cell::new(begun),
            waiting_since: Cell::new(None),
            error: Cell::new(None),
            attempt: Cell::new(0),
        };
        Self { inner: Rc::new(inner), attempt: 0 }
    }

    /// The same upload for another attempt; those before get no more of it.
    #[must_use]
    pub fn again(&self) -> Self {
        let attempt = self.inner.attempt.get() + 1;
        self.inner.attempt.set(attempt);
        self.inner.waiting_since.set(None);
        Self { inner: Rc::clone(&self.inner), attempt }
    }

    /// Whether there is anything to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_end_stream() && !self.inner.taken.get()
    }

    /// Whether all of it is still to be had: nothing was taken yet, or there is nothing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.inner.taken.get()
    }

    /// Whether it was read to its end, so that nothing of it is still to come.
    #[must_use]
    pub fn was_read(&self) -> bool {
        self.inner.ended.get() || self.is_end_stream()
    }

    /// Bytes taken from the client.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.get()
    }

    /// The member is what it waits for, from `now` on.
    pub fn begin(&self, now: Instant) {
        self.inner.moved.set(now);
        self.inner.waiting_since.set(None);
    }

    /// Whether the client is what it waits for.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        self.inner.waiting_since.get().is_some()
    }

    /// When the last of it went on, or the attempt was begun.
    #[must_use]
    pub fn moved(&self) -> Instant {
        self.inner.moved.get()
    }

    /// Why it ended early, if it did.
    #[must_use]
    pub fn error(&self) -> Option<UploadError> {
        self.inner.error.get()
    }

    /// Holds the body back until the member asks for it, where the client waits for that.
    #[must_use]
    pub fn gate(&self) -> Option<&Gate> {
        self.inner.gate.as_ref()
    }

    /// Whether the client still waits to be asked for it.
    #[must_use]
    pub fn is_withheld(&self) -> bool {
        let closed = self.inner.gate.as_ref().is_some_and(|gate| !gate.open.get());
        closed && !self.is_end_stream()
    }

    /// Nobody wants it any more: the member's connection ends without it.
    pub fn refuse(&self) {
        drop(self.again());
        if let Some(gate) = &self.inner.gate {
            gate.open();
        }
    }

    fn fail(&self, error: UploadError) -> UploadError {
        self.inner.error.set(Some(error));
        error
    }

    fn count(&self, data: &Bytes) -> Result<(), UploadError> {
        let bytes = self.inner.bytes.get() + data.len() as u64;
        self.inner.bytes.set(bytes);
        if bytes > self.inner.limit { Err(self.fail(UploadError::TooLarge)) } else { Ok(()) }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let inner = &*self.inner;
        if self.attempt != inner.attempt.get() {
            return Poll::Ready(Some(Err(UploadError::Broken)));
        }
        // Nothing follows an error: who asks again must not take that for the end.
        if let Some(error) = inner.error.get() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(gate) = &inner.gate
            && !gate.is_open(cx)
        {
            ready!(inner.alarm.borrow_mut().poll(inner.moved.get() + CONTINUE_PATIENCE, cx));
            gate.open();
        }
        let polled = match inner.incoming.borrow_mut().as_mut() {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        };
        if polled.is_ready() {
            inner.waiting_since.set(None);
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                inner.taken.set(true);
                inner.moved.set(Instant::now());
                let frame = without_framing(frame);
                let counted = frame.data_ref().map_or(Ok(()), |data| self.count(data));
                Poll::Ready(Some(counted.map(|()| frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(self.fail(UploadError::Broken)))),
            Poll::Ready(None) => {
                inner.ended.set(true);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let since = inner.waiting_since.get().unwrap_or_else(Instant::now);
                inner.waiting_since.set(Some(since));
                ready!(inner.alarm.borrow_mut().poll(since + inner.patience, cx));
                Poll::Ready(Some(Err(self.fail(UploadError::Timeout))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.incoming.borrow().as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.inner.incoming.borrow();
        incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// Reads and forgets what a client still sends, within bounds.
pub fn drain(unread: Option<Incoming>, upload: Option<&Upload>) {
    match (unread, upload) {
        (Some(incoming), _) if !incoming.is_end_stream() => {
            spawn_local(timeout(DRAIN_TIME, forget(incoming, DRAIN_BYTES)));
        }
        (None, Some(upload)) if upload.error().is_none() && !upload.is_end_stream() => {
            spawn_local(timeout(DRAIN_TIME, forget(upload.again(), DRAIN_BYTES)));
        }
        _ => {}
    }
}

/// Reads what a member answers and nobody gets, if it is short, so that the connection can be used
/// again.
pub fn skip(mut incoming: upstream::Incoming, connection: Connection) {
    spawn_local(async move {
        if timeout(DRAIN_TIME, forget(&mut incoming, SKIP_BYTES)).await == Ok(true) {
            connection.give_back(Some(incoming), Instant::now());
        }
    });
}

/// Whether the body came to its end, within so many bytes.
async fn forget(mut body: impl HttpBody<Data = Bytes> + Unpin, most: usize) -> bool {
    let mut left = most;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

/// Trailers must not carry what belongs in a head (RFC 9110, section 6.5.1).
fn without_framing(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Opens when the member has answered 100 (Continue).
#[derive(Debug, Default)]
pub struct Gate {
    open: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Gate {
    /// Lets the body through.
    pub fn open(&self) {
        self.open.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn is_open(&self, cx: &Context<'_>) -> bool {
        if !self.open.get() {
            self.waiting.replace(Some(cx.waker().clone()));
        }
        self.open.get()
    }
}

/// Why a response's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownloadError {
    /// The member broke off, or its framing is malformed.
    Broken,
    /// The member was silent for too long.
    Timeout,
    /// There was nothing to say for as long as that may be.
    Idle,
    /// The time for the whole is over, though the member was not silent.
    Deadline,
    /// The client has stopped to read.
    Stalled,
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the member's body broke off or is malformed",
            Self::Timeout => "the member's body did not arrive in time",
            Self::Idle => "nothing has come for the longest time",
            Self::Deadline => "the time for the whole request is over",
            Self::Stalled => "the client has stopped to read",
        })
    }
}

impl StdError for DownloadError {}

/// Hears what becomes of a member's body.
pub trait Watch {
    /// Ready while the client's connection takes more, where others are on it: what none of them can
    /// send is better left with the members.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()>;
    /// Bytes have passed.
    fn passed(&mut self, bytes: usize);
    /// A member's part that has passed: it counts until the client has taken it.
    fn hold(&self, part: Bytes) -> Bytes;
    /// Trailers have passed.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// The body is complete, and was read to its end, or has failed. Not called when the client goes
    /// away first.
    fn ended(&mut self, result: Result<Option<upstream::Incoming>, DownloadError>);
}

impl<W: Watch + ?Sized> Watch for Box<W> {
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        (**self).poll_room(cx)
    }

    fn passed(&mut self, bytes: usize) {
        (**self).passed(bytes);
    }

    fn hold(&self, part: Bytes) -> Bytes {
        (**self).hold(part)
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        (**self).trailers(trailers);
    }

    fn ended(&mut self, result: Result<Option<upstream::Incoming>, DownloadError>) {
        (**self).ended(result);
    }
}

/// How long a member's body may take.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    /// Without a byte, while the client waits for one.
    pub silence: Duration,
    /// Who is silent has nothing to say, and is not to blame for that.
    pub quiet: bool,
    /// Altogether.
    pub deadline: Option<Instant>,
    /// For the client to ask for more, where its connection does not show that it has stopped to
    /// read: one stream of HTTP/2 can stand still while others go on.
    pub stall: Option<Duration>,
    /// The client learns by trailers of gRPC how it has ended, however it has.
    pub told: bool,
}

/// The longest part that is given at once to a stream that may stand still, so that a slow client
/// asks for more in time.
pub const PART: usize = 16 * 1024;

/// A response's body.
#[derive(Debug)]
pub enum Body<W> {
    /// Gibbon's own words, or nothing.
    Own(Option<Bytes>, Option<W>),
    /// A member's.
    Member(Rc<RefCell<Download<W>>>),
}

/// A member's body on its way to the client.
#[derive(Debug)]
pub struct Download<W> {
    /// None when it has ended, or the client has stood still for too long.
    incoming: Option<upstream::Incoming>,
    /// What was read of it and not yet given.
    rest: Bytes,
    alarm: Alarm,
    waiting_since: Option<Instant>,
    within: Within,
    /// When the client has asked for more, where it may stand still.
    polled: Option<Instant>,
    watchdog: Option<AbortHandle>,
    failed: Option<DownloadError>,
    ended: bool,
    watch: Option<W>,
}

impl<W: Watch + 'static> Body<W> {
    /// A member's body, within limits.
    pub fn member(incoming: upstream::Incoming, within: Within, watch: W) -> Self {
        let download = Rc::new(RefCell::new(Download {
            incoming: Some(incoming),
            rest: Bytes::new(),
            alarm: Alarm::default(),
            waiting_since: None,
            within,
            polled: within.stall.map(|_| Instant::now()),
            watchdog: None,
            failed: None,
            ended: false,
            watch: Some(watch),
        }));
        if let Some(patience) = within.stall
            && !download.borrow().is_end_stream()
        {
            let watch = watch_over(Rc::downgrade(&download), patience);
            download.borrow_mut().watchdog = Some(spawn_local(watch).abort_handle());
        }
        Self::Member(download)
    }
}

impl<W: Watch> Download<W> {
    fn end(&mut self, result: Result<(), DownloadError>) {
        if !self.ended {
            self.ended = true;
            if let Some(watch) = &mut self.watch {
                watch.ended(result.map(|()| self.incoming.take()));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        if self.within.stall.is_some() {
            self.polled = Some(Instant::now());
        }
        if let Some(error) = self.failed {
            let told = std::mem::take(&mut self.within.told) && error != DownloadError::Stalled;
            let trailers = || Ok(Frame::trailers(grpc::broken_off(error)));
            return Poll::Ready(Some(if told { trailers() } else { Err(error) }));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(watch) = &self.watch {
            ready!(watch.poll_room(cx));
        }
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.part())));
        }
        // A client that is slower than its member never waits for it.
        if self.within.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return self.fail(self.lateness(), cx);
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(Some(Err(DownloadError::Stalled)));
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let frame = without_framing(frame);
                self.waiting_since = None;
                let frame = match frame.into_data() {
                    Ok(data) => {
                        self.rest = data;
                        self.part()
                    }
                    Err(frame) => {
                        if let (Some(watch), Some(trailers)) =
                            (&mut self.watch, frame.trailers_ref())
                        {
                            watch.trailers(trailers);
                        }
                        // Nobody asks for more after them.
                        self.end(Ok(()));
                        frame
                    }
                };
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.fail(DownloadError::Broken, cx),
            Poll::Ready(None) => {
                self.end(Ok(()));
                Poll::Ready(None)
            }
            Poll::Pending => {
                let since = *self.waiting_since.get_or_insert_with(Instant::now);
                let silent = since + self.within.silence;
                let until = self.within.deadline.map_or(silent, |deadline| deadline.min(silent));
                ready!(self.alarm.poll(until, cx));
                self.fail(self.lateness(), cx)
            }
        }
    }

    /// Whether it is the member that was silent for too long, or only the whole that took so long.
    fn lateness(&self) -> DownloadError {
        let silent = self.waiting_since.is_some_and(|since| since.elapsed() >= self.within.silence);
        match (silent, self.within.quiet) {
            (true, false) => DownloadError::Timeout,
            (true, true) => DownloadError::Idle,
            (false, _) => DownloadError::Deadline,
        }
    }

    /// The next part of what was read.
    fn part(&mut self) -> Frame<Bytes> {
        let most = if self.within.stall.is_some() { PART } else { usize::MAX };
        let mut part = self.rest.split_to(self.rest.len().min(most));
        if let Some(watch) = &mut self.watch {
            watch.passed(part.len());
            part = watch.hold(part);
        }
        if self.is_end_stream() {
            self.end(Ok(()));
        }
        Frame::data(part)
    }

    fn is_end_stream(&self) -> bool {
        let all_read = || self.incoming.as_ref().is_some_and(HttpBody::is_end_stream);
        (self.ended && self.failed.is_none()) || (self.rest.is_empty() && all_read())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let coming = self.incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default();
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower() + rest);
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }

    /// Fails at the next poll: what has been written so far is flushed before, and the client sees
    /// it.
    fn fail(
        &mut self,
        error: DownloadError,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        self.end(Err(error));
        self.failed = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The client has stood still for too long: gives back what it holds.
    fn cut(&mut self) {
        self.failed = Some(DownloadError::Stalled);
        self.incoming = None;
        self.rest = Bytes::new();
        self.watch = None;
    }
}

impl<W> Drop for Download<W> {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
    }
}

/// Cuts a download off when nobody asks it for more for too long.
async fn watch_over<W: Watch>(download: Weak<RefCell<Download<W>>>, patience: Duration) {
    while let Some(download) = download.upgrade() {
        let until = {
            let mut download = download.borrow_mut();
            if download.ended {
                return;
            }
            let waits_for_member = download.waiting_since.is_some();
            let polled = download.polled.filter(|_| !waits_for_member);
            let from = polled.unwrap_or_else(Instant::now);
            if from.elapsed() >= patience {
                return download.cut();
            }
            from + patience
        };
        drop(download);
        tokio::time::sleep_until(until.into()).await;
    }
}

impl<W: Watch + Unpin> HttpBody for Body<W> {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match self.get_mut() {
            Self::Member(download) => download.borrow_mut().poll(cx),
            Self::Own(bytes, watch) => {
                let frame = bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| {
                    if let Some(watch) = watch {
                        watch.passed(bytes.len());
                    }
                    Ok(Frame::data(bytes))
                });
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes, _) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Member(download) => download.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Member(download) => download.borrow().size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that takes nothing; counts what passes.
    #[derive(Debug)]
    struct Full(usize);

    impl Watch for Full {
        fn poll_room(&self, _: &Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn passed(&mut self, bytes: usize) {
            self.0 += bytes;
        }

        fn hold(&self, part: Bytes) -> Bytes {
            panic!("{} bytes are to be counted", part.len())
        }

        fn trailers(&mut self, _: &HeaderMap) {}

        fn ended(&mut self, _: Result<Option<upstream::Incoming>, DownloadError>) {}
    }

    #[test]
    fn own_words_do_not_wait_for_room_and_take_none() {
        let mut body = Body::Own(Some(Bytes::from_static(b"no such site")), Some(Full(0)));
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else {
            panic!("they wait");
        };
        assert_eq!(frame.into_data().unwrap(), "no such site");
        assert!(body.is_end_stream());
        assert!(matches!(body, Body::Own(None, Some(Full(12)))), "{body:?}");
    }

    #[tokio::test]
    async fn an_upload_that_has_failed_never_comes_to_its_end() {
        let (mut client, own) = tokio::io::duplex(1024);
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = Cell::new(Some(tell));
        let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
            tell.take().unwrap().send(request.into_body()).unwrap();
            std::future::pending::<Result<http::Response<String>, std::convert::Infallible>>()
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(own), service);
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nno chunk\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, head).await.unwrap();
        let failed = async {
            let incoming = told.await.unwrap();
            let mut upload =
                Upload::new(incoming, None, Duration::from_secs(60), false, Instant::now());
            assert!(upload.frame().await.unwrap().is_ok());
            for _ in 0..3 {
                assert!(upload.frame().await.unwrap().is_err());
                assert!(!upload.was_read());
                upload = upload.again();
            }
        };
        tokio::select! {
            () = failed => {}
            _ = served => panic!("the request is never answered"),
        }
    }
}
