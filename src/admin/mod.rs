//! For operators: /metrics, /livez, /readyz, the table as JSON, and explanations of requests. Changes
//! nothing, shows no secret.

mod explain;
mod view;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use crate::explain::kept::Kept;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::table::Table;

/// Admin connections served at once; a scraper and a few people.
const CONNECTIONS: usize = 64;
/// How long a client may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What is being served.
    pub table: Arc<ArcSwap<Table>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether Gibbon is ready.
    pub health: Arc<Health>,
    /// Whether `/table` is shown to others than this machine.
    pub open_table: bool,
    /// The requests that can be explained.
    pub kept: Arc<Kept>,
    /// Whether `/explain` is shown to others than this machine.
    pub open_explain: bool,
}

/// The pages, which are served until this is dropped.
#[derive(Debug)]
pub struct Pages {
    /// Where they are.
    pub address: SocketAddr,
    _open: oneshot::Sender<Infallible>,
}

impl Admin {
    /// Serves the pages on a thread of their own: they answer whatever the others are busy with.
    ///
    /// # Errors
    /// When the socket cannot be used or the thread cannot be started.
    pub fn start(self, listener: StdListener) -> std::io::Result<Pages> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (open, closed) = oneshot::channel();
        let run = move || -> std::io::Result<()> {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let served = runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                tokio::select! {
                    () = self.serve(listener) => {}
                    _ = closed => {}
                }
                Ok(())
            });
            // Pages that are still being made are for nobody.
            runtime.shutdown_background();
            served
        };
        std::thread::Builder::new().name("admin".into()).spawn(move || {
            if let Err(error) = run() {
                tracing::error!(%error, "there are no admin pages");
            }
        })?;
        Ok(Pages { address, _open: open })
    }

    async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let answer = |request: Request<Incoming>| {
                    let (admin, peer) = (admin.clone(), peer.ip());
                    async move { Ok::<_, Infallible>(admin.answer(&request, peer).await) }
                };
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                if let Err(error) = served.await {
                    tracing::debug!(%peer, %error, "admin connection ended");
                }
                drop(place);
            });
        }
    }

    async fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "these pages can only be read\n");
        }
        let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
        match request.uri().path() {
            "/metrics" => self.at_length(Self::metrics).await,
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(verbose),
            "/table" if self.open_table || peer.to_canonical().is_loopback() => {
                self.at_length(Self::table).await
            }
            "/table" => text(
                StatusCode::FORBIDDEN,
                "the table is shown on this machine only; --admin-table shows it to all\n",
            ),
            "/" => text(StatusCode::OK, "/metrics\n/livez\n/readyz?verbose\n/table\n/explain\n"),
            path if path == "/explain" || path.starts_with("/explain/") => {
                if !self.open_explain && !peer.to_canonical().is_loopback() {
                    let refusal = "requests are explained on this machine only; --admin-explain does so to all\n";
                    return text(StatusCode::FORBIDDEN, refusal);
                }
                let (uri, headers) = (request.uri().clone(), request.headers().clone());
                self.at_length(move |admin| admin.explain(&uri, &headers)).await
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /metrics, /livez, /readyz, /table and /explain\n",
            ),
        }
    }

    /// Makes a page that takes seconds where members are many: what is to be served does not wait
    /// for it.
    async fn at_length(
        &self,
        make: impl FnOnce(&Self) -> Response<Full<Bytes>> + Send + 'static,
    ) -> Response<Full<Bytes>> {
        let admin = self.clone();
        let page = spawn_blocking(move || make(&admin)).await;
        page.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")))
    }

    fn table(&self) -> Response<Full<Bytes>> {
        let json = format!("{:#}\n", view::table(&self.table.load()));
        page(StatusCode::OK, "application/json", json)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.text() {
            Ok(metrics) => {
                page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics)
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }

    fn ready(&self, verbose: bool) -> Response<Full<Bytes>> {
        let ready = self.health.is_ready();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        match (verbose, ready) {
            (true, _) => text(status, &self.health.describe()),
            (false, true) => text(status, "ok\n"),
            (false, false) => text(status, "not ready\n"),
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body.to_owned())
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn get(at: SocketAddr, page: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {page} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The reads below hold the runtime of the test, as a large table holds the one that builds it.
    #[tokio::test]
    async fn pages_answer_while_others_work_and_end_when_they_are_dropped() {
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let metrics = Metrics::new(&table).unwrap();
        let (health, kept) = (Arc::default(), Arc::new(Kept::new(1)));
        let admin = Admin { table, metrics, health, open_table: false, kept, open_explain: false };
        let pages = admin.start(StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let at = pages.address;
        for page in ["/livez", "/metrics", "/table"] {
            let answer = get(at, page).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{page}: {answer}");
        }
        assert!(get(at, "/readyz").unwrap().starts_with("HTTP/1.1 503 "));
        drop(pages);
        let until = Instant::now() + LIMIT;
        while get(at, "/livez").is_ok() {
            assert!(Instant::now() < until, "the pages are still there");
        }
    }

    #[tokio::test]
    async fn the_table_and_explanations_are_for_this_machine_unless_it_is_said_otherwise() {
        let table = Arc::<ArcSwap<Table>>::default();
        let metrics = Metrics::new(&table).unwrap();
        let (health, kept) = (Arc::default(), Arc::new(Kept::new(1)));
        let closed = Admin { table, metrics, health, open_table: false, kept, open_explain: false };
        let open = Admin { open_table: true, open_explain: true, ..closed.clone() };
        for page in ["/table", "/explain", "/explain?url=http://a/"] {
            let request = Request::get(page).body(()).unwrap();
            for (admin, peer, status) in [
                (&closed, "127.0.0.1", 200),
                (&closed, "::ffff:127.0.0.1", 200),
                (&closed, "192.0.2.7", 403),
                (&open, "192.0.2.7", 200),
            ] {
                let answer = admin.answer(&request, peer.parse().unwrap()).await;
                assert_eq!(answer.status(), status, "{page} for {peer}");
            }
        }
    }
}
