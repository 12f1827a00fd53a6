//! Many clients that stall, and what others notice of them: latency as a ratio, memory in figures.
//! And certificates that change while everybody is at it.

mod support;

use std::collections::HashSet;
use std::convert::Infallible;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};
use support::authority::{Authority, connect};
use support::port::free;
use support::{Client, Gibbon, Member, balancer, eventually, join, member, ok, read_answer};

const HOST: &str = "www.site.com";

/// `gibbon serve` as a process of its own, so that its memory can be seen.
struct Process {
    child: Child,
    plain: SocketAddr,
    secure: SocketAddr,
    admin: SocketAddr,
    directory: PathBuf,
}

impl Process {
    fn start(name: &str, yaml: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("gibbon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("b.yaml"), yaml).unwrap();
        let [plain, secure, admin] = [free(), free(), free()];
        let child = Command::new(env!("CARGO_BIN_EXE_gibbon"))
            .args(["serve", "--files", directory.to_str().unwrap(), "--workers", "2"])
            .args(["--listen", &plain.to_string(), "--listen-tls", &secure.to_string()])
            .args(["--admin", &admin.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, plain, secure, admin, directory };
        eventually(|| TcpStream::connect(admin).ok());
        eventually(|| (process.page("/readyz").0 == 200).then_some(()));
        process
    }

    fn page(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let seen = Client::new(self.admin).send(request).read().unwrap_or_default();
        (seen.status, seen.text())
    }

    fn metric(&self, line: &str) -> f64 {
        let text = self.page("/metrics").1;
        let line = text.lines().find(|l| l.starts_with(line)).unwrap_or("0 0");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Megabytes of memory that it has.
    fn resident(&self) -> f64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let statm = std::fs::read_to_string(path).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1_048_576.0
    }

    /// The median and the longest time, in milliseconds, of requests on connections of their own.
    fn latency(&self, authority: &Authority) -> (f64, f64) {
        let config = Arc::new(authority.config());
        let mut times: Vec<f64> = (0..60)
            .map(|_| {
                let before = Instant::now();
                assert_eq!(fresh(&config, self.secure), Some(200));
                before.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() - 1])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The status of a request on a connection of its own.
fn fresh(config: &Arc<ClientConfig>, address: SocketAddr) -> Option<u16> {
    let name = ServerName::try_from(HOST).unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(support::LIMIT)).unwrap();
    let mut stream = StreamOwned::new(client, stream);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: www.site.com\r\n\r\n").ok()?;
    read_answer(&mut std::io::BufReader::new(stream), "GET").map(|seen| seen.status)
}

/// A connection from another address of this machine.
fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn site(authority: &Authority, app: SocketAddr) -> String {
    let rule = balancer(&[member(app, "")], "tls: {secretName: www, redirect: false}");
    join(&[authority.secret("www", &[HOST]), rule])
}

fn raise_file_limit() {
    let hard = rlimit::Resource::NOFILE.get_hard().unwrap();
    assert!(hard >= 8192, "ulimit -Hn is {hard}; these tests hold 6,000 connections");
    rlimit::Resource::NOFILE.set(hard, hard).unwrap();
}

#[test]
fn five_thousand_stalled_handshakes_hold_nobody_up() {
    raise_file_limit();
    let (app, authority) = (Member::new(ok("x")), Authority::new());
    let gibbon = Process::start("stalled", &site(&authority, app.address));
    gibbon.latency(&authority);
    let (before, memory) = (gibbon.latency(&authority), gibbon.resident());
    // A client's hello that is whole, so that Gibbon has done its part; one that breaks off; nothing.
    let name = ServerName::try_from(HOST).unwrap();
    let mut client = ClientConnection::new(Arc::new(authority.config()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let stalled: Vec<_> = (0..5000_usize)
        .map(|number| {
            let host = 2 + u8::try_from(number % 50).unwrap();
            let mut stream = connect_from(host, gibbon.secure);
            let part = [&hello[..], &hello[..50], &[]][number % 3];
            stream.write_all(part).unwrap();
            stream
        })
        .collect();
    let during = gibbon.latency(&authority);
    let grown = gibbon.resident() - memory;
    let crowded = "gibbon_tls_handshakes_total{result=\"crowded_out\",version=\"none\"}";
    // The last of them may still wait to be accepted.
    let crowded = eventually(|| Some(gibbon.metric(crowded)).filter(|made| *made >= 2900.0));
    println!(
        "5,000 stalled handshakes: {crowded} made room; memory {memory:.0} MB + {grown:.0} MB; others: \
         median {:.1} ms, {:.2} of before; longest {:.1} ms, {:.2} of before",
        during.0,
        during.0 / before.0,
        during.1,
        during.1 / before.1
    );
    assert!(grown < 100.0, "{grown} MB");
    assert!(during.1 < 5000.0, "{during:?}");
    drop(stalled);
    eventually(|| (gibbon.metric("gibbon_connections_open") < 10.0).then_some(()));
}

#[test]
fn idle_connections_hold_little() {
    const CLIENTS: usize = 2500;
    raise_file_limit();
    let (app, authority) = (Member::new(ok("x")), Authority::new());
    let gibbon = Process::start("idle", &site(&authority, app.address));
    gibbon.latency(&authority);
    let ask = |client: &mut Client| {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        assert_eq!(client.send(request).read().unwrap().status, 200);
    };
    let before = gibbon.resident();
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        let mut client = Client::new(gibbon.plain);
        ask(&mut client);
        clients.push(client);
        // What all had at once would stay with the process for a while, however little they have then.
        if number % 250 == 0 {
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    // hyper alone would have 16 KiB of each.
    let each = || (gibbon.resident() - before) * 1024.0 / CLIENTS as f64;
    let each = eventually(|| Some(each()).filter(|each| *each < 10.0));
    println!("{CLIENTS} idle connections: {each:.1} KiB each");
    // They still are what they were.
    clients.iter_mut().for_each(ask);
}

/// A member whose answers do not end.
fn endless() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                if head[..read].starts_with(b"GET /small") {
                    let _ = stream.write_all(&support::response("200 OK", &[], "x")).await;
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let part = vec![b'x'; 256 << 10];
                while stream.write_all(&part).await.is_ok() {}
            });
        }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve);
    });
    address
}

