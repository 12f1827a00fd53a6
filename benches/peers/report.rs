//! The section of `docs/benchmarks.md`.

use std::fmt::Write as _;

use anyhow::Result;

use crate::load::Shape;
use crate::measure::{CONNECTIONS, Compared, Ratios, SHARE, WINDOW, median, quarter};
use crate::memory::{BODIES, IDLE, IDLE_FOR, SLOW};
use crate::proxies::Peer;
use crate::{LARGE, MEDIUM, POST, Results, SMALL, TLS, USUAL, document};

/// What the proxies are told beside where to listen and whom to ask.
const CONFIGURATIONS: [(&str, &str); 7] = [
    ("Gibbon", "built as its image, by `benches/profile-guided`"),
    (
        "nginx",
        "built from its source with `-O2`; `least_conn`, `keepalive 64` to members, HTTP/1.1 to members, \
         `keepalive_requests 1000000`, `worker_connections 16384`; in a column of its own `proxy_buffers 8 64k`",
    ),
    (
        "HAProxy",
        "of Debian; `balance leastconn`, `http-reuse always`, checks every 2 s with `observe layer7`, `maxconn 8192`",
    ),
    (
        "Apache",
        "of Debian; event MPM with 64 threads a process, `lbmethod=bybusyness`, `keepalive=On`, \
         `MaxKeepAliveRequests 0`, `AsyncRequestWorkerFactor 100` so that it keeps idle clients",
    ),
    (
        "Pingora",
        "a proxy with its `LoadBalancer<RoundRobin>` (`benches/peers/pingora`), fat LTO, mimalloc, no TLS",
    ),
    (
        "Envoy",
        "`LEAST_REQUEST`, `generate_request_id: false`, `use_remote_address: true`, `--concurrency 1`",
    ),
    (
        "Caddy",
        "`lb_policy least_conn`, `keepalive_idle_conns_per_host 64`, HTTP/1.1 only, `GOMAXPROCS=1`",
    ),
];

/// Whom Gibbon is to be ahead of, whatever the shape.
const OTHERS: [Peer; 5] =
    [Peer::HaproxyLeastConn, Peer::ApacheByBusyness, Peer::Pingora, Peer::Envoy, Peer::Caddy];

/// All of it.
pub fn text(
    versions: &[String],
    missing: &[&str],
    results: &Results,
    rounds: usize,
) -> Result<String> {
    let mut text = introduction(versions, missing, rounds)?;
    goals(&mut text, results);
    tables(&mut text, "closed loop", &results.closed);
    let rates = results.open.iter().map(|c| format!("{} {:.0}/s", c.shape.name, c.rate));
    let rates = rates.collect::<Vec<_>>().join(", ");
    tables(&mut text, &format!("open loop, {rates}"), &results.open);
    if !results.memory.is_empty() {
        memory(&mut text, results);
    }
    Ok(text)
}

fn introduction(versions: &[String], missing: &[&str], rounds: usize) -> Result<String> {
    let mut text =
        format!("Machine: {}. Versions: {}.\n", document::machine()?, versions.join(", "));
    if !missing.is_empty() {
        let _ = writeln!(text, "Not to be had here, and left out: {}.", missing.join(", "));
    }
    let _ = write!(
        text,
        "\nThe proxies have one core and one worker, and one thread on another core is all clients and both \
         members; it\nspins, so that nobody pays for waking it. {CONNECTIONS} connections with HTTP/1.1 keep-alive, \
         no access logs, in a network of its own with TCP Reno, as BBR paces what it sends. Gibbon has\nthe rules of a site with static files and an application \
         with sessions, and everything that is on by default: metrics,\nestimates, reversal, timeouts. Each of \
         {rounds} windows of {} ms of a proxy stands between two of nginx, and the figures are\nthe median of the \
         ratios to those two (nginx is 1; lower is better), with the quarters in brackets. CPU is user and\n\
         kernel time of all the proxy's threads. In a closed loop each client asks again as soon as it is \
         answered; in an open\none all proxies get the same rate, {:.0} % of what nginx could do before, and \
         latencies count from when a request was due:\na proxy that cannot keep up is far over 1.\n\n",
        WINDOW.as_millis(),
        SHARE * 100.0
    );
    for (name, configuration) in CONFIGURATIONS {
        let _ = writeln!(text, "* {name}: {configuration}.");
    }
    text.push('\n');
    Ok(text)
}

/// One of a proxy's figures.
type Figure = fn(&Ratios) -> &Vec<f64>;

/// Of one proxy at one shape.
fn ratios<'r>(all: &'r [Compared], shape: &Shape, peer: Peer) -> Option<&'r Ratios> {
    let compared = all.iter().find(|compared| compared.shape.name == shape.name)?;
    compared.ratios.iter().find(|(of, _)| *of == peer)?.1.as_ref()
}

