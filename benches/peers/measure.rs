//! Windows of proxies in turn, each between two of the one that they are compared with.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::ClientConfig;

use crate::load::{Load, Shape, Target};
use crate::proxies::{Peer, Running, Setup};
use crate::usage;

/// Clients' connections to each proxy.
pub const CONNECTIONS: usize = 64;
pub const MEMBERS: usize = 2;
pub const WINDOW: Duration = Duration::from_millis(400);
const WARM_UP: Duration = Duration::from_millis(400);
/// Of what nginx can do, with an open loop.
pub const SHARE: f64 = 0.5;

/// A proxy and how it is set up.
#[derive(Clone, Copy)]
pub struct Contender<'s> {
    pub peer: Peer,
    pub setup: Setup<'s>,
}

/// When clients ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each as soon as it is answered.
    Closed,
    /// At the same rate for all proxies, whatever becomes of the requests before.
    Open,
}

/// Who runs where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Proxies on the first, the load on the second.
    Apart,
    /// All on both.
    Shared,
}

/// What came of one proxy: ratios to the windows around each of its own.
#[derive(Clone, Default)]
pub struct Ratios {
    /// Of CPU a request.
    pub cpu: Vec<f64>,
    /// Of the latency at the median.
    pub p50: Vec<f64>,
    /// Of the latency at the 99th percentile.
    pub p99: Vec<f64>,
}

/// A shape with what came of it; nothing of proxies that could not do it.
pub struct Compared {
    pub shape: Shape,
    pub ratios: Vec<(Peer, Option<Ratios>)>,
    /// Requests a second of those that they are compared with, and their CPU a request and latencies:
    /// medians.
    pub rate: f64,
    pub base: Sample,
}

/// Of one window: microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub cpu: f64,
    pub p50: f64,
    pub p99: f64,
}

/// A proxy that runs, with its clients.
pub struct Tested {
    pub running: Running,
    pub target: Target,
    pub clients: Vec<usize>,
}

impl Tested {
    /// Starts it in front of these members; it has no clients yet.
    pub fn start(
        contender: Contender<'_>,
        members: &[std::net::SocketAddr],
        cores: Cores,
        client: Option<&Arc<ClientConfig>>,
    ) -> Result<Self> {
        let folder = folder(contender.peer);
        // What one run has left is not for the next.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let running = contender.peer.start(members, &folder, contender.setup)?;
        for process in usage::family(running.process())? {
            pin(process, if cores == Cores::Apart { "0" } else { "0,1" })?;
        }
        let target = Target { tls: client.cloned(), ..Target::plain(running.address) };
        Ok(Self { running, target, clients: Vec::new() })
    }

    fn sample(&self, load: &mut Load, rate: Option<f64>) -> Result<Sample> {
        let before = usage::cpu_of(self.running.process())?;
        let mut latencies = match rate {
            Some(rate) => load.run_at(&self.clients, rate, WINDOW)?,
            None => load.run(&self.clients, WINDOW)?,
        };
        let cpu = usage::cpu_of(self.running.process())?.saturating_sub(before);
        latencies.sort_unstable();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let at = |percent: usize| micros(latencies[latencies.len() * percent / 100]);
        Ok(Sample { cpu: micros(cpu) / latencies.len() as f64, p50: at(50), p99: at(99) })
    }
}

/// Names differ, as some proxies are there twice at once.
fn folder(peer: Peer) -> PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let name: String = peer.label().chars().filter(char::is_ascii_alphanumeric).collect();
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("gibbon-peers-{}-{number}-{name}", std::process::id()))
}

/// Keeps a process and all its threads on these cores.
fn pin(process: u32, cores: &str) -> Result<()> {
    let taskset = Command::new("taskset")
        .args(["-a", "-p", "-c", cores, &process.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (of util-linux)")?;
    ensure!(taskset.success(), "process {process} cannot be pinned");
    Ok(())
}

/// Starts all of them; those that cannot be started are left out.
pub fn compare(
    shape: &Shape,
    base: Contender<'_>,
    others: &[Contender<'_>],
    pace: Pace,
    cores: Cores,
    rounds: usize,
    client: Option<&Arc<ClientConfig>>,
) -> Result<Compared> {
    pin(std::process::id(), if cores == Cores::Apart { "1" } else { "0,1" })?;
    let (mut load, members) = Load::new(shape, MEMBERS)?;
    let mut start = |contender: &Contender<'_>| -> Result<(Tested, f64)> {
        let mut tested = Tested::start(*contender, &members, cores, client)?;
        tested.clients = load.connect(&tested.target, CONNECTIONS)?;
        let began = Instant::now();
        let answers = load.run(&tested.clients, WARM_UP);
        let answers = answers.inspect_err(|_| load.close(&tested.clients))?.len();
        Ok((tested, answers as f64 / began.elapsed().as_secs_f64()))
    };
    let (nginx, capacity) = start(&base)?;
    let started: Vec<_> = others.iter().map(|other| (other.peer, start(other))).collect();
    let rate = (pace == Pace::Open).then_some(capacity * SHARE);
    let told = |peer: Peer, error: anyhow::Error| {
        eprintln!("{}, {}: {error:#}", shape.name, peer.label());
    };
    let mut tested: Vec<(Peer, Option<(Tested, Ratios)>)> = started
        .into_iter()
        .map(|(peer, started)| match started {
            Ok((tested, _)) => (peer, Some((tested, Ratios::default()))),
            Err(error) => {
                told(peer, error);
                (peer, None)
            }
        })
        .collect();
    let mut samples = vec![nginx.sample(&mut load, rate)?];
    let count = tested.len();
    for at in (0..rounds).flat_map(|_| 0..count) {
        let (peer, slot) = &mut tested[at];
        let Some((one, ratios)) = slot else { continue };
        match one.sample(&mut load, rate) {
            Ok(own) => {
                let after = nginx.sample(&mut load, rate)?;
                let before = *samples.last().context("a sample")?;
                ratios.cpu.push(own.cpu * 2.0 / (before.cpu + after.cpu));
                ratios.p50.push(own.p50 * 2.0 / (before.p50 + after.p50));
                ratios.p99.push(own.p99 * 2.0 / (before.p99 + after.p99));
                samples.push(after);
            }
            Err(error) => {
                told(*peer, error);
                load.close(&one.clients);
                *slot = None;
            }
        }
    }
    eprintln!("{}: done", shape.name);
    let middle = |of: fn(&Sample) -> f64| median(&samples.iter().map(of).collect::<Vec<_>>());
    Ok(Compared {
        shape: shape.clone(),
        ratios: tested.into_iter().map(|(peer, slot)| (peer, slot.map(|(_, r)| r))).collect(),
        rate: rate.unwrap_or(capacity),
        base: Sample { cpu: middle(|s| s.cpu), p50: middle(|s| s.p50), p99: middle(|s| s.p99) },
    })
}

pub fn median(values: &[f64]) -> f64 {
    quarter(values, 2)
}

/// After so many of four quarters.
pub fn quarter(values: &[f64], part: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) * part / 4).copied().unwrap_or(f64::NAN)
}
