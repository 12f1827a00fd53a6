//! What 10,000 Balancers with ten members each cost: their table, a request's way through it, a change of
//! one endpoint, memory, and whether running traffic notices changes.
//!
//! `cargo bench --bench scale` writes its section of `docs/benchmarks.md`. The objects are made in
//! memory; a real Gibbon hears of them from a stand-in for the API server, in a network of its own.
//! `cargo bench --bench cluster` does the like with a real control plane, and takes longer.

#[path = "scale/api_server.rs"]
mod api_server;
#[path = "scale/built.rs"]
mod built;
#[path = "peers/document.rs"]
mod document;
#[path = "../tests/cluster/isolation.rs"]
#[allow(dead_code)]
mod isolation;
#[path = "peers/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "cluster/made.rs"]
#[allow(dead_code)]
mod made;
#[path = "../tests/support/port.rs"]
mod port;
#[path = "scale/report.rs"]
mod report;
#[path = "scale/running.rs"]
mod running;
#[path = "peers/usage.rs"]
#[allow(dead_code)]
mod usage;

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api_server::ApiServer;
use built::{Built, Lookup, Objects, SITES};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use isolation::Inside;
use report::Ran;
use running::Gibbon;
use serde_json::Value;

/// What the program has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// From its readiness until memory is read: what the start needed only is given back by then.
const SETTLED: Duration = Duration::from_secs(5);

/// How large the cluster is, and how long it goes on.
#[derive(Clone, Copy, Debug, Parser)]
struct Sizes {
    /// Balancers, each with a Service of its own
    #[arg(long, default_value_t = 10_000, value_parser = RangedU64ValueParser::<usize>::new().range(2..))]
    balancers: usize,
    /// Endpoints of each Service
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Changes of endpoints that are waited for
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// Windows of traffic with changes
    #[arg(long, default_value_t = 25)]
    rounds: usize,
    /// Only what is measured without a process of its own, printed
    #[arg(long)]
    in_memory: bool,
    /// Prints, and leaves the document as it is
    #[arg(long)]
    dry: bool,
    /// cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs it too, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let sizes = Sizes::parse();
    let measured = if sizes.in_memory {
        in_memory(sizes).map(|(built, lookups)| println!("{}", report::in_memory(&built, &lookups)))
    } else if let Some(inside) = Inside::from_environment() {
        inside
            .prepare()
            .and_then(|()| isolation::without_pacing())
            .and_then(|()| measure(&inside, sizes))
    } else {
        return isolation::enter_alone();
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is measured on one core, without a process of its own.
fn in_memory(sizes: Sizes) -> Result<(Built, Vec<Lookup>)> {
    let [balancers, services, slices] = objects(sizes);
    let objects = Objects::read(&balancers, &services, &slices)?;
    let cores = cores()?;
    pin(cores.split(['-', ',']).next().unwrap_or("0"))?;
    let changed = |at| made::slice(at, 1, sizes.endpoints, running::MEMBERS);
    let built = built::build(&objects, [&changed(0), &changed(1)])?;
    eprintln!("tables: done");
    let lookups = SITES.iter().map(built::Site::lookup).collect::<Result<Vec<_>>>()?;
    eprintln!("lookups: done");
    pin(&cores)?;
    Ok((built, lookups))
}

fn measure(inside: &Inside, sizes: Sizes) -> Result<()> {
    let (built, lookups) = in_memory(sizes)?;
    let [balancers, services, slices] = objects(sizes);
    let api_server = ApiServer::start(&balancers, &services, &slices)?;
    let gibbon = Gibbon::start(&api_server, &inside.state)?;
    std::thread::sleep(SETTLED);
    let rest = gibbon.usage()?;
    let changes = running::changes(&api_server, &gibbon, sizes.changes, sizes)?;
    eprintln!("changes: done");
    let ratios = running::traffic(&api_server, &gibbon, sizes.rounds, sizes)?;
    let after = gibbon.usage()?;
    let ran = Ran { start: gibbon.start, rest, changes, ratios, after };
    let text = report::text(sizes, &built, &lookups, &ran)?;
    println!("{text}");
    if sizes.dry { Ok(()) } else { document::write("scale", &text) }
}

/// Balancers, Services and slices as the API server tells them.
fn objects(sizes: Sizes) -> [Vec<Value>; 3] {
    let noted = |mut object: Value, at: usize| {
        object["metadata"]["uid"] = format!("6e0cb4f4-0000-4000-8000-{at:012}").into();
        object["metadata"]["resourceVersion"] = (at + 1).to_string().into();
        object["metadata"]["generation"] = 1.into();
        object["metadata"]["creationTimestamp"] = "2026-11-24T12:00:00Z".into();
        object
    };
    let all = |make: &dyn Fn(usize) -> Value| {
        (0..sizes.balancers).map(|at| noted(make(at), at)).collect()
    };
    let port = |at| if at == 0 { running::LOADED } else { running::MEMBERS };
    [
        all(&|at| made::balancer(at, &made::name(at), &made::host(at))),
        all(&made::service),
        all(&|at| made::slice(at, 0, sizes.endpoints, port(at))),
    ]
}

/// Keeps this process on these cores.
fn pin(cores: &str) -> Result<()> {
    let taskset = Command::new("taskset")
        .args(["-a", "-p", "-c", cores, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (of util-linux)")?;
    ensure!(taskset.success(), "this process cannot be pinned");
    Ok(())
}

/// Those that this process may use.
fn cores() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(cores.context("Cpus_allowed_list")?.trim().to_owned())
}
