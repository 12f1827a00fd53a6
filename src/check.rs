//! `gibbon check`: reads Balancers as `serve` would, and says what is wrong.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::source::certificate::{Content, Found, Keeper, Named};
use crate::source::files::{read, repeated, yaml_files};
use crate::source::trust::ANYBODY;
use crate::table::tls::SecretId;
use crate::table::{Endpoints, Holder, Rule, Table};

/// Reads files and directories; writes `file:line: field: message` for each fault. Returns how many
/// there are.
///
/// # Errors
/// When `out` cannot be written.
pub fn run(paths: &[PathBuf], out: &mut dyn Write) -> std::io::Result<usize> {
    let mut faults = 0;
    let mut files: Vec<(PathBuf, Vec<Arc<Rule>>)> = Vec::new();
    let mut secrets = HashMap::new();
    for path in paths.iter().flat_map(|path| expand(path)) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let reading = read(&text);
                for fault in &reading.faults {
                    writeln!(out, "{}:{}", path.display(), fault)?;
                }
                faults += reading.faults.len();
                warn(&path, &reading.rules, out)?;
                files.push((path, reading.rules));
                for (id, content) in reading.secrets {
                    // The first file that has one holds it.
                    secrets.entry(id).or_insert(content);
                }
            }
            Err(error) => {
                writeln!(out, "{}: cannot be read: {error}", path.display())?;
                faults += 1;
            }
        }
    }
    faults += between(&files, out)?;
    faults += certificates(&files, &secrets, out)?;
    let balancers: usize = files.iter().map(|(_, rules)| rules.len()).sum();
    if files.is_empty() && faults == 0 {
        writeln!(out, "there is no YAML file in what was given")?;
        faults += 1;
    }
    writeln!(out, "Balancers without a fault: {balancers}; faults: {faults}")?;
    Ok(faults)
}

/// Says what is no fault, but should be known.
fn warn(path: &Path, rules: &[Arc<Rule>], out: &mut dyn Write) -> std::io::Result<()> {
    for rule in rules.iter().filter(|rule| rule.upstream_tls.trust.anybody) {
        writeln!(out, "{}: {}: warning: {ANYBODY}", path.display(), rule.id)?;
    }
    Ok(())
}

/// What is wrong with certificates and authorities, of those that are in the files.
fn certificates(
    files: &[(PathBuf, Vec<Arc<Rule>>)],
    secrets: &HashMap<SecretId, Content>,
    out: &mut dyn Write,
) -> std::io::Result<usize> {
    let now = Timestamp::now().as_second();
    let named = Named::by(files.iter().flat_map(|(_, rules)| rules));
    let named = named.among(|id| secrets.contains_key(id));
    let mut keeper = Keeper::default();
    keeper.keep(&named, |id| secrets.get(id).map_or(Found::Nothing, Found::Content), now);
    let mut faults = 0;
    for (path, rules) in files {
        for complaint in keeper.complaints(rules, now) {
            writeln!(out, "{}: {complaint}", path.display())?;
            faults += 1;
        }
    }
    Ok(faults)
}

/// What is wrong between Balancers that are each good.
fn between(files: &[(PathBuf, Vec<Arc<Rule>>)], out: &mut dyn Write) -> std::io::Result<usize> {
    let mut faults = 0;
    let each = files.iter().map(|(path, rules)| (path.as_path(), rules.as_slice()));
    for (path, id, holder) in repeated(each) {
        writeln!(out, "{}: {id} is in {} already", path.display(), holder.display())?;
        faults += 1;
    }
    let rules: Vec<_> = files.iter().flat_map(|(_, rules)| rules).cloned().collect();
    let table =
        Table::build(&rules, &Endpoints::default(), None, &Table::default(), Instant::now());
    for verdict in table.verdicts() {
        // One that occurs twice was named before.
        if verdict.holder != Holder::Rule(verdict.rule.clone()) {
            writeln!(
                out,
                "{}: host {} and path {} are served by {}",
                verdict.rule, verdict.host, verdict.path, verdict.holder
            )?;
            faults += 1;
        }
    }
    Ok(faults)
}

fn expand(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    yaml_files(path).map(|paths| paths.into_iter().collect()).unwrap_or_default()
}
