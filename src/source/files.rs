//! A directory instead of a cluster: reads the Balancers in its YAML files and follows changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::certificate::{Content, Found, Keeper, Named};
use super::document::{self, Fault, Parsed};
use super::names::{Names, Resolver, names_of};
use super::{Publisher, balancer};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::table::tls::SecretId;
use crate::table::{Endpoints, Rule, RuleId, Table};

/// A change is read when nothing has moved for this long, so that an editor can finish writing; but
/// no later than the other after its first sign.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_MOST: Duration = Duration::from_secs(1);
/// A file that held Balancers and is empty is believed after this time: it may be being written.
const EMPTY: Duration = Duration::from_secs(2);
/// The directory is looked through this often even if nobody tells of a change.
const LOOK: Duration = Duration::from_secs(5);

/// What a file holds, or why it cannot be used.
#[derive(Debug, Default)]
pub struct Reading {
    /// Its rules; those without faults.
    pub rules: Vec<Arc<Rule>>,
    /// Its Secrets.
    pub secrets: Vec<(SecretId, Content)>,
    /// What is wrong, by line.
    pub faults: Vec<Fault>,
}

/// Reads the Balancers in a text.
#[must_use]
pub fn read(text: &str) -> Reading {
    let Parsed { documents, secrets, faults } = document::read(text);
    let mut reading = Reading { rules: Vec::new(), secrets, faults };
    for document in documents {
        match balancer::rule(&document.balancer, balancer::Place::File) {
            Ok(rule) if document.faults.is_empty() => reading.rules.push(Arc::new(rule)),
            Ok(_) => {}
            Err(problems) => reading.faults.extend(problems.into_iter().map(|problem| Fault {
                line: document.line_of(&problem.field),
                field: problem.field,
                message: problem.message,
            })),
        }
        reading.faults.extend(document.faults);
    }
    reading.faults.sort_by_key(|fault| fault.line);
    reading
}

/// Balancers that occur more than once in these files: the first file by name holds one, what is
/// returned are the others with the file that holds it.
#[must_use]
pub fn repeated<'f>(
    files: impl Iterator<Item = (&'f Path, &'f [Arc<Rule>])>,
) -> Vec<(&'f Path, RuleId, &'f Path)> {
    let mut held: BTreeMap<&RuleId, &Path> = BTreeMap::new();
    let mut repeated = Vec::new();
    for (path, rules) in files {
        for rule in rules {
            match held.get(&rule.id) {
                Some(holder) => repeated.push((path, rule.id.clone(), *holder)),
                None => drop(held.insert(&rule.id, path)),
            }
        }
    }
    repeated
}

/// A file as it was read last.
#[derive(Debug, Default)]
struct File {
    text: Option<String>,
    /// A version without faults was taken over.
    good: bool,
    /// The rules in use: of the last version without faults, else what could be read.
    rules: Vec<Arc<Rule>>,
    secrets: Vec<(SecretId, Content)>,
    complaints: Vec<String>,
    /// Since when it has been empty.
    empty_since: Option<Instant>,
}

impl File {
    /// Takes a new version over. One with faults leaves a good one before it in use. False if
    /// nothing was taken over yet.
    fn update(&mut self, text: String) -> bool {
        let reading = read(&text);
        let holds = |rules: &[_], secrets: &[_]| !rules.is_empty() || !secrets.is_empty();
        let is_empty = !holds(&reading.rules, &reading.secrets) && reading.faults.is_empty();
        if holds(&self.rules, &self.secrets) && is_empty {
            let since = *self.empty_since.get_or_insert_with(Instant::now);
            if since.elapsed() < EMPTY {
                return false;
            }
        }
        self.empty_since = None;
        self.text = Some(text);
        self.complaints = reading.faults.iter().map(ToString::to_string).collect();
        if reading.faults.is_empty() || !self.good {
            self.good = reading.faults.is_empty();
            self.rules = reading.rules;
            self.secrets = reading.secrets;
        }
        true
    }
}

/// Follows a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// The directory itself could not be read.
    gone: bool,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    publisher: Publisher,
    names: Names,
    certificates: Keeper,
    /// The Secret of the certificate for hosts that have none.
    default: Option<SecretId>,
    /// Neither Gibbon nor a proxy that it trusts speaks TLS with clients.
    plain: bool,
}

