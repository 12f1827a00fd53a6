//! What a request costs Gibbon and other proxies: CPU, latency and memory, side by side on this machine.
//!
//! `cargo bench --bench peers` installs the proxies and writes its section of `docs/benchmarks.md`;
//! `-- --rounds 3 --dry` is quicker and vaguer. It needs two cores: one is the proxies', one has all
//! clients and members. Each window of a proxy stands between two of nginx, and only its ratio to those
//! two counts, as the machine's speed changes. `GIBBON_BESIDE=PROGRAM` compares another build of Gibbon
//! too, to tell what a change costs: `-- --only gibbon --part closed`.

#[path = "peers/certificate.rs"]
mod certificate;
#[path = "peers/document.rs"]
mod document;
#[path = "../tests/cluster/isolation.rs"]
#[allow(dead_code)]
mod isolation;
#[path = "peers/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "peers/measure.rs"]
mod measure;
#[path = "peers/memory.rs"]
mod memory;
#[path = "peers/proxies.rs"]
#[allow(dead_code)]
mod proxies;
#[path = "peers/report.rs"]
mod report;
#[path = "peers/usage.rs"]
#[allow(dead_code)]
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use certificate::Site;
use clap::Parser;
use isolation::Inside;
use load::Shape;
use measure::{Compared, Contender, Cores, Pace, compare};
use memory::Memory;
use proxies::{BESIDE, Peer, Setup, install};

const SMALL: Shape = Shape { name: "128 B", upload: 0, download: 128 };
const USUAL: Shape = Shape { name: "1 KiB", upload: 0, download: 1024 };
const MEDIUM: Shape = Shape { name: "10 KiB", upload: 0, download: 10 * 1024 };
const POST: Shape = Shape { name: "POST 1 KiB", upload: 1024, download: 1024 };
const LARGE: Shape = Shape { name: "1 MiB", upload: 0, download: 1024 * 1024 };
const TLS: Shape = Shape { name: "TLS, 1 KiB", upload: 0, download: 1024 };

/// Compared with nginx, which comes in between.
const PEERS: [Peer; 8] = [
    Peer::Gibbon,
    Peer::GibbonBeside,
    Peer::HaproxyLeastConn,
    Peer::ApacheByBusyness,
    Peer::Pingora,
    Peer::Envoy,
    Peer::Caddy,
    Peer::NginxLarge,
];

/// How long it goes on.
#[derive(Debug, Parser)]
struct Options {
    /// Windows of each proxy and shape
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Only these parts, printed: closed, open, threads, log, memory
    #[arg(long)]
    part: Vec<String>,
    /// Only these proxies beside nginx, printed, by their names in lower case
    #[arg(long)]
    only: Vec<String>,
    /// Only these shapes in a closed loop, printed, such as "1 KiB" or TLS
    #[arg(long)]
    shape: Vec<String>,
    /// This build of Gibbon rather than its image's, which is built by a profile; printed
    #[arg(long)]
    plain: bool,
    /// Prints, and leaves the document as it is
    #[arg(long)]
    dry: bool,
    /// cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.part.is_empty() || self.part.iter().any(|wanted| wanted == part)
    }

    /// Whether the document gets what is measured.
    fn is_whole(&self) -> bool {
        let all = self.part.is_empty() && self.only.is_empty() && self.shape.is_empty();
        all && !self.plain && !self.dry && !has_other()
    }

    /// Gibbon's program, if it is not this build's.
    fn program(&self) -> Result<Option<PathBuf>> {
        if self.plain { Ok(None) } else { install::image().map(Some) }
    }

    fn has(&self, shape: &Shape) -> bool {
        self.shape.is_empty() || self.shape.iter().any(|wanted| shape.name.starts_with(wanted))
    }

    /// The proxies that are there and wanted, but for nginx itself.
    fn peers(&self, missing: &[&str]) -> Vec<Peer> {
        let beside = has_other();
        let is_named = |peer: &Peer, name: &str| peer.label().to_lowercase().starts_with(name);
        let wanted = |peer: &Peer| {
            !missing.iter().any(|name| is_named(peer, name))
                && (*peer != Peer::GibbonBeside || beside)
                && (self.only.is_empty() || self.only.iter().any(|name| is_named(peer, name)))
        };
        PEERS.into_iter().filter(wanted).collect()
    }
}

/// Whether another build of Gibbon is to be compared.
fn has_other() -> bool {
    std::env::var_os(BESIDE).is_some()
}

