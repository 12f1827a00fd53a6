//! A connection to a member that carries one request at a time. It is driven by those who wait for
//! the answer, and by a task of its own only where an answer comes before all of the request is sent.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::{Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, coop, spawn_local};
use tokio::time::timeout;

use super::codec::{self, Decoder, Encoder, Head, Malformed, Taken};
use super::message::Message;
use super::{Incoming, MAX_HEAD, io_failure};
use crate::proxy::body::{self, Upload};
use crate::proxy::fields::Fields;
use crate::proxy::headers;
use crate::proxy::io::{Alarm, Way};
use crate::table::load::Failure;

/// What is read at once: at first, and at most when there is always more.
const FIRST_READ: usize = 8 * 1024;
const MOST_READ: usize = 128 * 1024;
/// After so much that came without a pause, others on the thread have their turn.
const STREAK: usize = 512 * 1024;
/// Parts of a body that are no longer than this are copied behind what else is to be written.
const TOGETHER: usize = 4 * 1024;
/// How long an end of TLS may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A request of which nothing goes on for so long is given up when it has been answered.
const STALL: Duration = Duration::from_secs(60);
/// Room that is kept for the next head.
const KEPT: usize = 16 * 1024;

/// A connection. Its parts are held by whoever waits for the answer, reads it, or keeps it.
#[derive(Clone, Debug)]
pub struct Wire(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    way: Way,
    out: Outgoing,
    /// What of the request's body is not taken yet.
    upload: Option<Upload>,
    /// Why not all of the request can be sent.
    unsent: Option<Unsent>,
    /// Sends what the answer did not wait for.
    sender: Option<Sender>,
    /// Who reads meanwhile.
    reader: Option<Waker>,
    /// What has come and was not taken yet.
    read: Bytes,
    /// Where more is read to, behind what could not be taken without it.
    reading: BytesMut,
    /// How much is asked for at once.
    most: usize,
    /// How much has come without a pause.
    streak: usize,
    /// Something has come since the request was begun.
    heard: bool,
    decoder: Decoder,
    /// Another request may be sent when this one has ended.
    keeps: bool,
    /// Stays with the connection: to set one anew for each request would cost more than most of what else
    /// is done.
    alarm: Alarm,
}

/// Why not all of a request can be sent.
#[derive(Clone, Copy, Debug)]
enum Unsent {
    /// It broke off itself.
    Broken(Failure),
    /// The member takes no more, and may answer all the same.
    Refused(Failure),
}

