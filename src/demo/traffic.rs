//! The demo's own visitors: they keep their cookies and their connections, and see what fails.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{COOKIE, HOST, HeaderMap, HeaderValue, SET_COOKIE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep_until, timeout};

use super::Thread;
use crate::table::tally::Counter;

/// Fewest visitors, and the requests a second of one before there are more of them.
const VISITORS: u32 = 20;
const PACE: u32 = 5;
/// A visitor gives up after this.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the visitors saw.
#[derive(Debug, Default)]
pub struct Visits {
    /// Requests that came to an end, good or bad.
    pub requests: Counter,
    /// Among them: answers with a 5xx status, broken ones, and none at all.
    pub errors: Counter,
}

impl Visits {
    fn book(&self, status: Option<StatusCode>) {
        self.requests.inc();
        if status.is_none_or(|status| status.is_server_error()) {
            self.errors.inc();
        }
    }
}

/// Visits the site at `address` until what is returned is dropped: `rate` requests a second, fewer
/// only while answers take longer than a visitor's pause.
///
/// # Errors
/// When there is no thread to be had.
pub fn start(address: SocketAddr, rate: u32, visits: &Arc<Visits>) -> io::Result<Thread> {
    let visits = Arc::clone(visits);
    Thread::start("demo-visitors", move || visit_all(address, rate, visits))
}

async fn visit_all(address: SocketAddr, rate: u32, visits: Arc<Visits>) {
    let visitors = VISITORS.max(rate / PACE);
    let mut tasks = JoinSet::new();
    for _ in 0..if rate == 0 { 0 } else { visitors } {
        let pause = Duration::from_secs_f64(f64::from(visitors) / f64::from(rate));
        tasks.spawn_local(Visitor::new(address).stay(pause, Arc::clone(&visits)));
    }
    while tasks.join_next().await.is_some() {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Go on with the session.
    Page,
    /// Come as somebody new.
    Start,
    /// A file.
    File,
}

impl Wish {
    fn draw() -> Self {
        match fastrand::u8(0..10) {
            0..6 => Self::Page,
            6..8 => Self::Start,
            _ => Self::File,
        }
    }
}

#[derive(Debug)]
struct Visitor {
    address: SocketAddr,
    connection: Option<SendRequest<Empty<Bytes>>>,
    cookie: Option<HeaderValue>,
}

impl Visitor {
    const fn new(address: SocketAddr) -> Self {
        Self { address, connection: None, cookie: None }
    }

    async fn stay(mut self, pause: Duration, visits: Arc<Visits>) {
        let mut next = Instant::now() + pause.mul_f64(fastrand::f64());
        loop {
            sleep_until(next).await;
            let asked = timeout(PATIENCE, self.ask(Wish::draw())).await;
            let answer = asked.context("no answer in time").flatten();
            visits.book(answer.inspect_err(|error| tracing::debug!(%error, "a visit failed")).ok());
            next = Instant::now().max(next + pause.mul_f64(0.5 + fastrand::f64()));
        }
    }

    async fn ask(&mut self, wish: Wish) -> anyhow::Result<StatusCode> {
        let mut connection = self.connect().await?;
        let response = connection.send_request(self.request(wish)?).await?;
        let status = response.status();
        self.keep_cookie(response.headers());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        self.connection = Some(connection);
        Ok(status)
    }

    /// The connection of the last visit if it still stands, else a new one.
    async fn connect(&mut self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        Ok(sender)
    }

    fn request(&self, wish: Wish) -> http::Result<Request<Empty<Bytes>>> {
        let folder = if wish == Wish::File { "static/" } else { "" };
        let mut request = Request::get(format!("/{folder}{}", fastrand::u8(..)))
            .header(HOST, format!("www.site.com:{}", self.address.port()));
        if let Some(cookie) = self.cookie.as_ref().filter(|_| wish != Wish::Start) {
            request = request.header(COOKIE, cookie);
        }
        request.body(Empty::new())
    }

    fn keep_cookie(&mut self, headers: &HeaderMap) {
        if let Some(set) = headers.get(SET_COOKIE) {
            let pair = set.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            self.cookie = HeaderValue::from_bytes(pair).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_keeps_the_cookie_and_leaves_it_out_to_start_again() {
        let mut visitor = Visitor::new(([127, 0, 0, 1], 8080).into());
        assert!(!visitor.request(Wish::Page).unwrap().headers().contains_key(COOKIE));
        let set = HeaderValue::from_static("sessionid=x!app1; Path=/; HttpOnly");
        visitor.keep_cookie(&HeaderMap::from_iter([(SET_COOKIE, set)]));
        visitor.keep_cookie(&HeaderMap::new());
        let request = visitor.request(Wish::Page).unwrap();
        assert_eq!(request.headers()[COOKIE], "sessionid=x!app1");
        assert_eq!(request.headers()[HOST], "www.site.com:8080");
        assert!(!visitor.request(Wish::Start).unwrap().headers().contains_key(COOKIE));
        assert!(visitor.request(Wish::File).unwrap().uri().path().starts_with("/static/"));
    }

    #[test]
    fn no_answer_and_a_5xx_are_errors() {
        let visits = Visits::default();
        for status in [None, Some(StatusCode::BAD_GATEWAY), Some(StatusCode::FOUND)] {
            visits.book(status);
        }
        assert_eq!((visits.requests.get(), visits.errors.get()), (3, 2));
    }
}
