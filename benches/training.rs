//! What a profile-guided build learns from: the ordinary traffic of a site, on HTTP/1.1 and HTTP/2, with
//! TLS and without, served by the program that `benches/profile-guided` builds first and names in
//! `GIBBON_BESIDE`. It measures nothing.

#[path = "peers/certificate.rs"]
#[allow(dead_code)]
mod certificate;
#[path = "peers/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "peers/proxies.rs"]
#[allow(dead_code)]
mod proxies;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use certificate::Site;
use futures_util::{StreamExt, stream};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_TYPE, COOKIE, ETAG, HOST,
    LOCATION, REFERER, SERVER, SET_COOKIE, USER_AGENT, VARY,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use load::HOST as SITE;
use proxies::{Peer, Running, Setup};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Clients at once; with TLS, half of them speak HTTP/2.
const CLIENTS: usize = 16;
/// Requests of each on one connection, and connections of each.
const REQUESTS: usize = 150;
const CONNECTIONS: usize = 8;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(300);

type Body = BoxBody<Bytes, Infallible>;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Page,
    File,
    Data,
    Form,
    Upload,
    Download,
    Nothing,
}

impl Wish {
    fn draw() -> Self {
        match fastrand::u8(..100) {
            0..35 => Self::Page,
            35..65 => Self::File,
            65..85 => Self::Data,
            85..93 => Self::Form,
            93..95 => Self::Upload,
            95..97 => Self::Download,
            _ => Self::Nothing,
        }
    }

    fn request(self, to: &Target, cookie: &str) -> Result<Request<Full<Bytes>>> {
        let number = fastrand::u16(..);
        let (method, path, upload) = match self {
            Self::Page => (Method::GET, format!("/shop/item?id={number}"), 0),
            Self::File => (Method::GET, format!("/static/js/{number}.js"), 0),
            Self::Data => (Method::GET, format!("/api/v1/orders/{number}"), 0),
            Self::Form => (Method::POST, "/shop/basket".to_owned(), 300),
            Self::Upload => (Method::PUT, format!("/files/{number}"), 200_000),
            Self::Download => (Method::GET, format!("/files/{number}"), 0),
            Self::Nothing => (Method::GET, format!("/nothing/{number}"), 0),
        };
        let scheme = if to.tls.is_some() { "https" } else { "http" };
        let request = Request::builder()
            .method(method)
            .header(ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
            .header(ACCEPT_ENCODING, "gzip, deflate, br, zstd")
            .header(ACCEPT_LANGUAGE, "en-GB,en;q=0.7,de;q=0.3")
            .header(
                USER_AGENT,
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            )
            .header(REFERER, format!("{scheme}://{SITE}/shop/"))
            .header("sec-fetch-mode", "navigate")
            .header(COOKIE, cookie);
        let request = if to.http2 {
            request.uri(format!("{scheme}://{SITE}{path}"))
        } else {
            request.uri(path).header(HOST, SITE)
        };
        Ok(request.body(Full::from(vec![b'u'; upload]))?)
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Form => StatusCode::FOUND,
            Self::Upload => StatusCode::NO_CONTENT,
            Self::Nothing => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        }
    }
}

/// What a member says.
async fn answer(request: Request<Incoming>, member: usize) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    // A client that goes away is told nothing.
    let _ = body.collect().await;
    let whole = |kind: &str, bytes: usize| {
        let response = Response::builder().header(SERVER, "member").header(CONTENT_TYPE, kind);
        (response, Full::from(vec![b'd'; bytes]).boxed())
    };
    let path = parts.uri.path();
    let (response, body) = match (&parts.method, path.split('/').nth(1).unwrap_or_default()) {
        (&Method::POST, _) => {
            let (response, body) = whole("text/html", 150);
            let next = format!("http://127.0.0.1:{}/shop/basket/done", 8080 + member);
            (response.status(StatusCode::FOUND).header(LOCATION, next), body)
        }
        (&Method::PUT, _) => {
            (Response::builder().status(StatusCode::NO_CONTENT), Full::default().boxed())
        }
        (_, "js") => {
            let (response, body) = whole("text/javascript", fastrand::usize(500..30_000));
            (response.header(ETAG, "\"6564a1b2-400\"").header(CACHE_CONTROL, "max-age=600"), body)
        }
        (_, "shop") => {
            // As applications do that write a page piece by piece.
            let parts = (0..3).map(|_| Ok(Frame::data(Bytes::from(vec![b'p'; 2000]))));
            let (response, _) = whole("text/html; charset=utf-8", 0);
            let session =
                format!("sessionid={:x}!app{member}; Path=/; HttpOnly", fastrand::u64(..));
            (response.header(SET_COOKIE, session).header(VARY, "Cookie"), {
                BodyExt::boxed(StreamBody::new(stream::iter(parts)))
            })
        }
        (_, "files") => whole("application/octet-stream", 500_000),
        (_, "api") => whole("application/json", 700),
        _ => {
            let (response, body) = whole("text/html", 400);
            (response.status(StatusCode::NOT_FOUND), body)
        }
    };
    Ok(response.body(body).expect("fields are well-formed"))
}

