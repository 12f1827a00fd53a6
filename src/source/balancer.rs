//! Balancer → rule, or what is wrong with it. Pure. Repeats every check of the resource's schema,
//! for files have no API server, and makes those that a schema cannot.

mod checks;
mod health;
mod members;
mod pages;
mod problems;
mod sticky;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use rustls::pki_types::ServerName;

use crate::api;
use crate::api::schema;
use crate::source::policy::Policy;
use crate::table::access::{Access, Networks, parse_network};
use crate::table::balance::Method;
use crate::table::edit::{self, Edits};
use crate::table::path::{HostPattern, Prefix};
use crate::table::reverse::Scheme;
use crate::table::tls::{Clients, SecretId, Tls};
use crate::table::upstream::{Trust, UpstreamTls};
use crate::table::{Failover, Redirect, Rule, RuleId, Timeouts, reverse};
pub use members::{no_urls, url_fault};
pub use problems::{Cause, Problem};
use problems::{Of, Problems};

const MAX_HOSTS: usize = 64;
const MAX_MAPPINGS: usize = 64;
const MAX_EDITS: usize = 64;
const MAX_NETWORKS: usize = 256;
const MAX_STATUSES: usize = 16;
/// How long a member may be silent if nothing is said.
const RESPONSE: Duration = Duration::from_secs(60);
/// What a timeout of 0 stands for: longer than anything lives, and short enough to add to a time.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Where a Balancer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'p> {
    /// In a file: there are no Services, and who writes files may do everything.
    File,
    /// In a cluster, where the operator allows some things to some namespaces only.
    Cluster(&'p Policy),
}

/// Translates a Balancer.
///
/// # Errors
/// Everything that is wrong with it.
pub fn rule(balancer: &api::Balancer, place: Place<'_>) -> Result<Rule, Vec<Problem>> {
    let mut problems = Problems::default();
    let rule = read(balancer, place, &mut problems);
    problems.unless_any(rule)
}

fn read(balancer: &api::Balancer, place: Place<'_>, problems: &mut Problems) -> Option<Rule> {
    let spec = &balancer.spec;
    let id = id(balancer);
    if let Some(class) = &spec.class_name {
        problems.text("spec.className", class, checks::CLASS_NAME);
    }
    if spec.hosts.is_empty()
        && let Place::Cluster(policy) = place
        && !policy.any_host.contain(&id.namespace)
    {
        let namespace = &id.namespace;
        let message = format!(
            "must have at least one host: namespace {namespace} may not serve any host, unless \
             --any-host (the chart's anyHost) names it"
        );
        problems.refuse(Cause::AnyHostNotPermitted, "spec.hosts", message);
    }
    let hosts = hosts(&spec.hosts, problems);
    let prefix = problems.read("spec.path", &spec.path, checks::PATH, Prefix::parse);
    let exact = spec.path_type == api::PathType::Exact;
    let prefix = prefix.map(|prefix| if exact { prefix.alone() } else { prefix });
    let redirect = spec.redirect.as_ref().and_then(|redirect| self::redirect(redirect, problems));
    let refuse = spec.refuse.as_ref().and_then(|refuse| self::refuse(refuse, problems));
    let entries = members::entries(spec, &id.namespace, place, problems);
    let sticky = spec.sticky.as_ref().map(|s| sticky::sticky(s, &spec.path, problems));
    let failover = failover(&spec.failover.clone().unwrap_or_default(), problems);
    let health = spec.health_check.as_ref().map(|c| health::health_check(c, problems).into());
    let timeouts = timeouts(&spec.timeouts.clone().unwrap_or_default());
    let reverse = reverse(&spec.reverse.clone().unwrap_or_default(), problems);
    let headers = spec.headers.clone().unwrap_or_default();
    let request_headers = edits(headers.request.as_ref(), "spec.headers.request", problems);
    let response_headers = edits(headers.response.as_ref(), "spec.headers.response", problems);
    let access = access(spec.access.as_ref(), problems);
    let tls = spec.tls.as_ref().map(|tls| self::tls(tls, &id.namespace, problems));
    let upstream_tls = spec.upstream_tls.clone().unwrap_or_default();
    let upstream_tls = self::upstream_tls(&upstream_tls, &id.namespace, problems);
    let balancing = spec.balancing.clone().unwrap_or_default();
    Some(Rule {
        id,
        created: balancer.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        hosts,
        prefix: prefix?,
        redirect,
        refuse,
        entries,
        method: match balancing.method {
            api::Method::Latency => Method::Latency,
            api::Method::LeastRequests => Method::LeastRequests,
            api::Method::RoundRobin => Method::RoundRobin,
        },
        slow_start: balancing.slow_start.get(),
        queue_for: balancing.queue_for.get(),
        sticky: sticky.flatten(),
        failover,
        health,
        timeouts,
        body_limit: spec.limits.as_ref().and_then(|l| l.request_body).map(|b| b.get()),
        reverse,
        request_headers,
        response_headers,
        pages: pages::pages(&spec.error_pages, problems),
        access,
        tls,
        upstream_tls,
    })
}

