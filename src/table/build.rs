//! Rules and addresses become a table: members, groups, matching order, conflicts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use rustls::pki_types::ServerName;

use super::Lookup;
use super::access::Barred;
use super::balance::{Dealer, Gauge};
use super::checks::{Checked, Checkup, Known};
use super::load::Load;
use super::owners::Owners;
use super::path::HostPattern;
use super::queue::Queue;
use super::reverse::{Base, Place, Reversal, Scheme};
use super::sticky;
use super::tally::{MemberTally, RuleTally};
use super::tls::{
    Certificate, CertificateConflict, Certificates, ClientCa, ClientPolicies, SecretId,
};
use super::upstream::{ClientConfigs, MemberTls, Protocol, Trust, Trusted, UpstreamTls};
use super::{
    Authority, Budget, Entry, Group, Host, Hosts, Index, Member, Paths, Route, RouteName, Rule,
    RuleId, ServicePort, State, Table, Target,
};

/// Requests of one rule that may wait for members that are full.
const WAITING: usize = 1024;

/// The addresses of one rule at most: what takes long for one holds up the tables of all.
pub const ADDRESSES: usize = 16_384;

/// What is known of where members are.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// What is behind a name in lower case and a port; none or nothing if it does not resolve.
    pub names: HashMap<(Arc<str>, u16), Arc<Backends>>,
    /// What is behind the ports of Services.
    pub services: Lookup<ServicePort, Arc<Backends>>,
    /// Addresses that nobody may have as a member, however they were found.
    pub barred: Arc<Barred>,
    /// Certificates by the Secrets that they come from; those that cannot be used are left out.
    pub certificates: HashMap<SecretId, Arc<Certificate>>,
    /// The one for hosts that have none of their own.
    pub default_certificate: Option<Arc<Certificate>>,
    /// Authorities for clients' certificates by the Secrets that they come from; those that cannot be
    /// used are left out.
    pub client_cas: HashMap<SecretId, Arc<ClientCa>>,
    /// What rules ask of TLS with members; what cannot be had is left out.
    pub trusts: HashMap<Trust, Arc<ClientConfigs>>,
}

/// What is behind a port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// The port's number at the Service itself.
    pub port: Option<u16>,
    /// What the port says is spoken at it.
    pub protocol: Option<Protocol>,
    /// Its endpoints, by address.
    endpoints: Box<[Endpoint]>,
}

/// One address behind a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The name of its pod.
    pub pod: Option<Arc<str>>,
    /// The hostname of its pod, if it has one of its own.
    pub hostname: Option<Arc<str>>,
    /// It is about to end: it keeps its sessions and gets no new ones.
    pub draining: bool,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, pod: None, hostname: None, draining: false }
    }
}

impl Backends {
    /// These, put in order, each address once.
    #[must_use]
    pub fn new(
        port: Option<u16>,
        protocol: Option<Protocol>,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Self {
        let given = endpoints.into_iter();
        let mut endpoints = Vec::with_capacity(given.size_hint().1.unwrap_or_default());
        endpoints.extend(given);
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        Self { port, protocol, endpoints: endpoints.into() }
    }

    /// The same, where this is spoken.
    #[must_use]
    pub fn speaking(&self, protocol: Protocol) -> Self {
        Self { protocol: Some(protocol), ..self.clone() }
    }

    /// Its endpoints.
    #[must_use]
    pub const fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Those of an address.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> &[Endpoint] {
        let from = self.endpoints.partition_point(|endpoint| endpoint.address.ip() < ip);
        let rest = &self.endpoints[from..];
        &rest[..rest.partition_point(|endpoint| endpoint.address.ip() == ip)]
    }
}

impl FromIterator<SocketAddr> for Backends {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        Self::new(None, None, addresses.into_iter().map(Endpoint::from))
    }
}

impl Endpoints {
    /// What is behind a target that is more than an address.
    fn of(&self, target: &Target) -> Option<&Arc<Backends>> {
        match target {
            Target::Url(Authority { host: Host::Name(name), port, .. }) => {
                self.names.get(&(Arc::clone(name), *port))
            }
            Target::Url(Authority { host: Host::Address(_), .. }) => None,
            Target::Service(service) => self.services.get(service),
        }
    }

    fn trusted(&self, trust: &Trust) -> Trusted {
        match self.trusts.get(trust) {
            Some(handshakes) => Trusted::Own(Arc::clone(handshakes)),
            None if trust.is_default() => Trusted::System,
            None => Trusted::Nobody,
        }
    }
}

/// A rule does not serve one of its hosts and paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The rule that does not.
    pub rule: RuleId,
    /// The host as it was written; `*` for any.
    pub host: String,
    /// The path.
    pub path: String,
    /// Who has it.
    pub holder: Holder,
}

/// Who serves what a rule does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Another rule has the same host and path, and comes first.
    Rule(RuleId),
    /// The host belongs to another namespace.
    Namespace(Arc<str>),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
        }
    }
}

impl Table {
    /// Builds the table of these rules, where each host may be served by its owner only, or, without
    /// `owners`, by everybody. What `previous` has learned is kept: the loads of the same
    /// backends, the cursors and counters of the same rules, and whole routes that did not change.
    #[must_use]
    pub fn build(
        rules: &[Arc<Rule>],
        endpoints: &Endpoints,
        owners: Option<&Arc<Owners>>,
        previous: &Self,
        now: Instant,
    ) -> Self {
        let mut rules: Vec<&Arc<Rule>> = rules.iter().collect();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let mut before = previous.routes.iter().peekable();
        let mut changed = Vec::new();
        let mut routes = Vec::with_capacity(rules.len());
        for rule in rules {
            // Most rules are those of before, and names take long to compare.
            let is_it = |route: &Arc<Route>| Arc::ptr_eq(&route.rule, rule);
            let comes_before = |route: &Arc<Route>| !is_it(route) && route.rule.id < rule.id;
            while before.next_if(|route| comes_before(route)).is_some() {}
            let before = before.peek().copied();
            let before = before.filter(|route| is_it(route) || route.rule.id == rule.id);
            let same = before.filter(|route| {
                Arc::ptr_eq(&route.rule, rule) && route.found.is_still(rule, endpoints)
            });
            if same.is_none() {
                changed.push((routes.len(), rule, before, Found::of(rule, endpoints)));
            }
            // Those that changed get theirs below.
            routes.push(same.cloned());
        }
        let rules = changed.iter().map(|(_, rule, _, _)| *rule);
        let mut loads = Loads::of(&previous.routes, &previous.routes, rules, now);
        for (at, rule, before, found) in changed {
            routes[at] = Some(loads.route(rule, found, before));
        }
        let routes: Vec<Arc<Route>> = routes.into_iter().flatten().collect();
        let hosts = if previous.hosts.is_still(&routes, &previous.routes, owners) {
            Arc::clone(&previous.hosts)
        } else {
            Arc::new(Hosts::new(&routes, owners))
        };
        let mut certificate_conflicts = Vec::new();
        let conflicts = &mut certificate_conflicts;
        let certificates = certificates(&routes, endpoints, owners, conflicts).into();
        let clients = clients(&routes, endpoints, owners, conflicts).into();
        let certificate_conflicts = certificate_conflicts.into();
        Self { routes, hosts, certificates, clients, certificate_conflicts, built: true }
    }

    /// The next table where nothing has changed but what is behind these ports of Services: the same
    /// as [`Self::build`] makes, but of the routes that stay nothing is looked at, except the checks of
    /// members where a route that changes has some.
    ///
    /// # Panics
    /// If `users` are those of another table, by [`Users::fit`].
    #[must_use]
    pub fn with(
        &self,
        changed: &[ServicePort],
        endpoints: &Endpoints,
        users: &Users,
        now: Instant,
    ) -> Self {
        assert!(users.fit(self), "the users of another table");
        let of = |target: &Target| users.of.get(target).map_or(&[][..], Vec::as_slice);
        let targets = changed.iter().map(|port| Target::Service(port.clone()));
        let mut again: Vec<usize> = targets.flat_map(|target| of(&target).to_vec()).collect();
        again.sort_unstable();
        again.dedup();
        again.retain(|at| {
            let route = &self.routes[*at];
            !route.found.is_still(&route.rule, endpoints)
        });
        let mut routes = self.routes.clone();
        let rules = again.iter().map(|at| &self.routes[*at].rule);
        let entries = rules.clone().flat_map(|rule| &rule.entries);
        let mut related: Vec<usize> =
            entries.flat_map(|entry| of(&entry.target)).copied().collect();
        related.sort_unstable();
        related.dedup();
        let related = related.into_iter().map(|at| &self.routes[at]);
        let checks = rules.clone().any(|rule| rule.health.is_some());
        let checked = users.checked.iter().filter(|_| checks).map(|at| &self.routes[*at]);
        let mut loads = Loads::of(related, checked, rules, now);
        for at in again.iter().copied() {
            let before = &self.routes[at];
            let found = Found::of(&before.rule, endpoints);
            routes[at] = loads.route(&before.rule, found, Some(before));
        }
        Self {
            routes,
            hosts: Arc::clone(&self.hosts),
            certificates: Arc::clone(&self.certificates),
            clients: Arc::clone(&self.clients),
            certificate_conflicts: Arc::clone(&self.certificate_conflicts),
            built: true,
        }
    }
}

