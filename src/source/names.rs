//! Names of members → addresses, asked again as they age.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// An answer is used no shorter and no longer than this, whatever its time to live says.
const TTL_LEAST: Duration = Duration::from_secs(1);
const TTL_MOST: Duration = Duration::from_secs(30);
/// A name that does not resolve, or a resolver that does not answer, is asked again after this.
const RETRY: Duration = Duration::from_secs(2);

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

/// Follows the names that are wanted, each with a task of its own.
#[derive(Debug)]
pub struct Follower {
    resolver: Resolver,
    news: UnboundedSender<News>,
    tasks: HashMap<Name, JoinHandle<()>>,
}

impl Follower {
    /// Follows nothing yet; sends what it learns to `news`.
    #[must_use]
    pub fn new(resolver: Resolver, news: UnboundedSender<News>) -> Self {
        Self { resolver, news, tasks: HashMap::new() }
    }

    /// Follows these names from now on, and no others.
    pub fn follow(&mut self, names: BTreeSet<Name>) {
        self.tasks.retain(|name, task| {
            let wanted = names.contains(name);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for name in names {
            let (resolver, news) = (self.resolver.clone(), self.news.clone());
            let start = |name: &Name| tokio::spawn(keep_asking(resolver, name.clone(), news));
            self.tasks.entry(name).or_insert_with_key(start);
        }
    }
}

impl Drop for Follower {
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
