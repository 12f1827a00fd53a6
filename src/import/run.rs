//! `gibbon import apache`: files in, Balancers and an account out.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::replay::{self, Requests};
use super::{Options, Outcome, read};
use crate::args::{ImportApache, ReportFormat};

/// The exit status of `--strict` when something was dropped.
const DROPPED: u8 = 2;

/// Does what the arguments say.
///
/// # Errors
/// Files that cannot be read or written, and the first line that is no configuration.
pub fn apache(args: &ImportApache) -> anyhow::Result<ExitCode> {
    let outcome = outcome(args)?;
    std::io::stdout().write_all(outcome.yaml().as_bytes())?;
    let report = match args.format {
        ReportFormat::Text => outcome.report.text(),
        ReportFormat::Json => outcome.report.json(),
    };
    match &args.report {
        Some(path) => std::fs::write(path, report)
            .with_context(|| format!("{} cannot be written", path.display()))?,
        None => std::io::stderr().write_all(report.as_bytes())?,
    }
    let failed = args.strict && outcome.report.drops();
    Ok(if failed { ExitCode::from(DROPPED) } else { ExitCode::SUCCESS })
}

/// Compares two fronts; exit status 1 if they differ.
///
/// # Errors
/// A file that cannot be read, and URLs that name no host.
pub async fn replay(args: &ImportApache) -> anyhow::Result<ExitCode> {
    let ([old, new], Some(path)) = (args.replay.as_slice(), &args.requests) else {
        anyhow::bail!("--replay needs two URLs, and --requests");
    };
    let bytes =
        std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let requests = Requests::read(&String::from_utf8_lossy(&bytes));
    if requests.asked.is_empty() {
        anyhow::bail!("{} has no safe request", path.display());
    }
    let comparison = replay::run(old, new, &requests).await?;
    std::io::stdout().write_all(comparison.text(&requests).as_bytes())?;
    Ok(if comparison.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn outcome(args: &ImportApache) -> anyhow::Result<Outcome> {
    let read = |path: &Path| {
        let bytes =
            std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        anyhow::Ok((path.display().to_string(), text))
    };
    let files = args.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let options =
        Options { defines: args.define.iter().cloned().collect(), services: args.services.clone() };
    Ok(super::apache(&files, &read::find, &options)?)
}