fn id(balancer: &api::Balancer) -> RuleId {
    let metadata = &balancer.metadata;
    RuleId {
        namespace: metadata.namespace.as_deref().unwrap_or("default").into(),
        name: metadata.name.as_deref().unwrap_or_default().into(),
    }
}

fn hosts(hosts: &[String], problems: &mut Problems) -> Vec<HostPattern> {
    problems.at_most("spec.hosts", hosts.len(), MAX_HOSTS);
    if hosts.is_empty() {
        return vec![HostPattern::Any];
    }
    let mut seen = HashSet::new();
    if hosts.len() > 1 && !hosts.iter().all(|host| seen.insert(host.to_ascii_lowercase())) {
        problems.add("spec.hosts", schema::HOSTS_ONCE.1);
    }
    let parse = |(at, host): (usize, &String)| {
        problems.read(Of("spec.hosts", at, ""), host, checks::HOST, HostPattern::parse)
    };
    hosts.iter().enumerate().filter_map(parse).collect()
}

fn redirect(redirect: &api::Redirect, problems: &mut Problems) -> Option<Redirect> {
    let field = "spec.redirect.to";
    let to = problems.read(field, &redirect.to, checks::REDIRECT, |to| Ok(to.into()));
    if redirect.keep_path && redirect.to.contains(['?', '#']) {
        problems.add(
            field,
            "must not have a query or a fragment while keepPath is true: the request's own path \
             and query are appended",
        );
    }
    let status = StatusCode::from_u16(redirect.status).ok();
    let status = status.filter(|s| matches!(s.as_u16(), 301 | 302 | 303 | 307 | 308));
    if status.is_none() {
        problems.add("spec.redirect.status", "must be 301, 302, 303, 307 or 308");
    }
    Some(Redirect { to: to?, status: status?, keep_path: redirect.keep_path })
}

fn refuse(refuse: &api::Refuse, problems: &mut Problems) -> Option<StatusCode> {
    let status =
        StatusCode::from_u16(refuse.status).ok().filter(|s| (400..=599).contains(&s.as_u16()));
    if status.is_none() {
        problems.add("spec.refuse.status", "must be from 400 to 599");
    }
    status
}

fn failover(failover: &api::Failover, problems: &mut Problems) -> Failover {
    if !(1..=16).contains(&failover.attempts) {
        problems.add("spec.failover.attempts", "must be from 1 to 16");
    }
    if failover.retry_share > 100 {
        problems.add("spec.failover.retryShare", "must be from 0 to 100");
    }
    if failover.excluded_share > 100 {
        problems.add("spec.failover.excludedShare", "must be from 0 to 100");
    }
    let codes = failover.grpc_statuses.len();
    problems.at_most("spec.failover.grpcStatuses", codes, MAX_STATUSES);
    for (at, code) in failover.grpc_statuses.iter().enumerate() {
        if !(1..=16).contains(code) {
            problems.add(format!("spec.failover.grpcStatuses[{at}]"), "must be from 1 to 16");
        }
    }
    problems.at_most("spec.failover.statuses", failover.statuses.len(), MAX_STATUSES);
    let status = |(at, status): (usize, &u16)| {
        let code = StatusCode::from_u16(*status).ok().filter(|_| (400..=599).contains(status));
        if code.is_none() {
            problems.add(format!("spec.failover.statuses[{at}]"), "must be from 400 to 599");
        }
        code
    };
    Failover {
        attempts: failover.attempts.into(),
        grpc_statuses: failover.grpc_statuses.clone(),
        statuses: failover.statuses.iter().enumerate().filter_map(status).collect(),
        exclude_for: failover.exclude_for.get(),
        excluded_percent: failover.excluded_share.into(),
        retry_percent: failover.retry_share.into(),
    }
}

