//! A cluster: watches its Balancers, Services and `EndpointSlices`, and publishes what they add up
//! to. An API server that is away changes nothing of what is being served.

pub mod lease;
pub mod object;
pub mod secrets;
pub mod store;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use prometheus::IntGauge;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch as channel;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::Publisher;
use super::certificate::Named;
use super::endpoints::{Resolution, Slice};
use super::names::{Name, Names, Resolver, names_of};
use super::policy::Policy;
use super::status::writer::{Wanted, Writer, conditions_are_alike, is_alike};
use super::status::{ClaimClock, Facts};
use super::trust;
use crate::api::BalancerStatus;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::table::access::{Barred, Networks};
use crate::table::owners::Owners;
use crate::table::path::HostPattern;
use crate::table::tls::SecretId;
use crate::table::upstream::{Protocol, Trust};
use crate::table::{Endpoints, PortRef, Rule, RuleId, ServicePort, Table, Target};
use lease::Election;
use object::Object;
use secrets::Secrets;
use store::{Change, Dirty, Key, Store, Update};
use watch::{Contact, Ears, Told, Watched, excuse, follow};

/// Changes that come together are published together: so long after the first, and never later.
const SETTLE: Duration = Duration::from_millis(10);
/// How long a changed Balancer waits for its new names to be resolved; it is served as before.
const NEW_NAMES: Duration = Duration::from_secs(3);
/// How often it is looked whether the API server still answers.
const LOOK: Duration = Duration::from_secs(1);
/// How long it may be silent. The lease is asked for every other second.
const SILENCE: Duration = Duration::from_secs(8);
/// How long claims and statuses may be thought over later: those that were seen are mostly those that
/// were written.
const SEEN: Duration = Duration::from_millis(200);
/// Statuses thought over at once; whatever is to be served comes in between.
const STATUSES: usize = 200;
/// After statuses were thought over, this multiple of the time that it took is for other things.
const REST: u32 = 9;

/// Seconds after which a watch is begun anew: so long may one go unnoticed whose connection has died
/// without a word.
const WATCH: u32 = 30;
/// Secrets that may be named: all but those that Kubernetes and Helm have many of for themselves.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                       type!=kubernetes.io/dockerconfigjson,type!=bootstrap.kubernetes.io/token";
/// Why Secrets are not read.
const NO_SECRETS: &str = "--listen-tls (the chart's tls.enabled) is not set";
/// The Service of the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// Where clients reach Gibbon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// Nobody has said.
    #[default]
    Nothing,
    /// Where this Service is reached.
    Service(Key),
    /// At these addresses and names.
    Addresses(Vec<String>),
}

/// What a cluster is watched for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// These namespaces only; none is all.
    pub namespaces: Vec<String>,
    /// Balancers of this class, or those without one.
    pub class: Option<String>,
    /// What is allowed to whom.
    pub policy: Policy,
    /// Networks that no member may be in.
    pub deny: Vec<IpNet>,
    /// Gibbon's own addresses.
    pub own: Vec<IpAddr>,
    /// Where clients reach it.
    pub publish: Publish,
    /// Where the lease is; by default the namespace that the client belongs to.
    pub lease_namespace: Option<String>,
    /// The name of the lease; by default that of the field manager.
    pub lease_name: Option<String>,
    /// What this process is called among its likes.
    pub identity: String,
    /// Whether clients speak TLS, so that certificates are needed.
    pub tls: bool,
    /// The Secret of the certificate for hosts that have none.
    pub default_certificate: Option<SecretId>,
}

impl Options {
    /// The name of the field manager.
    #[must_use]
    pub fn manager(&self) -> String {
        store::manager(self.class.as_deref())
    }
}

/// Follows a cluster.
pub struct Cluster {
    client: Client,
    options: Options,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    publisher: Publisher,
    names: Names,
    ending: channel::Receiver<bool>,
}

