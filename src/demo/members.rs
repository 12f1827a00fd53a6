//! The article's four servers: small, slow on purpose, and they can be slowed down and stopped.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, LOCATION, SET_COOKIE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Thread, live};

/// Name, what it serves, and delay in milliseconds of each.
const SITE: [(&str, Kind, u64); 4] = [
    ("app1", Kind::App, 10),
    ("app2", Kind::App, 40),
    ("static1", Kind::Static, 2),
    ("static2", Kind::Static, 6),
];
/// The delay that a key can set, in microseconds: 1 ms to 5 s.
const DELAYS: (u64, u64) = (1_000, 5_000_000);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Rest before trying again what the system refused.
const REST: Duration = Duration::from_millis(50);
/// What an application server tells of the request, besides its path.
const TOLD: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
/// Where a page leads.
const LINKS: [&str; 4] = ["/", "/login", "/static/a.png", "/static/old"];

/// The four of them, until this is dropped.
#[derive(Debug)]
pub struct Members {
    /// In the order of their keys.
    pub all: Vec<Arc<Member>>,
    _thread: Thread,
}

/// One server.
#[derive(Debug)]
pub struct Member {
    /// Its name; with `.site.com` its host.
    pub name: &'static str,
    /// Where it really is.
    pub address: SocketAddr,
    kind: Kind,
    delay: AtomicU64,
    running: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    App,
    Static,
}

impl Members {
    /// Starts them on ports that are free.
    ///
    /// # Errors
    /// When there is no port or no thread to be had.
    pub fn start() -> io::Result<Self> {
        let mut servers = Vec::new();
        for (name, kind, millis) in SITE {
            let socket = bind((Ipv4Addr::LOCALHOST, 0).into())?;
            servers.push((Arc::new(Member::new(name, kind, millis, socket.local_addr()?)), socket));
        }
        let all = servers.iter().map(|(member, _)| Arc::clone(member)).collect();
        Ok(Self { all, _thread: Thread::start("demo-members", || serve_all(servers))? })
    }
}

impl Member {
    fn new(name: &'static str, kind: Kind, millis: u64, address: SocketAddr) -> Self {
        let (running, _) = watch::channel(true);
        Self { name, address, kind, delay: AtomicU64::new(millis * 1000), running }
    }

    /// The host that it calls itself.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.site.com", self.name)
    }

    /// How long it takes for an answer, on average.
    #[must_use]
    pub fn delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Relaxed))
    }

    /// Takes twice as long from now on.
    pub fn slow_down(&self) {
        self.delay.store((self.delay.load(Relaxed) * 2).min(DELAYS.1), Relaxed);
    }

    /// Takes half as long from now on.
    pub fn speed_up(&self) {
        self.delay.store((self.delay.load(Relaxed) / 2).max(DELAYS.0), Relaxed);
    }

    /// Whether it accepts connections.
    #[must_use]
    pub fn is_running(&self) -> bool {
        *self.running.borrow()
    }

    /// Stops, with all its connections, or starts again on the same port.
    pub fn toggle(&self) {
        self.running.send_modify(|running| *running = !*running);
    }

    async fn respond(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        if self.kind == Kind::App {
            let scheme = request.headers().get("x-forwarded-proto").map(HeaderValue::as_bytes);
            let secure = if scheme == Some(b"https") { ", within TLS" } else { "" };
            let greeting = format!("{} speaks by a WebSocket{secure}", self.name);
            if let Some(response) = live::open(&mut request, greeting) {
                return response;
            }
        }
        let (head, mut body) = request.into_parts();
        while let Some(Ok(_)) = body.frame().await {}
        sleep(self.delay().mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        match self.kind {
            Kind::App => self.application(head.uri.path(), &head.headers),
            Kind::Static => self.file(head.uri.path()),
        }
    }

    fn application(&self, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let session = if self.began(headers) { "is kept" } else { "begins here" };
        let mut response = if path == "/login" {
            self.redirect("/welcome")
        } else {
            let page = self.page(path, headers, session);
            answer(StatusCode::OK, "text/html; charset=utf-8", page)
        };
        if path == "/login" || !self.began(headers) {
            let (data, name, host) = (fastrand::u64(..), self.name, self.host());
            let cookie = format!("sessionid={data:x}!{name}; Domain={host}; Path=/; HttpOnly");
            set(&mut response, SET_COOKIE, &cookie);
        }
        response
    }

    /// Whether the request's session began here.
    fn began(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut ids = cookies
            .flat_map(|cookie| cookie.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix("sessionid="));
        ids.any(|id| id.split_once('!').is_some_and(|(_, route)| route == self.name))
    }

    fn page(&self, path: &str, headers: &HeaderMap, session: &str) -> String {
        let (name, path) = (self.name, escape(path));
        let told = TOLD.map(|field| {
            let value = headers.get(field).and_then(|value| value.to_str().ok());
            format!("{field}: {}\n", escape(value.unwrap_or("-")))
        });
        let links = LINKS.map(|path| format!("<a href=\"{path}\">{path}</a>\n"));
        format!(
            "<!DOCTYPE html>\n<title>{name}</title>\n<pre>\n{name} answers {path}; the session \
             {session}.\n\n{}\n{}</pre>\n{}",
            told.concat(),
            links.concat(),
            live::SCRIPT
        )
    }

    fn file(&self, path: &str) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path.strip_prefix("/media/") {
            Some("old") => self.redirect("/media/new"),
            Some(_) => answer(StatusCode::OK, TEXT, format!("{} serves {path}\n", self.name)),
            None => answer(StatusCode::NOT_FOUND, TEXT, format!("{} has /media/\n", self.name)),
        }
    }

    /// To its own address, as such servers do.
    fn redirect(&self, path: &str) -> Response<Full<Bytes>> {
        let text = format!("{} sends you to {path}\n", self.name);
        let mut response = answer(StatusCode::FOUND, "text/plain; charset=utf-8", text);
        set(&mut response, LOCATION, &format!("http://{}{path}", self.host()));
        response
    }
}

