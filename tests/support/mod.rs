//! A Gibbon on loopback, members that do as they are told, and clients that see every byte.
#![allow(dead_code, clippy::format_push_string)]

pub mod authority;
pub mod http2;
pub mod port;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gibbon::app::{self, Config};
use gibbon::proxy::Settings;
use gibbon::source::names::{Answer, Resolver};
use gibbon::table::access::{Networks, parse_network};
use gibbon::table::tls::SecretId;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;

/// Nothing in a test takes longer than this.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A request as a member received it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What a member does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes these bytes, and keeps the connection.
    Write(Vec<u8>),
    /// Writes them, and closes.
    WriteAndClose(Vec<u8>),
    /// Writes them, and closes its own side only.
    HalfClose(Vec<u8>),
    /// Closes without an answer.
    Close,
    /// Resets the connection without an answer.
    Reset,
    /// Says nothing for ever.
    Silence,
    /// Waits, then does something.
    After(Duration, Box<Act>),
    /// Answers before it reads the body.
    BeforeBody(Vec<u8>),
    /// Writes the first, waits, writes the rest.
    Slowly(Vec<u8>, Duration, Vec<u8>),
    /// Writes 101 and echoes what comes from then on.
    Echo(Vec<u8>),
    /// Sends 100, reads the body, answers.
    Continue(Vec<u8>),
}

/// An answer with a body.
pub fn ok(body: &str) -> Act {
    Act::Write(response("200 OK", &[], body))
}

/// The bytes of a response.
pub fn response(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n" + body).into_bytes()
}

type Script = Arc<Mutex<Box<dyn FnMut(&Received) -> Act + Send>>>;

/// A member, on loopback if nothing else is said.
pub struct Member {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    pub connections: Arc<AtomicUsize>,
    script: Script,
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<HashMap<usize, TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// One that does the same with every request.
    pub fn new(act: Act) -> Self {
        Self::with(move |_| act.clone())
    }

    /// One that decides for each request.
    pub fn with(script: impl FnMut(&Received) -> Act + Send + 'static) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), script)
    }

    /// One at an address of the test's choice.
    pub fn at(address: SocketAddr, script: impl FnMut(&Received) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let mut member = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            connections: Arc::default(),
            script: Arc::new(Mutex::new(Box::new(script))),
            stop: Arc::default(),
            streams: Arc::default(),
            thread: None,
        };
        member.run(listener);
        member
    }

    /// An address where nobody listens.
    pub fn dead() -> SocketAddr {
        port::free()
    }

    /// Does something else from now on.
    pub fn act(&self, act: Act) {
        *self.script.lock().unwrap() = Box::new(move |_| act.clone());
    }

    /// Decides for each request from now on.
    pub fn act_with(&self, script: impl FnMut(&Received) -> Act + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    pub fn forget(&self) {
        self.received.lock().unwrap().clear();
    }

    /// Refuses connections, and drops those it has.
    pub fn stop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        for (_, stream) in self.streams.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again, at the same address.
    pub fn start(&mut self) {
        self.stop.store(false, SeqCst);
        let listener = eventually(|| TcpListener::bind(self.address).ok());
        self.run(listener);
    }

    fn run(&mut self, listener: TcpListener) {
        let (received, script) = (Arc::clone(&self.received), Arc::clone(&self.script));
        let (stop, streams) = (Arc::clone(&self.stop), Arc::clone(&self.streams));
        let connections = Arc::clone(&self.connections);
        self.thread = Some(std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(SeqCst) {
                    return;
                }
                let number = connections.fetch_add(1, SeqCst);
                streams.lock().unwrap().insert(number, stream.try_clone().unwrap());
                let (received, script) = (Arc::clone(&received), Arc::clone(&script));
                let streams = Arc::clone(&streams);
                std::thread::spawn(move || {
                    serve(stream, &received, &script);
                    // The last handle is dropped here, so that a reset is one.
                    streams.lock().unwrap().remove(&number);
                });
            }
        }));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