impl Cluster {
    /// A cluster that was not looked at yet. When `ending` is true, the lease is given back.
    #[must_use]
    pub fn new(
        client: Client,
        options: Options,
        resolver: Resolver,
        publisher: Publisher,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        ending: channel::Receiver<bool>,
    ) -> Self {
        let names = Names::new(resolver);
        Self { client, options, health, metrics, publisher, names, ending }
    }

    /// Publishes what the cluster holds, and from then on each change, for ever.
    ///
    /// # Errors
    /// When another cluster is followed with the same metrics; else it is tried for ever.
    pub async fn run(self) -> anyhow::Result<()> {
        let counted = self.metrics.of_cluster()?;
        let contact = Contact::new(counted.contact.clone());
        let (changes, heard) = unbounded_channel();
        let watches = self.watch(&Ears { changes, contact: contact.clone() });
        let (leader, leads) = channel::channel(false);
        let (statuses, wanted) = channel::channel(Arc::default());
        let manager = self.options.manager();
        let election = Election::new(
            self.client.clone(),
            self.home(),
            self.options.lease_name.clone().unwrap_or_else(|| manager.clone()),
            self.options.identity.clone(),
            leader,
            contact.clone(),
            counted.leads.clone(),
        );
        let writer = Writer::new(
            self.client.clone(),
            manager,
            self.options.identity.clone(),
            counted.statuses.clone(),
        );
        // They end with the process, or with the runtime of a test.
        tokio::spawn(election.run(self.ending.clone()));
        tokio::spawn(writer.run(wanted, leads.clone()));
        let state = State::new(self, watches, contact, statuses, leads, counted.refused);
        state.run(heard).await
    }

    /// The namespace that Gibbon itself is in.
    fn home(&self) -> &str {
        let given = self.options.lease_namespace.as_deref();
        given.unwrap_or_else(|| self.client.default_namespace())
    }

    /// Starts a watch for each kind and scope; returns what each of them watches.
    fn watch(&self, ears: &Ears) -> Vec<Watched> {
        let scopes = |namespaces: Vec<String>| -> Vec<Option<String>> {
            if namespaces.is_empty() {
                vec![None]
            } else {
                namespaces.into_iter().map(Some).collect()
            }
        };
        let mut namespaces = self.options.namespaces.clone();
        namespaces.sort();
        namespaces.dedup();
        let of_balancers = scopes(namespaces.clone());
        if let (Publish::Service((namespace, _)), false) =
            (&self.options.publish, namespaces.is_empty())
            && !namespaces.iter().any(|n| **n == **namespace)
        {
            namespaces.push(namespace.to_string());
        }
        let all = || watcher::Config::default().timeout(WATCH);
        let mut watches = Vec::new();
        for scope in of_balancers {
            let number = named(&mut watches, "balancers", scope.as_ref());
            let api: Api<Object> = self.api(scope.as_ref());
            let (api, ears) = ((api, all()), ears.clone());
            tokio::spawn(follow(number, api, scope, ears, Box::new, Change::Balancers));
        }
        if self.options.tls {
            let mut namespaces = self.options.namespaces.clone();
            if let (Some(default), false) =
                (&self.options.default_certificate, namespaces.is_empty())
            {
                namespaces.push(default.namespace.to_string());
            }
            namespaces.sort();
            namespaces.dedup();
            for scope in scopes(namespaces) {
                let number = named(&mut watches, "secrets", scope.as_ref());
                // Their names and versions, and nothing of what is in them.
                let api: Api<PartialObjectMeta<core::Secret>> = self.api(scope.as_ref());
                let only = all().fields(SECRETS);
                let (ears, change) = (ears.clone(), Change::Secrets);
                tokio::spawn(follow(number, (api, only), scope, ears, store::secret, change));
            }
        }
        for scope in scopes(namespaces) {
            let number = named(&mut watches, "services", scope.as_ref());
            let api: Api<core::Service> = self.api(scope.as_ref());
            let (api, also, change) = ((api, all()), ears.clone(), Change::Services);
            tokio::spawn(follow(number, api, scope.clone(), also, store::service, change));
            let number = named(&mut watches, "endpointslices", scope.as_ref());
            let api: Api<discovery::EndpointSlice> = self.api(scope.as_ref());
            let (api, ears) = ((api, all()), ears.clone());
            tokio::spawn(follow(number, api, scope, ears, store::slice, Change::Slices));
        }
        watches
    }

