//! `gibbon import`: other proxies' configurations → Balancers, with an account of every directive.
//!
//! `syntax` reads Apache's language, `read` follows includes and conditions, `site` sorts what is
//! left by virtual host, `members` and `balancers` translate it. Every directive ends in the
//! `report`, which is why each step writes to it.

mod balancers;
pub mod known;
mod members;
mod pattern;
pub mod read;
pub mod replay;
pub mod report;
pub mod run;
mod site;
mod syntax;
mod yaml;

use std::collections::BTreeMap;

pub use syntax::{Error, Place};

use read::{File, Find, Reader};
use report::Report;

use crate::api;

/// What the importer is told besides the files.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Variables, as if by `Define`.
    pub defines: BTreeMap<String, String>,
    /// The namespace whose Services members may become.
    pub services: Option<String>,
}

/// Balancers, and what became of each directive.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The Balancers with the directive that each came from.
    pub balancers: Vec<(String, api::Balancer)>,
    /// What became of the directives.
    pub report: Report,
}

impl Outcome {
    /// The Balancers as YAML.
    #[must_use]
    pub fn yaml(&self) -> String {
        yaml::write(&self.balancers)
    }
}

/// Translates configurations of Apache or of Helicon Ape, as if they were one file.
///
/// # Errors
/// The first line that is no configuration.
pub fn apache(files: &[File], find: &Find<'_>, options: &Options) -> Result<Outcome, Error> {
    let mut reader = Reader::new(find, options.defines.clone());
    let mut directives = Vec::new();
    for (file, text) in files {
        directives.extend(reader.read(file, text)?);
    }
    let mut report = reader.report();
    let sites = site::sites(&directives, &mut report)?;
    let made = balancers::balancers(&sites, options, &mut report);
    report.close();
    let origin = |made: balancers::Made| (report.origin(made.id), made.balancer);
    let balancers = made.into_iter().map(origin).collect();
    Ok(Outcome { balancers, report })
}
