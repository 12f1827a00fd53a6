//! What a request costs Gibbon and other proxies: CPU, latency and memory, side by side on this machine.
//!
//! `cargo bench --bench peers` writes `docs/benchmarks.md`; `-- --rounds 5` is quicker and vaguer.
//! It needs two cores: one is the proxies', one has all clients and members. Each window of a proxy
//! stands between two of nginx, and only its ratio to those two counts, as the machine's speed changes.

#[path = "peers/load.rs"]
mod load;
#[path = "balancing/peers.rs"]
#[allow(dead_code)]
mod peers;
#[path = "peers/usage.rs"]
mod usage;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use load::{Load, Shape, Window};
use peers::{Peer, Running};
use usage::Usage;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");
/// Clients' connections to each proxy.
const CONNECTIONS: usize = 64;
/// Idle connections whose memory is told.
const IDLE: usize = 2000;
const WINDOW: Duration = Duration::from_millis(400);
const WARM_UP: Duration = Duration::from_millis(300);
/// Compared with nginx, which comes in between.
const PEERS: [Peer; 3] = [Peer::Gibbon, Peer::HaproxyLeastConn, Peer::ApacheByBusyness];
const SHAPES: [Shape; 5] = [
    Shape { name: "128 B", upload: 0, download: 128 },
    Shape { name: "1 KiB", upload: 0, download: 1024 },
    Shape { name: "10 KiB", upload: 0, download: 10 * 1024 },
    Shape { name: "POST 1 KiB", upload: 1024, download: 1024 },
    Shape { name: "1 MiB", upload: 0, download: 1024 * 1024 },
];

/// How long it goes on.
#[derive(Debug, Parser)]
struct Options {
    /// Windows of each proxy and shape
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Prints, and leaves the document as it is
    #[arg(long)]
    dry: bool,
    /// cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    // `cargo test --all-targets` runs it too, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let options = Options::parse();
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        bail!("this needs two cores: one for the proxy, one for the load");
    }
    let versions = peers::versions()?;
    pin(std::process::id(), 1)?;
    let mut results = Vec::new();
    for shape in &SHAPES {
        results.push(measure(shape, options.rounds)?);
        eprintln!("{}: done", shape.name);
    }
    let text = document(&versions, &results, options.rounds, cores)?;
    println!("{text}");
    if !options.dry {
        std::fs::write(DOCUMENT, text)?;
    }
    Ok(())
}

/// Keeps a process and all its threads on one core.
fn pin(process: u32, core: usize) -> Result<()> {
    let taskset = Command::new("taskset")
        .args(["-a", "-p", "-c", &core.to_string(), &process.to_string()])
        .stdout(std::process::Stdio::null())
        .status()
        .context("taskset (of util-linux)")?;
    if taskset.success() { Ok(()) } else { bail!("process {process} cannot be pinned") }
}

/// A proxy under test, with its clients.
struct Tested {
    name: &'static str,
    running: Running,
    clients: Vec<usize>,
    /// Ratios to nginx: of CPU a request, and of the latency at the median and the 99th percentile.
    ratios: [Vec<f64>; 3],
    /// KiB more with so many idle connections, for each of them, where it keeps them.
    idle: Option<f64>,
    /// MiB at rest.
    rest: f64,
}

/// CPU in microseconds a request, and latencies.
#[derive(Clone, Copy)]
struct Sample([f64; 3]);

fn start(peer: Peer, load: &mut Load) -> Result<Tested> {
    let folder = peer.label().replace([' ', '`', '(', ')'], "");
    let folder = std::env::temp_dir().join(format!("gibbon-peers-{}-{folder}", std::process::id()));
    // What one run has left is not for the next.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let running = peer.start(&load.members(), &folder)?;
    for process in usage::family(running.process())? {
        pin(process, 0)?;
    }
    let clients = load.connect(running.address, CONNECTIONS)?;
    let rest = Usage::of(running.process())?.memory;
    load.run(&clients, WARM_UP)?;
    Ok(Tested {
        name: peer.label(),
        running,
        clients,
        ratios: Default::default(),
        idle: None,
        rest,
    })
}

