//! A start on a large cluster, measured on a real API server: how long until the first table, with how
//! much memory and time of the processor, and how soon a change is effective afterwards.
//!
//! `cargo bench --bench cluster`, or smaller: `cargo bench --bench cluster -- --balancers 1000`.

#[path = "../tests/cluster/api.rs"]
mod api;
#[path = "../tests/cluster/control_plane.rs"]
#[allow(dead_code)]
mod control_plane;
#[path = "../tests/cluster/gibbon.rs"]
#[allow(dead_code)]
mod gibbon;
#[path = "../tests/cluster/isolation.rs"]
#[allow(dead_code)]
mod isolation;
#[path = "cluster/made.rs"]
mod made;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "../tests/cluster/pods.rs"]
#[allow(dead_code)]
mod pods;
#[path = "cluster/probe.rs"]
mod probe;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "peers/usage.rs"]
#[allow(dead_code)]
mod usage;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use control_plane::ControlPlane;
use gibbon::Gibbon;
use isolation::Inside;
use objects::Objects;
use probe::{Change, Load, Probe, spread};
use usage::Usage;

/// How often it is looked whether Gibbon is ready.
const LOOK: Duration = Duration::from_millis(2);
/// Between two changes while statuses are written.
const PAUSE: Duration = Duration::from_millis(100);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How long statuses are waited for; what is not written by then is given up.
const PATIENCE: Duration = Duration::from_secs(180);

/// How large the cluster is, and how often it changes.
#[derive(Clone, Copy, Debug, Parser)]
struct Sizes {
    /// Balancers, each with a Service of its own
    #[arg(long, env = "GIBBON_BENCH_BALANCERS", default_value_t = 10_000)]
    balancers: usize,
    /// Endpoints of each Service
    #[arg(long, env = "GIBBON_BENCH_ENDPOINTS", default_value_t = 10)]
    endpoints: usize,
    /// Changes of endpoints that are waited for
    #[arg(long, env = "GIBBON_BENCH_CHANGES", default_value_t = 50)]
    changes: usize,
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
        return isolation::enter();
    };
    let measured = inside
        .prepare()
        .and_then(|()| ControlPlane::start(&inside))
        .and_then(|control_plane| measure(&control_plane, sizes));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            inside.keep_logs();
            ExitCode::FAILURE
        }
    }
}

fn measure(control_plane: &ControlPlane, sizes: Sizes) -> Result<()> {
    let objects = Objects::new(control_plane, sizes.balancers, sizes.endpoints)?;
    let began = Instant::now();
    objects.create()?;
    say(
        "cluster",
        format!(
            "{} Balancers, {} endpoints; created in {:.1} s",
            sizes.balancers,
            sizes.balancers * sizes.endpoints,
            began.elapsed().as_secs_f64()
        ),
    );
    let (time, bytes) = objects.list()?;
    say(
        "lists alone",
        format!("{:.2} s, {:.1} MB of JSON, read by nobody", time.as_secs_f64(), mega(bytes)),
    );

    // Another leads, so that nothing but serving is measured at first.
    objects.hold_lease()?;
    let (gibbon, _) = start(control_plane, "start", sizes)?;
    let probe = Probe::new(&objects, &gibbon)?;
    changes(&probe, "endpoint change", sizes.changes)?;
    balancers(&probe, &objects)?;
    pages(&gibbon)?;
    let scraped = while_scraped(&gibbon, &probe)?;
    say("  endpoint change", probe::summary(&scraped));

    let load = Load::start(gibbon.address, &made::host(0));
    let before = Usage::of(gibbon.pid())?;
    let statuses = objects.statuses()?;
    objects.give_lease()?;
    let first = statuses.first(LIMIT)?;
    let mut meanwhile = Vec::new();
    while !statuses.are_all() && first.elapsed() < PATIENCE {
        meanwhile.push(probe.change(meanwhile.len())?);
        std::thread::sleep(PAUSE);
    }
    let usage = Usage::of(gibbon.pid())?;
    say(
        "statuses",
        format!(
            "{:.1} s for {}, with {:.1} s of processor; resident {:.0} MB",
            (statuses.last() - first).as_secs_f64(),
            statuses.count(),
            usage.cpu.saturating_sub(before.cpu).as_secs_f64(),
            mega(usage.memory),
        ),
    );
    say("  endpoint change", probe::summary(&meanwhile));
    say("  requests", spread(load.stop()));
    changes(&probe, "change as leader", sizes.changes)?;
    drop(gibbon);

    // What most starts are like: all statuses are there.
    objects.hold_lease()?;
    let (gibbon, first) = start(control_plane, "start again", sizes)?;
    std::thread::sleep(Duration::from_secs(5));
    let usage = Usage::of(gibbon.pid())?;
    let idle = usage.cpu.saturating_sub(first.cpu);
    say(
        "5 s later",
        format!(
            "resident {:.0} MB; {:.2} s of processor meanwhile",
            mega(usage.memory),
            idle.as_secs_f64()
        ),
    );
    Ok(())
}