/// The same by HTTP/2.
fn endless_http2() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_| async {
                let part = Bytes::from_static(&[b'x'; 16 << 10]);
                let parts = std::iter::repeat_with(move || Frame::data(part.clone()));
                let parts = futures_util::stream::iter(parts.map(Ok::<_, Infallible>));
                Ok::<_, Infallible>(http::Response::new(StreamBody::new(parts)))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve);
    });
    address
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client of HTTP/2 that wants so many endless answers, all the windows open, and reads nothing.
fn greedy(streams: u32) -> Vec<u8> {
    let most = 0x7fff_ffff_u32;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[&4_u16.to_be_bytes()[..], &most.to_be_bytes()].concat()));
    bytes.extend(frame(8, 0, 0, &(most - 65_535).to_be_bytes()));
    for stream in (1..).step_by(2).take(streams as usize) {
        // :method GET, :scheme http, :path /, :authority by value.
        let head = [&[0x82, 0x86, 0x84, 0x41, 12][..], HOST.as_bytes()].concat();
        bytes.extend(frame(1, 5, stream, &head));
    }
    bytes
}

/// Megabytes that so many clients take that read nothing, while others are served.
fn taken_by(clients: u32, streams: u32, of: &str) -> f64 {
    raise_file_limit();
    let authority = Authority::new();
    let app = Member::new(ok("x"));
    // Thousands of connections to one member take their time where others want the processor too.
    let patience = "timeouts: {connect: 20s, response: 20s}";
    let yaml = join(&[
        site(&authority, app.address),
        support::named("big", "/", &[of.to_owned()], patience).replace(HOST, "big.site.com"),
    ]);
    let gibbon = Process::start(&format!("slow-{clients}-{streams}"), &yaml);
    gibbon.latency(&authority);
    let (before, memory) = (gibbon.latency(&authority), gibbon.resident());
    let greedy: Vec<u8> = replace(&greedy(streams), HOST.as_bytes(), b"big.site.com");
    let slow: Vec<_> = (0..clients)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&gibbon.plain.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.write_all(&greedy).unwrap();
            stream
        })
        .collect();
    let in_flight = "gibbon_member_in_flight{namespace=\"site\",balancer=\"big\"";
    eventually(|| (gibbon.metric(in_flight) >= f64::from(clients * streams)).then_some(()));
    let during = gibbon.latency(&authority);
    // All that is going to be read of the members has been.
    let mut last = 0.0;
    let full = eventually(|| {
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut last, gibbon.resident());
        (last - before < 1.0).then_some(last)
    });
    let grown = full - memory;
    println!(
        "{clients} slow readers with {streams} streams each: memory {memory:.0} MB + {grown:.0} MB; \
         others: median {:.1} ms, {:.2} of before; longest {:.1} ms, {:.2} of before",
        during.0,
        during.0 / before.0,
        during.1,
        during.1 / before.1
    );
    assert!(during.1 < 5000.0, "{during:?}");
    drop(slow);
    // Nothing is left of them.
    eventually(|| (gibbon.metric(in_flight) == 0.0).then_some(()));
    grown
}

