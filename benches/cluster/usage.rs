//! What a process has used, and what its log says of times.

use std::time::Duration;

use crate::gibbon::Gibbon;

/// Of the times in `/proc/PID/stat`.
const TICKS: u64 = 100;

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Time of the processor, in user and kernel mode.
    pub processor: Duration,
    /// Bytes of memory now.
    pub resident: u64,
    /// Bytes of memory at most.
    pub peak: u64,
}

impl Usage {
    /// Of a Gibbon that runs.
    pub fn of(gibbon: &Gibbon) -> Self {
        let read =
            |file| std::fs::read_to_string(format!("/proc/{}/{file}", gibbon.pid())).unwrap();
        let (stat, status) = (read("stat"), read("status"));
        // The name in brackets may hold anything.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        let bytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        Self {
            processor: Duration::from_millis(ticks * 1000 / TICKS),
            resident: bytes("VmRSS:"),
            peak: bytes("VmHWM:"),
        }
    }
}

/// Seconds between two lines of a log.
pub fn between(log: &str, from: &str, to: &str) -> f64 {
    let at = |text: &str| {
        let line = log.lines().find(|line| line.contains(text)).unwrap_or_default();
        let time = line.split_whitespace().next().unwrap_or_default();
        time.parse::<jiff::Timestamp>().unwrap_or_default()
    };
    at(from).duration_until(at(to)).as_secs_f64()
}