/// Starts a Gibbon for all namespaces, and says what it takes until it is ready.
fn start(control_plane: &ControlPlane, name: &str, sizes: Sizes) -> Result<(Gibbon, Usage)> {
    let began = Instant::now();
    let flags = ["--lease-namespace", "default", "--log", "info,gibbon=debug"];
    let gibbon = Gibbon::start(&control_plane.kubeconfig, &flags);
    while gibbon.page("/readyz").is_none_or(|page| page.status != 200) {
        anyhow::ensure!(began.elapsed() < LIMIT, "not ready: {}", gibbon.log());
        std::thread::sleep(LOOK);
    }
    let time = began.elapsed();
    let usage = Usage::of(gibbon.pid())?;
    say(
        name,
        format!(
            "first table after {:.2} s, {:.3} s of them after the last list; processor {:.2} s; \
             resident {:.0} MB, at most {:.0} MB, {:.1} kB a Balancer",
            time.as_secs_f64(),
            between(&gibbon.log(), "all objects were heard of", "first table in use"),
            usage.cpu.as_secs_f64(),
            mega(usage.memory),
            mega(usage.peak),
            usage.memory as f64 / 1e3 / sizes.balancers as f64,
        ),
    );
    Ok((gibbon, usage))
}

fn changes(probe: &Probe, name: &str, count: usize) -> Result<()> {
    let changes = (0..count).map(|at| probe.change(at)).collect::<Result<Vec<_>>>()?;
    say(name, probe::summary(&changes));
    Ok(())
}

fn balancers(probe: &Probe, objects: &Objects) -> Result<()> {
    let times = (0..10).map(|at| probe.new_balancer(objects, at)).collect::<Result<Vec<_>>>()?;
    say("new Balancer", format!("served after {} of its creation", spread(times)));
    Ok(())
}

/// The admin pages.
fn pages(gibbon: &Gibbon) -> Result<()> {
    for path in ["/metrics", "/table"] {
        let began = Instant::now();
        let size = gibbon.page(path).map_or(0, |page| page.body.len());
        let time = began.elapsed().as_secs_f64();
        say(path, format!("{:.1} MB in {time:.2} s", mega(size as u64)));
    }
    say("  resident", format!("{:.0} MB", mega(Usage::of(gibbon.pid())?.memory)));
    Ok(())
}

/// Changes of endpoints while somebody reads the metrics, one page after the other.
fn while_scraped(gibbon: &Gibbon, probe: &Probe) -> Result<Vec<Change>> {
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while going.load(SeqCst) {
                gibbon.page("/metrics");
            }
        });
        std::thread::sleep(PAUSE);
        let changes = (0..10).map(|at| probe.change(at)).collect();
        going.store(false, SeqCst);
        changes
    })
}

fn say(what: &str, figures: impl std::fmt::Display) {
    println!("{what:<18} {figures}");
}

/// Seconds between two lines of a log.
fn between(log: &str, from: &str, to: &str) -> f64 {
    let at = |text: &str| {
        let line = log.lines().find(|line| line.contains(text)).unwrap_or_default();
        let time = line.split_whitespace().next().unwrap_or_default();
        time.parse::<jiff::Timestamp>().unwrap_or_default()
    };
    at(from).duration_until(at(to)).as_secs_f64()
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