fn serve(stream: TcpStream, received: &Mutex<Vec<Received>>, script: &Script) {
    let _ = stream.set_nodelay(true);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(mut request) = read_head(&mut reader) {
        let mut act = script.lock().unwrap()(&request);
        if let Act::BeforeBody(bytes) = &act {
            let _ = stream.write_all(bytes);
        }
        if let Act::Continue(_) = &act {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let early = matches!(act, Act::Close | Act::Reset);
        if !early && !read_body(&mut reader, &mut request) {
            received.lock().unwrap().push(request);
            return;
        }
        received.lock().unwrap().push(request);
        while let Act::After(time, then) = act {
            std::thread::sleep(time);
            act = *then;
        }
        match act {
            Act::Write(bytes) | Act::Continue(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::WriteAndClose(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Act::Slowly(first, time, rest) => {
                let _ = stream.write_all(&first);
                std::thread::sleep(time);
                if stream.write_all(&rest).is_err() {
                    return;
                }
            }
            Act::HalfClose(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
                return;
            }
            Act::Close => {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Act::Reset => {
                let socket = socket2::SockRef::from(&stream);
                let _ = socket.set_linger(Some(Duration::ZERO));
                return;
            }
            Act::Silence => {
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest);
                return;
            }
            Act::Echo(head) => {
                let _ = stream.write_all(&head);
                let _ = std::io::copy(&mut reader, &mut stream);
                let _ = stream.shutdown(Shutdown::Write);
                return;
            }
            Act::BeforeBody(_) | Act::After(..) => {}
        }
    }
}

/// Reads a head; nothing at the end of the connection.
pub fn read_head(reader: &mut impl BufRead) -> Option<Received> {
    let mut request = Received { line: read_line(reader)?, ..Received::default() };
    request.headers = read_fields(reader)?;
    Some(request)
}

fn read_fields(reader: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\r\n")?;
    Some(String::from_utf8_lossy(line).into_owned())
}

/// Reads the body that a head announces; false if it breaks off.
pub fn read_body(reader: &mut impl BufRead, message: &mut Received) -> bool {
    if message.header("transfer-encoding").is_some() {
        return read_chunks(reader, message).is_some();
    }
    let length = message.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let complete = reader.read_exact(&mut body).is_ok();
    message.body = body;
    complete
}

fn read_chunks(reader: &mut impl BufRead, message: &mut Received) -> Option<()> {
    loop {
        let line = read_line(reader)?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        if size == 0 {
            message.trailers = read_fields(reader)?;
            return Some(());
        }
        let mut chunk = vec![0; size];
        reader.read_exact(&mut chunk).ok()?;
        message.body.extend(chunk);
        read_line(reader)?;
    }
}

/// A response as a client saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body ended as it was announced.
    pub complete: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads one response to a request of this method; nothing if the connection ends first.
pub fn read_answer(reader: &mut impl BufRead, method: &str) -> Option<Seen> {
    let mut head = read_head(reader)?;
    let status = head.line.split(' ').nth(1)?.parse().ok()?;
    let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
    let framed = head.header("content-length").or(head.header("transfer-encoding")).is_some();
    let complete = match (bodiless, framed) {
        (true, _) => true,
        (false, true) => read_body(reader, &mut head),
        (false, false) => reader.read_to_end(&mut head.body).is_ok(),
    };
    let Received { headers, body, trailers, .. } = head;
    Some(Seen { status, headers, body, trailers, complete })
}

/// A client's connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Reads one response; nothing if the connection ends first.
    pub fn read(&mut self) -> Option<Seen> {
        self.read_for("GET")
    }

    pub fn read_for(&mut self, method: &str) -> Option<Seen> {
        read_answer(&mut self.reader, method)
    }

    /// Whether the other side has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0]), Ok(0) | Err(_))
    }

    /// Fills the buffer.
    pub fn read_exact(&mut self, buffer: &mut [u8]) {
        self.reader.read_exact(buffer).unwrap();
    }

    /// What is there until the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }
}

/// A running Gibbon with its configuration in a directory of its own.
pub struct Gibbon {
    pub address: SocketAddr,
    /// Where it speaks TLS.
    pub secure: SocketAddr,
    pub admin: SocketAddr,
    pub directory: PathBuf,
    pub resolver: Resolver,
    stop: Option<oneshot::Sender<Duration>>,
    thread: Option<JoinHandle<()>>,
}

/// How a test's Gibbon differs from the ordinary one.
pub struct Options {
    pub settings: Settings,
    pub grace: Duration,
    pub names: Vec<(String, u16, Vec<SocketAddr>)>,
    pub tls: Option<rustls::ClientConfig>,
    pub default_certificate: Option<SecretId>,
    /// Do not wait until it is ready.
    pub hasty: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings { workers: 1, ..Settings::default() },
            grace: Duration::from_secs(5),
            names: Vec::new(),
            tls: None,
            default_certificate: None,
            hasty: false,
        }
    }
}

impl Options {
    /// Believes X-Forwarded-* from loopback.
    pub fn trusting(mut self) -> Self {
        self.settings.trusted = Networks::new(vec![parse_network("127.0.0.0/8").unwrap()]);
        self
    }

    pub fn name(mut self, name: &str, port: u16, address: SocketAddr) -> Self {
        self.names.push((name.to_owned(), port, vec![address]));
        self
    }
}

impl Gibbon {
    pub fn start(yaml: &str) -> Self {
        Self::with(yaml, Options::default())
    }

