//! Names of members → addresses, asked again as they age.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::table::{Authority, Backends, Host, Rule, Target};

/// An answer is used no shorter and no longer than this, whatever its time to live says.
const TTL_LEAST: Duration = Duration::from_secs(1);
const TTL_MOST: Duration = Duration::from_secs(30);
/// A name that does not resolve, or a resolver that does not answer, is asked again after this.
const RETRY: Duration = Duration::from_secs(2);
/// How long a table waits for the names of new members to be resolved; the one before serves.
const NEW_NAMES: Duration = Duration::from_secs(3);

/// A name and a port.
pub type Name = (Arc<str>, u16);

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its addresses, and how long they hold.
    Addresses(Vec<SocketAddr>, Duration),
    /// There is no such name.
    Unknown,
    /// Nobody could say: what was known before still counts.
    Trouble(String),
}

/// Finds addresses: those given by hand first, then DNS with the hosts file and search list.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    fixed: Arc<Mutex<HashMap<Name, Answer>>>,
    system: Option<TokioResolver>,
}

impl Resolver {
    /// One that asks the system's name servers.
    ///
    /// # Errors
    /// When the system's configuration cannot be read.
    pub fn system() -> Result<Self, NetError> {
        let system = TokioResolver::builder_tokio()?.build()?;
        Ok(Self { fixed: Arc::default(), system: Some(system) })
    }

    /// Answers for a name and port by hand from now on.
    pub fn fix(&self, name: &str, port: u16, answer: Answer) {
        let mut fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        fixed.insert((name.to_ascii_lowercase().into(), port), answer);
    }

    /// The addresses of a name.
    pub async fn resolve(&self, name: &Name) -> Answer {
        let fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match (fixed, &self.system) {
            (Some(answer), _) => answer,
            (None, Some(system)) => ask(system, name).await,
            (None, None) => Answer::Unknown,
        }
    }
}

async fn ask(resolver: &TokioResolver, (name, port): &Name) -> Answer {
    match resolver.lookup_ip(&**name).await {
        Ok(found) => {
            let ttl = found.valid_until().saturating_duration_since(std::time::Instant::now());
            let addresses: BTreeSet<_> =
                found.iter().map(|ip| SocketAddr::new(ip, *port)).collect();
            Answer::Addresses(addresses.into_iter().collect(), ttl)
        }
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => Answer::Unknown,
        Err(error) => Answer::Trouble(error.to_string()),
    }
}

/// What has become of a name.
pub type News = (Name, Answer);

/// The names that are wanted: each is followed by a task of its own, and what is known of it kept.
#[derive(Debug)]
pub struct Names {
    resolver: Resolver,
    sender: UnboundedSender<News>,
    news: UnboundedReceiver<News>,
    tasks: HashMap<Name, JoinHandle<()>>,
    known: HashMap<Name, Arc<Backends>>,
    /// Why a name could not be looked up the last time.
    troubles: HashMap<Name, String>,
}

impl Names {
    /// Follows nothing yet.
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        let (sender, news) = unbounded_channel();
        Self {
            resolver,
            sender,
            news,
            tasks: HashMap::new(),
            known: HashMap::new(),
            troubles: HashMap::new(),
        }
    }

    /// What is behind each name, as far as it is known.
    #[must_use]
    pub const fn known(&self) -> &HashMap<Name, Arc<Backends>> {
        &self.known
    }

    /// Follows these names from now on, and no others.
    pub fn follow(&mut self, names: &BTreeSet<Name>) {
        self.known.retain(|name, _| names.contains(name));
        self.troubles.retain(|name, _| names.contains(name));
        self.tasks.retain(|name, task| {
            let wanted = names.contains(name);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for name in names {
            self.follow_too(name);
        }
    }

    fn follow_too(&mut self, name: &Name) {
        if !self.tasks.contains_key(name) {
            let asking = keep_asking(self.resolver.clone(), name.clone(), self.sender.clone());
            self.tasks.insert(name.clone(), tokio::spawn(asking));
        }
    }

    /// The next that is heard of any name; never ends.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // Not while `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Follows these names besides the others, and waits a while for the new ones to be resolved, so
    /// that the next table has their members.
    pub async fn wait_for(&mut self, names: &BTreeSet<Name>) {
        let mut missing = names.clone();
        missing.retain(|name| !self.known.contains_key(name));
        for name in &missing {
            self.follow_too(name);
        }
        let until = Instant::now() + NEW_NAMES;
        while !missing.is_empty() {
            let Ok(news) = timeout_at(until, self.news()).await else { break };
            missing.remove(&news.0);
            self.learn(news);
        }
    }

    /// Takes over what is known of a name. True if its addresses have changed.
    pub fn learn(&mut self, (name, answer): News) -> bool {
        let addresses = match answer {
            Answer::Addresses(addresses, _) => addresses,
            Answer::Unknown => Vec::new(),
            Answer::Trouble(error) => {
                if self.troubles.get(&name) != Some(&error) {
                    tracing::warn!(name = %name.0, error, "name cannot be looked up; its last addresses stay");
                    self.troubles.insert(name, error);
                }
                return false;
            }
        };
        self.troubles.remove(&name);
        // What was asked for before it was let go.
        if !self.tasks.contains_key(&name) {
            return false;
        }
        let found: Backends = addresses.into_iter().collect();
        if self.known.get(&name).is_some_and(|before| **before == found) {
            return false;
        }
        if found.endpoints().is_empty() {
            tracing::warn!(name = %name.0, "name does not resolve: its members are unavailable");
        }
        self.known.insert(name, Arc::new(found));
        true
    }
}

/// The names that rules have members at.
pub fn names_of<'r>(rules: impl IntoIterator<Item = &'r Arc<Rule>>) -> BTreeSet<Name> {
    let entries = rules.into_iter().flat_map(|rule| &rule.entries);
    let names = entries.filter_map(|entry| match &entry.target {
        Target::Url(Authority { host: Host::Name(name), port, .. }) => {
            Some((Arc::clone(name), *port))
        }
        _ => None,
    });
    names.collect()
}

impl Drop for Names {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn keep_asking(resolver: Resolver, name: Name, news: UnboundedSender<News>) {
    loop {
        let answer = resolver.resolve(&name).await;
        let wait = match &answer {
            Answer::Addresses(_, ttl) => (*ttl).clamp(TTL_LEAST, TTL_MOST),
            Answer::Unknown | Answer::Trouble(_) => RETRY,
        };
        if news.send((name.clone(), answer)).is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}
