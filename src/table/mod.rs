//! What was decided: rules with their live members, in matching order. Immutable, swapped whole.
//!
//! Pure: no sockets, no clock, no randomness of its own. What changes between two tables, the
//! [`Load`] of a backend and the cursors of a rule, stands behind the table and is taken over.

pub mod access;
pub mod balance;
pub mod checks;
pub mod edit;
pub mod explain;
pub mod gate;
pub mod load;
pub mod owners;
pub mod pages;
pub mod path;
pub mod queue;
pub mod reverse;
pub mod sticky;
pub mod tally;
pub mod tls;
pub mod upstream;

mod build;
#[cfg(test)]
pub(crate) mod fixture;
mod stage;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use rustls::pki_types::ServerName;

use access::Access;
use balance::{Cursor, Dealer, Method};
use checks::{Checked, HealthCheck};
use edit::Edits;
use load::{Admission, Failure, Load};
use owners::Owners;
use pages::Pages;
use path::{HostPattern, Prefix, RequestPath};
use queue::Queue;
use reverse::{Address, Reversal};
use sticky::{Sticky, Wanted};
use tally::{MemberTally, RuleTally};
use tls::{CertificateConflict, Certificates, ClientPolicies, Clients, Tls};
use upstream::{MemberTls, Protocol, UpstreamTls};

pub use build::{ADDRESSES, Backends, Endpoint, Endpoints, Holder, Users, Verdict};

/// The name of the object that a rule comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One thing that a source asks for: parsed, compiled, checked, not yet resolved.
#[derive(Debug)]
pub struct Rule {
    /// Whose rule it is.
    pub id: RuleId,
    /// When its object was made, in seconds since 1970; objects in files have no such time.
    pub created: Option<i64>,
    /// The hosts it serves; never empty.
    pub hosts: Vec<HostPattern>,
    /// The paths it serves.
    pub prefix: Prefix,
    /// Answers in place of members.
    pub redirect: Option<Redirect>,
    /// Is the answer in place of members.
    pub refuse: Option<StatusCode>,
    /// Where requests go.
    pub entries: Vec<Entry>,
    /// How they are spread.
    pub method: Method,
    /// How long a new member's weight grows.
    pub slow_start: Duration,
    /// How long a request waits for a member that has as many as it may have.
    pub queue_for: Duration,
    /// Which session belongs to which member.
    pub sticky: Option<Sticky>,
    /// What happens when a member fails.
    pub failover: Failover,
    /// How its members are checked, if they are.
    pub health: Option<Arc<HealthCheck>>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// The longest request body in bytes.
    pub body_limit: Option<u64>,
    /// What is reversed besides the members' own addresses; none if reversal is off.
    pub reverse: Option<reverse::Rules>,
    /// Changes to the request's headers.
    pub request_headers: Edits,
    /// Changes to the response's headers.
    pub response_headers: Edits,
    /// What clients get with an error.
    pub pages: Pages,
    /// Who may come in.
    pub access: Access,
    /// What it asks of TLS with clients.
    pub tls: Option<Tls>,
    /// What it asks of TLS with its members.
    pub upstream_tls: UpstreamTls,
}

impl Rule {
    /// Which certificates it wants of clients.
    #[must_use]
    pub fn clients(&self) -> Option<&Clients> {
        self.tls.as_ref()?.clients.as_ref()
    }
}

/// One entry of a rule's member list.
#[derive(Debug)]
pub struct Entry {
    /// Its name in metrics and logs.
    pub name: Arc<str>,
    /// Where it is.
    pub target: Target,
    /// The path under which it serves what is below the rule's prefix.
    pub path: Arc<str>,
    /// What is spoken with it, whatever its target says.
    pub protocol: Option<Protocol>,
    /// Whether it is asked with the client's Host.
    pub preserve_host: bool,
    /// The Host it is asked for, if it does not get the client's.
    pub host: HeaderValue,
    /// Its route: the name that sessions know it by.
    pub route: RouteName,
    /// Capacity of each of its addresses.
    pub weight: f64,
    /// Its part of the requests, whatever the latencies.
    pub share: Option<f64>,
    /// How many requests each of its addresses has at once at most.
    pub max_in_flight: Option<u32>,
    /// What it is used for.
    pub state: State,
    /// Members of a tier serve only while nobody of the tiers below can.
    pub tier: u8,
    /// The route that its sessions go to while it is unusable.
    pub failover_route: Option<Arc<str>>,
}

