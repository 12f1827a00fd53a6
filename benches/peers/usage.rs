//! What a process and its children use, as the kernel tells.

use std::time::Duration;

use anyhow::{Context, Result};

/// So far, or now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on a core, to the nanosecond.
    pub cpu: Duration,
    /// Bytes that are resident, less what several of the processes have in common with others.
    pub memory: u64,
    /// Bytes that were resident at most, of each process.
    pub peak: u64,
}

impl Usage {
    /// Of a process with all its children.
    pub fn of(process: u32) -> Result<Self> {
        let mut all = Self::default();
        for process in family(process)? {
            all.cpu += cpu(process)?;
            all.memory += kib(process, "smaps_rollup", "Pss:")? * 1024;
            all.peak += kib(process, "status", "VmHWM:")? * 1024;
        }
        Ok(all)
    }
}

/// Time on a core, of a process with all its children.
pub fn cpu_of(process: u32) -> Result<Duration> {
    family(process)?.into_iter().map(cpu).sum()
}

fn cpu(process: u32) -> Result<Duration> {
    let mut all = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        all += Duration::from_nanos(nanos.context("schedstat")?);
    }
    Ok(all)
}

/// The value of a line such as `VmHWM:   1234 kB`.
fn kib(process: u32, file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)).context(file.to_owned())?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// A process and its children, and theirs.
pub fn family(process: u32) -> Result<Vec<u32>> {
    let mut all = vec![process];
    let mut at = 0;
    while at < all.len() {
        let path = format!("/proc/{0}/task/{0}/children", all[at]);
        let text = std::fs::read_to_string(path)?;
        all.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    Ok(all)
}

/// How the tables tell memory.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
