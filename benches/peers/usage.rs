//! What a process and its children use, as the kernel tells.

use std::time::Duration;

use anyhow::{Context, Result};

/// So far, or now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on a core, to the nanosecond.
    pub cpu: Duration,
    /// MiB that are resident, less what several of the processes have in common with others.
    pub memory: f64,
}

impl Usage {
    /// Of a process with all its children.
    pub fn of(process: u32) -> Result<Self> {
        let mut all = Self::default();
        for process in family(process)? {
            for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
                // A thread may end meanwhile.
                let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                    continue;
                };
                let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
                all.cpu += Duration::from_nanos(nanos.context("schedstat")?);
            }
            let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let kib = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = kib.context("smaps_rollup")?.trim().trim_end_matches(" kB");
            all.memory += kib.trim().parse::<f64>()? / 1024.0;
        }
        Ok(all)
    }
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
