//! Scenarios of the laboratory with real processes on loopback: the proxies in turn, each before the
//! same members and with the same requests at the same times.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};

use super::model::{Member, World, draw};
use super::peers::{Peer, Setup};
use super::scenarios::{Look, Scenario, all};

/// Which proxies, in the order of the table.
const PEERS: [Peer; 6] = [
    Peer::NginxLeastConn,
    Peer::NginxRandomTwo,
    Peer::HaproxyLeastConn,
    Peer::HaproxyRandomTwo,
    Peer::ApacheByBusyness,
    Peer::Gibbon,
];
/// Which scenarios.
const CHOSEN: [&str; 6] = ["alike-70", "slow", "fails-3", "half", "down", "heavy"];
/// How many times longer everything takes than in the laboratory, so that two processors are enough
/// for members, clients and proxy.
const SLOWER: f64 = 3.0;
/// Length of each run, in seconds; the first ones are not measured.
const LENGTH: f64 = 30.0;
const FROM: f64 = 5.0;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
const HEAD: usize = 8192;

/// What came of a scenario with a proxy.
#[derive(Default)]
struct Outcome {
    latencies: Vec<f64>,
    asked: u32,
    failed: u32,
    served: Vec<u32>,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.latencies.extend(&other.latencies);
        self.asked += other.asked;
        self.failed += other.failed;
        self.served.resize(other.served.len(), 0);
        self.served.iter_mut().zip(&other.served).for_each(|(all, one)| *all += one);
    }
}

/// Plays those that are chosen, and returns them as a section of the document.
///
/// # Errors
/// When a proxy cannot be installed or started.
pub fn play(chosen: impl Fn(&str) -> bool, rounds: u64) -> Result<String> {
    let versions = super::peers::install::ordinary()?;
    let mut text = format!(
        "## The same with real processes\n\n\
         `cargo bench --bench balancing -- live` runs six of the scenarios with real proxies in turn, each a process of one worker \
         on loopback before the same members (threads of another process), everything {SLOWER} times as slow as above, for {LENGTH} s, \
         {rounds} times with other requests each, one proxy at a time: {}, and Gibbon. Each is configured for keep-alive connections to members and with what it has by itself \
         against bad ones: nginx's `max_fails`, HAProxy's checks with `observe layer7`, Apache's `retry`. The figures are p50 / p99 in ms of \
         the light requests that went well, errors in %, and what the first member got in parts of its fair share.\n\n| scenario |",
        versions.join(", ")
    );
    for peer in PEERS {
        let _ = write!(text, " {} |", peer.label());
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(PEERS.len()));
    let is_chosen = |scenario: &Scenario| CHOSEN.contains(&scenario.id) && chosen(scenario.id);
    for scenario in all().into_iter().filter(is_chosen) {
        let _ = write!(text, "| {} |", scenario.title);
        for peer in PEERS {
            let mut all = Outcome::default();
            for seed in 1..=rounds {
                let outcome = run(&slowed(&scenario), peer, seed)
                    .with_context(|| format!("{} with {}", scenario.id, peer.label()))?;
                all.add(&outcome);
            }
            let cell = cell(&scenario, all);
            eprintln!("{}, {}: {cell}", scenario.id, peer.label());
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    Ok(text)
}

fn slowed(scenario: &Scenario) -> World {
    let world = scenario.world.clone();
    World {
        service: world.service * SLOWER,
        rate: world.rate / SLOWER,
        length: LENGTH,
        from: FROM,
        proxies: 1,
        ..world
    }
}

fn cell(scenario: &Scenario, mut outcome: Outcome) -> String {
    outcome.latencies.sort_by(f64::total_cmp);
    let percentile = |percent: usize| {
        let at = outcome.latencies.len() * percent / 100;
        outcome.latencies.get(at).map_or(f64::INFINITY, |latency| latency * 1000.0)
    };
    let errors = f64::from(outcome.failed) / f64::from(outcome.asked.max(1)) * 100.0;
    let mut cell = format!("{:.0} / {:.0}", percentile(50), percentile(99));
    let _ = write!(cell, ", {errors:.2} %");
    if scenario.look != Look::Latency {
        let all: u32 = outcome.served.iter().sum();
        let share = f64::from(outcome.served[0]) / f64::from(all.max(1));
        let _ = write!(cell, ", {:.2}", share * outcome.served.len() as f64);
    }
    cell
}

fn run(world: &World, peer: Peer, seed: u64) -> Result<Outcome> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let began = Rc::new(RefCell::new(Instant::now()));
        let mut members = Vec::new();
        for member in &world.members {
            members.push(Server::start(member.clone(), Rc::clone(&began)).await?);
        }
        let addresses: Vec<_> = members.iter().map(|member| member.address).collect();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("balancing");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let proxy = peer.start(&addresses, &folder, Setup::ORDINARY)?;
        *began.borrow_mut() = Instant::now();
        let mut outcome = ask(world, proxy.address, seed).await;
        outcome.served = members.iter().map(|member| *member.served.borrow()).collect();
        Ok(outcome)
    })
}

