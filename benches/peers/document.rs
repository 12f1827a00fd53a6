//! `docs/benchmarks.md`, where each bench has a section of its own between two comments.

use std::process::Command;

use anyhow::{Context, Result};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");

/// Puts a text in the place of a bench's section.
pub fn write(bench: &str, text: &str) -> Result<()> {
    let before = std::fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
    let after = with(&before, bench, text);
    let after = after.with_context(|| format!("{DOCUMENT} has no section for {bench}"))?;
    Ok(std::fs::write(DOCUMENT, after)?)
}

fn with(document: &str, bench: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- Written by `cargo bench --bench {bench}`. -->\n");
    let end = format!("<!-- End of {bench}. -->");
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

/// What it is measured on.
pub fn machine() -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    // This process may have been given fewer.
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or("of an unknown kind").trim_start_matches(['\t', ' ', ':']);
    let kernel = Command::new("uname").arg("-r").output().context("uname")?.stdout;
    let kernel = String::from_utf8_lossy(&kernel);
    // What comes after the number is the distribution's business.
    let kernel = kernel.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default();
    Ok(format!("{cores} cores, {model}, Linux {kernel}"))
}
