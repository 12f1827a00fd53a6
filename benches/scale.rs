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
#[path = "scale/running.rs"]
mod running;
#[path = "peers/usage.rs"]
#[allow(dead_code)]
mod usage;

use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api_server::ApiServer;
use built::{Built, Lookup, Objects, SITES};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use isolation::Inside;
use running::{CONNECTIONS, Gibbon, RATE, WINDOW};
use serde_json::Value;
use usage::{Usage, mib};

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
    let Some(inside) = Inside::from_environment() else {
        return isolation::enter_alone();
    };
    match inside.prepare().and_then(|()| measure(&inside, sizes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(inside: &Inside, sizes: Sizes) -> Result<()> {
    let [balancers, services, slices] = objects(sizes);
    let objects = Objects::read(&balancers, &services, &slices)?;
    let cores = cores()?;
    pin(cores.split(['-', ',']).next().unwrap_or("0"))?;
    let changed = made::slice(1, 1, sizes.endpoints, running::MEMBERS);
    let built = built::build(&objects, &changed)?;
    drop(objects);
    eprintln!("tables: done");
    let lookups = SITES.iter().map(built::Site::lookup).collect::<Result<Vec<_>>>()?;
    eprintln!("lookups: done");
    pin(&cores)?;
    let api_server = ApiServer::start(&balancers, &services, &slices)?;
    let gibbon = Gibbon::start(&api_server, &inside.state)?;
    std::thread::sleep(SETTLED);
    let rest = gibbon.usage()?;
    let changes = running::changes(&api_server, &gibbon, sizes.changes, sizes)?;
    eprintln!("changes: done");
    let ratios = running::traffic(&api_server, &gibbon, sizes.rounds, sizes)?;
    let after = gibbon.usage()?;
    let figures = Figures { built, lookups, start: gibbon.start, rest, changes, ratios, after };
    let text = figures.text(sizes)?;
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

/// What came of it.
struct Figures {
    built: Built,
    lookups: Vec<Lookup>,
    start: Duration,
    rest: Usage,
    changes: Vec<Duration>,
    ratios: [Vec<f64>; 2],
    after: Usage,
}

impl Figures {
    fn text(&self, sizes: Sizes) -> Result<String> {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let Sizes { balancers, endpoints, rounds, .. } = sizes;
        let mut text = format!(
            "{balancers} Balancers with a host, a sticky expression and {endpoints} endpoints each, in {} \
             namespaces. Machine: {}.\n\n| | measured | goal |\n|---|--:|--:|\n",
            made::NAMESPACES,
            document::machine()?
        );
        let Built { rules, table, change } = self.built;
        let at = |part: usize| self.changes[(self.changes.len() - 1) * part / 100];
        let ratio = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let at = |part: usize| sorted[(sorted.len() - 1) * part / 4];
            format!("{:.2} ({:.2}–{:.2})", at(2), at(1), at(3))
        };
        let rows = [
            (
                "table built from objects, on one core",
                format!(
                    "{:.0} ms ({:.0} to rules, {:.0} to the table)",
                    millis(rules + table),
                    millis(rules),
                    millis(table)
                ),
                "< 150 ms",
            ),
            ("next table after one slice has changed", format!("{:.1} ms", millis(change)), ""),
            (
                "a change of endpoints, from the API server's word to the first request that shows it, \
                 10 ms to settle included",
                format!("{:.0} ms, at most {:.0} ms", millis(at(50)), millis(at(100))),
                "< 50 ms",
            ),
            (
                "99th percentile of running requests with 1,000 changes a minute, to without",
                ratio(&self.ratios[1]),
                "≤ 1.10",
            ),
            ("their median", ratio(&self.ratios[0]), ""),
            ("resident memory", format!("{:.0} MiB", mib(self.rest.memory)), "< 200 MiB"),
            ("at most, while it starts", format!("{:.0} MiB", mib(self.rest.peak)), ""),
            ("after all these changes", format!("{:.0} MiB", mib(self.after.memory)), ""),
            (
                "from the start of the process to readiness",
                format!("{:.2} s", self.start.as_secs_f64()),
                "",
            ),
        ];
        for (what, measured, goal) in rows {
            let _ = writeln!(text, "| {what} | {measured} | {goal} |");
        }
        let _ = write!(
            text,
            "\nThe first two rows are medians of calls in memory. For the others a process of one worker \
             follows an API server\non loopback that is made for the bench: it lists and watches and does \
             nothing else. {RATE} requests a second come\non {CONNECTIONS} connections for a host that does not \
             change, whatever becomes of those before; latencies count\nfrom when a request was due. Each of \
             {rounds} windows of {} s with changes stands between two without; the median ratio\nto those two \
             is told, with the quarters in brackets. Gibbon, its clients and members share the cores.\n\n\
             A request's lookup (goal: < 300 ns), in a random order of hosts and paths, and what comes before it:\n\
             its Host is read, and its path resolved.\n\n\
             | hosts | paths of each | lookup, ns | before, ns |\n|--:|--:|--:|--:|\n",
            WINDOW.as_secs()
        );
        for (site, lookup) in SITES.iter().zip(&self.lookups) {
            let hosts = if site.wildcards { " wildcards" } else { "" };
            let Lookup { finding, reading } = lookup;
            let _ = writeln!(
                text,
                "| {}{hosts} | {} | {finding:.0} | {reading:.0} |",
                site.hosts, site.paths
            );
        }
        Ok(text)
    }
}