/// All that was measured.
#[derive(Default)]
struct Results {
    closed: Vec<Compared>,
    open: Vec<Compared>,
    /// Gibbon's, and nginx's.
    threads: Vec<Compared>,
    /// Gibbon's, and nginx's.
    logs: Vec<Compared>,
    memory: Vec<(Peer, Memory)>,
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs it too, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    let measured = match Inside::from_environment() {
        // What is installed here is there inside, where nothing can be fetched.
        None => match installed().and_then(|_| options.program()) {
            Ok(_) => return isolation::enter_alone(),
            Err(error) => Err(error),
        },
        Some(inside) => run(&inside, &options),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The versions of the proxies, and the names of those that are not to be had.
fn installed() -> Result<(Vec<String>, Vec<&'static str>)> {
    let mut versions = install::ordinary()?;
    let mut missing = Vec::new();
    for (name, installed) in install::others() {
        match installed {
            Ok(version) => versions.push(version),
            Err(error) => {
                eprintln!("{name} is left out: {error:#}");
                missing.push(name);
            }
        }
    }
    Ok((versions, missing))
}

fn run(inside: &Inside, options: &Options) -> Result<()> {
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("this needs two cores: one for the proxy, one for the load");
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    inside.prepare()?;
    isolation::without_pacing()?;
    let (versions, missing) = installed()?;
    let program = options.program()?;
    let results = measure_all(options, program.as_deref(), &missing)?;
    let text = report::text(&versions, &missing, &results, options.rounds)?;
    println!("{text}");
    if options.is_whole() { document::write("peers", &text) } else { Ok(()) }
}

fn measure_all(options: &Options, program: Option<&Path>, missing: &[&str]) -> Result<Results> {
    let site = Site::new().context("a certificate")?;
    let ordinary = Setup { site: true, program, ..Setup::ORDINARY };
    let secure = Setup { tls: Some(&site.files), ..ordinary };
    let (peers, rounds) = (options.peers(missing), options.rounds);
    let mut results = Results::default();
    let with = |peer: Peer, setup| Contender { peer, setup };
    let all = |large: bool| {
        let fits = |peer: &&Peer| large || **peer != Peer::NginxLarge;
        peers.iter().filter(fits).map(|peer| with(*peer, ordinary)).collect::<Vec<_>>()
    };
    let nginx = with(Peer::NginxLeastConn, ordinary);
    if options.wants("closed") {
        for shape in [SMALL, USUAL, MEDIUM, POST, LARGE].into_iter().filter(|s| options.has(s)) {
            let large = shape.download > USUAL.download;
            let others = all(large);
            let pace = Pace::Closed;
            results.closed.push(compare(&shape, nginx, &others, pace, Cores::Apart, rounds, None)?);
        }
    }
    if options.wants("closed") && options.has(&TLS) {
        let others: Vec<_> = peers
            .iter()
            .filter(|peer| !matches!(peer, Peer::Pingora | Peer::NginxLarge))
            .map(|peer| with(*peer, secure))
            .collect();
        let nginx = with(Peer::NginxLeastConn, secure);
        let client = Some(&site.client);
        let compared = compare(&TLS, nginx, &others, Pace::Closed, Cores::Apart, rounds, client)?;
        results.closed.push(compared);
    }
    if options.wants("open") {
        for shape in [USUAL, MEDIUM] {
            let others = all(shape.download > USUAL.download);
            let pace = Pace::Open;
            results.open.push(compare(&shape, nginx, &others, pace, Cores::Apart, rounds, None)?);
        }
    }
    // Each with itself.
    let alone = |setup, cores, compared: &mut Vec<Compared>| -> Result<()> {
        for peer in [Peer::Gibbon, Peer::NginxLeastConn] {
            let (base, other) = (with(peer, ordinary), [with(peer, setup)]);
            compared.push(compare(&USUAL, base, &other, Pace::Closed, cores, rounds, None)?);
        }
        Ok(())
    };
    if options.wants("threads") {
        alone(Setup { threads: 2, ..ordinary }, Cores::Shared, &mut results.threads)?;
    }
    if options.wants("log") {
        alone(Setup { logs: true, ..ordinary }, Cores::Apart, &mut results.logs)?;
    }
    if options.wants("memory") {
        for peer in std::iter::once(Peer::NginxLeastConn).chain(peers.iter().copied()) {
            results.memory.push((peer, memory::measure(with(peer, ordinary))?));
            eprintln!("memory, {}: done", peer.label());
        }
    }
    Ok(results)
}