/// What the sessions of an entry's members carry as their route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteName {
    /// No session names them.
    #[default]
    None,
    /// This, for all of them.
    Fixed(Arc<str>),
    /// The name of each one's pod.
    PodName,
    /// The hostname of each one's pod; where there is none, the pod's name.
    Hostname,
}

/// Where a member is, before it is resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The host and port of a URL.
    Url(Authority),
    /// A port of a Service: each of its endpoints is a member.
    Service(ServicePort),
}

/// The scheme, host and port of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Name or address.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// The name to verify its certificate for, when it is spoken to by TLS.
    pub tls: Option<ServerName<'static>>,
}

/// A name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name in lower case.
    Name(Arc<str>),
    /// An address.
    Address(IpAddr),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service's name.
    pub name: Arc<str>,
    /// Its port: not the pods'.
    pub port: PortRef,
}

/// How a port of a Service is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name.
    Name(Arc<str>),
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Target {
    /// The name to verify its certificate for by default.
    fn server_name(&self) -> Option<ServerName<'static>> {
        match self {
            Self::Url(authority) => authority.tls.clone(),
            Self::Service(service) => {
                let name = format!("{}.{}.svc", service.name, service.namespace);
                ServerName::try_from(name).ok()
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(authority) => write!(f, "{authority}"),
            Self::Service(service) => {
                write!(f, "service/{}/{}:{}", service.namespace, service.name, service.port)
            }
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "https://" } else { "http://" })?;
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
        }
    }
}

/// What a member is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Everything.
    #[default]
    Active,
    /// Its own sessions; others only when no active member is usable.
    Standby,
    /// Its own sessions; others in place of a member that is not usable.
    Spare,
    /// Its own sessions only.
    Draining,
    /// Nothing.
    Disabled,
}

impl State {
    /// The label in metrics, logs and pages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Spare => "spare",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// An absolute URL, or a path on the same host.
    pub to: Box<str>,
    /// A 3xx status.
    pub status: StatusCode,
    /// Whether what follows the prefix, and the query, is appended.
    pub keep_path: bool,
}

/// What happens when a member fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// Members that one request may be sent to.
    pub attempts: usize,
    /// Statuses that exclude a member.
    pub statuses: Vec<StatusCode>,
    /// Statuses of gRPC that are failures.
    pub grpc_statuses: Vec<u8>,
    /// The first interval of exclusion; zero never excludes.
    pub exclude_for: Duration,
    /// The percentage of members that may be excluded for what came over a connection.
    pub excluded_percent: u32,
    /// How many requests in 100 may be sent again after a member has seen them.
    pub retry_percent: u32,
}

/// How long to wait for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to a member.
    pub connect: Duration,
    /// For a member's response head, and for each part of its body.
    pub response: Duration,
    /// The same for gRPC.
    pub messages: Duration,
    /// For the whole of a request, if limited.
    pub request: Option<Duration>,
    /// For either side of a tunnel (WebSocket) to say something.
    pub idle: Duration,
}

/// One address, with weight, route name and load.
#[derive(Debug)]
pub struct Member {
    /// The entry's name.
    pub name: Arc<str>,
    /// Index of its entry in the rule.
    pub entry: usize,
    /// Index of its group in the route.
    pub group: usize,
    /// Where to connect.
    pub address: SocketAddr,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// How, when it is spoken to by TLS.
    pub tls: Option<MemberTls>,
    /// The name that its sessions know it by.
    pub route: Option<Arc<str>>,
    /// The value of Gibbon's own cookie for it.
    pub token: Option<Box<str>>,
    /// Its capacity.
    pub weight: f64,
    /// How many requests it has at once at most.
    pub max_in_flight: Option<u32>,
    /// What it is used for.
    pub state: State,
    /// Its entry's tier.
    pub tier: u8,
    /// What is known of its backend.
    pub load: Arc<Load>,
    /// What has come of its health checks, if there are any.
    pub checked: Option<Arc<Checked>>,
    /// What this rule has given it, and what has come of it.
    pub tally: Arc<MemberTally>,
}