impl Directory {
    /// A directory that was not read yet; `default` names the Secret of the certificate for hosts
    /// that have none.
    #[must_use]
    pub fn new(
        path: PathBuf,
        resolver: Resolver,
        publisher: Publisher,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        default: Option<SecretId>,
    ) -> Self {
        let (files, names) = (BTreeMap::new(), Names::new(resolver));
        let (certificates, gone, plain) = (Keeper::default(), false, false);
        Self { path, files, gone, health, metrics, publisher, names, certificates, default, plain }
    }

    /// Complains of redirects to TLS, for nobody speaks it with clients.
    #[must_use]
    pub fn without_tls(self, plain: bool) -> Self {
        Self { plain, ..self }
    }

    /// Publishes what the directory holds, and from then on each change, for ever.
    ///
    /// # Errors
    /// When the directory cannot be read or watched at the start.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let (sender, mut changes) = unbounded_channel();
        let mut watcher = watch(&self.path, sender.clone())?;
        self.look()?;
        self.names_known().await;
        self.publish();
        self.health.set_serving();
        let mut next_look = Instant::now() + LOOK;
        loop {
            tokio::select! {
                Some(()) = changes.recv() => {
                    settle(&mut changes).await;
                    self.look_again(&sender, &mut watcher).await;
                    next_look = Instant::now() + EMPTY;
                }
                news = self.names.news() => {
                    if self.names.learn(news) {
                        self.publish();
                    }
                }
                () = sleep_until(next_look) => {
                    next_look = Instant::now() + LOOK;
                    self.look_again(&sender, &mut watcher).await;
                }
            }
        }
    }

    async fn look_again(&mut self, sender: &UnboundedSender<()>, watcher: &mut RecommendedWatcher) {
        let looked = self.look();
        let complaint = looked.as_ref().err().map(ToString::to_string);
        let was_gone = std::mem::replace(&mut self.gone, complaint.is_some());
        self.complain(&self.path.display().to_string(), complaint.as_slice());
        if was_gone && !self.gone {
            // What was watched is another directory now.
            match watch(&self.path, sender.clone()) {
                Ok(new) => *watcher = new,
                Err(error) => tracing::warn!(%error, "changes are seen late: no watch"),
            }
        }
        let due = self.certificates.is_due(Timestamp::now().as_second());
        if looked.is_ok_and(|changed| changed) || due {
            self.names_known().await;
            self.publish();
        }
    }

    /// Says what is wrong with a source: in the log if that is news, in the metric, for `/readyz`.
    fn complain(&self, source: &str, complaints: &[String]) {
        let invalid = i64::from(!complaints.is_empty());
        self.metrics.source_invalid.with_label_values(&[source]).set(invalid);
        if !self.health.complain(source, complaints) {
            return;
        }
        for complaint in complaints {
            tracing::error!(source, complaint, "not in use as it is; what it held stays in use");
        }
        if complaints.is_empty() {
            tracing::info!(source, "in use again");
        }
    }

    /// Reads what is new. True if anything is.
    fn look(&mut self) -> anyhow::Result<bool> {
        let paths = yaml_files(&self.path)?;
        let before = self.files.len();
        self.files.retain(|path, _| {
            let stays = paths.contains(path);
            if !stays {
                tracing::info!(file = %path.display(), "file is gone");
                let name = label(path);
                self.health.complain(&name, &[]);
                let _ = self.metrics.source_invalid.remove_label_values(&[&name]);
            }
            stays
        });
        let mut changed = self.files.len() != before;
        for path in paths {
            changed |= self.read_file(path);
        }
        if changed {
            self.report();
        }
        Ok(changed)
    }

    fn read_file(&mut self, path: PathBuf) -> bool {
        let text = std::fs::read_to_string(&path);
        let file = self.files.entry(path);
        match text {
            Ok(text) => {
                let is_new = matches!(file, std::collections::btree_map::Entry::Vacant(_));
                let file = file.or_default();
                (is_new || file.text.as_ref() != Some(&text)) && file.update(text)
            }
            Err(error) => {
                let complaint = vec![format!("cannot be read: {error}")];
                let file = file.or_default();
                let changed = file.complaints != complaint;
                file.text = None;
                file.complaints = complaint;
                changed
            }
        }
    }

    /// Says what is wrong with each file.
    fn report(&self) {
        let files = self.files.iter().map(|(path, file)| (path.as_path(), &*file.rules));
        let mut complaints: BTreeMap<&Path, Vec<String>> =
            self.files.iter().map(|(path, f)| (path.as_path(), f.complaints.clone())).collect();
        for (path, id, holder) in repeated(files) {
            let complaint = format!("{id} is in {} already, which holds it", holder.display());
            complaints.entry(path).or_default().push(complaint);
        }
        for (path, complaints) in complaints {
            self.complain(&label(path), &complaints);
        }
    }

    /// The rules in use: each name once, from the first file that has it.
    fn rules(&self) -> Vec<Arc<Rule>> {
        let mut rules: BTreeMap<&RuleId, &Arc<Rule>> = BTreeMap::new();
        for rule in self.files.values().flat_map(|file| &file.rules) {
            rules.entry(&rule.id).or_insert(rule);
        }
        rules.into_values().map(Arc::clone).collect()
    }

    async fn names_known(&mut self) {
        let names = names_of(&self.rules());
        self.names.wait_for(&names).await;
    }

    fn publish(&mut self) {
        let rules = self.rules();
        self.names.follow(&names_of(&rules));
        self.keep_certificates(&rules);
        let mut certificates = self.certificates.certificates();
        let default = self.default.as_ref().and_then(|id| certificates.get(id).cloned());
        certificates.retain(|id, _| rules.iter().any(|rule| names_secret(rule, id)));
        let endpoints = Endpoints {
            names: self.names.known().clone(),
            certificates,
            default_certificate: default,
            client_cas: self.certificates.client_cas(),
            trusts: self.certificates.trusts(),
            ..Endpoints::default()
        };
        let table = self.publisher.publish(&rules, &endpoints, None);
        self.report_certificates(&rules, &table);
    }

    fn keep_certificates(&mut self, rules: &[Arc<Rule>]) {
        let mut named = Named::by(rules);
        named.certificates.extend(self.default.clone());
        let held: BTreeMap<&SecretId, &Content> = self
            .files
            .values()
            .rev()
            .flat_map(|file| &file.secrets)
            .map(|(id, content)| (id, content))
            .collect();
        let now = Timestamp::now().as_second();
        let find = |id: &SecretId| held.get(id).map_or(Found::Nothing, |held| Found::Content(held));
        self.certificates.keep(&named, find, now);
    }

    /// Says what is wrong with certificates and authorities.
    fn report_certificates(&self, rules: &[Arc<Rule>], table: &Table) {
        let now = Timestamp::now().as_second();
        let of_rules = self.certificates.complaints(rules, now);
        let of_default = self.default.iter().filter_map(|id| {
            let problem = self.certificates.problem(id, &[], now)?;
            Some(format!("--default-certificate: Secret {id}: {problem}"))
        });
        let unused = &table.certificate_conflicts;
        let unused = unused.iter().map(|unused| format!("{}: {unused}", unused.rule));
        let redirects = |rule: &&Arc<Rule>| rule.tls.as_ref().is_some_and(|tls| tls.redirect);
        let nowhere = rules.iter().filter(|_| self.plain).filter(redirects).map(|rule| {
            format!(
                "{}: spec.tls.redirect: clients are sent to https, which nobody speaks: give \
                 --listen-tls, or --trusted-proxies if a proxy in front does",
                rule.id
            )
        });
        let complaints: Vec<_> =
            of_rules.into_iter().chain(of_default).chain(unused).chain(nowhere).collect();
        self.complain("certificates", &complaints);
    }
}