fn timeouts(timeouts: &api::Timeouts) -> Timeouts {
    let limit = |time: api::Duration| if time.get().is_zero() { FOREVER } else { time.get() };
    Timeouts {
        connect: limit(timeouts.connect),
        response: timeouts.response.map_or(RESPONSE, limit),
        messages: timeouts.response.map_or(FOREVER, limit),
        request: timeouts.request.map(|whole| whole.get()).filter(|whole| !whole.is_zero()),
        idle: limit(timeouts.idle),
    }
}

type AddRule = fn(&mut reverse::Rules, &str, &str) -> Result<(), String>;

fn reverse(reverse: &api::Reverse, problems: &mut Problems) -> Option<reverse::Rules> {
    let mut rules = reverse::Rules::default();
    rules.scheme = reverse.scheme.map(|scheme| match scheme {
        api::Scheme::Http => Scheme::Http,
        api::Scheme::Https => Scheme::Https,
    });
    if let Some(host) = &reverse.host {
        problems.text("spec.reverse.host", host, checks::AUTHORITY);
        rules.host = Some(host.to_ascii_lowercase().into());
    }
    let lists: [(&str, &[api::Mapping], checks::Text, AddRule); 3] = [
        ("locations", &reverse.locations, checks::LOCATION, reverse::Rules::add_location),
        (
            "cookieDomains",
            &reverse.cookie_domains,
            checks::DOMAIN,
            reverse::Rules::add_cookie_domain,
        ),
        (
            "cookiePaths",
            &reverse.cookie_paths,
            checks::COOKIE_PATH,
            reverse::Rules::add_cookie_path,
        ),
    ];
    for (name, mappings, check, add) in lists.into_iter().filter(|list| !list.1.is_empty()) {
        let field = format!("spec.reverse.{name}");
        problems.at_most(&field, mappings.len(), MAX_MAPPINGS);
        for (at, mapping) in mappings.iter().enumerate() {
            let field = format!("{field}[{at}]");
            let good = problems.text(format_args!("{field}.from"), &mapping.from, check)
                & problems.text(format_args!("{field}.to"), &mapping.to, check);
            if good {
                problems.take(field, add(&mut rules, &mapping.from, &mapping.to));
            }
        }
    }
    reverse.enabled.then_some(rules)
}

fn edits(headers: Option<&api::HeaderEdit>, field: &str, problems: &mut Problems) -> Edits {
    let Some(headers) = headers else { return Edits::default() };
    let mut edits = Edits::default();
    let lists = [("set", &headers.set, &mut edits.set), ("add", &headers.add, &mut edits.add)];
    for (name, from, to) in lists {
        problems.at_most(&format!("{field}.{name}"), from.len(), MAX_EDITS);
        for (at, header) in from.iter().enumerate() {
            let field = format!("{field}.{name}[{at}]");
            let name = header_name(&format!("{field}.name"), &header.name, problems);
            let field = format!("{field}.value");
            let value =
                problems.read(&field, &header.value, checks::HEADER_VALUE, edit::parse_value);
            to.extend(name.zip(value));
        }
    }
    let mut seen = HashSet::new();
    if !edits.set.iter().all(|(name, _)| seen.insert(name)) {
        let message = "must have each name once: set replaces, add appends";
        problems.add(format!("{field}.set"), message);
    }
    problems.at_most(&format!("{field}.remove"), headers.remove.len(), MAX_EDITS);
    for (at, name) in headers.remove.iter().enumerate() {
        edits.remove.extend(header_name(&format!("{field}.remove[{at}]"), name, problems));
    }
    edits
}

