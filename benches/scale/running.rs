//! The program itself, as a process that follows such a cluster, and what requests notice of changes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::api_server::ApiServer;
use crate::load::{Load, Shape, Target};
use crate::made::{self, host, set_of};
use crate::usage::Usage;
use crate::{Sizes, port};

/// Members of all but the first Balancer, which tell their address.
pub const MEMBERS: u16 = 8080;
/// Members of the first, which are the load's.
pub const LOADED: u16 = 8081;
/// Between two requests that look whether a change is effective.
const LOOK: Duration = Duration::from_micros(500);
const LIMIT: Duration = Duration::from_secs(120);
/// From one change to the next, for 1,000 a minute.
const EVERY: Duration = Duration::from_millis(60);
/// Requests a second, with and without changes, and the connections they come by.
pub const RATE: f64 = 2000.0;
pub const CONNECTIONS: usize = 32;
/// With changes, or without.
pub const WINDOW: Duration = Duration::from_secs(2);
/// After changes, until those to come begin or the last one is over.
const PAUSE: Duration = Duration::from_millis(200);
const SHAPE: Shape = Shape { name: "1 KiB", upload: 0, download: 1024 };

/// A Gibbon that runs until this is dropped.
pub struct Gibbon {
    child: Child,
    address: SocketAddr,
    /// From its start until it was ready.
    pub start: Duration,
}

impl Drop for Gibbon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gibbon {
    /// Starts it, and waits until it is ready.
    pub fn start(api_server: &ApiServer, folder: &Path) -> Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
             clusters: [{{name: bench, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: bench, user: {{}}}}]\n\
             contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]\n",
            api_server.address
        );
        std::fs::write(&kubeconfig, text)?;
        let (address, admin) = (port::free(), port::free());
        let began = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_gibbon"))
            .env("KUBECONFIG", kubeconfig)
            .args(["serve", "--workers", "1", "--lease-namespace", "default", "--log", "error"])
            .args(["--listen", &address.to_string(), "--admin", &admin.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut gibbon = Self { child, address, start: Duration::ZERO };
        while !is_ready(admin) {
            ensure!(gibbon.child.try_wait()?.is_none(), "Gibbon has ended");
            ensure!(began.elapsed() < LIMIT, "Gibbon is not ready");
            std::thread::sleep(Duration::from_millis(2));
        }
        gibbon.start = began.elapsed();
        Ok(gibbon)
    }

    /// What it uses.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
}

/// Changes of endpoints: from the moment that the API server tells of one until a request shows it.
pub fn changes(
    api_server: &ApiServer,
    gibbon: &Gibbon,
    count: usize,
    sizes: Sizes,
) -> Result<Vec<Duration>> {
    members()?;
    let mut stream = TcpStream::connect(gibbon.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut times = Vec::new();
    for at in 0..count {
        // All but the first, and back to those before when there are no others.
        let (balancer, set) = (1 + at % (sizes.balancers - 1), 1 - at / (sizes.balancers - 1) % 2);
        let before = ask(&mut stream, &mut reader, &host(balancer))?;
        ensure!(set_of(before) != set, "{} is answered by {before} already", host(balancer));
        let told = Instant::now();
        api_server.change(made::slice(balancer, set, sizes.endpoints, MEMBERS));
        while set_of(ask(&mut stream, &mut reader, &host(balancer))?) != set {
            ensure!(told.elapsed() < LIMIT, "a change was not effective");
            std::thread::sleep(LOOK);
        }
        times.push(told.elapsed());
        std::thread::sleep(PAUSE);
    }
    times.sort_unstable();
    Ok(times)
}

/// Asks for a host; who has answered.
fn ask(stream: &mut TcpStream, reader: &mut impl BufRead, host: &str) -> Result<Ipv4Addr> {
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body);
    body.parse().with_context(|| format!("{host} is answered with {body:?}"))
}

/// Each answers with its own address.
fn members() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, MEMBERS))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || member(stream));
        }
    });
    Ok(())
}

fn member(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let IpAddr::V4(address) = stream.local_addr()?.ip() else { return Ok(()) };
    let body = address.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            stream.write_all(answer.as_bytes())?;
        }
    }
    Ok(())
}

/// Latencies of running traffic: medians and 99th percentiles with changes relative to those of the
/// two windows without around each.
pub fn traffic(
    api_server: &ApiServer,
    gibbon: &Gibbon,
    rounds: usize,
    sizes: Sizes,
) -> Result<[Vec<f64>; 2]> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, LOADED))?;
    let mut load = Load::with(&SHAPE, vec![listener], &host(0))?.resting();
    let clients = load.connect(&Target::plain(gibbon.address), CONNECTIONS)?;
    load.run_at(&clients, RATE, WINDOW)?;
    let mut window = |with: bool| -> Result<[f64; 2]> {
        let going = AtomicBool::new(with);
        let latencies = std::thread::scope(|scope| {
            scope.spawn(|| keep_changing(api_server, &going, sizes));
            if with {
                std::thread::sleep(PAUSE);
            }
            let latencies = load.run_at(&clients, RATE, WINDOW);
            going.store(false, Relaxed);
            latencies
        });
        std::thread::sleep(PAUSE);
        let mut latencies = latencies?;
        latencies.sort_unstable();
        Ok([50, 99].map(|percent| latencies[latencies.len() * percent / 100].as_secs_f64()))
    };
    let mut ratios = [Vec::new(), Vec::new()];
    let mut before = window(false)?;
    for _ in 0..rounds {
        let own = window(true)?;
        let after = window(false)?;
        for (at, ratios) in ratios.iter_mut().enumerate() {
            ratios.push(own[at] * 2.0 / (before[at] + after[at]));
        }
        before = after;
    }
    Ok(ratios)
}

/// Changes the endpoints of one Balancer after the other, but for the first's.
fn keep_changing(api_server: &ApiServer, going: &AtomicBool, sizes: Sizes) {
    let mut next = Instant::now();
    for at in 0.. {
        if !going.load(Relaxed) {
            return;
        }
        // Back and forth, so that each is a change whatever was before.
        let (balancer, set) = (1 + at / 2 % (sizes.balancers - 1), at % 2);
        api_server.change(made::slice(balancer, set, sizes.endpoints, MEMBERS));
        next += EVERY;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