#[test]
fn a_thousand_clients_that_do_not_read_take_no_memory_and_hold_nobody_up() {
    // Each connection: what was encoded and waits for the socket. Each stream: what was read of the member.
    let grown = taken_by(1000, 4, &member(endless(), ""));
    assert!(grown < 600.0, "{grown} MB");
}

#[test]
fn many_streams_of_a_client_that_does_not_read_take_little_more_than_few() {
    // Each has a request at a member, and the first that this said.
    let grown = taken_by(40, 128, &member(endless(), ""));
    assert!(grown < 300.0, "{grown} MB");
    // What a member of HTTP/2 may send ahead on each stream, and one part.
    let grown = taken_by(20, 128, &member(endless_http2(), "protocol: H2C"));
    assert!(grown < 300.0, "{grown} MB");
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// Ends the threads of a test, however it ends.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn certificates_change_under_load_and_no_request_fails() {
    let app = Member::new(ok("x"));
    let authorities: Vec<_> = (0..6).map(|_| Authority::new()).collect();
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.certificate.der().clone()).unwrap();
    }
    let gibbon = Gibbon::start(&site(&authorities[0], app.address));
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // Who takes a session up again sees no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let certificates = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for kept in [false, false, true, true] {
            let (gibbon, config, stop) = (&gibbon, &config, &stop);
            let (asked, certificates) = (&asked, &certificates);
            scope.spawn(move || {
                let mut connection = connect(config, gibbon, HOST).unwrap();
                while !stop.load(SeqCst) {
                    if !kept {
                        connection = connect(config, gibbon, HOST).unwrap();
                        let seen = connection.0.get_ref().conn.peer_certificates();
                        certificates.lock().unwrap().extend(seen.map(|chain| chain[0].to_vec()));
                    }
                    assert_eq!(connection.ask(HOST, "/").status, 200);
                    asked.fetch_add(1, SeqCst);
                }
            });
        }
        let _end = Stop(&stop);
        for (at, authority) in authorities.iter().enumerate() {
            if at > 0 {
                gibbon.write("balancers.yaml", &site(authority, app.address));
            }
            eventually(|| (certificates.lock().unwrap().len() == at + 1).then_some(()));
        }
    });
    println!("6 certificates, {} requests, none failed", asked.load(SeqCst));
    assert_eq!(certificates.lock().unwrap().len(), 6);
}
