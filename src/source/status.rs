//! What has become of each Balancer → conditions, counts and claims. Pure but for the writing.

pub mod writer;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{Address, BalancerStatus, HostClaim, MemberCounts};
use crate::source::balancer::{self, Cause, Problem};
use crate::source::endpoints::Resolution;
use crate::source::kubernetes::store::{Held, Refusal};
use crate::source::policy::Policy;
use crate::source::trust;
use crate::table::path::HostPattern;
use crate::table::tls::{CertificateConflict, Clients, SecretId};
use crate::table::upstream::Trust;
use crate::table::{
    ADDRESSES, Entry, Holder, Host, Route, Rule, RuleId, ServicePort, State, Target, Verdict,
};

/// The longest message of a condition; many problems are cut short.
const MESSAGE: usize = 1000;

/// Why a condition is as it is; there are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is said in words by `meaning`")]
pub enum Reason {
    Accepted,
    PartiallyAccepted,
    Conflicted,
    HostOwnedByAnotherNamespace,
    InvalidObject,
    InvalidHost,
    InvalidPath,
    InvalidMember,
    InvalidSticky,
    InvalidRegex,
    Invalid,
    AnyHostNotPermitted,
    UrlMembersNotPermitted,
    ResolvedRefs,
    ServiceNotFound,
    PortNotFound,
    NoEndpoints,
    NameNotResolved,
    AddressNotPermitted,
    TooManyEndpoints,
    InvalidCertificate,
    CertificateConflict,
    MembersNotVerified,
    Programmed,
    NotAccepted,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Accepted,
        Self::PartiallyAccepted,
        Self::Conflicted,
        Self::HostOwnedByAnotherNamespace,
        Self::InvalidObject,
        Self::InvalidHost,
        Self::InvalidPath,
        Self::InvalidMember,
        Self::InvalidSticky,
        Self::InvalidRegex,
        Self::Invalid,
        Self::AnyHostNotPermitted,
        Self::UrlMembersNotPermitted,
        Self::ResolvedRefs,
        Self::ServiceNotFound,
        Self::PortNotFound,
        Self::NoEndpoints,
        Self::NameNotResolved,
        Self::AddressNotPermitted,
        Self::TooManyEndpoints,
        Self::InvalidCertificate,
        Self::CertificateConflict,
        Self::MembersNotVerified,
        Self::Programmed,
        Self::NotAccepted,
    ];

    /// Where it occurs: the condition and its status.
    #[must_use]
    pub const fn occurs(self) -> &'static str {
        match self {
            Self::Accepted | Self::PartiallyAccepted => "Accepted: True",
            Self::Conflicted
            | Self::HostOwnedByAnotherNamespace
            | Self::InvalidObject
            | Self::InvalidHost
            | Self::InvalidPath
            | Self::InvalidMember
            | Self::InvalidSticky
            | Self::InvalidRegex
            | Self::Invalid
            | Self::AnyHostNotPermitted => "Accepted: False",
            Self::UrlMembersNotPermitted => "Accepted, ResolvedRefs: False",
            Self::ResolvedRefs | Self::MembersNotVerified => "ResolvedRefs: True",
            Self::ServiceNotFound
            | Self::PortNotFound
            | Self::NoEndpoints
            | Self::NameNotResolved
            | Self::AddressNotPermitted
            | Self::TooManyEndpoints
            | Self::InvalidCertificate
            | Self::CertificateConflict => "ResolvedRefs: False",
            Self::Programmed => "Programmed: True",
            Self::NotAccepted => "ResolvedRefs: Unknown; Programmed: False",
        }
    }

    /// What it means.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Accepted => "Nothing is wrong.",
            Self::PartiallyAccepted => {
                "Some of its hosts are served by others; the rest is served."
            }
            Self::Conflicted => "An older Balancer has the same host and path.",
            Self::HostOwnedByAnotherNamespace => "Another namespace claimed its hosts first.",
            Self::InvalidObject => "This version of Gibbon cannot read it.",
            Self::InvalidHost => "A host cannot be served.",
            Self::InvalidPath => "The path cannot be served.",
            Self::InvalidMember => "A member is wrong.",
            Self::InvalidSticky => "`spec.sticky` is wrong.",
            Self::InvalidRegex => "`spec.sticky.routeRegex` is wrong.",
            Self::Invalid => "Another field is wrong.",
            Self::AnyHostNotPermitted => {
                "It has no host, and `--any-host` does not name its namespace."
            }
            Self::UrlMembersNotPermitted => {
                "It has a member by `url` or an ExternalName Service, and `--url-members` does not \
                 name its namespace."
            }
            Self::ResolvedRefs => "All members were found.",
            Self::ServiceNotFound => "A Service does not exist.",
            Self::PortNotFound => "A Service has no such port.",
            Self::NoEndpoints => "A Service has no usable endpoint.",
            Self::NameNotResolved => "A member's name has no address.",
            Self::AddressNotPermitted => {
                "A member's address is of the node itself, of Gibbon or the API server, or in `--deny-members`."
            }
            Self::TooManyEndpoints => {
                "With a member's addresses the Balancer would have more than 16384: that member \
                 gets no requests."
            }
            Self::InvalidCertificate => {
                "The Secret of a certificate or of authorities is missing or wrong, has expired, or \
                 is not for its hosts; the last good one stays in use."
            }
            Self::CertificateConflict => {
                "An older Balancer brings another certificate for a host, or other authorities for \
                 its clients."
            }
            Self::MembersNotVerified => {
                "All members were found, but `spec.upstreamTLS.insecureSkipVerify` takes anybody for \
                 them."
            }
            Self::Programmed => "It is being served.",
            Self::NotAccepted => "It is not served, for the reason that `Accepted` gives.",
        }
    }

    const fn of(problem: &Problem) -> Self {
        match problem.cause {
            Cause::AnyHostNotPermitted => Self::AnyHostNotPermitted,
            Cause::UrlMembersNotPermitted => Self::UrlMembersNotPermitted,
            Cause::Invalid => Self::Invalid,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The conditions of a Balancer.
pub const CONDITIONS: [&str; 3] = ["Accepted", "ResolvedRefs", "Programmed"];

/// What is known of a Balancer.
#[derive(Clone, Copy)]
pub struct Facts<'f> {
    /// Its name.
    pub id: &'f RuleId,
    /// What was read.
    pub held: &'f Held,
    /// Its route in the table in use.
    pub route: Option<&'f Route>,
    /// What it does not serve.
    pub verdicts: &'f [Verdict],
    /// What is behind ports of Services.
    pub resolve: &'f dyn Fn(&ServicePort) -> Resolution,
    /// What is allowed.
    pub policy: &'f Policy,
    /// Where clients reach Gibbon.
    pub published: &'f [String],
    /// What is wrong with the certificate of a Secret for these hosts.
    pub certificate: &'f dyn Fn(&SecretId, &[HostPattern]) -> Option<String>,
    /// What is wrong with the clients' authorities of a Secret.
    pub client_ca: &'f dyn Fn(&SecretId) -> Option<String>,
    /// What is wrong with what is asked of TLS with members.
    pub trust: &'f dyn Fn(&Trust) -> Vec<String>,
    /// Certificates and authorities that are not used.
    pub certificate_conflicts: &'f [CertificateConflict],
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    type_: &'static str,
    status: &'static str,
    reason: Reason,
    message: String,
}

impl Facts<'_> {
    /// The status that the Balancer should have. Times stay where nothing changed; new claims are
    /// of `now`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> BalancerStatus {
        let before = &self.held.status;
        let findings = [self.accepted(), self.resolved(), self.programmed()];
        let conditions = findings.into_iter().map(|finding| {
            let same = before.conditions.iter().find(|condition| {
                condition.type_ == finding.type_ && condition.status == finding.status
            });
            Condition {
                type_: finding.type_.to_owned(),
                status: finding.status.to_owned(),
                reason: finding.reason.to_string(),
                message: shortened(finding.message),
                observed_generation: Some(self.held.generation),
                last_transition_time: same.map_or_else(
                    || Time(seconds(now)),
                    |condition| condition.last_transition_time.clone(),
                ),
            }
        });
        let members = self.members();
        BalancerStatus {
            observed_generation: Some(self.held.generation),
            conditions: conditions.collect(),
            ready: format!("{}/{}", members.ready, members.total),
            members,
            hosts: self.claims(now),
            addresses: self.published.iter().map(|at| address(at)).collect(),
        }
    }

    /// Hosts that were claimed before keep their time.
    fn claims(&self, now: Timestamp) -> Vec<HostClaim> {
        let mut claims: Vec<HostClaim> = Vec::new();
        for host in self.held.hosts.iter().filter(|host| **host != HostPattern::Any) {
            let host = host.to_string();
            if claims.iter().any(|claim| claim.host == host) {
                continue;
            }
            let before = self.held.status.hosts.iter().find(|claim| claim.host == host);
            // One that was given up meanwhile is new, where another has the host now.
            let is_lost = self.verdicts.iter().any(|verdict| {
                verdict.host == host && matches!(verdict.holder, Holder::Namespace(_))
            });
            let before = before.filter(|claim| !(is_lost && self.held.given_up.contains(claim)));
            let claimed_at = before.map_or(MicroTime(now), |claim| claim.claimed_at.clone());
            claims.push(HostClaim { host, claimed_at });
        }
        claims
    }

    fn accepted(&self) -> Finding {
        let finding =
            |status, reason, message| Finding { type_: "Accepted", status, reason, message };
        let rule = match &self.held.outcome {
            Ok(rule) => rule,
            Err(Refusal::Unreadable(why)) => {
                return finding("False", Reason::InvalidObject, why.clone());
            }
            Err(Refusal::Problems(problems)) => {
                let reason = problems.first().map_or(Reason::Invalid, reason);
                return finding("False", reason, joined(problems.iter()));
            }
        };
        let lost = self.verdicts.iter().map(|verdict| {
            let Verdict { host, path, .. } = verdict;
            match &verdict.holder {
                Holder::Rule(other) => {
                    format!("Conflicted: {other} serves host {host} and path {path}")
                }
                Holder::Namespace(namespace) => format!(
                    "HostOwnedByAnotherNamespace: host {host} belongs to namespace {namespace}"
                ),
            }
        });
        let message = joined(lost);
        match self.verdicts.first().map(|verdict| &verdict.holder) {
            None => finding("True", Reason::Accepted, "all hosts are served".to_owned()),
            Some(_) if self.verdicts.len() < rule.hosts.len() => {
                finding("True", Reason::PartiallyAccepted, message)
            }
            Some(Holder::Rule(_)) => finding("False", Reason::Conflicted, message),
            Some(Holder::Namespace(_)) => {
                finding("False", Reason::HostOwnedByAnotherNamespace, message)
            }
        }
    }

    /// Whether anything of it is served.
    fn is_served(&self) -> bool {
        let hosts = self.held.outcome.as_ref().map_or(0, |rule| rule.hosts.len());
        self.route.is_some() && self.verdicts.len() < hosts
    }

    fn programmed(&self) -> Finding {
        let finding = |status, reason, message: &str| {
            let message = message.to_owned();
            Finding { type_: "Programmed", status, reason, message }
        };
        if self.is_served() {
            finding("True", Reason::Programmed, "it is being served")
        } else {
            finding("False", Reason::NotAccepted, "it is not served; see Accepted")
        }
    }

    fn resolved(&self) -> Finding {
        let finding =
            |status, reason, message| Finding { type_: "ResolvedRefs", status, reason, message };
        let Ok(rule) = &self.held.outcome else {
            let message = "its members were not looked for".to_owned();
            return finding("Unknown", Reason::NotAccepted, message);
        };
        let counts = self.counts();
        let members = rule.entries.iter().enumerate();
        let members = members.filter_map(|(at, entry)| {
            self.fault(at, entry, counts.get(at).is_some_and(|count| *count > 0))
        });
        let trust = &rule.upstream_tls.trust;
        let wrong = (self.trust)(trust).into_iter();
        let wrong = wrong.map(|message| (Reason::InvalidCertificate, message));
        let faults: Vec<_> = members.chain(self.certificate_faults(rule)).chain(wrong).collect();
        match faults.first() {
            None if trust.anybody => {
                finding("True", Reason::MembersNotVerified, trust::ANYBODY.to_owned())
            }
            None => finding("True", Reason::ResolvedRefs, "all members were found".to_owned()),
            Some((reason, _)) => {
                finding("False", *reason, joined(faults.iter().map(|(_, message)| message)))
            }
        }
    }

    /// What is wrong with the certificate and the authorities that the Balancer brings.
    fn certificate_faults(&self, rule: &Rule) -> Vec<(Reason, String)> {
        let secret = rule.tls.as_ref().and_then(|tls| tls.secret.as_ref());
        let problem = secret.and_then(|id| {
            let problem = (self.certificate)(id, &rule.hosts)?;
            Some((
                Reason::InvalidCertificate,
                format!("spec.tls.secretName: Secret {id}: {problem}"),
            ))
        });
        let clients = rule.clients().and_then(|Clients { ca, .. }| {
            let problem = (self.client_ca)(ca)?;
            let message = format!("spec.tls.clientCASecret: Secret {ca}: {problem}");
            Some((Reason::InvalidCertificate, message))
        });
        let unused = self.certificate_conflicts.iter().filter(|conflict| conflict.rule == *self.id);
        let unused = unused.map(|unused| (Reason::CertificateConflict, unused.to_string()));
        problem.into_iter().chain(clients).chain(unused).collect()
    }

    /// How many members each entry has.
    fn counts(&self) -> Vec<usize> {
        let Some(route) = self.route else { return Vec::new() };
        let mut counts = vec![0; route.rule.entries.len()];
        for member in &route.members {
            counts[member.entry] += 1;
        }
        counts
    }

    /// What is wrong with what an entry names.
    fn fault(&self, at: usize, entry: &Entry, has_members: bool) -> Option<(Reason, String)> {
        let field = format!("spec.members[{at}]");
        let barred = |field: String| {
            let message = format!("{field}: its addresses may not be members: {}", Policy::BARRED);
            (Reason::AddressNotPermitted, message)
        };
        if let Some(route) = self.route.filter(|route| route.crowded.contains(&at)) {
            return Some(too_many(&field, entry, route.found_addresses(at)));
        }
        match &entry.target {
            Target::Service(port) => self.service_fault(&field, port, has_members),
            Target::Url(_) if has_members => None,
            Target::Url(authority) => Some(match &authority.host {
                Host::Address(_) => barred(format!("{field}.url")),
                Host::Name(name) if self.knows(at) => barred(format!("{field}.url ({name})")),
                Host::Name(name) => {
                    (Reason::NameNotResolved, format!("{field}.url: {name} has no address"))
                }
            }),
        }
    }

    /// Whether an entry's name has addresses, if only barred ones.
    fn knows(&self, at: usize) -> bool {
        self.route.is_some_and(|route| route.found_addresses(at) > 0)
    }

    fn service_fault(
        &self,
        field: &str,
        port: &ServicePort,
        has_members: bool,
    ) -> Option<(Reason, String)> {
        let field = format!("{field}.service");
        let name = &port.name;
        let resolution = (self.resolve)(port);
        Some(match resolution {
            Resolution::NoService => (
                Reason::ServiceNotFound,
                format!("{field}.name: there is no Service {name} in namespace {}", port.namespace),
            ),
            Resolution::NoPort(ports) => (
                Reason::PortNotFound,
                format!("{field}.port: Service {name} has no port {}, but: {ports}", port.port),
            ),
            Resolution::External(..) if !self.policy.url_members.contain(&port.namespace) => (
                Reason::UrlMembersNotPermitted,
                format!(
                    "{field}.name: {name} is an ExternalName Service, which {}",
                    balancer::no_urls(&port.namespace)
                ),
            ),
            _ if has_members => return None,
            Resolution::External(external, ..) => {
                (Reason::NameNotResolved, format!("{field}.name: {external} has no usable address"))
            }
            Resolution::Endpoints(backends, _) if !backends.endpoints().is_empty() => (
                Reason::AddressNotPermitted,
                format!("{field}.name: its addresses may not be members: {}", Policy::BARRED),
            ),
            Resolution::Endpoints(_, total) => (
                Reason::NoEndpoints,
                format!("{field}.name: Service {name} has no ready endpoint (0 of {total})"),
            ),
        })
    }

    fn members(&self) -> MemberCounts {
        let Some(route) = self.route else { return MemberCounts::default() };
        let is_ready = |state| !matches!(state, State::Draining | State::Disabled);
        let ready = route.members.iter().filter(|member| is_ready(member.state)).count();
        let counts = self.counts();
        let total = route.rule.entries.iter().enumerate().map(|(at, entry)| match &entry.target {
            Target::Service(port) => match (self.resolve)(port) {
                Resolution::Endpoints(_, total) => total,
                _ => counts[at],
            },
            // What does not resolve is still one member that is missing.
            Target::Url(_) => route.found_addresses(at).max(1),
        });
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        MemberCounts { ready: count(ready), total: count(total.sum()) }
    }
}