/// What waits to be written.
#[derive(Debug)]
struct Outgoing {
    encoder: Encoder,
    /// The beginning, and how much of it has gone.
    bytes: Vec<u8>,
    gone: usize,
    /// A long part of the body that follows, and what comes after that.
    part: Bytes,
    after: &'static [u8],
    /// Something was written since the last flush; and at all.
    dirty: bool,
    begun: bool,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.gone == self.bytes.len() && self.part.is_empty()
    }

    /// Whether more of the body may be put behind what waits.
    fn has_room(&self) -> bool {
        self.part.is_empty() && self.bytes.len() - self.gone <= TOGETHER
    }

    fn frame(&mut self, frame: Frame<Bytes>) -> Result<(), Malformed> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => {
                let after = self.encoder.part(data.len() as u64, &mut self.bytes)?;
                if data.len() <= TOGETHER {
                    self.bytes.extend_from_slice(&data);
                    self.bytes.extend_from_slice(after);
                } else {
                    (self.part, self.after) = (data, after);
                }
                Ok(())
            }
            Err(frame) => self.encoder.end(frame.trailers_ref(), &mut self.bytes),
        }
    }

    fn end(&mut self) -> Result<(), Malformed> {
        self.encoder.end(None, &mut self.bytes)
    }

    fn poll_write(&mut self, way: &mut Way, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let bytes = &self.bytes[self.gone..];
            let way = Pin::new(&mut *way);
            let written = ready!(if self.part.is_empty() {
                way.poll_write(cx, bytes)
            } else if bytes.is_empty() {
                way.poll_write(cx, &self.part)
            } else {
                way.poll_write_vectored(cx, &[IoSlice::new(bytes), IoSlice::new(&self.part)])
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            (self.begun, self.dirty) = (true, true);
            let first = written.min(self.bytes.len() - self.gone);
            self.gone += first;
            self.part.advance(written - first);
            if self.gone == self.bytes.len() {
                self.bytes.clear();
                self.gone = 0;
            } else if self.gone > KEPT {
                self.bytes.drain(..std::mem::take(&mut self.gone));
            }
            if self.is_empty() {
                self.bytes.extend_from_slice(std::mem::take(&mut self.after));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// An answer as far as its head, and what that has.
pub type Answer = (Box<Response<Incoming>>, Fields);

impl Wire {
    /// Of a connection that was made just now.
    #[must_use]
    pub fn new(way: Way) -> Self {
        let out = Outgoing {
            encoder: Encoder::Length(0),
            bytes: Vec::new(),
            gone: 0,
            part: Bytes::new(),
            after: b"",
            dirty: false,
            begun: false,
        };
        Self(Rc::new(RefCell::new(Inner {
            way,
            out,
            upload: None,
            unsent: None,
            sender: None,
            reader: None,
            read: Bytes::new(),
            reading: BytesMut::new(),
            most: FIRST_READ,
            streak: 0,
            heard: false,
            decoder: Decoder::Ended,
            keeps: true,
            alarm: Alarm::default(),
        })))
    }

    /// Whether nothing of the request is left to be sent.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.0.borrow().is_sent()
    }

    /// Sends the rest of the request, as long as any of it goes on.
    pub async fn sent(&self) {
        self.0.borrow_mut().sender = None;
        let moves = || {
            let inner = self.0.borrow();
            inner.upload.as_ref().is_some_and(|upload| upload.moved().elapsed() < STALL)
        };
        let mut sent = pin!(std::future::poll_fn(|cx| self.0.borrow_mut().poll_rest(cx)));
        while timeout(STALL, &mut sent).await.is_err() && moves() {}
    }

    /// Whether the request has ended in every way, so that another one may follow.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let inner = self.0.borrow();
        let unread = !inner.read.is_empty() || !inner.reading.is_empty();
        inner.keeps
            && inner.unsent.is_none()
            && inner.is_sent()
            && inner.decoder == Decoder::Ended
            && !unread
    }

    /// Whether it can be used: the request before has ended, and the member has neither closed the
    /// connection nor said anything that nobody has asked for, as far as is known.
    #[must_use]
    pub fn is_free(&self) -> bool {
        if !self.has_ended() {
            return false;
        }
        let mut byte = [0];
        match &mut self.0.borrow_mut().way {
            Way::Plain(stream) => stream
                .try_read(&mut byte)
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            Way::Tls(stream) => {
                // Others on the same task may have used up what it may do at a time.
                let read = pin!(coop::unconstrained(stream.read(&mut byte)));
                read.poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }

    /// Gives back what the next request does not need, if one comes soon.
    pub fn rest(&self) {
        let mut inner = self.0.borrow_mut();
        inner.read = Bytes::new();
        if inner.most > KEPT {
            inner.most = KEPT;
            inner.reading = BytesMut::new();
        }
        inner.out.bytes.shrink_to(KEPT);
    }

    /// Gives back all that can be had again. What only few hold keeps whole pages of others' from the
    /// system.
    pub fn sleep(&self) {
        let mut inner = self.0.borrow_mut();
        inner.reading = BytesMut::new();
        inner.out.bytes = Vec::new();
    }

    /// Ends it; TLS in order.
    pub fn close(self) {
        if let Some((Way::Tls(mut stream), _)) = self.into_parts() {
            spawn_local(async move { drop(timeout(LAST_WORDS, stream.shutdown()).await) });
        }
    }

    /// Begins with a request; what of its body is there goes with the head.
    pub fn begin(&self, message: &Message<'_>) {
        let mut inner = self.0.borrow_mut();
        let encoder = message.encoder();
        message.write_head(encoder, &mut inner.out.bytes);
        inner.upload = (encoder != Encoder::Length(0)).then(|| message.upload.clone());
        inner.sender = None;
        // Until the answer's head says so.
        inner.keeps = false;
        inner.out.encoder = encoder;
        inner.out.begun = false;
        inner.heard = false;
    }

    /// Sends, and reads the head of the answer.
    ///
    /// # Errors
    /// What went wrong.
    pub fn poll_answer(
        &self,
        message: &Message<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answer, Failure>> {
        let mut inner = self.0.borrow_mut();
        let is_sent = inner.poll_send(cx)?.is_ready();
        let (head, fields) = ready!(inner.poll_head(message, cx))?;
        if is_sent {
            inner.forget_unsent();
        } else {
            let wire = Rc::downgrade(&self.0);
            inner.sender = Some(Sender(spawn_local(send_on(wire)).abort_handle()));
        }
        let body = Incoming::Alone(self.clone());
        Poll::Ready(Ok((Box::new(head.map(|()| body)), fields)))
    }

    /// Waits for the answer for as long as it takes.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn ask(&self, message: &Message<'_>) -> Result<Response<Incoming>, Failure> {
        self.begin(message);
        let answer = std::future::poll_fn(|cx| self.poll_answer(message, cx)).await?;
        Ok(*answer.0)
    }

    /// Whether anything of the request was written.
    #[must_use]
    pub fn has_sent(&self) -> bool {
        self.0.borrow().out.begun
    }

    /// Whether the member has said anything since the request was begun.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.0.borrow().heard
    }

    /// Lends the connection's timer.
    pub fn with_alarm<T>(&self, with: impl FnOnce(&mut Alarm) -> T) -> T {
        with(&mut self.0.borrow_mut().alarm)
    }

    /// The next of the answer's body.
    ///
    /// # Errors
    /// When it breaks off or is malformed, or the request's does.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let mut inner = self.0.borrow_mut();
        let frame = inner.poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &frame {
            inner.keeps = false;
        }
        frame
    }

    /// Whether all of the answer's body was taken.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.0.borrow().decoder == Decoder::Ended
    }

    /// How long the rest of the answer's body is.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.0.borrow().decoder.left().map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    /// The connection itself with what was read of it, if nobody else has it.
    #[must_use]
    pub fn into_parts(self) -> Option<(Way, Bytes)> {
        let inner = Rc::into_inner(self.0)?.into_inner();
        Some((inner.way, inner.read))
    }
}

/// Sends the rest of a request, whether or not somebody reads its answer.
async fn send_on(wire: Weak<RefCell<Inner>>) {
    std::future::poll_fn(|cx| {
        let Some(wire) = wire.upgrade() else { return Poll::Ready(()) };
        wire.borrow_mut().poll_rest(cx)
    })
    .await;
}

impl Inner {
    fn is_sent(&self) -> bool {
        self.upload.is_none() && self.out.is_empty() && !self.out.dirty
    }

    /// Sends what the answer did not wait for.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Err(failure) = ready!(self.poll_send(cx)) {
            self.upload = None;
            self.unsent = Some(Unsent::Broken(failure));
        }
        self.forget_unsent();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(())
    }

    /// Sends what of the request has come, as far as the member takes it. Ready when nothing is left.
    /// Only the request itself is an error: a member that takes no more may answer all the same.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.unsent.is_none() {
            let more = self.poll_upload(cx)?;
            let written = match self.out.poll_write(&mut self.way, cx) {
                Poll::Ready(Ok(())) if more.is_ready() && self.upload.is_some() => continue,
                Poll::Ready(Ok(())) if self.out.dirty => Pin::new(&mut self.way).poll_flush(cx),
                written => written,
            };
            match ready!(written) {
                Ok(()) => {
                    self.out.dirty = false;
                    return more.map(Ok);
                }
                Err(error) => {
                    self.unsent = Some(Unsent::Refused(io_failure(&error)));
                    if let Some(upload) = &self.upload {
                        upload.begin(Instant::now());
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what the member does not want, so that the client gets to its answer.
    fn forget_unsent(&mut self) {
        if self.unsent.is_some() {
            body::drain(None, self.upload.take().as_ref());
        }
    }

    /// Takes what has come of the request's body, if there is room. Pending if all of that was taken.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while let Some(upload) = &mut self.upload
            && self.out.has_room()
        {
            let frame = match ready!(Pin::new(&mut *upload).poll_frame(cx)) {
                Some(frame) => Some(frame.map_err(|_| Failure::Reset)?),
                None => None,
            };
            let is_last = frame.as_ref().is_none_or(Frame::is_trailers);
            let malformed = |Malformed| Failure::Reset;
            match frame {
                Some(frame) => self.out.frame(frame).map_err(malformed)?,
                None => self.out.end().map_err(malformed)?,
            }
            if is_last || self.out.encoder == Encoder::Length(0) {
                self.upload = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_head(
        &mut self,
        message: &Message<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Response<()>, Fields), Failure>> {
        let malformed = |Malformed| Failure::Protocol;
        loop {
            while !self.read.is_empty()
                && let Some(Head { response, keeps }) =
                    codec::head(&mut self.read).map_err(malformed)?
            {
                let status = response.status();
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    if let Some(gate) =
                        message.upload.gate().filter(|_| status == StatusCode::CONTINUE)
                    {
                        gate.open();
                    }
                    continue;
                }
                let fields = Fields::of(response.headers());
                if fields.has(Fields::FRAMING)
                    && !headers::is_framed_once(response.headers(), fields)
                {
                    return Poll::Ready(Err(Failure::Protocol));
                }
                self.decoder = Decoder::of(message.method, &response).map_err(malformed)?;
                self.keeps = keeps && !status.is_informational();
                return Poll::Ready(Ok((response, fields)));
            }
            if self.read.len() > MAX_HEAD as usize {
                return Poll::Ready(Err(Failure::Protocol));
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(match self.unsent {
                    Some(Unsent::Broken(failure) | Unsent::Refused(failure)) => failure,
                    None => Failure::Reset,
                }));
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if let Some(Unsent::Broken(failure)) = self.unsent {
                return Poll::Ready(Some(Err(failure)));
            }
            match self.decoder.take(&mut self.read) {
                Ok(Taken::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Taken::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::Nothing) => {}
                Err(Malformed) => return Poll::Ready(Some(Err(Failure::Protocol))),
            }
            if self.upload.is_some() {
                self.reader = Some(cx.waker().clone());
            }
            if ready!(self.poll_read(cx))? == 0 {
                self.keeps = false;
                if self.decoder.close().is_err() {
                    return Poll::Ready(Some(Err(Failure::Reset)));
                }
            }
        }
    }

    /// Reads more; how much.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        if !self.read.is_empty() {
            self.reading.extend_from_slice(&self.read);
        }
        // Even an empty part holds all that was read with it, which is to be used again.
        self.read = Bytes::new();
        if self.streak >= STREAK {
            self.streak = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.reading.reserve(self.most);
        let room = self.reading.capacity() - self.reading.len();
        let Poll::Ready(read) = pin!(self.way.read_buf(&mut self.reading)).poll(cx) else {
            self.streak = 0;
            return Poll::Pending;
        };
        let read = read.map_err(|error| io_failure(&error))?;
        self.streak += read;
        if read == room {
            self.most = (self.most * 2).min(MOST_READ);
        }
        self.heard |= read > 0;
        self.read = self.reading.split().freeze();
        Poll::Ready(Ok(read))
    }
}

/// A task that ends with the connection.
#[derive(Debug)]
struct Sender(AbortHandle);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.abort();
    }
}