impl Member {
    /// Whether it has as many requests as it may have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.max_in_flight.is_some_and(|most| self.load.in_flight() >= most)
    }

    /// Whether it takes requests at `now`: not while it fails its health checks.
    #[must_use]
    pub fn admission(&self, now: Instant) -> Admission {
        if self.is_failing() {
            Admission::Excluded(Duration::ZERO)
        } else {
            self.load.admission(now)
        }
    }

    /// Whether it takes requests of its own sessions at `now` although its first health checks are not
    /// over: who was there when this process began may well have begun them.
    #[must_use]
    pub fn keeps_sessions(&self, now: Instant) -> bool {
        self.checked.as_ref().is_some_and(|checked| checked.keeps_sessions())
            && self.load.admission(now) == Admission::Usable
    }

    /// Whether it fails its health checks.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.checked.as_ref().is_some_and(|checked| checked.is_failing())
    }
}

/// Members that are drawn together.
#[derive(Debug)]
pub struct Group {
    /// Its members' indices in the route.
    pub range: Range<usize>,
    /// Its part of the requests.
    pub share: f64,
    /// Its virtual time.
    pub cursor: Arc<Cursor>,
    /// The requests that it should have got by its share, where there are several.
    pub owed: Arc<Cursor>,
    /// What it was last found to be.
    gauge: balance::Gauge,
    /// Running sums of the members' weights, for draws by weight.
    sums: Vec<f64>,
}

impl Group {
    /// The sum of its members' weights.
    fn weight(&self) -> f64 {
        self.sums.last().copied().unwrap_or_default()
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        let at = rng.f64() * self.weight();
        let offset = self.sums.partition_point(|sum| *sum <= at);
        self.range.start + offset.min(self.range.len().saturating_sub(1))
    }
}

/// A rule with its live members.
#[derive(Debug)]
pub struct Route {
    /// What was asked for.
    pub rule: Arc<Rule>,
    /// All addresses of all entries.
    pub members: Vec<Member>,
    /// Members drawn together; at least one, which may be empty.
    pub groups: Vec<Group>,
    /// Deals out the groups' shares.
    pub dealer: Arc<Dealer>,
    /// Entries that have no address now.
    pub unresolved: Vec<usize>,
    /// Those of them whose addresses would be more than [`ADDRESSES`] with those of the others.
    pub crowded: Vec<usize>,
    /// What members say of their own address, turned round.
    pub reversal: Option<Reversal>,
    /// What has happened so far.
    pub tally: Arc<RuleTally>,
    /// What may be sent again.
    pub budget: Arc<Budget>,
    /// Requests that wait for members that are full.
    pub queue: Arc<Queue>,
    /// How many may wait; none where no member can be full.
    pub room: usize,
    /// The tiers of its members, from the first on.
    tiers: Vec<u8>,
    has_spares: bool,
    /// All members serve side by side, however many requests they have.
    are_alike: bool,
    found: build::Found,
    named: Index<Arc<str>>,
    issued: Index<Box<str>>,
}

/// Members by a name that they may share.
#[derive(Debug)]
struct Index<K> {
    ranges: Lookup<K, Range<u32>>,
    /// Indices of members, those of a name one after the other.
    members: Box<[usize]>,
}

impl<K: Borrow<str> + Eq + Hash> Index<K> {
    fn get(&self, name: &str) -> Option<&[usize]> {
        let range = self.ranges.get(name)?;
        Some(&self.members[range.start as usize..range.end as usize])
    }
}

/// What a request says about its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish<'r> {
    /// It named one, known or not.
    pub named: bool,
    /// The members it named, by index.
    pub members: &'r [usize],
}