fn too_many(field: &str, entry: &Entry, count: usize) -> (Reason, String) {
    let field = match &entry.target {
        Target::Service(port) => format!("{field}.service ({})", port.name),
        Target::Url(_) => format!("{field}.url"),
    };
    let message = format!(
        "{field}: its {count} addresses are not used: with those of the members before it they \
         would be more than {ADDRESSES}, the most that a Balancer may have"
    );
    (Reason::TooManyEndpoints, message)
}

fn reason(problem: &Problem) -> Reason {
    let reason = Reason::of(problem);
    let is = |prefix: &str| problem.field.starts_with(prefix);
    match reason {
        Reason::Invalid if is("spec.sticky.routeRegex") => Reason::InvalidRegex,
        Reason::Invalid if is("spec.sticky") => Reason::InvalidSticky,
        Reason::Invalid if is("spec.members") => Reason::InvalidMember,
        Reason::Invalid if is("spec.hosts") => Reason::InvalidHost,
        Reason::Invalid if is("spec.path") => Reason::InvalidPath,
        reason => reason,
    }
}

fn joined(parts: impl Iterator<Item = impl fmt::Display>) -> String {
    parts.map(|part| part.to_string()).collect::<Vec<_>>().join("; ")
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE {
        let end = (0..=MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

fn address(at: &str) -> Address {
    match at.parse::<std::net::IpAddr>() {
        Ok(_) => Address { ip: Some(at.to_owned()), hostname: None },
        Err(_) => Address { ip: None, hostname: Some(at.to_owned()) },
    }
}

/// A condition's times have no fractions.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Gives each new claim a time of its own, later than all before it.
#[derive(Clone, Copy, Debug)]
pub struct ClaimClock(Timestamp);

impl ClaimClock {
    /// Begins now.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self(now)
    }

    /// Claims that are written already come before all that follow, whatever clock they are by.
    pub fn after(&mut self, written: Timestamp) {
        self.0 = self.0.max(written);
    }

    /// The next time: `now`, or a moment after the last.
    pub fn next(&mut self, now: Timestamp) -> Timestamp {
        let later = self.0.saturating_add(SignedDuration::from_micros(1)).unwrap_or(self.0);
        self.0 = later.max(now);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use std::net::{Ipv4Addr, SocketAddr};

    use serde_json::{Value, json};

    use super::*;
    use crate::source::kubernetes::object::Object;
    use crate::source::kubernetes::store::{Change, Store, Update};
    use crate::source::policy::Namespaces;
    use crate::table::owners::Owners;

    use crate::table::{Backends, Endpoints, Table};

    /// A cluster with these Balancers, older first, and one Service `app` with these addresses.
    struct Setup {
        store: Store,
        policy: Policy,
        addresses: Vec<SocketAddr>,
        total: usize,
        exists: bool,
    }

    fn balancer(name: &str, spec: &Value) -> Box<Object> {
        let (namespace, name) = name.split_once('/').unwrap_or(("site", name));
        let object = json!({
            "apiVersion": "gibbon.dev/v1alpha1", "kind": "Balancer",
            "metadata": {"name": name, "namespace": namespace, "uid": name, "generation": 3},
            "spec": spec,
        });
        Box::new(serde_json::from_value(object).unwrap())
    }

    fn service() -> Value {
        json!({"hosts": ["www.site.com"], "members": [{"service": {"name": "app", "port": 80}}]})
    }

    fn setup(balancers: &[(&str, Value)], policy: Policy) -> Setup {
        let mut store = Store::new(None, policy.clone());
        let all = balancers.iter().map(|(name, spec)| balancer(name, spec)).collect();
        store.take(Change::Balancers(Update::All(None, all)));
        let addresses = vec!["10.0.0.1:80".parse().unwrap()];
        Setup { store, policy, addresses, total: 1, exists: true }
    }

    impl Setup {
        fn status(&self, name: &str, now: i64) -> BalancerStatus {
            let backends = Arc::new(self.addresses.iter().copied().collect::<Backends>());
            let resolve = |port: &ServicePort| match (self.exists, &*port.name) {
                (true, "app") => Resolution::Endpoints(Arc::clone(&backends), self.total),
                (true, "db") => Resolution::External("db.example.org".into(), 80, None),
                (true, "portless") => Resolution::NoPort("web (80)".into()),
                _ => Resolution::NoService,
            };
            let held = self.store.balancers();
            let rules: Vec<Arc<Rule>> =
                held.values().filter_map(|held| held.outcome.as_ref().ok()).cloned().collect();
            let mut endpoints = Endpoints::default();
            for port in
                rules.iter().flat_map(|rule| &rule.entries).filter_map(|e| match &e.target {
                    Target::Service(port) => Some(port),
                    Target::Url(_) => None,
                })
            {
                if let Resolution::Endpoints(backends, _) = resolve(port) {
                    endpoints.services.insert(port.clone(), backends);
                }
            }
            let owners = Arc::new(Owners::of(&self.store.claims()));
            let owners = (!self.policy.share_hosts).then_some(&owners);
            let nothing = Table::default();
            let table = Table::build(&rules, &endpoints, owners, &nothing, Instant::now());
            let (namespace, name) = name.split_once('/').unwrap_or(("site", name));
            let id = RuleId { namespace: namespace.into(), name: name.into() };
            let facts = Facts {
                id: &id,
                held: &held[&id],
                route: table.route(&id).map(AsRef::as_ref),
                verdicts: table.verdicts_of(&id),
                resolve: &resolve,
                policy: &self.policy,
                published: &["192.0.2.1".to_owned(), "lb.example.org".to_owned()],
                certificate: &|_, _| Some("it has expired".to_owned()),
                client_ca: &|_| Some("it has no ca.crt".to_owned()),
                trust: &|trust| {
                    let wrong = |id| format!("spec.upstreamTLS: Secret {id}: it is wrong");
                    trust.authorities.iter().map(wrong).collect()
                },
                certificate_conflicts: &table.certificate_conflicts,
            };
            facts.status(Timestamp::from_second(now).unwrap())
        }

        /// Each condition as `Accepted=True/Accepted`, and all messages.
        fn shown(&self, name: &str) -> (Vec<String>, String) {
            let status = self.status(name, 100);
            let shown = status.conditions.iter();
            let shown = shown.map(|c| format!("{}={}/{}", c.type_, c.status, c.reason)).collect();
            (shown, joined(status.conditions.iter().map(|condition| &condition.message)))
        }
    }

    #[test]
    fn what_is_well_says_so() {
        let setup = setup(&[("app", service())], Policy::default());
        let expected = [
            "Accepted=True/Accepted",
            "ResolvedRefs=True/ResolvedRefs",
            "Programmed=True/Programmed",
        ];
        assert_eq!(setup.shown("app").0, expected);
        let status = setup.status("app", 100);
        assert_eq!((status.ready.as_str(), status.observed_generation), ("1/1", Some(3)));
        assert_eq!(status.hosts[0].host, "www.site.com");
        let addresses = serde_json::to_value(&status.addresses).unwrap();
        assert_eq!(addresses, json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example.org"}]));
    }

    #[test]
    fn what_is_wrong_is_named_by_field() {
        let refused = |spec: Value, reason: &str, words: &str| {
            let setup = setup(&[("app", spec)], Policy::default());
            let (conditions, message) = setup.shown("app");
            let expected = [
                format!("Accepted=False/{reason}"),
                "ResolvedRefs=Unknown/NotAccepted".into(),
                "Programmed=False/NotAccepted".into(),
            ];
            assert_eq!(conditions, expected, "{message}");
            assert!(message.contains(words), "{message}");
        };
        let members = service()["members"].clone();
        let with = |field: &str, value: Value| {
            let mut spec = service();
            spec[field] = value;
            spec
        };
        refused(with("hosts", json!(["a b"])), "InvalidHost", "spec.hosts[0]: must be a host name");
        refused(with("hosts", json!([])), "AnyHostNotPermitted", "--any-host");
        refused(with("path", json!("x")), "InvalidPath", "spec.path: must begin with /");
        refused(with("members", json!([])), "InvalidMember", "spec.members: must have at least");
        refused(with("sticky", json!({})), "InvalidSticky", "spec.sticky: must have");
        let regex = json!({"cookie": "id", "routeRegex": "("});
        refused(with("sticky", regex), "InvalidRegex", "spec.sticky.routeRegex: ");
        refused(with("failover", json!({"attempts": 99})), "Invalid", "spec.failover.attempts");
        refused(json!({"members": members, "hosts": 1}), "InvalidObject", "");
        let url = json!([{"url": "http://app1.site.com/"}]);
        refused(with("members", url), "UrlMembersNotPermitted", "--url-members");
    }

    #[test]
    fn conflicts_and_owners_are_told_apart_and_a_part_may_be_served() {
        let policy = Policy { share_hosts: true, ..Policy::default() };
        let two = [("a", service()), ("b", service())];
        let (conditions, message) = setup(&two, policy).shown("b");
        assert_eq!(conditions[0], "Accepted=False/Conflicted");
        assert!(message.contains("site/a serves host www.site.com and path /"), "{message}");
        let mut both = service();
        both["hosts"] = json!(["www.site.com", "b.org"]);
        let two = [("one/a", service()), ("two/b", both)];
        let (conditions, message) = setup(&two, Policy::default()).shown("two/b");
        assert_eq!(conditions[0], "Accepted=True/PartiallyAccepted");
        assert_eq!(conditions[2], "Programmed=True/Programmed");
        assert!(
            message.contains(
                "HostOwnedByAnotherNamespace: host www.site.com belongs to namespace one"
            ),
            "{message}"
        );
        let two = [("one/a", service()), ("two/b", service())];
        let (conditions, _) = setup(&two, Policy::default()).shown("two/b");
        assert_eq!(conditions[0], "Accepted=False/HostOwnedByAnotherNamespace");
        assert_eq!(conditions[2], "Programmed=False/NotAccepted");
    }

    #[test]
    fn members_that_are_not_there_are_named() {
        let resolved = |setup: &Setup, reason: &str, words: &str| {
            let (conditions, message) = setup.shown("app");
            assert_eq!(conditions[1], format!("ResolvedRefs=False/{reason}"));
            assert_eq!(conditions[2], "Programmed=True/Programmed");
            assert!(message.contains(words), "{message}");
        };
        let to = |service: &str| json!({"hosts": ["www.site.com"], "members": [{"service": {"name": service, "port": 80}}]});
        let none = Setup { exists: false, ..setup(&[("app", service())], Policy::default()) };
        resolved(&none, "ServiceNotFound", "there is no Service app in namespace site");
        let portless = setup(&[("app", to("portless"))], Policy::default());
        resolved(&portless, "PortNotFound", "has no port 80, but: web (80)");
        let empty = Setup {
            addresses: vec![],
            total: 2,
            ..setup(&[("app", service())], Policy::default())
        };
        resolved(&empty, "NoEndpoints", "no ready endpoint (0 of 2)");
        assert_eq!(empty.status("app", 1).ready, "0/2");
        let external = setup(&[("app", to("db"))], Policy::default());
        resolved(&external, "UrlMembersNotPermitted", "db is an ExternalName Service");
        let policy = Policy { url_members: Namespaces::All, ..Policy::default() };
        resolved(&setup(&[("app", to("db"))], policy.clone()), "NameNotResolved", "db.example.org");
        let url =
            json!({"hosts": ["www.site.com"], "members": [{"url": "http://nowhere.example/"}]});
        let url = setup(&[("app", url)], policy);
        resolved(&url, "NameNotResolved", "spec.members[0].url: nowhere.example has no address");
        assert_eq!(url.status("app", 1).ready, "0/1");
    }

    #[test]
    fn members_beyond_the_most_addresses_are_named_with_number_and_limit() {
        let app = || json!({"service": {"name": "app", "port": 80}});
        let crowded = |members: usize| Setup {
            addresses: (1..)
                .map(|number: u32| {
                    SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0000 + number).into(), 80)
                })
                .take(ADDRESSES / 2)
                .collect(),
            ..setup(
                &[("app", json!({"hosts": ["www.site.com"], "members": vec![app(); members]}))],
                Policy::default(),
            )
        };
        assert_eq!(crowded(2).shown("app").0[1], "ResolvedRefs=True/ResolvedRefs");
        let (conditions, message) = crowded(3).shown("app");
        assert_eq!(conditions[1], "ResolvedRefs=False/TooManyEndpoints");
        assert_eq!(conditions[2], "Programmed=True/Programmed");
        assert!(message.contains("spec.members[2].service (app): its 8192 addresses"), "{message}");
        assert!(message.contains("more than 16384,") && !message.contains("members[1]"));
        assert!(Reason::TooManyEndpoints.meaning().contains(&ADDRESSES.to_string()));
    }

    #[test]
    fn what_is_wrong_with_tls_to_members_is_named_and_that_nobody_is_verified() {
        let with = |tls: Value| {
            let mut spec = service();
            spec["upstreamTLS"] = tls;
            let status = setup(&[("app", spec)], Policy::default()).status("app", 0);
            let resolved = status.conditions.into_iter().find(|c| c.type_ == "ResolvedRefs");
            let resolved = resolved.unwrap();
            (resolved.status, resolved.reason, resolved.message)
        };
        let (status, reason, message) = with(json!({"caSecret": "ca"}));
        assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidCertificate"));
        assert_eq!(message, "spec.upstreamTLS: Secret site/ca: it is wrong");
        let (status, reason, message) = with(json!({"insecureSkipVerify": true}));
        assert_eq!((status.as_str(), reason.as_str()), ("True", "MembersNotVerified"));
        assert!(message.contains("can read and change"), "{message}");
        assert_eq!(with(json!({"serverName": "app.internal"})).1, "ResolvedRefs");
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_named() {
        let mut spec = service();
        spec["tls"] = json!({"secretName": "www"});
        let (conditions, message) = setup(&[("app", spec)], Policy::default()).shown("app");
        assert_eq!(conditions[1], "ResolvedRefs=False/InvalidCertificate");
        assert!(
            message.contains("spec.tls.secretName: Secret site/www: it has expired"),
            "{message}"
        );
        let mut spec = service();
        spec["tls"] = json!({"clientCASecret": "ca"});
        let (conditions, message) = setup(&[("app", spec)], Policy::default()).shown("app");
        assert_eq!(conditions[1], "ResolvedRefs=False/InvalidCertificate");
        let said = "spec.tls.clientCASecret: Secret site/ca: it has no ca.crt";
        assert!(message.contains(said), "{message}");
    }

    #[test]
    fn times_stay_where_nothing_changed() {
        let mut setup = setup(&[("app", service())], Policy::default());
        let first = setup.status("app", 100);
        let mut seen = balancer("app", &service());
        seen.status = first.clone();
        setup.store.take(Change::Balancers(Update::One(seen)));
        assert_eq!(setup.status("app", 200), first);
        setup.exists = false;
        let later = setup.status("app", 200);
        assert_eq!(later.conditions[0], first.conditions[0]);
        assert_eq!(later.conditions[1].last_transition_time.0.as_second(), 200);
        assert_eq!(later.hosts, first.hosts);
    }

    #[test]
    fn claims_made_at_once_have_an_order() {
        let now = Timestamp::from_second(100).unwrap();
        let mut clock = ClaimClock::new(Timestamp::UNIX_EPOCH);
        let times = [clock.next(now), clock.next(now), clock.next(now)];
        assert!(times.is_sorted_by(|a, b| a < b) && times[0] == now);
        assert_eq!((times[2] - now).get_microseconds(), 2);
        let ahead = Timestamp::from_second(5_000).unwrap();
        clock.after(ahead);
        assert!(clock.next(now) > ahead);
    }

    #[test]
    fn a_long_message_is_cut_between_letters() {
        let cut = shortened("é".repeat(MESSAGE));
        assert!(cut.len() <= MESSAGE + "…".len() && cut.ends_with("é…"));
    }

    #[test]
    fn each_reason_is_listed_and_explained_once() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert!(!Reason::ALL[..at].contains(reason));
            assert!(reason.meaning().ends_with('.') && !reason.occurs().is_empty());
        }
    }
}