    fn api<K>(&self, scope: Option<&String>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// Adds a watch to the list; returns its number.
fn named(watches: &mut Vec<Watched>, kind: &str, scope: Option<&String>) -> usize {
    let place = scope.map_or(String::new(), |namespace| format!(" in {namespace}"));
    watches.push(Watched::new(format!("{kind}{place}"), scope.cloned()));
    watches.len() - 1
}

/// What is known, and what was made of it.
struct State {
    options: Options,
    /// The namespace that Gibbon itself is in.
    home: Arc<str>,
    health: Arc<Health>,
    publisher: Publisher,
    names: Names,
    secrets: Secrets,
    store: Store,
    watches: Vec<Watched>,
    contact: Contact,
    /// The rules in use: those of the Balancers, unless they still wait for names.
    in_use: BTreeMap<RuleId, Arc<Rule>>,
    waiting: BTreeMap<RuleId, Instant>,
    resolutions: BTreeMap<ServicePort, Resolution>,
    endpoints: Endpoints,
    owners: Option<Arc<Owners>>,
    table: Arc<Table>,
    statuses: channel::Sender<Arc<Vec<Wanted>>>,
    leads: channel::Receiver<bool>,
    refused: IntGauge,
    /// Services that lead to Gibbon itself.
    own_services: BTreeSet<Key>,
    claims: ClaimClock,
    /// An address of a name has changed.
    learned: bool,
    thoughts: Option<Thoughts>,
}

/// Statuses that are being thought over.
struct Thoughts {
    /// Those to come; the next is the last.
    left: Vec<RuleId>,
    /// Those that should be other than they were seen.
    wanted: Vec<Wanted>,
    /// How long it has taken so far.
    took: Duration,
}

/// When something is to be done.
#[derive(Debug, Default)]
struct Plan {
    publish: Option<Instant>,
    statuses: Option<Instant>,
}

impl State {
    fn new(
        cluster: Cluster,
        watches: Vec<Watched>,
        contact: Contact,
        statuses: channel::Sender<Arc<Vec<Wanted>>>,
        leads: channel::Receiver<bool>,
        refused: IntGauge,
    ) -> Self {
        let home = cluster.home().into();
        let Cluster { client, options, health, publisher, names, .. } = cluster;
        let store = Store::new(options.class.clone(), options.policy.clone());
        let mut state = Self {
            options,
            home,
            health,
            publisher,
            names,
            secrets: Secrets::new(client),
            store,
            watches,
            contact,
            in_use: BTreeMap::new(),
            waiting: BTreeMap::new(),
            resolutions: BTreeMap::new(),
            endpoints: Endpoints::default(),
            owners: None,
            table: Arc::default(),
            statuses,
            leads,
            refused,
            own_services: BTreeSet::new(),
            claims: ClaimClock::new(Timestamp::UNIX_EPOCH),
            learned: false,
            thoughts: None,
        };
        state.bar();
        state
    }

    async fn run(mut self, mut heard: UnboundedReceiver<(usize, Told)>) -> anyhow::Result<()> {
        let mut plan = Plan::default();
        let mut dirty = Dirty::default();
        let mut look = Instant::now() + LOOK;
        let mut rested = Instant::now();
        let mut leads = self.leads.clone();
        let never = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(plan.publish.unwrap_or(never)), if plan.publish.is_some() => {
                    plan.publish = self.publish(&std::mem::take(&mut dirty));
                    plan.statuses.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                Some((watch, told)) = heard.recv() => {
                    self.hear(watch, told);
                    merge(&mut dirty, self.store.take_dirty());
                    let now = Instant::now();
                    let knows = self.knows_all();
                    if knows && let Some(patience) = self.patience(&dirty) {
                        let soon = now + patience;
                        plan.publish = Some(plan.publish.map_or(soon, |at| at.min(soon)));
                    } else if dirty.statuses && knows {
                        plan.statuses.get_or_insert(now + SEEN);
                    }
                }
                news = self.names.news() => if self.names.learn(news) && self.knows_all() {
                    self.learned = true;
                    let soon = Instant::now() + SETTLE;
                    plan.publish = Some(plan.publish.map_or(soon, |at| at.min(soon)));
                },
                fetched = self.secrets.next() => if self.secrets.take(fetched) {
                    dirty.secrets = true;
                    let soon = Instant::now() + SETTLE;
                    plan.publish = Some(plan.publish.map_or(soon, |at| at.min(soon)));
                },
                Ok(()) = leads.changed() => {
                    plan.statuses = Some(Instant::now());
                }
                () = sleep_until(look) => {
                    look = Instant::now() + LOOK;
                    if self.look(&mut dirty) {
                        plan.publish.get_or_insert(Instant::now());
                    }
                }
                () = sleep_until(plan.statuses.unwrap_or(never).max(rested)),
                    if plan.statuses.is_some() && self.thoughts.is_none() =>
                {
                    plan.statuses = None;
                    dirty.statuses = false;
                    self.begin_thoughts();
                }
                () = yield_now(), if self.thoughts.is_some() => {
                    if let Some(took) = self.think_on() {
                        rested = Instant::now() + took * REST;
                    }
                }
            }
        }
    }

    fn hear(&mut self, watch: usize, told: Told) {
        match told {
            Told::Change(change) => {
                let is_all = matches!(
                    change,
                    Change::Balancers(Update::All(..))
                        | Change::Services(Update::All(..))
                        | Change::Slices(Update::All(..))
                        | Change::Secrets(Update::All(..))
                );
                self.store.take(change);
                let knew = self.knows_all();
                if self.watches[watch].told(is_all) {
                    tracing::info!(watch = self.watches[watch].name, "watched again");
                }
                if !knew && self.knows_all() {
                    tracing::info!("all objects were heard of");
                }
            }
            Told::Trouble { error, forbidden } => {
                let of = &mut self.watches[watch];
                if of.failed(error, forbidden, std::time::Instant::now()) {
                    let error = of.error(std::time::Instant::now()).unwrap_or_default();
                    tracing::warn!(watch = of.name, error, "cannot be watched now; trying again");
                }
                if !self.knows_all() {
                    self.complain();
                }
            }
        }
    }

    /// Whether all watches have told all there is, but those that nobody waits for.
    fn knows_all(&self) -> bool {
        self.watches.iter().all(|watch| watch.heard || watch.excused)
    }

    /// Looks how the watches fare, and whether certificates have become valid or have ended; true if
    /// what is known is to be put in use.
    fn look(&mut self, dirty: &mut Dirty) -> bool {
        let knew = self.knows_all();
        excuse(&mut self.watches, std::time::Instant::now());
        self.complain();
        let due = self.secrets.keeper.is_due(Timestamp::now().as_second());
        dirty.secrets |= due;
        self.knows_all() && (!knew || due)
    }

    /// How long a change may wait that can change the table; none if it cannot.
    fn patience(&self, dirty: &Dirty) -> Option<Duration> {
        let first = self.table.routes.is_empty() && !self.health.is_serving();
        let secrets = dirty.secrets && self.options.tls;
        let services = dirty.services.iter().any(|key| self.is_wanted(key));
        if first || dirty.rules || secrets || services {
            return Some(SETTLE);
        }
        (dirty.claims && !self.options.policy.share_hosts).then_some(SEEN)
    }

    fn is_wanted(&self, key: &Key) -> bool {
        self.is_barred(key) || self.leads_here(key) || self.ports_of(key).next().is_some()
    }

    /// The ports of a Service that there are rules for.
    fn ports_of<'s>(&'s self, key: &'s Key) -> impl Iterator<Item = &'s ServicePort> {
        // The least there is.
        let port = PortRef::Number(0);
        let from = ServicePort { namespace: Arc::clone(&key.0), name: Arc::clone(&key.1), port };
        let is = |port: &&ServicePort| port.namespace == key.0 && port.name == key.1;
        self.resolutions.range(from..).map(|(port, _)| port).take_while(is)
    }

    /// Whether what is behind a Service may not be a member: it is Gibbon's own, or the API server.
    fn is_barred(&self, key: &Key) -> bool {
        let own = matches!(&self.options.publish, Publish::Service(own) if own == key);
        own || (&*key.0, &*key.1) == API_SERVER || self.own_services.contains(key)
    }

    /// Whether a Service leads to Gibbon itself, as that of its metrics does: its own pod is behind
    /// it, and what else is behind it is its likes. Elsewhere, slices are written by tenants, who
    /// would bar each other's addresses so.
    fn leads_here(&self, key: &Key) -> bool {
        let (identity, own) = (&self.options.identity, &self.options.own);
        key.0 == self.home && self.store.slices_of(key).any(|slice| slice.has(identity, own))
    }

    /// Puts what is known in use. Returns when that is to be done again, if nothing happens.
    fn publish(&mut self, dirty: &Dirty) -> Option<Instant> {
        if dirty.rules {
            self.choose_ports();
            let refused = self.store.balancers().values().filter(|held| held.outcome.is_err());
            self.refused.set(i64::try_from(refused.count()).unwrap_or(i64::MAX));
        }
        let (ports, external) = self.resolve_again(&dirty.services);
        let rules = dirty.rules || !self.waiting.is_empty();
        let again = if rules { self.choose_rules() } else { None };
        let learned = std::mem::take(&mut self.learned);
        if rules || external || learned {
            self.follow_names();
        }
        let moved = self.decide_owners(dirty);
        let barred = self.bar_again(&dirty.services);
        // Without Secrets, rules may still ask for TLS with members that needs none.
        let certificates = dirty.rules || (dirty.secrets && self.options.tls);
        if certificates {
            self.keep_certificates();
        }
        let first = !self.health.is_serving();
        if first || rules || external || learned || moved || barred || certificates {
            let rules: Vec<_> = self.in_use.values().cloned().collect();
            self.table = self.publisher.publish(&rules, &self.endpoints, self.owners.as_ref());
        } else if !ports.is_empty() {
            self.table = self.publisher.follow(&ports, &self.endpoints);
        }
        if first {
            self.health.set_serving();
            tracing::info!(balancers = self.in_use.len(), "first table in use");
        }
        again
    }

    /// Looks up what may have changed: the ports that there are rules for; and whether a name in DNS is,
    /// or was, among it.
    fn resolve_again(&mut self, services: &BTreeSet<Key>) -> (Vec<ServicePort>, bool) {
        let ports: Vec<_> = services.iter().flat_map(|key| self.ports_of(key)).cloned().collect();
        let mut external = false;
        let is_external =
            |resolution: Option<&Resolution>| matches!(resolution, Some(Resolution::External(..)));
        for port in &ports {
            external |= is_external(self.resolutions.get(port));
            self.resolve(port.clone());
            external |= is_external(self.resolutions.get(port));
        }
        (ports, external)
    }

    /// Decides who owns which host; true if that is news.
    fn decide_owners(&mut self, dirty: &Dirty) -> bool {
        if self.options.policy.share_hosts || !(dirty.claims || self.owners.is_none()) {
            return false;
        }
        let owners = Owners::of(&self.store.claims());
        let moved = self.owners.as_deref() != Some(&owners);
        if moved {
            self.owners = Some(Arc::new(owners));
        }
        moved
    }

    /// Which ports of Services there are rules for.
    fn choose_ports(&mut self) {
        let rules = self.store.balancers().values().filter_map(|held| held.outcome.as_ref().ok());
        let entries = rules.chain(self.in_use.values()).flat_map(|rule| &rule.entries);
        let ports: HashSet<ServicePort> = entries
            .filter_map(|entry| match &entry.target {
                Target::Service(port) => Some(port.clone()),
                Target::Url(_) => None,
            })
            .collect();
        self.resolutions.retain(|port, _| ports.contains(port));
        self.endpoints.services.retain(|port, _| ports.contains(port));
        for port in ports {
            if !self.resolutions.contains_key(&port) {
                self.resolve(port);
            }
        }
    }

    /// Looks a port up; what is behind it stays the very same where nothing changed.
    fn resolve(&mut self, port: ServicePort) {
        let resolution = self.store.resolve(&port);
        if let Resolution::Endpoints(backends, _) = &resolution {
            let before = self.endpoints.services.get(&port);
            if before.is_none_or(|before| before != backends) {
                self.endpoints.services.insert(port.clone(), Arc::clone(backends));
            }
        } else {
            self.endpoints.services.remove(&port);
        }
        self.resolutions.insert(port, resolution);
    }

    /// Takes the newest rule of each Balancer in use, unless it waits for names that are new.
    fn choose_rules(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut in_use = BTreeMap::new();
        let mut waiting = BTreeMap::new();
        for (id, held) in self.store.balancers() {
            let Ok(rule) = &held.outcome else { continue };
            let before = self.in_use.get(id).filter(|before| !Arc::ptr_eq(before, rule));
            let known = names_of([rule]).iter().all(|name| self.names.known().contains_key(name));
            let rule = match before {
                Some(before) if !known => {
                    let until = *self.waiting.get(id).unwrap_or(&(now + NEW_NAMES));
                    if until > now {
                        waiting.insert(id.clone(), until);
                        before
                    } else {
                        rule
                    }
                }
                _ => rule,
            };
            in_use.insert(id.clone(), Arc::clone(rule));
        }
        self.in_use = in_use;
        let again = waiting.values().min().copied();
        self.waiting = waiting;
        again
    }

    /// Follows the names of URLs and of `ExternalName` Services, and takes over what is known.
    fn follow_names(&mut self) {
        let newest = self.store.balancers().values().filter_map(|held| held.outcome.as_ref().ok());
        let mut names = names_of(newest.chain(self.in_use.values()));
        let external: Vec<(ServicePort, Name, Option<Protocol>)> = self
            .resolutions
            .iter()
            .filter(|(port, _)| self.options.policy.url_members.contain(&port.namespace))
            .filter_map(|(port, resolution)| match resolution {
                Resolution::External(name, number, protocol) => {
                    Some((port.clone(), (Arc::clone(name), *number), *protocol))
                }
                _ => None,
            })
            .collect();
        names.extend(external.iter().map(|(_, name, _)| name.clone()));
        self.names.follow(&names);
        self.endpoints.names.clone_from(self.names.known());
        for (port, name, protocol) in external {
            let Some(found) = self.names.known().get(&name) else {
                self.endpoints.services.remove(&port);
                continue;
            };
            let said = protocol.map(|protocol| Arc::new(found.speaking(protocol)));
            let found = said.unwrap_or_else(|| Arc::clone(found));
            // The very same stays, so that its routes do.
            let before = self.endpoints.services.get(&port);
            if before.is_none_or(|before| *before != found) {
                self.endpoints.services.insert(port, found);
            }
        }
    }

    /// Which Secrets are named, and what is known of them.
    fn keep_certificates(&mut self) {
        let newest = self.store.balancers().values().filter_map(|held| held.outcome.as_ref().ok());
        let mut named = Named::by(newest.chain(self.in_use.values()));
        named.certificates.extend(self.options.default_certificate.clone());
        let version = |id: &SecretId| {
            let key = (Arc::clone(&id.namespace), Arc::clone(&id.name));
            self.store.secret(&key).cloned()
        };
        self.secrets.name(&named, version);
        self.endpoints.certificates = self.secrets.keeper.certificates();
        self.endpoints.client_cas = self.secrets.keeper.client_cas();
        self.endpoints.trusts = self.secrets.keeper.trusts();
        let default = self.options.default_certificate.as_ref();
        self.endpoints.default_certificate =
            default.and_then(|id| self.endpoints.certificates.get(id).cloned());
    }

    /// Looks at what may have changed of the barred addresses; true if there was any such.
    fn bar_again(&mut self, services: &BTreeSet<Key>) -> bool {
        let mut barred = false;
        for key in services {
            barred |= self.is_barred(key);
            if self.leads_here(key) {
                barred |= self.own_services.insert(key.clone());
            } else {
                self.own_services.remove(key);
            }
        }
        if barred {
            self.bar();
        }
        barred
    }

    /// Bars addresses from being members: Gibbon's own, the API server's, and those denied.
    fn bar(&mut self) {
        let mut networks: BTreeSet<IpNet> = self.options.deny.iter().copied().collect();
        networks.extend(self.options.own.iter().map(|ip| IpNet::from(ip.to_canonical())));
        let api_server: Key = (API_SERVER.0.into(), API_SERVER.1.into());
        let mut services = vec![&api_server];
        services.extend(&self.own_services);
        if let Publish::Service(own) = &self.options.publish {
            services.push(own);
        }
        for key in services {
            let addresses =
                self.store.service(key).into_iter().flat_map(|service| &service.addresses);
            let behind = self.store.slices_of(key).flat_map(Slice::addresses);
            networks
                .extend(addresses.copied().chain(behind).map(|ip| IpNet::from(ip.to_canonical())));
        }
        let barred = Barred::local_and(Networks::new(networks.into_iter().collect()));
        if *self.endpoints.barred != barred {
            self.endpoints.barred = Arc::new(barred);
        }
    }

    /// Where clients reach Gibbon.
    fn published(&self) -> Vec<String> {
        match &self.options.publish {
            Publish::Nothing => Vec::new(),
            Publish::Addresses(addresses) => addresses.clone(),
            Publish::Service(key) => {
                self.store.service(key).map(|service| service.published.clone()).unwrap_or_default()
            }
        }
    }

    /// Begins to think over what each Balancer's status should be.
    fn begin_thoughts(&mut self) {
        if !*self.leads.borrow() || !self.health.is_serving() {
            // What is wanted now is old when this one leads again.
            self.statuses.send_if_modified(|wanted| !std::mem::take(wanted).is_empty());
            return;
        }
        // The older first, so that new claims keep that order.
        let mut balancers: Vec<_> = self.store.balancers().iter().collect();
        balancers.sort_by_key(|(id, held)| std::cmp::Reverse((held.created, *id)));
        let claims = balancers.iter().flat_map(|(_, held)| &held.status.hosts);
        for claim in claims {
            self.claims.after(claim.claimed_at.0);
        }
        let left = balancers.into_iter().map(|(id, _)| id.clone()).collect();
        // Nothing is left of what was written of those that are of another class now.
        let wanted = self.store.left().iter().map(|(id, left)| Wanted {
            id: id.clone(),
            uid: left.uid.clone(),
            version: left.version.clone(),
            seen: Some(left.status.clone()),
            status: BalancerStatus::default(),
        });
        let wanted = wanted.collect();
        self.thoughts = Some(Thoughts { left, wanted, took: Duration::ZERO });
    }

    /// Thinks the next statuses over. After the last, tells who writes them, and returns the time
    /// that it took.
    fn think_on(&mut self) -> Option<Duration> {
        let mut thoughts = self.thoughts.take()?;
        let began = Instant::now();
        let rest = thoughts.left.len().saturating_sub(STATUSES);
        let next = thoughts.left.split_off(rest);
        thoughts.wanted.extend(self.wanted(next.iter().rev()));
        thoughts.took += began.elapsed();
        if !thoughts.left.is_empty() {
            self.thoughts = Some(thoughts);
            return None;
        }
        self.statuses.send_replace(Arc::new(thoughts.wanted));
        Some(thoughts.took)
    }

    /// What is to be written, of these Balancers, where it is not what was seen.
    fn wanted<'i>(&mut self, ids: impl Iterator<Item = &'i RuleId>) -> Vec<Wanted> {
        let published = self.published();
        let resolve = |port: &ServicePort| {
            self.resolutions.get(port).cloned().unwrap_or(Resolution::NoService)
        };
        let no_tls = || (!self.options.tls).then(|| NO_SECRETS.to_owned());
        let seconds = || Timestamp::now().as_second();
        let certificate = |id: &SecretId, hosts: &[HostPattern]| {
            no_tls().or_else(|| self.secrets.keeper.problem(id, hosts, seconds()))
        };
        let client_ca = |id: &SecretId| {
            no_tls().or_else(|| self.secrets.keeper.client_ca_problem(id, seconds()))
        };
        let trust = |trust: &Trust| {
            let named = trust::named_by(trust).next().is_some();
            if named && !self.options.tls {
                return vec![format!("spec.upstreamTLS: {NO_SECRETS}")];
            }
            self.secrets.keeper.trust_problems(trust, seconds())
        };
        let mut clock = self.claims;
        let now = Timestamp::now();
        let wanted = ids.filter_map(|id| {
            let held = self.store.balancers().get(id)?;
            let route = self.table.route(id).map(AsRef::as_ref);
            // What is not in use as it is now is thought over when it is.
            let is_current = match (&held.outcome, route) {
                (Ok(rule), Some(route)) => Arc::ptr_eq(&route.rule, rule),
                (Err(_), None) => true,
                _ => false,
            };
            if !is_current {
                return None;
            }
            let facts = Facts {
                id,
                held,
                route,
                verdicts: self.table.verdicts_of(id),
                resolve: &resolve,
                policy: &self.options.policy,
                published: &published,
                certificate: &certificate,
                client_ca: &client_ca,
                trust: &trust,
                certificate_conflicts: &self.table.certificate_conflicts,
            };
            let status = facts.status(clock.next(now));
            let is_readable = !matches!(held.outcome, Err(store::Refusal::Unreadable(_)));
            let is_written = if is_readable {
                is_alike(&held.status, &status)
            } else {
                conditions_are_alike(&held.status, &status)
            };
            if is_written {
                return None;
            }
            let seen = is_readable.then(|| held.status.clone());
            let (id, uid, version) = (id.clone(), held.uid.clone(), held.version.clone());
            Some(Wanted { id, uid, version, seen, status })
        });
        let wanted = wanted.collect();
        self.claims = clock;
        wanted
    }