impl Route {
    /// The members that the request's session belongs to. Of several names in the request, the
    /// first that is known counts.
    #[must_use]
    pub fn wish(&self, path: &str, query: Option<&str>, headers: &HeaderMap) -> Wish<'_> {
        let mut wish = Wish { named: false, members: &[] };
        let Some(sticky) = &self.rule.sticky else {
            return wish;
        };
        for wanted in sticky.wanted(path, query, headers) {
            wish.named = true;
            let members = match &wanted {
                Wanted::Route(route) => self.named.get(route.as_ref()),
                Wanted::Issued(token) => self.issued.get(token),
            };
            if let Some(members) = members {
                wish.members = members;
                break;
            }
        }
        wish
    }

    /// The members of the route that these leave their sessions to.
    fn successors(&self, members: &[usize]) -> Option<&[usize]> {
        let heir = |member: &usize| {
            let entry = &self.rule.entries[self.members[*member].entry];
            self.named.get(entry.failover_route.as_ref()?)
        };
        members.iter().find_map(heir)
    }

    /// Whether the sessions of members are left to this one while none of them can serve.
    #[must_use]
    pub fn is_heir(&self, members: &[usize], member: usize) -> bool {
        let next = |members: &&[usize]| self.successors(members);
        let heirs = std::iter::successors(Some(members), next).skip(1);
        // Routes may lead in a circle.
        heirs.take(self.rule.entries.len()).any(|heirs| heirs.contains(&member))
    }

    /// How long a failure excludes a member for the first time; zero if it must not.
    #[must_use]
    pub fn exclusion(&self, member: &Member, failure: Failure, now: Instant) -> Duration {
        let Failover { exclude_for, excluded_percent, .. } = self.rule.failover;
        let is_in_use = |m: &&Member| m.state != State::Disabled;
        let others =
            self.members.iter().filter(is_in_use).filter(|m| !Arc::ptr_eq(&m.load, &member.load));
        let out = others.clone().filter(|m| m.admission(now) != Admission::Usable).count();
        let all = others.count() + 1;
        // Of two, one may be left out, whatever that is in percent; the last one never.
        let most = (all * excluded_percent as usize / 100).clamp(usize::from(all > 1), all - 1);
        if failure.is_unreachable() || out < most { exclude_for } else { Duration::ZERO }
    }

    /// The mean latency of each group's members, in seconds: what [`Load::latency`] of them asks for.
    #[must_use]
    pub fn means(&self) -> Vec<f64> {
        let members = |group: &Group| self.members[group.range.clone()].iter();
        self.groups.iter().map(|group| balance::mean(members(group))).collect()
    }
}

/// Bounds the requests that are sent again to a share of all, so that an outage is not multiplied.
/// A token bucket that requests fill and resends empty, with a floor of ten resends a second.
#[derive(Debug)]
pub struct Budget {
    hundredths: AtomicU64,
    second: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { hundredths: AtomicU64::new(Self::FLOOR * 100), second: AtomicU64::new(0) }
    }
}

impl Budget {
    /// Resends that are free in each second.
    const FLOOR: u64 = 10;
    /// Resends that can be saved up.
    const SAVED: u64 = 1000;

    /// A request came: `percent` hundredths of a resend are earned.
    pub fn earn(&self, percent: u32) {
        if percent == 0 {
            return;
        }
        let add = |have: u64| (have < Self::SAVED * 100).then(|| have + u64::from(percent));
        let _full = self.hundredths.fetch_update(Relaxed, Relaxed, add);
    }

    /// Whether a request may be sent again; `second` is any clock's full seconds.
    #[must_use]
    pub fn spend(&self, second: u64) -> bool {
        if self.second.swap(second, Relaxed) != second {
            self.hundredths.fetch_max(Self::FLOOR * 100, Relaxed);
        }
        let take = |have: u64| have.checked_sub(100);
        self.hundredths.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

/// All routes, in matching order.
#[derive(Debug, Default)]
pub struct Table {
    /// Every route once, by the name of its rule.
    pub routes: Vec<Arc<Route>>,
    /// The certificates of the hosts.
    pub certificates: Arc<Certificates>,
    /// How the clients of the hosts are verified.
    pub clients: Arc<ClientPolicies>,
    /// Which rules bring certificates that are not used.
    pub certificate_conflicts: Arc<[CertificateConflict]>,
    hosts: Arc<Hosts>,
    built: bool,
}

/// Which of a table's routes serves what. The next table has the same as long as only members change.
/// A map that requests look into. What is in it comes from Balancers, so its hash need not withstand
/// clients that choose keys; it is seeded all the same.
pub(crate) type Lookup<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Hosts {
    exact: Lookup<Box<str>, Paths>,
    wildcards: Lookup<Box<str>, Paths>,
    any: Option<Paths>,
    verdicts: Vec<Verdict>,
    /// Who owns which host, where hosts are owned.
    owners: Option<Arc<Owners>>,
    /// No other of this process has the same number.
    version: u64,
}

/// The routes of one host, by prefix: their places in the table.
#[derive(Debug, Default)]
struct Paths {
    routes: Lookup<Box<str>, usize>,
    /// Those of paths that are matched alone.
    exact: Lookup<Box<str>, usize>,
    deepest: usize,
    /// The namespace that the host belongs to, where hosts belong to one.
    owner: Option<Arc<str>>,
}

impl Paths {
    /// The route with the path itself, else the one with the longest prefix; of this namespace only,
    /// if one is given.
    fn find<'t>(
        &self,
        routes: &'t [Arc<Route>],
        path: &RequestPath<'_>,
        of: Option<&str>,
    ) -> Option<&'t Arc<Route>> {
        let own = |route: &&Arc<Route>| of.is_none_or(|of| *route.rule.id.namespace == *of);
        let exact = self.exact.get(path.plain()).map(|at| &routes[*at]).filter(own);
        exact.or_else(|| {
            path::candidates(path.plain(), self.deepest)
                .find_map(|prefix| self.routes.get(prefix).map(|at| &routes[*at]).filter(own))
        })
    }
}