/// What must hold of Gibbon, and whether it does.
fn goals(text: &mut String, results: &Results) {
    let mut rows: Vec<(String, Option<f64>, f64)> = Vec::new();
    let cpu = |shape: &Shape, peer| {
        ratios(&results.closed, shape, peer).map(|ratios| median(&ratios.cpu))
    };
    let shapes =
        [(SMALL, 0.97), (USUAL, 0.97), (MEDIUM, 0.87), (POST, 0.93), (LARGE, 0.35), (TLS, 0.85)];
    for (shape, limit) in shapes {
        let name = format!("CPU a request to nginx's, {}", shape.name);
        rows.push((name, cpu(&shape, Peer::Gibbon), limit));
    }
    for compared in &results.closed {
        let of = |peer| Some((cpu(&compared.shape, peer)?, peer));
        let next = OTHERS.into_iter().filter_map(of).min_by(|a, b| a.0.total_cmp(&b.0));
        if let (Some((own, _)), Some((best, peer))) = (of(Peer::Gibbon), next) {
            let name =
                format!("to that of {}, the best but nginx, {}", peer.label(), compared.shape.name);
            rows.push((name, Some(own / best), 1.0));
        }
    }
    for (shape, limit) in [(MEDIUM, 1.05), (LARGE, 0.75)] {
        let both = cpu(&shape, Peer::Gibbon).zip(cpu(&shape, Peer::NginxLarge));
        let name = format!("to nginx's with large buffers, {}", shape.name);
        rows.push((name, both.map(|(own, large)| own / large), limit));
    }
    let loops = [("closed", &results.closed), ("open", &results.open)];
    for (name, all) in loops {
        for compared in all {
            let found = ratios(all, &compared.shape, Peer::Gibbon);
            let name = format!("99th percentile to nginx's, {name} loop, {}", compared.shape.name);
            rows.push((name, found.map(|ratios| median(&ratios.p99)), 1.0));
        }
    }
    let two = |compared: &Compared| {
        compared.ratios.first().and_then(|(_, ratios)| Some(median(&ratios.as_ref()?.cpu)))
    };
    let alike = [
        ("with two workers to that with one", &results.threads, 1.05),
        ("with an access log to that without", &results.logs, 1.08),
    ];
    for (name, compared, limit) in alike {
        if let Some(own) = compared.first() {
            let nginx = compared.get(1).and_then(two).unwrap_or(f64::NAN);
            let name = format!("CPU a request {name} (nginx: {nginx:.2})");
            rows.push((name, two(own), limit));
        }
    }
    let memory = results.memory.iter().find(|(peer, _)| *peer == Peer::Gibbon);
    if let Some((_, memory)) = memory {
        rows.push(("MiB at rest".to_owned(), Some(memory.rest), 25.0));
        for (kind, idle) in ["GET", "POST"].into_iter().zip(memory.idle) {
            rows.push((format!("KiB an idle connection after a {kind}"), idle, 13.0));
        }
        rows.push((format!("MiB more with {BODIES} bodies of 1 MiB"), memory.bodies, 30.0));
    }
    text.push_str(
        "### Gibbon and what it should be\n\n| | measured | goal | |\n|---|--:|--:|---|\n",
    );
    for (name, value, limit) in rows.into_iter().filter_map(|(n, v, l)| Some((n, v?, l))) {
        let digits = if limit > 2.0 { 1 } else { 2 };
        let verdict = if value <= limit { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {name} | {value:.digits$} | ≤ {limit:.digits$} | {verdict} |");
    }
    if !results.threads.is_empty() {
        text.push_str(
            "\nTwo workers and one are compared in turn on both cores, together with the load, which has no \
             core of its own then:\nthere are only two.\n",
        );
    }
    text.push('\n');
}

fn tables(text: &mut String, name: &str, all: &[Compared]) {
    let titles: [(&str, Figure); 3] = [
        ("CPU a request", |ratios| &ratios.cpu),
        ("Latency, median", |ratios| &ratios.p50),
        ("Latency, 99th percentile", |ratios| &ratios.p99),
    ];
    let mut peers: Vec<Peer> = Vec::new();
    for (peer, _) in all.iter().flat_map(|compared| &compared.ratios) {
        if !peers.contains(peer) {
            peers.push(*peer);
        }
    }
    if peers.is_empty() {
        return;
    }
    for (title, of) in titles {
        let labels: Vec<_> = peers.iter().map(|peer| peer.label()).collect();
        let _ =
            write!(text, "### {title} ({name})\n\n| | {} | nginx, µs |\n|---|", labels.join(" | "));
        let _ = writeln!(text, "{}--:|", "--:|".repeat(peers.len()));
        for compared in all {
            let _ = write!(text, "| {} |", compared.shape.name);
            for peer in &peers {
                match ratios(all, &compared.shape, *peer).map(of) {
                    Some(values) => {
                        let [low, middle, high] = [1, 2, 3].map(|part| quarter(values, part));
                        let digits = if middle < 10.0 { 2 } else { 0 };
                        let _ =
                            write!(text, " {middle:.digits$} ({low:.digits$}–{high:.digits$}) |");
                    }
                    None => text.push_str(" – |"),
                }
            }
            let base = &compared.base;
            let base = match title {
                "CPU a request" => base.cpu,
                "Latency, median" => base.p50,
                _ => base.p99,
            };
            let _ = writeln!(text, " {base:.1} |");
        }
        text.push('\n');
    }
}

fn memory(text: &mut String, results: &Results) {
    let (bytes, every) = SLOW;
    let _ = write!(
        text,
        "### Memory\n\nResident (what is shared by parts), all processes together: before any request; what each of \
         {IDLE} idle client\nconnections adds that has had one GET, or a POST of {} KiB, {} s ago; and what {BODIES} \
         answers of 1 MiB add at most while their\nclients read {} KiB every {} ms.\n\n\
         | | at rest, MiB | idle after GET, KiB | idle after POST, KiB | {BODIES} × 1 MiB under way, MiB \
         |\n|---|--:|--:|--:|--:|\n",
        POST.upload / 1024,
        IDLE_FOR.as_secs(),
        bytes / 1024,
        every.as_millis()
    );
    let told = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.1}"));
    for (peer, memory) in &results.memory {
        let _ = writeln!(
            text,
            "| {} | {:.1} | {} | {} | {} |",
            peer.label(),
            memory.rest,
            told(memory.idle[0]),
            told(memory.idle[1]),
            told(memory.bodies)
        );
    }
}