    /// Says what is wrong with the cluster, for `/readyz`, the metrics and the log.
    fn complain(&self) {
        let mut complaints = Vec::new();
        let now = std::time::Instant::now();
        let silence = self.contact.silence();
        let stale = self.watches.iter().filter_map(|watch| watch.age(now)).max();
        match (silence, stale) {
            (None, _) => complaints.push("the API server was not heard of yet".to_owned()),
            (Some(silence), _) if silence > SILENCE => complaints.push(format!(
                "the API server has not been heard of for {} s; what it said last is served",
                silence.as_secs()
            )),
            (Some(_), Some(age)) if age > SILENCE => complaints.push(format!(
                "what is served is of {} s ago, as not everything can be watched",
                age.as_secs()
            )),
            (Some(_), _) => {}
        }
        for watch in &self.watches {
            if let Some(error) = watch.error(now) {
                complaints.push(format!("{} cannot be watched: {error}", watch.name));
            }
        }
        if let Some(silence) = silence {
            self.contact.tell(silence.max(stale.unwrap_or_default()));
        }
        self.health.complain("cluster", &complaints);
    }
}

/// Adds what has changed to what has changed before.
fn merge(dirty: &mut Dirty, more: Dirty) {
    dirty.rules |= more.rules;
    dirty.claims |= more.claims;
    dirty.statuses |= more.statuses;
    dirty.secrets |= more.secrets;
    dirty.services.extend(more.services);
}