/// What a table says of a request.
#[derive(Clone, Copy, Debug)]
pub enum Found<'t> {
    /// This route serves it.
    Route(&'t Arc<Route>),
    /// No rule has this host.
    UnknownHost,
    /// Rules have the host, but not the path.
    UnknownPath,
    /// Nothing was decided yet: it is the table of a process that has just begun.
    Undecided,
}

impl Table {
    /// The route for a host (lower case, no port) and a path: the most specific host, and for it
    /// the longest prefix; a host without a matching path falls through to the next best. Where
    /// hosts belong to namespaces, to the next best of the one that the most specific belongs to.
    ///
    /// A path that is another rule's for a member that takes `%2F` for `/` is nobody's: what one rule
    /// shuts must not be reached by another.
    #[must_use]
    pub fn find(&self, host: &str, path: &RequestPath<'_>) -> Found<'_> {
        let found = self.find_as_written(host, path);
        let (Found::Route(route), Some(separated)) = (found, path.separated()) else {
            return found;
        };
        let same = RequestPath::resolve(&separated).is_ok_and(|path| {
            let other = self.find_as_written(host, &path);
            matches!(other, Found::Route(other) if Arc::ptr_eq(other, route))
        });
        if same { found } else { Found::UnknownPath }
    }

    fn find_as_written(&self, host: &str, path: &RequestPath<'_>) -> Found<'_> {
        let (mut known, mut owner) = (false, None);
        for paths in self.paths(host) {
            known = true;
            owner = owner.or(paths.owner.as_deref());
            if let Some(route) = paths.find(&self.routes, path, owner) {
                return Found::Route(route);
            }
        }
        match (self.built, known) {
            (false, _) => Found::Undecided,
            (true, true) => Found::UnknownPath,
            (true, false) => Found::UnknownHost,
        }
    }

    /// The paths of a host, the most specific pattern first.
    fn paths(&self, host: &str) -> impl Iterator<Item = &Paths> {
        let Hosts { exact, wildcards, any, .. } = &*self.hosts;
        let exact = exact.get(host).into_iter();
        let wild = path::wildcard_suffixes(host).filter_map(|suffix| wildcards.get(suffix));
        exact.chain(wild).chain(any)
    }

    /// The public path of an address that belongs to a member of any rule of this host and
    /// namespace: what one part of a site says of another.
    #[must_use]
    pub fn public_path(
        &self,
        host: &str,
        namespace: &str,
        address: &Address<'_>,
    ) -> Option<String> {
        let routes =
            self.paths(host).flat_map(|paths| paths.routes.values().chain(paths.exact.values()));
        let routes = routes.map(|at| &self.routes[*at]);
        let own = routes.filter(|route| *route.rule.id.namespace == *namespace);
        let found = own.filter_map(|route| route.reversal.as_ref()?.public_path(address));
        // The longest member path says most; of equals, the order of the map must not decide.
        found.max_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1))).map(|(_, path)| path)
    }

    /// Changes whenever it may be that another route serves a request.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.hosts.version
    }

    /// Which rules do not serve something that they ask for, in the order of the rules' names.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.hosts.verdicts
    }

    /// What one rule does not serve of what it asks for.
    #[must_use]
    pub fn verdicts_of(&self, id: &RuleId) -> &[Verdict] {
        let all = self.verdicts();
        let from = all.partition_point(|verdict| verdict.rule < *id);
        let count = all[from..].partition_point(|verdict| verdict.rule == *id);
        &all[from..from + count]
    }

    /// The route of a rule.
    #[must_use]
    pub fn route(&self, id: &RuleId) -> Option<&Arc<Route>> {
        self.routes.binary_search_by(|route| route.rule.id.cmp(id)).ok().map(|at| &self.routes[at])
    }
}