fn sample(tested: &Tested, load: &mut Load) -> Result<Sample> {
    let before = Usage::of(tested.running.process())?;
    let Window { mut latencies } = load.run(&tested.clients, WINDOW)?;
    let cpu = Usage::of(tested.running.process())?.cpu.saturating_sub(before.cpu);
    latencies.sort_unstable();
    let at = |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64();
    Ok(Sample([cpu.as_secs_f64() / latencies.len() as f64, at(50), at(99)]))
}

fn measure(shape: &Shape, rounds: usize) -> Result<Vec<Tested>> {
    let mut load = Load::new(shape, 2)?;
    let nginx = start(Peer::NginxLeastConn, &mut load)?;
    let mut all = PEERS.iter().map(|peer| start(*peer, &mut load)).collect::<Result<Vec<_>>>()?;
    for _ in 0..rounds {
        let mut before = sample(&nginx, &mut load)?;
        for tested in &mut all {
            let own = sample(tested, &mut load)?;
            let after = sample(&nginx, &mut load)?;
            for (at, ratios) in tested.ratios.iter_mut().enumerate() {
                ratios.push(own.0[at] * 2.0 / (before.0[at] + after.0[at]));
            }
            before = after;
        }
    }
    all.insert(0, nginx);
    if shape.name == "1 KiB" {
        for tested in &mut all {
            tested.idle = idle(tested, &mut load)
                .inspect_err(|error| eprintln!("{}: {error:#}", tested.name))
                .ok();
        }
    }
    Ok(all)
}

/// KiB that each idle connection adds; not known where the proxy does not keep so many.
fn idle(tested: &Tested, load: &mut Load) -> Result<f64> {
    let before = Usage::of(tested.running.process())?.memory;
    let clients = load.connect(tested.running.address, IDLE)?;
    for few in clients.chunks(CONNECTIONS) {
        load.run(few, Duration::ZERO)?;
    }
    let after = Usage::of(tested.running.process())?.memory;
    Ok((after - before) * 1024.0 / IDLE as f64)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(1.0)
}

/// From the first to the third quarter.
fn spread(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: usize| sorted.get(sorted.len() * part / 4).copied().unwrap_or(1.0);
    (at(1), at(3))
}

fn document(
    versions: &[String],
    results: &[Vec<Tested>],
    rounds: usize,
    cores: usize,
) -> Result<String> {
    let names: Vec<_> = PEERS.iter().map(|peer| peer.label()).collect();
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let mut text = String::from("# Benchmarks\n\n");
    let _ = write!(
        text,
        "Written by `cargo bench --bench peers`. {} connections with HTTP/1.1 keep-alive, one worker,\n\
         no access logs, two members; one core for the proxy and one for clients and members. {rounds} \
         windows of {} ms\nof each proxy, each between two of nginx: the figures are the median of the \
         ratios to those two\n(nginx is 1; lower is better), with the quarters in brackets.\n\n\
         Machine: {cores} cores,{}. Versions: {}.\n\n",
        CONNECTIONS,
        WINDOW.as_millis(),
        model.trim_start_matches(['\t', ':']),
        versions.join(", "),
    );
    let titles = ["CPU a request", "Latency, median", "Latency, 99th percentile"];
    for (at, title) in titles.iter().enumerate() {
        let _ = write!(text, "## {title}\n\n| | {} |\n|---|", names.join(" | "));
        let _ = writeln!(text, "{}", "--:|".repeat(names.len()));
        for (shape, result) in SHAPES.iter().zip(results) {
            let _ = write!(text, "| {} |", shape.name);
            for tested in &result[1..] {
                let (low, high) = spread(&tested.ratios[at]);
                let middle = median(&tested.ratios[at]);
                let _ = write!(text, " {middle:.2} ({low:.2}–{high:.2}) |");
            }
            text.push('\n');
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "## Memory\n\nResident, all processes together: before any request, and what each of {IDLE} \
         idle client\nconnections adds that has had one request.\n\n| | at rest, MiB | idle connection, \
         KiB |\n|---|--:|--:|\n"
    );
    if let Some(result) = results.get(1) {
        for (name, tested) in std::iter::once(&"nginx").chain(&names).zip(result) {
            let idle = tested.idle.map_or_else(|| "-".to_owned(), |kib| format!("{kib:.1}"));
            let _ = writeln!(text, "| {name} | {:.0} | {idle} |", tested.rest);
        }
    }
    Ok(text)
}