/// Serves as this member until its runtime ends.
async fn serve(listener: TcpListener, member: usize) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(move |request| answer(request, member));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Whom clients connect to, and how.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    http2: bool,
}

/// A client's connection.
enum Sender {
    Http1(client1::SendRequest<Full<Bytes>>),
    Http2(client2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(to: &Target) -> Result<Self> {
        let stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &to.tls else { return Self::over(stream, to.http2).await };
        let mut tls = ClientConfig::clone(tls);
        tls.alpn_protocols = vec![if to.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TlsConnector::from(Arc::new(tls)).connect(SITE.try_into()?, stream).await?;
        Self::over(stream, to.http2).await
    }

    async fn over<S>(stream: S, http2: bool) -> Result<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        if http2 {
            let (sender, connection) = client2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let (sender, connection) = client1::handshake(stream).await?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender))
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        Ok(match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }
}

/// One client, which keeps its session.
async fn visit(to: Target) -> Result<()> {
    let mut cookie = "theme=dark".to_owned();
    for _ in 0..CONNECTIONS {
        let mut sender = Sender::connect(&to).await?;
        for _ in 0..REQUESTS {
            let wish = Wish::draw();
            let response = sender.send(wish.request(&to, &cookie)?).await?;
            let status = response.status();
            ensure!(status == wish.status(), "{wish:?} was answered with {status}");
            if let Some(session) = response.headers().get(SET_COOKIE) {
                let session = session.to_str()?.split(';').next().unwrap_or_default();
                cookie = format!("theme=dark; {session}");
            }
            response.into_body().into_data_stream().for_each(|_| async {}).await;
        }
    }
    Ok(())
}

/// Starts the program before these members.
fn start(members: &[SocketAddr], site: Option<&Site>, logs: bool) -> Result<Running> {
    let folder = std::env::temp_dir().join(format!("gibbon-training-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let tls = site.map(|site| &site.files);
    Peer::GibbonBeside.start(members, &folder, Setup { tls, logs, site: true, ..Setup::ORDINARY })
}

async fn train() -> Result<()> {
    let site = Site::new()?;
    let listen = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = (0..3).map(listen).collect::<std::io::Result<Vec<_>>>()?;
    let members = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let mut serving = JoinSet::new();
    for (member, listener) in listeners.into_iter().enumerate() {
        serving.spawn(serve(listener, member));
    }
    for (secure, logs) in [(false, false), (true, true)] {
        let gibbon = start(&members, secure.then_some(&site), logs)?;
        let mut visits = JoinSet::new();
        for client in 0..CLIENTS {
            let tls = secure.then(|| Arc::clone(&site.client));
            let http2 = secure && client % 2 == 0;
            visits.spawn(visit(Target { address: gibbon.address, tls, http2 }));
        }
        while let Some(visited) = visits.join_next().await {
            visited??;
        }
        // It writes its profile at its end, and waits for the clients to close their connections.
        tokio::task::spawn_blocking(move || drop(gibbon)).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs it too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let trained = runtime.context("a runtime").and_then(|runtime| {
        let trained = runtime.block_on(async { tokio::time::timeout(PATIENCE, train()).await });
        trained.context("it takes too long")?
    });
    match trained {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