fn names_secret(rule: &Rule, id: &SecretId) -> bool {
    rule.tls.as_ref().is_some_and(|tls| tls.secret.as_ref() == Some(id))
}

/// Waits until nothing moves any more.
async fn settle(changes: &mut UnboundedReceiver<()>) {
    let most = Instant::now() + SETTLE_MOST;
    let quiet = || (Instant::now() + SETTLE).min(most);
    while let Ok(Some(())) = timeout_at(quiet(), changes.recv()).await {
        if Instant::now() >= most {
            return;
        }
    }
}

/// The YAML files of a directory, or a single file. Hidden ones are left out.
///
/// # Errors
/// When the directory cannot be read.
pub fn yaml_files(path: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let entries = std::fs::read_dir(path)
        .map_err(|error| anyhow::anyhow!("{} cannot be read: {error}", path.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    // A link whose target is away for a moment is a file that cannot be read, not one that is gone.
    Ok(paths.filter(|path| is_yaml(path) && (path.is_file() || path.is_symlink())).collect())
}

fn is_yaml(path: &Path) -> bool {
    let hidden = label(path).starts_with('.');
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml"))
}

fn label(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Tells of changes in the directory. A mounted `ConfigMap` changes by swapping a link in it.
fn watch(path: &Path, changes: UnboundedSender<()>) -> anyhow::Result<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading the files must not look like a change of them.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Nobody listens any more at the end of the process.
            let _ = changes.send(());
        }
    };
    let mut watcher = notify::recommended_watcher(tell)?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