fn header_name(field: &str, name: &str, problems: &mut Problems) -> Option<http::HeaderName> {
    problems.read(field, name, checks::HEADER_NAME, edit::parse_name)
}

fn tls(tls: &api::Tls, namespace: &Arc<str>, problems: &mut Problems) -> Tls {
    let mut secret = |field: &str, name: Option<&String>| {
        let name = name?;
        problems.text(field, name, checks::OBJECT_NAME);
        Some(SecretId { namespace: Arc::clone(namespace), name: name.as_str().into() })
    };
    let own = secret("spec.tls.secretName", tls.secret_name.as_ref());
    let ca = secret("spec.tls.clientCASecret", tls.client_ca_secret.as_ref());
    if tls.client_certificate.is_some() && ca.is_none() {
        let message = "must be beside clientCASecret, which says whose certificates are good";
        problems.add("spec.tls.clientCertificate", message);
    }
    let required = tls.client_certificate.unwrap_or_default() == api::ClientCertificate::Required;
    let clients = ca.map(|ca| Clients { ca, required });
    let hsts = tls.hsts.as_ref().and_then(|hsts| {
        let mut value = format!("max-age={}", hsts.max_age.get().as_secs());
        for (wanted, directive) in
            [(hsts.include_subdomains, "; includeSubDomains"), (hsts.preload, "; preload")]
        {
            value.push_str(if wanted { directive } else { "" });
        }
        HeaderValue::try_from(value).ok()
    });
    Tls { secret: own, clients, redirect: tls.redirect, hsts }
}

fn upstream_tls(
    tls: &api::UpstreamTls,
    namespace: &Arc<str>,
    problems: &mut Problems,
) -> UpstreamTls {
    let mut secret = |field: &str, name: &Option<String>| {
        let name = name.as_ref()?;
        problems.text(format_args!("spec.upstreamTLS.{field}"), name, checks::OBJECT_NAME);
        Some(SecretId { namespace: Arc::clone(namespace), name: name.as_str().into() })
    };
    let trust = Trust {
        authorities: secret("caSecret", &tls.ca_secret),
        certificate: secret("certificateSecret", &tls.certificate_secret),
        anybody: tls.insecure_skip_verify,
    };
    if trust.anybody && trust.authorities.is_some() {
        problems.add(
            "spec.upstreamTLS.insecureSkipVerify",
            "must not be beside caSecret: either members are verified, or not",
        );
    }
    let server_name = tls.server_name.as_ref().and_then(|name| {
        let field = "spec.upstreamTLS.serverName";
        let parse = |name: &str| {
            let name = ServerName::try_from(name.to_ascii_lowercase());
            name.map_err(|_| schema::SERVER_NAME.1.to_owned())
        };
        problems.read(field, name, checks::SERVER_NAME, parse)
    });
    UpstreamTls { trust, server_name }
}

fn access(access: Option<&api::Access>, problems: &mut Problems) -> Access {
    let Some(access) = access else { return Access::default() };
    let mut networks = |name: &str, list: &[String]| {
        let field = format!("spec.access.{name}");
        problems.at_most(&field, list.len(), MAX_NETWORKS);
        let parse = |(at, text): (usize, &String)| {
            problems.read(format_args!("{field}[{at}]"), text, checks::NETWORK, parse_network)
        };
        Networks::new(list.iter().enumerate().filter_map(parse).collect())
    };
    Access { allow: networks("allow", &access.allow), deny: networks("deny", &access.deny) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_has_no_time_limit_between_messages_unless_one_is_asked_for() {
        let read = |response: Option<u64>| {
            let response = response.map(api::Duration::from_secs);
            let timeouts = timeouts(&api::Timeouts { response, ..api::Timeouts::default() });
            (timeouts.response, timeouts.messages)
        };
        assert_eq!(read(None), (RESPONSE, FOREVER));
        let five = Duration::from_secs(5);
        assert_eq!(read(Some(5)), (five, five));
        assert_eq!(read(Some(0)), (FOREVER, FOREVER));
    }
}