fn answer(status: StatusCode, kind: &str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, kind);
    response
}

fn set(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &str) {
    // All values are made here, of plain ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn serve_all(servers: Vec<(Arc<Member>, TcpSocket)>) {
    let mut tasks = JoinSet::new();
    for (member, socket) in servers {
        tasks.spawn_local(serve(member, socket));
    }
    while tasks.join_next().await.is_some() {}
}

async fn serve(member: Arc<Member>, mut socket: TcpSocket) {
    let mut running = member.running.subscribe();
    while running.wait_for(|running| *running).await.is_ok() {
        match socket.listen(BACKLOG) {
            Ok(listener) => accept(&member, listener, &mut running).await,
            Err(error) => tracing::warn!(%error, member = member.name, "cannot listen"),
        }
        // Bound but not listening, the port is nobody else's and refuses connections.
        socket = loop {
            match bind(member.address) {
                Ok(socket) => break socket,
                Err(_) => sleep(REST).await,
            }
        };
    }
}

/// Serves until the member is stopped; then its listener and its connections are dropped.
async fn accept(member: &Arc<Member>, listener: TcpListener, running: &mut watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = running.wait_for(|running| !running) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(connection(Arc::clone(member), stream));
                }
                Err(_) => sleep(REST).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(member: Arc<Member>, stream: TcpStream) {
    let respond = |request| {
        let member = Arc::clone(&member);
        async move { Ok::<_, Infallible>(member.respond(request).await) }
    };
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(respond))
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, member = member.name, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;

    fn member(name: &'static str, kind: Kind) -> Member {
        Member::new(name, kind, 1, (Ipv4Addr::LOCALHOST, 1).into())
    }

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, cookie.parse().unwrap()), (HOST, "<b>".parse().unwrap())])
    }

    #[test]
    fn a_session_begins_with_a_cookie_for_the_members_own_host() {
        let response = member("app1", Kind::App).application("/", &HeaderMap::new());
        let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.starts_with("sessionid="), "{cookie}");
        assert!(cookie.ends_with("!app1; Domain=app1.site.com; Path=/; HttpOnly"), "{cookie}");
    }

    #[test]
    fn only_a_session_of_its_own_is_kept() {
        let app = member("app1", Kind::App);
        let sets =
            |cookie| app.application("/", &headers(cookie)).headers().contains_key(SET_COOKIE);
        assert!(!sets("a=b; sessionid=x!app1"));
        assert!(sets("sessionid=x!app2"));
        assert!(sets("sessionid=x!app11"));
    }

    #[test]
    fn redirects_name_the_members_own_address() {
        let login = member("app1", Kind::App).application("/login", &HeaderMap::new());
        assert_eq!(login.headers()[LOCATION], "http://app1.site.com/welcome");
        let old = member("static2", Kind::Static).file("/media/old");
        assert_eq!(old.headers()[LOCATION], "http://static2.site.com/media/new");
    }

    #[test]
    fn static_servers_have_media_only() {
        let server = member("static1", Kind::Static);
        assert_eq!(server.file("/media/a.png").status(), StatusCode::OK);
        assert_eq!(server.file("/secret").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn pages_take_no_markup_from_requests() {
        let page = member("app1", Kind::App).page("/<i>", &headers("x"), "is kept");
        assert!(page.contains("/&lt;i>") && page.contains("host: &lt;b>"), "{page}");
    }

    #[test]
    fn delays_stay_within_bounds() {
        let server = member("app1", Kind::App);
        (0..20).for_each(|_| server.slow_down());
        assert_eq!(server.delay(), Duration::from_secs(5));
        (0..20).for_each(|_| server.speed_up());
        assert_eq!(server.delay(), Duration::from_millis(1));
    }
}