/// Which routes of a table have which targets, for [`Table::with`]; the same as long as only members
/// change.
#[derive(Debug, Default)]
pub struct Users {
    version: u64,
    of: Lookup<Target, Vec<usize>>,
    /// Those whose members are checked.
    checked: Vec<usize>,
}

impl Users {
    /// Of a table.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let mut users = Self { version: table.hosts.version, ..Self::default() };
        for (at, route) in table.routes.iter().enumerate() {
            for entry in &route.rule.entries {
                users.of.entry(entry.target.clone()).or_default().push(at);
            }
            users.checked.extend(route.rule.health.is_some().then_some(at));
        }
        users
    }

    /// Whether they are this table's.
    #[must_use]
    pub fn fit(&self, table: &Table) -> bool {
        table.built && self.version == table.hosts.version
    }
}

impl Hosts {
    /// Enters routes, which are in the order of their names, under their hosts.
    fn new(routes: &[Arc<Route>], owners: Option<&Arc<Owners>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let version = NEXT.fetch_add(1, Relaxed);
        let mut hosts = Self { owners: owners.cloned(), version, ..Self::default() };
        let owners = owners.map(AsRef::as_ref);
        // A host that belongs to somebody is not for a wildcard of others, even while its owner
        // has nothing to serve there.
        for (host, owner) in owners.into_iter().flat_map(Owners::iter) {
            hosts.paths_of(host).owner = Some(Arc::clone(owner));
        }
        let mut ordered: Vec<usize> = (0..routes.len()).collect();
        ordered.sort_by_key(|at| precedence(&routes[*at].rule));
        for at in ordered {
            hosts.claim(at, routes, owners);
        }
        hosts.verdicts.sort_by(|a, b| a.rule.cmp(&b.rule));
        hosts
    }

    /// Whether nothing that decides who serves what has changed.
    fn is_still(
        &self,
        routes: &[Arc<Route>],
        before: &[Arc<Route>],
        owners: Option<&Arc<Owners>>,
    ) -> bool {
        let same = |(a, b): (&Arc<Route>, &Arc<Route>)| Arc::ptr_eq(&a.rule, &b.rule);
        let owned = match (&self.owners, owners) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before == now,
            (None, None) => true,
            _ => false,
        };
        owned && routes.len() == before.len() && routes.iter().zip(before).all(same)
    }

    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(suffix) => self.wildcards.entry(suffix.clone()).or_default(),
            HostPattern::Any => self.any.get_or_insert_default(),
        }
    }

    /// Enters a route under its hosts, unless they belong to others or a rule that comes first has
    /// them with this path.
    fn claim(&mut self, at: usize, routes: &[Arc<Route>], owners: Option<&Owners>) {
        let route = &routes[at];
        let (id, prefix) = (&route.rule.id, &route.rule.prefix);
        let lost = |host: &HostPattern, holder: Holder| {
            let (host, path) = (host.to_string(), prefix.to_string());
            Verdict { rule: id.clone(), host, path, holder }
        };
        for host in &route.rule.hosts {
            let owner = owners.and_then(|owners| owners.owner(host));
            if let Some(owner) = owner.filter(|owner| **owner != id.namespace) {
                self.verdicts.push(lost(host, Holder::Namespace(Arc::clone(owner))));
                continue;
            }
            let paths = self.paths_of(host);
            let (text, exact) = (prefix.as_str(), prefix.is_exact());
            let same = if exact { &mut paths.exact } else { &mut paths.routes };
            if let Some(holder) = same.get(text) {
                let holder = &routes[*holder].rule.id;
                // The same host written twice in one rule is no conflict.
                if holder != id {
                    let holder = Holder::Rule(holder.clone());
                    self.verdicts.push(lost(host, holder));
                }
                continue;
            }
            same.insert(text.into(), at);
            if !exact {
                paths.deepest = paths.deepest.max(text.matches('/').count());
            }
        }
    }
}

/// What makes two members the same backend: where they come from, address, protocol, TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backend<'t> {
    target: &'t Target,
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<(Option<&'t ServerName<'static>>, &'t Trust)>,
}

impl<'t> Backend<'t> {
    fn of(rule: &'t Rule, entry: usize, address: SocketAddr, protocol: Protocol) -> Self {
        let UpstreamTls { trust, server_name } = &rule.upstream_tls;
        let tls = protocol.is_tls().then_some((server_name.as_ref(), trust));
        Self { target: &rule.entries[entry].target, address, protocol, tls }
    }
}

/// Of the target only what tells it from others at the same address.
impl Hash for Backend<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.target {
            Target::Url(authority) => authority.port.hash(state),
            Target::Service(service) => service.name.hash(state),
        }
        self.address.hash(state);
    }
}

/// The loads that routes which changed may take over, and those that they share.
struct Loads<'t> {
    known: Lookup<Backend<'t>, Arc<Load>>,
    /// What the rules name, and whether anybody else may have its loads.
    named: Lookup<&'t Target, bool>,
    checked: Lookup<Checkup, Arc<Checked>>,
    now: Instant,
}

impl<'t> Loads<'t> {
    /// Of everything that these rules name, in these routes of before; and the checks of those.
    fn of(
        routes: impl IntoIterator<Item = &'t Arc<Route>>,
        checked: impl IntoIterator<Item = &'t Arc<Route>>,
        rules: impl Iterator<Item = &'t Arc<Rule>>,
        now: Instant,
    ) -> Self {
        let mut named: Lookup<&Target, bool> = Lookup::default();
        for entry in rules.flat_map(|rule| &rule.entries) {
            named.entry(&entry.target).and_modify(|shared| *shared = true).or_insert(false);
        }
        let mut known = Lookup::default();
        let nothing = named.is_empty();
        for route in routes.into_iter().take_while(|_| !nothing) {
            let entries = &route.rule.entries;
            if !entries.iter().any(|entry| named.contains_key(&entry.target)) {
                continue;
            }
            for member in &route.members {
                if let Some(shared) = named.get_mut(&entries[member.entry].target) {
                    *shared = true;
                    let (entry, address) = (member.entry, member.address);
                    let backend = Backend::of(&route.rule, entry, address, member.protocol);
                    known.entry(backend).or_insert_with(|| Arc::clone(&member.load));
                }
            }
        }
        let checked = checked.into_iter().filter(|route| route.rule.health.is_some());
        let checked = checked.flat_map(|route| &route.members).filter_map(|m| m.checked.as_ref());
        let checked = checked.map(|checked| (checked.checkup.clone(), Arc::clone(checked)));
        Self { known, named, checked: checked.collect(), now }
    }

    fn route(
        &mut self,
        rule: &'t Arc<Rule>,
        found: Found,
        before: Option<&Arc<Route>>,
    ) -> Arc<Route> {
        let ramps = before.is_some_and(|before| !before.members.is_empty());
        let mut last = None;
        let mut load = |entry: usize, address: SocketAddr, protocol: Protocol| {
            if last.is_none_or(|(last, _)| last != entry) {
                let shared = self.named.get(&rule.entries[entry].target);
                last = Some((entry, shared.is_none_or(|shared| *shared)));
            }
            let load = || Arc::new(Load::new(self.now, ramps));
            if last.is_some_and(|(_, shared)| !shared) {
                return load();
            }
            let backend = Backend::of(rule, entry, address, protocol);
            Arc::clone(self.known.entry(backend).or_insert_with(load))
        };
        let mut route = Route::new(rule, found, before.map(AsRef::as_ref), &mut load);
        if rule.health.is_some() {
            let had = Had::of(before.filter(|_| ramps));
            for member in &mut route.members {
                let path = &rule.entries[member.entry].path;
                member.checked = self.checked(rule, member, had.known(member, path));
            }
        }
        Arc::new(route)
    }

    /// What has come of the checks of a member, which others may share.
    fn checked(&mut self, rule: &Rule, member: &Member, known: Known<'_>) -> Option<Arc<Checked>> {
        let check = Arc::clone(rule.health.as_ref().filter(|_| member.state != State::Disabled)?);
        let checkup = Checkup {
            address: member.address,
            protocol: member.protocol,
            tls: member.tls.clone(),
            host: rule.entries[member.entry].host.clone(),
            path: Arc::clone(&rule.entries[member.entry].path),
            check,
        };
        let new = || Arc::new(Checked::new(checkup.clone(), known));
        Some(Arc::clone(self.checked.entry(checkup.clone()).or_insert_with(new)))
    }
}

/// The members in use that a rule had, by address and protocol, and by their path where several are
/// at one address. An edit of the rule makes them no others.
struct Had<'r>(Option<Lookup<At<'r>, &'r Member>>);

type At<'r> = (SocketAddr, Protocol, Option<&'r str>);