/// A member that serves until this is dropped.
struct Server {
    address: SocketAddr,
    served: Rc<RefCell<u32>>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(member: Member, began: Rc<RefCell<Instant>>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let served = Rc::new(RefCell::new(0));
        let context = Rc::new(Serving {
            workers: Semaphore::new(member.workers),
            member,
            began,
            served: Rc::clone(&served),
        });
        let task = spawn_local(accept(listener, address, context)).abort_handle();
        Ok(Self { address, served, task })
    }
}

struct Serving {
    member: Member,
    workers: Semaphore,
    began: Rc<RefCell<Instant>>,
    served: Rc<RefCell<u32>>,
}

impl Serving {
    fn seconds(&self) -> f64 {
        self.began.borrow().elapsed().as_secs_f64()
    }
}

/// Accepts while it does not refuse; then it has no socket.
async fn accept(listener: TcpListener, address: SocketAddr, context: Rc<Serving>) {
    let mut listener = Some(listener);
    loop {
        if context.member.refusing(context.seconds()) {
            listener = None;
            sleep(Duration::from_millis(5)).await;
        } else if let Some(listening) = &listener {
            let accepted = timeout(Duration::from_millis(20), listening.accept()).await;
            if let Ok(Ok((stream, _))) = accepted {
                spawn_local(serve(stream, Rc::clone(&context)));
            }
        } else {
            listener = TcpListener::bind(address).await.ok();
        }
    }
}

async fn serve(mut stream: TcpStream, context: Rc<Serving>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(HEAD);
    loop {
        let Some(end) = read_head(&mut stream, &mut buffer).await? else { return Ok(()) };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let at = context.seconds();
        if context.member.refusing(at) {
            return Ok(());
        }
        let number = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_default()
        };
        // Only requests of the clients count, not the proxy's checks.
        let (work, luck) = (number("x-work:"), number("x-luck:"));
        if work > 0.0 && at >= FROM {
            *context.served.borrow_mut() += 1;
        }
        let status = if work > 0.0 && luck < context.member.failing(at) {
            sleep(Duration::from_millis(1)).await;
            "500 Internal Server Error"
        } else {
            let _worker = context.workers.acquire().await;
            let work = work * context.member.factor(context.seconds());
            sleep(Duration::from_secs_f64(work)).await;
            "200 OK"
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Reads until a head is complete; its length, or nothing at the end of the stream.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if buffer.len() > HEAD || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Clients that ask at random times, whatever becomes of the requests before.
async fn ask(world: &World, proxy: SocketAddr, seed: u64) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    let idle = Rc::new(RefCell::new(VecDeque::new()));
    let began = tokio::time::Instant::now();
    let mut at = 0.0;
    while at < world.length {
        at -= (1.0 - random.f64()).ln() / world.rate;
        let drawn = draw(world, &mut random);
        let due = began + Duration::from_secs_f64(at);
        sleep_until(due).await;
        let (outcome, idle) = (Rc::clone(&outcome), Rc::clone(&idle));
        let measured = at >= FROM;
        spawn_local(async move {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: app\r\nx-work: {:.6}\r\nx-luck: {:.6}\r\n\r\n",
                drawn.work, drawn.luck
            );
            let good = timeout(PATIENCE, exchange(proxy, &idle, request.as_bytes())).await;
            if !measured {
                return;
            }
            let mut outcome = outcome.borrow_mut();
            outcome.asked += 1;
            if !matches!(good, Ok(Ok(true))) {
                outcome.failed += 1;
            } else if !drawn.heavy {
                outcome.latencies.push(due.elapsed().as_secs_f64());
            }
        });
    }
    sleep(Duration::from_secs(3)).await;
    outcome.take()
}

/// One request on a kept or a new connection; true if it was answered 200.
async fn exchange(
    proxy: SocketAddr,
    idle: &RefCell<VecDeque<TcpStream>>,
    request: &[u8],
) -> std::io::Result<bool> {
    let kept = idle.borrow_mut().pop_back();
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(proxy).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_all(request).await?;
    let mut buffer = Vec::with_capacity(HEAD);
    let Some(end) = read_head(&mut stream, &mut buffer).await? else { return Ok(false) };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or_default();
    while buffer.len() < end + length {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(false);
        }
    }
    if !head.contains("connection: close") {
        idle.borrow_mut().push_back(stream);
    }
    Ok(head.starts_with("http/1.1 200"))
}
