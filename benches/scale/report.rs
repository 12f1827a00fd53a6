//! The section of `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use crate::built::{Built, Lookup, SITES};
use crate::running::{CONNECTIONS, RATE, WINDOW};
use crate::usage::{Usage, mib};
use crate::{Sizes, document, made};

/// What is measured with a process.
pub struct Ran {
    /// From its start until it was ready.
    pub start: Duration,
    /// Some time later.
    pub rest: Usage,
    /// How long each change took, the shortest first.
    pub changes: Vec<Duration>,
    /// Ratios of latencies with changes to those without: medians, 99th percentiles.
    pub ratios: [Vec<f64>; 2],
    /// At the end.
    pub after: Usage,
}

/// What, how much, and the goal.
type Row = (&'static str, String, &'static str);

/// All of it.
pub fn text(sizes: Sizes, built: &Built, lookups: &[Lookup], ran: &Ran) -> Result<String> {
    let Sizes { balancers, endpoints, rounds, .. } = sizes;
    let rows: Vec<Row> = rows_of_memory(built).into_iter().chain(rows_of_process(ran)).collect();
    Ok(format!(
        "{balancers} Balancers with a host, a sticky expression and {endpoints} endpoints each, in {} \
         namespaces. Machine: {}.\n\n{}\n\
         What is built is built in memory, one time after the other, and the medians are told. For the \
         rest a process of one\nworker follows an API server on loopback that is made for the bench: it lists and \
         watches, and does nothing else.\n{RATE} requests a second come on {CONNECTIONS} connections for a host that \
         does not change, whatever becomes of those before;\nlatencies count from when a request was due. Each of \
         {rounds} windows of {} s with changes stands between two without; the\nmedian ratio to those two is told, \
         with the quarters in brackets. Gibbon, its clients and members share the cores.\n\n\
         A request's lookup (goal: < 300 ns), in a random order of hosts and paths; and what comes before \
         it, as its Host is\nread and its path resolved:\n\n{}",
        made::NAMESPACES,
        document::machine()?,
        table(&rows),
        WINDOW.as_secs(),
        table_of(lookups)
    ))
}

/// The part that needs no process.
pub fn in_memory(built: &Built, lookups: &[Lookup]) -> String {
    format!("{}\n{}", table(&rows_of_memory(built)), table_of(lookups))
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| | measured | goal |\n|---|--:|--:|\n");
    for (what, measured, goal) in rows {
        let _ = writeln!(text, "| {what} | {measured} | {goal} |");
    }
    text
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rows_of_memory(built: &Built) -> Vec<Row> {
    let Built { rules, addresses, table, first_change, change } = *built;
    let all = format!(
        "{:.0} ms ({:.0} to rules, {:.0} to addresses, {:.0} to the table)",
        millis(rules + addresses + table),
        millis(rules),
        millis(addresses),
        millis(table)
    );
    vec![
        ("table built from objects, on one core", all, "< 150 ms"),
        (
            "next table after one slice has changed; the first one after Balancers have",
            format!("{:.2} ms; {:.1} ms", millis(change), millis(first_change)),
            "",
        ),
    ]
}

fn rows_of_process(ran: &Ran) -> Vec<Row> {
    let part = |part: usize| millis(ran.changes[(ran.changes.len() - 1) * part / 100]);
    let ratio = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted[(sorted.len() - 1) * part / 4];
        format!("{:.2} ({:.2}–{:.2})", at(2), at(1), at(3))
    };
    let memory = |bytes: u64| format!("{:.0} MiB", mib(bytes));
    let [p50, p99] = &ran.ratios;
    vec![
        (
            "a change of endpoints, from the API server's word to the first request that shows it, 10 ms to \
             settle included",
            format!("{:.0} ms, at most {:.0} ms", part(50), part(100)),
            "< 50 ms",
        ),
        (
            "99th percentile of running requests with 1,000 changes a minute, to that without",
            ratio(p99),
            "≤ 1.10",
        ),
        ("their median", ratio(p50), ""),
        ("resident memory", memory(ran.rest.memory), "< 200 MiB"),
        ("at most, while it starts", memory(ran.rest.peak), ""),
        ("after all these changes", memory(ran.after.memory), ""),
        (
            "from the start of the process to readiness",
            format!("{:.2} s", ran.start.as_secs_f64()),
            "",
        ),
    ]
}

fn table_of(lookups: &[Lookup]) -> String {
    let mut text =
        String::from("| hosts | paths of each | lookup, ns | before, ns |\n|--:|--:|--:|--:|\n");
    for (site, Lookup { finding, reading }) in SITES.iter().zip(lookups) {
        let kind = if site.wildcards { " wildcards" } else { "" };
        let (hosts, paths) = (site.hosts, site.paths);
        let _ = writeln!(text, "| {hosts}{kind} | {paths} | {finding:.0} | {reading:.0} |");
    }
    text
}