impl<'r> Had<'r> {
    fn of(route: Option<&'r Arc<Route>>) -> Self {
        let members = |route: &'r Arc<Route>| {
            let used = route.members.iter().filter(|m| m.state != State::Disabled);
            let keys = used.flat_map(|m| {
                let path = &*route.rule.entries[m.entry].path;
                [Some(path), None].map(|path| ((m.address, m.protocol, path), m))
            });
            keys.collect()
        };
        Self(route.map(members))
    }

    fn known(&self, member: &Member, path: &str) -> Known<'_> {
        let Some(members) = &self.0 else { return Known::Begins };
        let find = |path| members.get(&(member.address, member.protocol, path));
        match find(Some(path)).or_else(|| find(None)) {
            None => Known::Joins,
            Some(had) => had.checked.as_deref().map_or(Known::Serves, Known::Checked),
        }
    }
}

/// What was found behind each entry of a rule, and which addresses do not count.
#[derive(Clone, Debug)]
pub(super) struct Found {
    backends: Vec<Option<Arc<Backends>>>,
    barred: Arc<Barred>,
    trusted: Trusted,
}

impl Found {
    fn of(rule: &Rule, endpoints: &Endpoints) -> Self {
        let backends = rule.entries.iter().map(|entry| endpoints.of(&entry.target).cloned());
        Self {
            backends: backends.collect(),
            barred: Arc::clone(&endpoints.barred),
            trusted: endpoints.trusted(&rule.upstream_tls.trust),
        }
    }

    /// Whether the very same is there, which is quick to see.
    fn is_still(&self, rule: &Rule, endpoints: &Endpoints) -> bool {
        let same = |(entry, before): (&Entry, &Option<Arc<Backends>>)| match (
            endpoints.of(&entry.target),
            before,
        ) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (None, None) => true,
            _ => false,
        };
        self.barred == endpoints.barred
            && self.trusted == endpoints.trusted(&rule.upstream_tls.trust)
            && rule.entries.iter().zip(&self.backends).all(same)
    }

    /// What is spoken with the members of an entry.
    fn protocol(&self, rule: &Rule, entry: usize) -> Protocol {
        let of = &rule.entries[entry];
        let said = || match &of.target {
            Target::Url(authority) => authority.tls.as_ref().map(|_| Protocol::Https),
            Target::Service(_) => self.backends[entry].as_ref()?.protocol,
        };
        of.protocol.or_else(said).unwrap_or_default()
    }

    /// How TLS is spoken with the members of an entry.
    fn tls(&self, rule: &Rule, entry: usize) -> Option<MemberTls> {
        let own = || rule.entries[entry].target.server_name();
        let name = rule.upstream_tls.server_name.clone().or_else(own)?;
        Some(MemberTls { name, trusted: self.trusted.clone() })
    }

    /// How many addresses an entry has, barred ones included.
    fn addresses(&self, rule: &Rule, entry: usize) -> usize {
        let target = rule.entries.get(entry).map(|entry| &entry.target);
        match (target, self.backends.get(entry)) {
            (Some(Target::Url(Authority { host: Host::Address(_), .. })), _) => 1,
            (_, Some(Some(backends))) => backends.endpoints().len(),
            _ => 0,
        }
    }

    /// How many all entries have.
    fn all(&self, rule: &Rule) -> usize {
        (0..rule.entries.len()).map(|entry| self.addresses(rule, entry)).sum()
    }

    /// The entries whose addresses would be more than a rule may have.
    fn crowded(&self, rule: &Rule) -> Vec<usize> {
        let mut left = ADDRESSES;
        let is_beyond = |entry: &usize| {
            let rest = left.checked_sub(self.addresses(rule, *entry));
            left = rest.unwrap_or(left);
            rest.is_none()
        };
        (0..rule.entries.len()).filter(is_beyond).collect()
    }

    /// The endpoints of an entry that may be connected to.
    fn endpoints(&self, rule: &Rule, entry: usize) -> impl Iterator<Item = Cow<'_, Endpoint>> {
        let (own, found) = match (&rule.entries[entry].target, &self.backends[entry]) {
            (Target::Url(Authority { host: Host::Address(ip), port, .. }), _) => {
                (Some(SocketAddr::new(*ip, *port)), &[][..])
            }
            (_, Some(backends)) => (None, backends.endpoints()),
            (_, None) => (None, &[][..]),
        };
        let own = own.into_iter().map(|address| Cow::Owned(address.into()));
        let all = own.chain(found.iter().map(Cow::Borrowed));
        all.filter(|endpoint| !self.barred.bars(endpoint.address.ip()))
    }

    /// The base URLs that the members of an entry may write themselves, if it has any.
    fn base(&self, rule: &Rule, entry: usize) -> Option<Base> {
        let of = &rule.entries[entry];
        let (scheme, place) = match &of.target {
            Target::Url(Authority { host, port, tls }) => {
                let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
                (scheme, Place::Url(host.clone(), *port))
            }
            Target::Service(service) => {
                let is_tls = self.protocol(rule, entry).is_tls();
                let scheme = if is_tls { Scheme::Https } else { Scheme::Http };
                let backends = self.backends[entry].as_ref()?;
                (scheme, Place::Service(service.clone(), Arc::clone(backends)))
            }
        };
        Some(Base { scheme, place, path: Arc::clone(&of.path) })
    }
}

/// The certificate of each host, of those who may serve it, the older first.
fn certificates(
    routes: &[Arc<Route>],
    endpoints: &Endpoints,
    owners: Option<&Arc<Owners>>,
    conflicts: &mut Vec<CertificateConflict>,
) -> Certificates {
    let mut found = Certificates::with_default(endpoints.default_certificate.clone());
    let brought = routes.iter().filter_map(|route| {
        let secret = route.rule.tls.as_ref()?.secret.as_ref()?;
        Some((&route.rule, endpoints.certificates.get(secret)?))
    });
    let mut brought: Vec<_> = brought.collect();
    brought.sort_by_key(|(rule, _)| precedence(rule));
    for (rule, certificate) in brought {
        for host in rule.hosts.iter().filter(|host| may_serve(rule, host, owners)) {
            if let Some(used) = found.claim(host, certificate) {
                let (rule, host) = (rule.id.clone(), host.to_string());
                conflicts.push(CertificateConflict { rule, host, used, of_clients: false });
            }
        }
    }
    found
}

/// How the clients of each host are verified, as those want who may serve it, the older first.
fn clients(
    routes: &[Arc<Route>],
    endpoints: &Endpoints,
    owners: Option<&Arc<Owners>>,
    conflicts: &mut Vec<CertificateConflict>,
) -> ClientPolicies {
    let mut policies = ClientPolicies::default();
    if routes.iter().all(|route| route.rule.clients().is_none()) {
        return policies;
    }
    let mut rules: Vec<_> = routes.iter().map(|route| &route.rule).collect();
    rules.sort_by_key(|rule| precedence(rule));
    let find = |secret: &SecretId| endpoints.client_cas.get(secret).cloned();
    for rule in rules {
        for host in rule.hosts.iter().filter(|host| may_serve(rule, host, owners)) {
            if let Some(used) = policies.claim(host, rule.clients(), find) {
                let (rule, host) = (rule.id.clone(), host.to_string());
                conflicts.push(CertificateConflict { rule, host, used, of_clients: true });
            }
        }
    }
    policies
}

/// Whether a host belongs to nobody else.
fn may_serve(rule: &Rule, host: &HostPattern, owners: Option<&Arc<Owners>>) -> bool {
    let owner = owners.and_then(|owners| owners.owner(host));
    owner.is_none_or(|owner| *owner == rule.id.namespace)
}

/// The older object first; objects without a time after those with one. Of equals, the order of
/// their names stays.
fn precedence(rule: &Rule) -> (bool, i64) {
    (rule.created.is_none(), rule.created.unwrap_or_default())
}