    pub fn with(yaml: &str, options: Options) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, SeqCst);
        let directory = format!("gibbon-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("balancers.yaml"), yaml).unwrap();
        let resolver = Resolver::default();
        for (name, port, addresses) in options.names {
            resolver.fix(&name, port, Answer::Addresses(addresses, Duration::from_secs(1)));
        }
        let config = Config {
            source: gibbon::app::Source::Files(directory.clone()),
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            listen_tls: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            default_certificate: options.default_certificate,
            admin: (Ipv4Addr::LOCALHOST, 0).into(),
            open_table: true,
            open_explain: true,
            settings: options.settings,
            access_log: None,
            tls: Some(options.tls.unwrap_or_else(no_roots)),
            resolver: resolver.clone(),
            shutdown_grace: options.grace,
        };
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let hasty = options.hasty;
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .unwrap();
            runtime.block_on(async {
                let app = app::build(config).await.unwrap();
                tell.send((app.addresses[0], app.addresses[1], app.admin)).unwrap();
                app.run(async { stopped.await.unwrap_or_default() }).await.unwrap();
            });
        });
        let (address, secure, admin) = told.recv_timeout(LIMIT).unwrap();
        let (stop, thread) = (Some(stop), Some(thread));
        let gibbon = Self { address, secure, admin, directory, resolver, stop, thread };
        if !hasty {
            eventually(|| (gibbon.page("/readyz").status == 200).then_some(()));
        }
        gibbon
    }

    /// Asks for a page of the site.
    pub fn get(&self, host: &str, path: &str) -> Seen {
        self.ask("GET", host, path, &[])
    }

    pub fn ask(&self, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Seen {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut client = Client::new(self.address);
        client.send(text + "\r\n").read_for(method).expect("an answer")
    }

    pub fn post(&self, host: &str, path: &str, body: &[u8]) -> Seen {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut client = Client::new(self.address);
        client.send(head).send(body).read().expect("an answer")
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn page(&self, path: &str) -> Seen {
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        Client::new(self.admin).send(request).read().expect("a page")
    }

    pub fn table(&self) -> serde_json::Value {
        serde_json::from_slice(&self.page("/table").body).unwrap()
    }

    /// The value of a metric whose line begins like this.
    pub fn metric(&self, line: &str) -> Option<f64> {
        let text = self.page("/metrics").text();
        let line = text.lines().find(|l| l.starts_with(line) && !l.starts_with('#'))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub fn write(&self, file: &str, yaml: &str) {
        std::fs::write(self.directory.join(file), yaml).unwrap();
    }

    /// Asks it to end, as SIGTERM does.
    pub fn end(&mut self, delay: Duration) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(delay);
        }
    }

    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Gibbon {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
        if !std::thread::panicking() {
            self.join();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn no_roots() -> rustls::ClientConfig {
    rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// Waits for something that comes true by itself.
pub fn eventually<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "it did not come true in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A Balancer `site/app` for www.site.com and `/`, with these members (one line of YAML each) and
/// more of the specification.
pub fn balancer(members: &[String], more: &str) -> String {
    named("app", "/", members, more)
}

pub fn named(name: &str, path: &str, members: &[String], more: &str) -> String {
    let mut yaml = format!(
        "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {{name: {name}, namespace: site}}\n\
         spec:\n  hosts: [www.site.com]\n  path: {path}\n"
    );
    if !members.is_empty() {
        yaml += "  members:\n";
        for member in members {
            yaml += &format!("  - {{{member}}}\n");
        }
    }
    for line in more.lines() {
        yaml += &format!("  {line}\n");
    }
    yaml
}

/// A Secret with a certificate for a host, which is its own authority.
pub fn secret(name: &str, host: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    secret_of(name, &params.self_signed(&key).unwrap().pem(), &key.serialize_pem())
}

/// A Secret with these, in PEM.
pub fn secret_of(name: &str, certificate: &str, key: &str) -> String {
    let indent = |pem: &str| format!("    {}\n", pem.trim_end().replace('\n', "\n    "));
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: site}}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indent(certificate),
        indent(key)
    )
}

/// An Opaque Secret with these authorities, in PEM.
pub fn ca_secret(name: &str, authorities: &str) -> String {
    let authorities = authorities.trim_end().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: site}}\n\
         type: Opaque\nstringData:\n  ca.crt: |\n    {authorities}\n"
    )
}

/// Documents in one file.
pub fn join(parts: &[String]) -> String {
    parts.join("---\n")
}

/// A member's line for [`balancer`].
pub fn member(address: SocketAddr, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!("url: \"http://{address}/\"{more}")
}

/// The file of this name among the tests' data.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}