impl Route {
    fn new(
        rule: &Arc<Rule>,
        found: Found,
        before: Option<&Self>,
        load: &mut dyn FnMut(usize, SocketAddr, Protocol) -> Arc<Load>,
    ) -> Self {
        let mut members = Vec::with_capacity(found.all(rule).min(ADDRESSES));
        let mut unresolved = Vec::new();
        let crowded = found.crowded(rule);
        let is_crowded = |entry: usize| crowded.binary_search(&entry).is_ok();
        let kept = before.map_or_else(Keeper::default, Keeper::of);
        let shares = shares(&rule.entries);
        let several = shares.len() > 1;
        let mut groups = Vec::with_capacity(shares.len());
        for (share, entries) in shares {
            let from = members.len();
            let old = before.and_then(|b| b.groups.get(groups.len()));
            let cursor = old.map_or_else(Arc::default, |group| Arc::clone(&group.cursor));
            let owed = old.map_or_else(Arc::default, |group| Arc::clone(&group.owed));
            for entry in entries {
                let had = members.len();
                let protocol = found.protocol(rule, entry);
                let tls = if protocol.is_tls() { found.tls(rule, entry) } else { None };
                let endpoints = found.endpoints(rule, entry).filter(|_| !is_crowded(entry));
                for endpoint in endpoints {
                    let load = load(entry, endpoint.address, protocol);
                    let own = kept.get(&load, &rule.entries[entry]).unwrap_or_else(|| {
                        let tally = MemberTally::default();
                        tally.ledger.join(&cursor, if several { &owed } else { &cursor });
                        Arc::new(tally)
                    });
                    let way = (protocol, tls.clone());
                    members.push(member(rule, entry, groups.len(), &endpoint, way, load, own));
                }
                if members.len() == had {
                    unresolved.push(entry);
                }
            }
            let sums = running_sums(&members[from..]);
            let (range, gauge) = (from..members.len(), Gauge::default());
            groups.push(Group { range, share, cursor, owed, gauge, sums });
        }
        last_resort(rule, &mut members);
        let is_limited = members.iter().any(|m| m.max_in_flight.is_some());
        let mut named = Index::of(&members, |m| m.route.clone());
        leave(rule, &unresolved, &mut named.ranges);
        let issued = Index::of(&members, |m| m.token.clone());
        let route = Self {
            rule: Arc::clone(rule),
            groups,
            unresolved,
            reversal: reversal(rule, &found, &crowded),
            dealer: before.map_or_else(Arc::<Dealer>::default, |b| Arc::clone(&b.dealer)),
            tally: before.map_or_else(Arc::<RuleTally>::default, |b| Arc::clone(&b.tally)),
            budget: before.map_or_else(Arc::<Budget>::default, |b| Arc::clone(&b.budget)),
            queue: before.map_or_else(Arc::<Queue>::default, |b| Arc::clone(&b.queue)),
            room: if is_limited { WAITING } else { 0 },
            crowded,
            tiers: tiers(&members),
            has_spares: members.iter().any(|m| m.state == State::Spare),
            are_alike: are_alike(&members),
            found,
            named,
            issued,
            members,
        };
        if before.is_some_and(|before| before.is_grouped_otherwise(&route)) {
            for member in &route.members {
                let group = &route.groups[member.group];
                member.tally.ledger.join(&group.cursor, route.clock(group));
            }
        }
        route
    }

    /// Whether a group of one may be another of the other, as far as is easy to see.
    fn is_grouped_otherwise(&self, other: &Self) -> bool {
        let several = self.groups.len() > 1 || other.groups.len() > 1;
        several && !Arc::ptr_eq(&self.rule, &other.rule)
    }

    /// How many addresses were found behind an entry's name or Service, barred ones included.
    #[must_use]
    pub fn found_addresses(&self, entry: usize) -> usize {
        self.found.addresses(&self.rule, entry)
    }
}

/// The tiers of members, from the first on.
fn tiers(members: &[Member]) -> Vec<u8> {
    let mut tiers: Vec<_> = members.iter().map(|member| member.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers.shrink_to_fit();
    tiers
}

/// Whether members differ in nothing but their weight as far as turns go.
fn are_alike(members: &[Member]) -> bool {
    let is_plain = |m: &Member| {
        let first = &members[0];
        m.state == State::Active
            && m.max_in_flight.is_none()
            && (m.group, m.tier) == (first.group, first.tier)
    };
    !members.is_empty() && members.iter().all(is_plain)
}

/// What a rule knows of its backends besides their loads: two entries may share one. The key is
/// that load with the entry's name and path.
#[derive(Default)]
struct Keeper<'r>(Lookup<(*const Load, &'r str, &'r str), Arc<MemberTally>>);

impl<'r> Keeper<'r> {
    fn of(route: &'r Route) -> Self {
        let mut kept = Lookup::default();
        kept.reserve(route.members.len());
        for member in &route.members {
            let path = &*route.rule.entries[member.entry].path;
            kept.entry((Arc::as_ptr(&member.load), &*member.name, path)).or_insert_with(|| {
                if member.state != State::Active {
                    member.tally.ledger.skip(route.clock(&route.groups[member.group]));
                }
                Arc::clone(&member.tally)
            });
        }
        Self(kept)
    }

    fn get(&self, load: &Arc<Load>, entry: &Entry) -> Option<Arc<MemberTally>> {
        self.0.get(&(Arc::as_ptr(load), &*entry.name, &*entry.path)).cloned()
    }
}

/// Without shares all entries are one group; with shares each is one of its own.
fn shares(entries: &[Entry]) -> Vec<(f64, Range<usize>)> {
    if entries.iter().all(|entry| entry.share.is_none()) {
        return vec![(1.0, 0..entries.len())];
    }
    let own = |(at, entry): (usize, &Entry)| (entry.share.unwrap_or_default(), at..at + 1);
    entries.iter().enumerate().map(own).collect()
}

fn member(
    rule: &Rule,
    entry: usize,
    group: usize,
    endpoint: &Endpoint,
    (protocol, tls): (Protocol, Option<MemberTls>),
    load: Arc<Load>,
    tally: Arc<MemberTally>,
) -> Member {
    let of = &rule.entries[entry];
    let route = match &of.route {
        RouteName::None => None,
        RouteName::Fixed(route) => Some(Arc::clone(route)),
        RouteName::PodName => endpoint.pod.clone(),
        RouteName::Hostname => endpoint.hostname.clone().or_else(|| endpoint.pod.clone()),
    };
    let issues = rule.sticky.as_ref().is_some_and(|sticky| sticky.issue.is_some());
    let token = issues.then(|| {
        let derived = || format!("{}/{}", of.name, endpoint.address);
        let named = route.as_deref().map_or_else(derived, str::to_owned);
        sticky::token(&rule.id.namespace, &rule.id.name, &named).into_boxed_str()
    });
    Member {
        name: Arc::clone(&of.name),
        entry,
        group,
        address: endpoint.address,
        protocol,
        tls,
        route,
        token,
        weight: of.weight,
        max_in_flight: of.max_in_flight,
        state: match of.state {
            State::Disabled => State::Disabled,
            _ if endpoint.draining => State::Draining,
            state => state,
        },
        tier: of.tier,
        load,
        // Filled in with what is known already.
        checked: None,
        tally,
    }
}

/// Where nothing else is left, those that are about to end get new sessions too.
fn last_resort(rule: &Rule, members: &mut [Member]) {
    let is_left = |m: &Member| matches!(m.state, State::Active | State::Standby | State::Spare);
    if !members.iter().any(is_left) {
        for member in members {
            member.state = rule.entries[member.entry].state;
        }
    }
}

/// The sessions of an entry without addresses go where it leaves them.
fn leave(rule: &Rule, unresolved: &[usize], named: &mut Lookup<Arc<str>, Range<u32>>) {
    let route_of = |entry: &Entry| match &entry.route {
        RouteName::Fixed(route) => Some(Arc::clone(route)),
        _ => None,
    };
    let mut left: Vec<_> = unresolved
        .iter()
        .map(|entry| &rule.entries[*entry])
        .filter_map(|entry| Some((route_of(entry)?, entry.failover_route.as_ref()?)))
        .filter(|(route, _)| !named.contains_key(route))
        .collect();
    // Each round follows routes by one step.
    while let Some(at) = left.iter().position(|(_, heir)| named.contains_key(*heir)) {
        let (route, heir) = left.swap_remove(at);
        let heirs = named[heir].clone();
        named.entry(route).or_insert(heirs);
    }
}

fn reversal(rule: &Rule, found: &Found, crowded: &[usize]) -> Option<Reversal> {
    let rules = rule.reverse.clone()?;
    let entries = (0..rule.entries.len()).filter(|entry| crowded.binary_search(entry).is_err());
    let bases = entries.filter_map(|entry| found.base(rule, entry)).collect();
    Some(Reversal::new(&rule.prefix, bases, Arc::clone(&found.barred), rules))
}

fn running_sums(members: &[Member]) -> Vec<f64> {
    let mut sum = 0.0;
    let add = |member: &Member| {
        sum += member.weight;
        sum
    };
    members.iter().map(add).collect()
}

impl<K: Eq + Hash> Index<K> {
    /// By what `key` says of each, if it says anything.
    fn of(members: &[Member], key: impl Fn(&Member) -> Option<K>) -> Self {
        // At first each name's number, and how many have it.
        let mut ranges: Lookup<K, Range<u32>> = Lookup::default();
        let mut numbered = Vec::new();
        let mut names = 0;
        for (at, member) in members.iter().enumerate() {
            let Some(key) = key(member) else { continue };
            if ranges.is_empty() {
                ranges.reserve(members.len() - at);
                numbered.reserve_exact(members.len() - at);
            }
            let range = ranges.entry(key).or_insert_with(|| {
                names += 1;
                names - 1..0
            });
            range.end += 1;
            numbered.push((range.start, at));
        }
        numbered.sort_by_key(|(number, _)| *number);
        if ranges.len() < numbered.len() {
            ranges.shrink_to_fit();
        }
        for range in ranges.values_mut() {
            let before = numbered.partition_point(|(number, _)| *number < range.start);
            let before = u32::try_from(before).unwrap_or(u32::MAX);
            *range = before..before + range.end;
        }
        Self { ranges, members: numbered.into_iter().map(|(_, at)| at).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use http::header::{HeaderMap, HeaderValue, LOCATION};

    use super::super::access::Networks;
    use super::super::balance::{self, Ask, Tried};
    use super::super::checks::{HealthCheck, Question};
    use super::super::fixture::{endpoints, entry, route, rule, url, weighted};
    use super::super::owners::Claim;
    use super::super::path::RequestPath;
    use super::super::reverse::{Public, Said};
    use super::super::tally::Session;
    use super::super::{Found as Answer, PortRef};
    use super::*;

    fn table(rules: Vec<Rule>) -> Table {
        let rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        Table::build(&rules, &Endpoints::default(), None, &Table::default(), Instant::now())
    }

    fn hosts(names: &[&str]) -> Vec<HostPattern> {
        names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
    }

    fn found(table: &Table, host: &str, path: &str) -> String {
        match table.find(host, &RequestPath::resolve(path).unwrap()) {
            Answer::Route(route) => route.rule.id.name.to_string(),
            Answer::UnknownHost => "unknown host".into(),
            Answer::UnknownPath => "unknown path".into(),
            Answer::Undecided => "undecided".into(),
        }
    }

    /// A table of one entry, with what its target says is spoken.
    fn spoken(entry: &Entry, says: Option<Protocol>, trusts: &[Trust], tls: UpstreamTls) -> Table {
        let Target::Service(port) = &entry.target else { panic!("a Service") };
        let endpoints = ["10.0.0.1:8443".parse::<SocketAddr>().unwrap().into()];
        let backends = Backends::new(Some(443), says, endpoints);
        let rule = Rule {
            entries: vec![Entry { protocol: entry.protocol, ..service_entry(port) }],
            upstream_tls: tls,
            ..rule("app", "/")
        };
        let config = || {
            let roots = rustls::RootCertStore::empty();
            rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
        };
        let ready = |trust: &Trust| (trust.clone(), Arc::new(ClientConfigs::new(&config())));
        let endpoints = Endpoints {
            services: Lookup::from_iter([(port.clone(), Arc::new(backends))]),
            trusts: trusts.iter().map(ready).collect(),
            ..Endpoints::default()
        };
        Table::build(&[Arc::new(rule)], &endpoints, None, &Table::default(), Instant::now())
    }

    fn service_entry(port: &ServicePort) -> Entry {
        Entry { target: Target::Service(port.clone()), ..entry("app", 1) }
    }

    fn app_port() -> ServicePort {
        ServicePort { namespace: "site".into(), name: "app".into(), port: PortRef::Number(443) }
    }

    #[test]
    fn what_is_spoken_is_what_the_entry_says_else_its_target() {
        let own = UpstreamTls::default;
        for (entry_says, target_says, expected) in [
            (None, None, Protocol::Http1),
            (None, Some(Protocol::H2c), Protocol::H2c),
            (Some(Protocol::Http1), Some(Protocol::H2c), Protocol::Http1),
            (Some(Protocol::Https), None, Protocol::Https),
        ] {
            let entry = Entry { protocol: entry_says, ..service_entry(&app_port()) };
            let table = spoken(&entry, target_says, &[], own());
            let member = &table.routes[0].members[0];
            assert_eq!(member.protocol, expected);
            let name = member.tls.as_ref().map(|tls| tls.name.to_str().into_owned());
            assert_eq!(name, expected.is_tls().then(|| "app.site.svc".to_owned()));
        }
    }

    fn check(path: &'static str, pass_first: bool) -> Arc<HealthCheck> {
        let question = Question {
            method: http::Method::GET,
            path: Some(http::Uri::from_static(path)),
            host: None,
            statuses: vec![200..=299],
        };
        Arc::new(HealthCheck {
            ask: Some(question),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            successes: 1,
            failures: 1,
            pass_first,
        })
    }

    #[test]
    fn an_edit_makes_no_member_new_and_forgets_no_check() {
        let now = Instant::now();
        let with = |numbers: &[u8], host, health| {
            let entries = numbers.iter().map(|number| Entry {
                host: HeaderValue::from_static(host),
                ..entry(&format!("m{number}"), *number)
            });
            Rule { entries: entries.collect(), health, ..rule("app", "/") }
        };
        let failing = |table: &Table| -> Vec<bool> {
            table.routes[0].members.iter().map(Member::is_failing).collect()
        };
        let checked = |table: &Table, at: usize| {
            Arc::clone(table.routes[0].members[at].checked.as_ref().unwrap())
        };
        let build = |rule: Rule, before: &Table| {
            Table::build(&[Arc::new(rule)], &Endpoints::default(), None, before, now)
        };
        let table = build(with(&[1, 2], "a", None), &Table::default());
        // Who serves goes on, who joins has to pass.
        let table = build(with(&[1, 2, 3], "a", Some(check("/x", true))), &table);
        assert_eq!(failing(&table), [false, false, true]);
        assert!(checked(&table, 1).record(false) && checked(&table, 2).record(true));
        for (host, health) in
            [("b", check("/x", true)), ("b", check("/y", true)), ("c", check("/z", false))]
        {
            let edited = build(with(&[1, 2, 3], host, Some(health)), &table);
            assert!(!Arc::ptr_eq(&checked(&edited, 0), &checked(&table, 0)));
            assert_eq!(failing(&edited), [false, true, false]);
        }
        // A member that comes back is new again.
        let table = build(with(&[1, 2], "a", Some(check("/x", true))), &table);
        let table = build(with(&[1, 2, 3], "a", Some(check("/x", true))), &table);
        assert_eq!(failing(&table), [false, true, true]);
        assert!(!checked(&table, 2).keeps_sessions());
    }

    #[test]
    fn where_nobody_has_passed_yet_all_serve_and_sessions_stay() {
        let now = Instant::now();
        let entries = vec![entry("a", 1), entry("b", 2)];
        let health = Some(check("/x", true));
        let route = route(Rule { entries, health, ..rule("app", "/") }, now);
        let none = Tried::default();
        let pick = |wanted: &[usize]| {
            let ask = Ask { wanted, tried: &none, idempotent: true, tunnel: false, now };
            let pick = balance::pick(&route, &ask, &mut fastrand::Rng::with_seed(1)).unwrap();
            (pick.member, pick.session)
        };
        let served: BTreeSet<_> = (0..8).map(|_| pick(&[]).0).collect();
        assert_eq!(served, [0, 1].into());
        let [a, b] = [0, 1].map(|at: usize| route.members[at].checked.as_ref().unwrap());
        assert_eq!(pick(&[1]), (1, Session::Hit));
        assert!(a.record(true));
        assert_eq!([pick(&[]).0, pick(&[]).0, pick(&[]).0], [0; 3]);
        assert_eq!(pick(&[1]), (1, Session::Hit));
        // Now there is something better.
        b.record(false);
        assert_eq!(pick(&[1]), (0, Session::Failover));
    }

    #[test]
    fn a_trust_that_cannot_be_had_is_not_replaced_by_the_systems() {
        let secret = SecretId { namespace: "site".into(), name: "ca".into() };
        let trust = Trust { authorities: Some(secret), ..Trust::default() };
        let entry = Entry { protocol: Some(Protocol::H2), ..service_entry(&app_port()) };
        let trusted = |trusts: &[Trust], trust: Trust| {
            let tls = UpstreamTls { trust, server_name: None };
            let table = spoken(&entry, None, trusts, tls);
            table.routes[0].members[0].tls.clone().unwrap().trusted
        };
        assert!(matches!(trusted(&[], Trust::default()), Trusted::System));
        assert!(matches!(trusted(&[], trust.clone()), Trusted::Nobody));
        assert!(matches!(trusted(std::slice::from_ref(&trust), trust.clone()), Trusted::Own(_)));
    }

    #[test]
    fn a_path_that_members_may_take_for_another_rules_is_nobodys() {
        let table = table(vec![rule("all", "/"), rule("admin", "/admin"), rule("api", "/api/")]);
        for (path, name) in [
            ("/api/projects/a%2Fb", "api"),
            ("/x%2Fadmin", "all"),
            ("/admin/a%2Fb", "admin"),
            ("/admin%2Fx", "unknown path"),
            ("/api/..%2fadmin/x", "unknown path"),
            ("/api/x%5C..%5c..%5Cadmin", "unknown path"),
            ("/admin/..%2Fx", "unknown path"),
        ] {
            assert_eq!(found(&table, "www.site.com", path), name, "{path}");
        }
    }

    #[test]
    fn a_path_alone_goes_before_every_prefix_and_has_nothing_below() {
        let alone = |name: &str, path: &str| {
            let rule = rule(name, path);
            Rule { prefix: rule.prefix.clone().alone(), ..rule }
        };
        let table = table(vec![
            rule("all", "/"),
            rule("shop", "/shop"),
            alone("front", "/"),
            alone("cart", "/shop"),
            alone("late", "/shop"),
            Rule { hosts: hosts(&["*.site.com"]), ..alone("wild", "/wild") },
        ]);
        for (path, name) in [
            ("/", "front"),
            ("//", "front"),
            ("/x", "all"),
            ("/shop", "cart"),
            ("/sh%6Fp", "cart"),
            ("/shop/", "shop"),
            ("/shop/x", "shop"),
        ] {
            assert_eq!(found(&table, "www.site.com", path), name, "{path}");
        }
        assert_eq!(found(&table, "a.site.com", "/wild"), "wild");
        assert_eq!(found(&table, "a.site.com", "/wild/x"), "unknown path");
        let lost: Vec<_> = table.verdicts().iter().map(|v| (&*v.rule.name, &*v.path)).collect();
        assert_eq!(lost, [("late", "/shop alone")]);
    }

    #[test]
    fn the_most_specific_host_and_the_longest_prefix_win() {
        let table = table(vec![
            rule("root", "/"),
            rule("static", "/static/"),
            rule("css", "/static/css"),
            Rule { hosts: hosts(&["*.site.com"]), ..rule("wild", "/") },
            Rule { hosts: hosts(&["*.shop.site.com"]), ..rule("shop", "/") },
        ]);
        for (host, path, name) in [
            ("www.site.com", "/", "root"),
            ("www.site.com", "/static", "root"),
            ("www.site.com", "/static/", "static"),
            ("www.site.com", "/static/css", "css"),
            ("www.site.com", "/static/css/a", "css"),
            ("www.site.com", "/static/cssx", "static"),
            ("www.site.com", "/%73tatic/x", "static"),
            ("www.site.com", "/static/../secret", "root"),
            ("a.site.com", "/", "wild"),
            ("a.b.site.com", "/", "wild"),
            ("a.shop.site.com", "/", "shop"),
            ("site.com", "/", "unknown host"),
            ("", "/", "unknown host"),
        ] {
            assert_eq!(found(&table, host, path), name, "{host}{path}");
        }
    }

    #[test]
    fn a_host_without_the_path_falls_through_to_the_next_best() {
        let table = table(vec![
            rule("static", "/static/"),
            Rule { hosts: hosts(&["*.site.com"]), ..rule("wild", "/app/") },
            Rule { hosts: vec![HostPattern::Any], ..rule("any", "/any/") },
        ]);
        assert_eq!(found(&table, "www.site.com", "/app/x"), "wild");
        assert_eq!(found(&table, "www.site.com", "/any/x"), "any");
        assert_eq!(found(&table, "www.site.com", "/x"), "unknown path");
        assert_eq!(found(&table, "other.org", "/any/"), "any");
        assert_eq!(found(&table, "other.org", "/static/"), "unknown path");
    }

    #[test]
    fn of_two_with_the_same_host_and_path_the_older_serves() {
        let named = |name, created| Rule { created, ..rule(name, "/") };
        let table = table(vec![named("b", Some(2)), named("c", Some(1)), named("a", None)]);
        assert_eq!(found(&table, "www.site.com", "/"), "c");
        let losers: Vec<_> = table.verdicts().iter().map(|v| v.rule.name.to_string()).collect();
        assert_eq!(losers, ["a", "b"]);
        let a = RuleId { namespace: "site".into(), name: "a".into() };
        assert_eq!(table.verdicts_of(&a), &table.verdicts()[..1]);
        let c = Holder::Rule(RuleId { namespace: "site".into(), name: "c".into() });
        assert!(table.verdicts().iter().all(|verdict| verdict.holder == c));
    }

    #[test]
    fn without_times_the_first_by_name_serves_and_the_other_keeps_its_other_hosts() {
        let both = Rule { hosts: hosts(&["www.site.com", "b.site.com"]), ..rule("b", "/") };
        let table = table(vec![both, rule("a", "/")]);
        assert_eq!(found(&table, "www.site.com", "/"), "a");
        assert_eq!(found(&table, "b.site.com", "/"), "b");
        assert_eq!(table.verdicts().len(), 1);
    }

    #[test]
    fn every_address_of_a_name_is_a_member_and_a_name_without_one_is_unresolved() {
        let named = |name: &str| {
            let target = url(Host::Name(name.into()));
            Entry { target, ..entry(name, 1) }
        };
        let rule = Rule { entries: vec![named("one"), named("two")], ..rule("app", "/") };
        let endpoints = endpoints(&[("one", 80, &["127.0.0.1:80", "[::1]:80"])]);
        let table =
            Table::build(&[Arc::new(rule)], &endpoints, None, &Table::default(), Instant::now());
        let route = &table.routes[0];
        assert_eq!(route.members.len(), 2);
        assert_eq!(route.unresolved, [1]);
    }

    #[test]
    fn a_change_elsewhere_reuses_the_route_and_a_change_here_keeps_the_loads() {
        let now = Instant::now();
        let none = Endpoints::default();
        let app = Arc::new(weighted(&[1.0, 1.0]));
        let other = Arc::new(rule("other", "/other/"));
        let first = Table::build(&[Arc::clone(&app)], &none, None, &Table::default(), now);
        let second = Table::build(&[Arc::clone(&app), other], &none, None, &first, now);
        assert!(Arc::ptr_eq(&first.routes[0], second.route(&app.id).unwrap()));
        let mut changed = weighted(&[3.0, 1.0, 1.0]);
        changed.entries[1].state = State::Draining;
        let third = Table::build(&[Arc::new(changed)], &none, None, &second, now);
        let (old, new) = (&first.routes[0], &third.routes[0]);
        assert_eq!(new.members.len(), 3);
        for (old, new) in old.members.iter().zip(&new.members) {
            assert!(Arc::ptr_eq(&old.load, &new.load));
            assert!(Arc::ptr_eq(&old.tally, &new.tally));
        }
        assert!(Arc::ptr_eq(&old.tally, &new.tally));
    }

    #[test]
    fn two_entries_of_one_backend_are_counted_apart_through_a_change() {
        let now = Instant::now();
        let none = Endpoints::default();
        let twice = || Rule {
            entries: vec![entry("one", 1), Entry { name: "two".into(), ..entry("one", 1) }],
            ..rule("app", "/")
        };
        let first = Table::build(&[Arc::new(twice())], &none, None, &Table::default(), now);
        let second = Table::build(&[Arc::new(twice())], &none, None, &first, now);
        let [one, two] = &second.routes[0].members[..] else { panic!("two members") };
        assert!(Arc::ptr_eq(&one.load, &two.load) && !Arc::ptr_eq(&one.tally, &two.tally));
        assert!(Arc::ptr_eq(&two.tally, &first.routes[0].members[1].tally));
    }

    fn of(namespace: &str, name: &str, hosts: &[&str], path: &str) -> Rule {
        let id = RuleId { namespace: namespace.into(), name: name.into() };
        Rule { id, hosts: self::hosts(hosts), ..rule(name, path) }
    }

    fn owned(rules: Vec<Rule>, owners: &[(&str, &str)]) -> Table {
        let claims: Vec<_> = owners
            .iter()
            .map(|(host, namespace)| Claim {
                host: HostPattern::parse(host).unwrap(),
                at: Some(1),
                given_up: false,
                created: None,
                by: RuleId { namespace: (*namespace).into(), name: "x".into() },
            })
            .collect();
        let rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        let owners = Arc::new(Owners::of(&claims));
        let nothing = (Endpoints::default(), Table::default());
        Table::build(&rules, &nothing.0, Some(&owners), &nothing.1, Instant::now())
    }

    #[test]
    fn a_host_is_served_by_its_owner_and_the_other_keeps_its_other_hosts() {
        let table = owned(
            vec![
                of("a", "a", &["www.site.com"], "/"),
                of("b", "b", &["www.site.com", "b.org"], "/x"),
            ],
            &[("www.site.com", "a"), ("b.org", "b")],
        );
        assert_eq!(found(&table, "www.site.com", "/x"), "a");
        assert_eq!(found(&table, "b.org", "/x"), "b");
        let [verdict] = table.verdicts() else { panic!("one verdict") };
        assert_eq!(
            (verdict.host.as_str(), &verdict.holder),
            ("www.site.com", &Holder::Namespace("a".into()))
        );
    }

    #[test]
    fn wildcards_and_rules_without_hosts_get_no_names_of_other_namespaces() {
        let any = Rule { hosts: vec![HostPattern::Any], ..of("any", "any", &[], "/") };
        let table = owned(
            vec![
                of("a", "a", &["www.site.com"], "/a"),
                of("a", "wild-a", &["*.com"], "/wild"),
                of("b", "wild-b", &["*.site.com"], "/"),
                any,
            ],
            &[("www.site.com", "a"), ("*.com", "a"), ("*.site.com", "b"), ("idle.site.com", "c")],
        );
        assert_eq!(found(&table, "www.site.com", "/a"), "a");
        // The owner's own next best host, and nobody else's.
        assert_eq!(found(&table, "www.site.com", "/wild"), "wild-a");
        assert_eq!(found(&table, "www.site.com", "/b"), "unknown path");
        assert_eq!(found(&table, "x.site.com", "/wild"), "wild-b");
        // Its owner serves nothing there now.
        assert_eq!(found(&table, "idle.site.com", "/"), "unknown path");
        assert_eq!(found(&table, "other.com", "/"), "unknown path");
        assert_eq!(found(&table, "other.org", "/"), "any");
    }

    fn service_rule(route: RouteName) -> Rule {
        let port = PortRef::Name("http".into());
        let service = ServicePort { namespace: "site".into(), name: "app".into(), port };
        let target = Target::Service(service);
        Rule { entries: vec![Entry { target, route, ..entry("app", 1) }], ..rule("app", "/") }
    }

    fn backends(rule: &Rule, endpoints: &[(&str, Option<&str>, Option<&str>, bool)]) -> Endpoints {
        let Target::Service(service) = &rule.entries[0].target else { panic!("no service") };
        let endpoints = endpoints.iter().map(|(address, pod, hostname, draining)| Endpoint {
            address: address.parse().unwrap(),
            pod: pod.map(Into::into),
            hostname: hostname.map(Into::into),
            draining: *draining,
        });
        let (port, protocol) = (Some(80), None);
        let backends = Backends::new(port, protocol, endpoints);
        let services = Lookup::from_iter([(service.clone(), Arc::new(backends))]);
        Endpoints { services, ..Endpoints::default() }
    }

    #[test]
    fn endpoints_of_a_service_are_members_named_by_their_pods() {
        let pods = [
            ("10.0.0.1:8080", Some("app-0"), Some("zero"), false),
            ("10.0.0.2:8080", Some("app-1"), None, true),
            ("10.0.0.3:8080", None, None, false),
        ];
        for (route, names) in [
            (RouteName::PodName, [Some("app-0"), Some("app-1"), None]),
            (RouteName::Hostname, [Some("zero"), Some("app-1"), None]),
            (RouteName::Fixed("all".into()), [Some("all"); 3]),
        ] {
            let rule = Arc::new(service_rule(route));
            let endpoints = backends(&rule, &pods);
            let nothing = Table::default();
            let table = Table::build(&[rule], &endpoints, None, &nothing, Instant::now());
            let members = &table.routes[0].members;
            let found: Vec<_> = members.iter().map(|member| member.route.as_deref()).collect();
            assert_eq!(found, names);
            let states: Vec<_> = members.iter().map(|member| member.state).collect();
            assert_eq!(states, [State::Active, State::Draining, State::Active]);
        }
    }

    #[test]
    fn those_about_to_end_are_the_last_resort_of_the_whole_rule() {
        let states = |endpoints: &[(&str, Option<&str>, Option<&str>, bool)],
                      other: Option<State>| {
            let mut rule = service_rule(RouteName::None);
            rule.entries.extend(other.map(|state| Entry { state, ..entry("other", 9) }));
            let rule = Arc::new(rule);
            let endpoints = backends(&rule, endpoints);
            let nothing = Table::default();
            let table = Table::build(&[rule], &endpoints, None, &nothing, Instant::now());
            table.routes[0].members.iter().map(|member| member.state).collect::<Vec<_>>()
        };
        let ending = [("10.0.0.1:80", None, None, true)];
        assert_eq!(states(&ending, None), [State::Active]);
        assert_eq!(states(&ending, Some(State::Active)), [State::Draining, State::Active]);
        assert_eq!(states(&ending, Some(State::Standby)), [State::Draining, State::Standby]);
        // What the user drains stays so.
        assert_eq!(states(&ending, Some(State::Draining)), [State::Active, State::Draining]);
        assert_eq!(states(&ending, Some(State::Disabled)), [State::Active, State::Disabled]);
    }

    #[test]
    fn a_pod_that_comes_or_goes_changes_nothing_for_the_others() {
        let now = Instant::now();
        let rule = Arc::new(service_rule(RouteName::PodName));
        let pod = |address, name| (address, Some(name), None, false);
        let two = [pod("10.0.0.1:80", "app-0"), pod("10.0.0.2:80", "app-1")];
        let first = backends(&rule, &two);
        let rules = [Arc::clone(&rule)];
        let first = Table::build(&rules, &first, None, &Table::default(), now);
        let moved = backends(&rule, &[pod("10.0.0.2:80", "app-1"), pod("10.0.0.9:80", "app-0")]);
        let second = Table::build(&rules, &moved, None, &first, now);
        let (old, new) = (&first.routes[0].members[1], &second.routes[0].members[0]);
        assert!(Arc::ptr_eq(&old.load, &new.load) && Arc::ptr_eq(&old.tally, &new.tally));
        assert_eq!(second.routes[0].named.get("app-0"), Some(&[1][..]));
        let third = Table::build(&rules, &moved, None, &second, now);
        assert!(Arc::ptr_eq(&second.routes[0], &third.routes[0]));
    }

    #[test]
    fn entries_of_one_backend_keep_what_is_their_own() {
        let mut rule = service_rule(RouteName::None);
        let other = service_rule(RouteName::None).entries.into_iter();
        rule.entries.extend(other.map(|entry| Entry { name: "other".into(), ..entry }));
        let rules = [Arc::new(rule)];
        let both = [("10.0.0.1:80", None, None, false), ("10.0.0.2:80", None, None, false)];
        let endpoints = |of| backends(&rules[0], of);
        let now = Instant::now();
        let first = Table::build(&rules, &endpoints(&both), None, &Table::default(), now);
        let second = Table::build(&rules, &endpoints(&both[1..]), None, &first, now);
        let (before, after) = (&first.routes[0].members, &second.routes[0].members);
        for (old, new) in [(&before[1], &after[0]), (&before[3], &after[1])] {
            assert_eq!(old.name, new.name);
            assert!(Arc::ptr_eq(&old.load, &new.load));
            assert!(Arc::ptr_eq(&old.tally, &new.tally));
        }
        assert!(Arc::ptr_eq(&after[0].load, &after[1].load));
        assert!(!Arc::ptr_eq(&after[0].tally, &after[1].tally));
    }

    #[test]
    fn an_entry_with_more_addresses_than_are_left_has_none() {
        let service = |name: &str| {
            let port = PortRef::Number(80);
            ServicePort { namespace: "site".into(), name: name.into(), port }
        };
        let numbers = [("most", ADDRESSES - 10), ("many", 11), ("few", 9)];
        let mut rule = service_rule(RouteName::None);
        let of = |name| Entry { target: Target::Service(service(name)), ..entry(name, 1) };
        rule.entries = numbers.map(|(name, _)| of(name)).into();
        rule.entries.extend([entry("last", 1), entry("none", 2)]);
        let addresses = |net: u8, count: usize| {
            let ip = |n: usize| u32::from_be_bytes([10, net, 0, 0]) + u32::try_from(n).unwrap();
            let ips = (0..count).map(move |n| std::net::Ipv4Addr::from_bits(ip(n)));
            Arc::new(ips.map(|ip| SocketAddr::new(ip.into(), 80)).collect::<Backends>())
        };
        let services =
            (1..).zip(numbers).map(|(net, (n, count))| (service(n), addresses(net, count)));
        let endpoints = Endpoints { services: services.collect(), ..Endpoints::default() };
        let rules = [Arc::new(rule)];
        let table = Table::build(&rules, &endpoints, None, &Table::default(), Instant::now());
        let route = &table.routes[0];
        assert_eq!(route.members.len(), ADDRESSES);
        assert_eq!((&route.unresolved[..], &route.crowded[..]), (&[1, 4][..], &[1, 4][..]));
        assert_eq!(route.found_addresses(1), 11);
        assert!(reverses(route, "10.1.0.1") && reverses(route, "10.3.0.1"));
        assert!(!reverses(route, "10.2.0.1"));
    }

    #[test]
    fn barred_addresses_are_no_members_however_they_were_found() {
        let named = Entry { target: url(Host::Name("inside".into())), ..entry("named", 1) };
        let literal = entry("literal", 1);
        let mut rule = service_rule(RouteName::None);
        let endpoints = backends(&rule, &[("127.0.1.1:80", None, None, false)]);
        rule.entries.extend([named, literal]);
        let rule = Arc::new(rule);
        let found = endpoints_of("inside", "127.0.0.1:80");
        let free = Endpoints { names: found, ..endpoints };
        let open =
            Table::build(&[Arc::clone(&rule)], &free, None, &Table::default(), Instant::now());
        assert_eq!(open.routes[0].members.len(), 3);
        let barred = Arc::new(Barred::local_and(Networks::default()));
        let barred = Endpoints { barred, ..free };
        let table = Table::build(&[rule], &barred, None, &open, Instant::now());
        assert_eq!(
            (table.routes[0].members.len(), &table.routes[0].unresolved[..]),
            (0, &[0, 1, 2][..])
        );
    }

    fn endpoints_of(name: &str, address: &str) -> HashMap<(Arc<str>, u16), Arc<Backends>> {
        endpoints(&[(name, 80, &[address])]).names
    }

    #[test]
    fn what_a_service_calls_itself_is_reversed() {
        let rule = Arc::new(service_rule(RouteName::None));
        let endpoints = backends(&rule, &[("10.0.0.1:8080", None, None, false)]);
        let table = Table::build(&[rule], &endpoints, None, &Table::default(), Instant::now());
        for own in
            ["app", "app.site", "app.site.svc", "app.site.svc.cluster.local", "10.0.0.1:8080"]
        {
            assert!(reverses(&table.routes[0], own), "{own}");
        }
        for other in [
            "app:8080",
            "ap",
            "apps",
            "app.other",
            "app.site.svc.cluster",
            "app.site.svc.cluster.local.evil.org",
            "10.0.0.1",
            "10.0.0.2:8080",
            "010.0.0.1:8080",
            "[::1]:8080",
        ] {
            assert!(!reverses(&table.routes[0], other), "{other}");
        }
    }

    /// Whether what is at this host and port is a member, for its reversal.
    fn reverses(route: &Route, authority: &str) -> bool {
        let mut headers = HeaderMap::new();
        let location = format!("http://{authority}/x");
        headers.insert(LOCATION, HeaderValue::try_from(&location).unwrap());
        let public = Public { scheme: Scheme::Http, authority: "www.site.com" };
        let said = Said { public: &public, by: "/", host_kept: false, elsewhere: &|_| None };
        route.reversal.as_ref().unwrap().apply(&mut headers, said);
        headers[LOCATION] != *location
    }

    #[test]
    fn addresses_of_both_families_are_reversed_as_they_are_written() {
        let rule = Arc::new(service_rule(RouteName::None));
        let pods = ["[fd00::1]:80", "10.0.0.2:80", "10.0.0.1:81", "10.0.0.1:80", "[fd00::2]:80"];
        let found = endpoints_of_pods(&rule, &pods);
        let table = Table::build(&[rule], &found, None, &Table::default(), Instant::now());
        let route = &table.routes[0];
        let own = [&pods[..], &["[FD00:0::1]", "10.0.0.1", "10.0.0.2"]].concat();
        assert!(own.iter().all(|pod| reverses(route, pod)), "{own:?}");
        for other in ["10.0.0.2:81", "10.0.0.3", "[fd00::3]", "[fd00::1]:81", "[fd00::1", "fd00::1"]
        {
            assert!(!reverses(route, other), "{other}");
        }
        let barred =
            Arc::new(Barred::local_and(Networks::new(vec!["10.0.0.2/32".parse().unwrap()])));
        let found = Endpoints { barred, ..found };
        let rules = [Arc::clone(&route.rule)];
        let table = Table::build(&rules, &found, None, &table, Instant::now());
        assert!(!reverses(&table.routes[0], "10.0.0.2") && reverses(&table.routes[0], "10.0.0.1"));
        // What a rule names itself is no secret of its own, whether or not it is asked.
        let named =
            Rule { entries: vec![entry("m", 9)], ..super::super::fixture::rule("named", "/") };
        let barred =
            Endpoints { barred: Arc::new(Barred::local_and(Networks::default())), ..found };
        let table = Table::build(&[Arc::new(named)], &barred, None, &table, Instant::now());
        assert!(table.routes[0].members.is_empty() && reverses(&table.routes[0], "127.0.1.9"));
    }

    fn endpoints_of_pods(rule: &Rule, addresses: &[&str]) -> Endpoints {
        let all: Vec<_> = addresses.iter().map(|address| (*address, None, None, false)).collect();
        backends(rule, &all)
    }

    /// What a table says of its members: what it has taken over is the same as in `before`, and what is
    /// new is numbered in the order in which it is met.
    fn shown(table: &Table, before: &Table) -> Vec<String> {
        let things = |table: &Table| -> Vec<*const ()> {
            let members = table.routes.iter().flat_map(|route| &route.members);
            members
                .flat_map(|m| {
                    let checked = m.checked.as_ref().map(|checked| Arc::as_ptr(checked).cast());
                    [Some(Arc::as_ptr(&m.load).cast()), checked, Some(Arc::as_ptr(&m.tally).cast())]
                })
                .flatten()
                .collect()
        };
        let mut numbers: HashMap<*const (), usize> = HashMap::new();
        for thing in things(before).into_iter().chain(things(table)) {
            let next = numbers.len();
            numbers.entry(thing).or_insert(next);
        }
        let number = |thing: *const ()| numbers[&thing];
        let member = |m: &Member| {
            let checked = m.checked.as_ref().map(|checked| number(Arc::as_ptr(checked).cast()));
            let own = [Arc::as_ptr(&m.load).cast(), Arc::as_ptr(&m.tally).cast()].map(number);
            format!("{} {} {:?} {own:?} {checked:?}", m.address, m.entry, m.state)
        };
        let route = |route: &Arc<Route>| {
            let members: Vec<_> = route.members.iter().map(member).collect();
            format!("{} {members:?} {:?} {:?}", route.rule.id, route.unresolved, route.crowded)
        };
        table.routes.iter().map(route).collect()
    }

    proptest::proptest! {
        #[test]
        fn what_follows_endpoints_is_what_is_built_of_all(
            targets in proptest::collection::vec(
                (proptest::collection::vec(0_u8..4, 1..3), proptest::bool::ANY), 1..6),
            changes in proptest::collection::vec(
                proptest::collection::vec((0_u8..4, proptest::collection::vec(1_u8..6, 0..4)), 1..3),
                1..6),
        ) {
            let now = Instant::now();
            let port = |at: u8| {
                let name = format!("app-{at}").into();
                ServicePort { namespace: "site".into(), name, port: PortRef::Number(80) }
            };
            let health = check("/", true);
            let rules: Vec<Arc<Rule>> = targets.iter().enumerate().map(|(at, (services, checked))| {
                let entries = services.iter().map(|service| {
                    let target = Target::Service(port(*service));
                    Entry { target, ..entry(&format!("m{service}"), 1) }
                });
                let health = checked.then(|| Arc::clone(&health));
                let rule = Rule { entries: entries.collect(), health, ..rule(&format!("r{at}"), "/") };
                Arc::new(rule)
            }).collect();
            let mut endpoints = Endpoints::default();
            let mut table = Table::build(&rules, &endpoints, None, &Table::default(), now);
            let users = Users::of(&table);
            for change in changes {
                let mut changed = Vec::new();
                for (service, numbers) in change {
                    let at = |n: &u8| SocketAddr::from(([10, 0, 0, *n], 80));
                    let found: Backends = numbers.iter().map(at).collect();
                    endpoints.services.insert(port(service), Arc::new(found));
                    changed.push(port(service));
                }
                let next = table.with(&changed, &endpoints, &users, now);
                let whole = Table::build(&rules, &endpoints, None, &table, now);
                proptest::prop_assert_eq!(shown(&next, &table), shown(&whole, &table));
                let is_same = |at: &usize, of: &Table| Arc::ptr_eq(&of.routes[*at], &table.routes[*at]);
                for at in 0..rules.len() {
                    proptest::prop_assert_eq!(is_same(&at, &next), is_same(&at, &whole));
                }
                proptest::prop_assert!(users.fit(&next));
                table = next;
            }
            proptest::prop_assert!(!Users::default().fit(&Table::default()));
        }
    }

    #[test]
    fn before_the_first_table_nothing_is_known_to_be_unknown() {
        assert_eq!(found(&Table::default(), "www.site.com", "/"), "undecided");
        assert_eq!(found(&table(Vec::new()), "www.site.com", "/"), "unknown host");
    }

    #[test]
    fn rules_to_one_backend_learn_once() {
        let rule = |name, path| Rule { entries: vec![entry("m", 1)], ..rule(name, path) };
        let table = table(vec![rule("a", "/a"), rule("b", "/b")]);
        let loads: Vec<_> = table.routes.iter().map(|r| &r.members[0].load).collect();
        assert!(Arc::ptr_eq(loads[0], loads[1]));
        // One that comes later, too.
        let stays = Arc::clone(&table.routes[0].rule);
        let rules = [stays, Arc::new(rule("c", "/c"))];
        let later = Table::build(&rules, &Endpoints::default(), None, &table, Instant::now());
        assert!(Arc::ptr_eq(&later.routes[0], &table.routes[0]));
        assert!(Arc::ptr_eq(&later.routes[1].members[0].load, loads[0]));
    }

    #[test]
    fn who_serves_what_is_decided_anew_only_when_rules_or_owners_change() {
        let now = Instant::now();
        let rule = Arc::new(service_rule(RouteName::PodName));
        let rules = [Arc::clone(&rule)];
        let owned = |by: &str| {
            let by = RuleId { namespace: by.into(), name: "x".into() };
            let host = rule.hosts[0].clone();
            Arc::new(Owners::of(&[Claim { host, at: Some(1), given_up: false, created: None, by }]))
        };
        let (own, others) = (owned("site"), owned("other"));
        let first = backends(&rule, &[("10.0.0.1:80", None, None, false)]);
        let first = Table::build(&rules, &first, Some(&own), &Table::default(), now);
        let moved = backends(&rule, &[("10.0.0.2:80", None, None, false)]);
        let second = Table::build(&rules, &moved, Some(&owned("site")), &first, now);
        assert!(Arc::ptr_eq(&first.hosts, &second.hosts));
        let path = RequestPath::resolve("/").unwrap();
        let host = rule.hosts[0].to_string();
        let Answer::Route(route) = second.find(&host, &path) else { panic!("no route") };
        assert_eq!(route.members[0].address, "10.0.0.2:80".parse().unwrap());
        let third = Table::build(&rules, &moved, Some(&others), &second, now);
        assert!(matches!(third.find(&host, &path), Answer::UnknownPath));
        assert_eq!(third.verdicts().len(), 1);
        let fourth = Table::build(&[], &moved, Some(&others), &third, now);
        assert_eq!((fourth.routes.len(), fourth.verdicts().len()), (0, 0));
    }
}
