//! Balancer → rule, or what is wrong with it. Pure. Repeats every check of the resource's schema,
//! for files have no API server, and makes those that a schema cannot.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri};
use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::api;
use crate::table::access::{Access, Networks, parse_network};
use crate::table::balance::Method;
use crate::table::edit::{self, Edits};
use crate::table::path::{HostPattern, Prefix, RequestPath};
use crate::table::sticky::{Extract, Issue, SameSite, Sticky};
use crate::table::{
    Entry, Failover, Host, Redirect, Rule, RuleId, State, Target, Timeouts, reverse,
};

const MAX_HOSTS: usize = 64;
const MAX_MEMBERS: usize = 512;
const MAX_URL: usize = 2048;
const MAX_PATH: usize = 1024;
const MAX_ROUTE: usize = 128;
const MAX_NAME: usize = 63;
const MAX_REGEX: usize = 512;
const MAX_MAPPINGS: usize = 64;
const MAX_EDITS: usize = 64;
const MAX_NETWORKS: usize = 256;
const MAX_STATUSES: usize = 16;
const MAX_WEIGHT: u16 = 10_000;
/// What a timeout of 0 stands for: longer than anything lives, and short enough to add to a time.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Where a Balancer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file: there are no Services.
    File,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.members[2].url`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Collects problems while a Balancer is read.
#[derive(Debug, Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { field: field.into(), message: message.into() });
    }

    /// The value, or a problem.
    fn take<T>(&mut self, field: impl Into<String>, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(field, message)).ok()
    }

    fn at_most(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            self.add(field, format!("must have at most {most} items, not {count}"));
        }
    }
}

/// Translates a Balancer.
///
/// # Errors
/// Everything that is wrong with it.
pub fn rule(balancer: &api::Balancer, place: Place) -> Result<Rule, Vec<Problem>> {
    let mut problems = Problems::default();
    let rule = read(balancer, place, &mut problems);
    match rule {
        Some(rule) if problems.0.is_empty() => Ok(rule),
        _ => Err(problems.0),
    }
}

fn read(balancer: &api::Balancer, place: Place, problems: &mut Problems) -> Option<Rule> {
    let spec = &balancer.spec;
    let hosts = hosts(&spec.hosts, problems);
    let prefix = prefix(&spec.path, problems);
    let redirect = spec.redirect.as_ref().and_then(|redirect| self::redirect(redirect, problems));
    let entries = entries(spec, place, problems);
    let sticky = spec.sticky.as_ref().map(|sticky| self::sticky(sticky, &spec.path, problems));
    let failover = failover(&spec.failover.clone().unwrap_or_default(), problems);
    let timeouts = timeouts(&spec.timeouts.clone().unwrap_or_default());
    let reverse = reverse(&spec.reverse.clone().unwrap_or_default(), problems);
    let headers = spec.headers.clone().unwrap_or_default();
    let request_headers = edits(headers.request.as_ref(), "spec.headers.request", problems);
    let response_headers = edits(headers.response.as_ref(), "spec.headers.response", problems);
    let access = access(spec.access.as_ref(), problems);
    let balancing = spec.balancing.clone().unwrap_or_default();
    Some(Rule {
        id: id(balancer),
        created: None,
        hosts,
        prefix: prefix?,
        redirect,
        entries,
        method: match balancing.method {
            api::Method::Latency => Method::Latency,
            api::Method::LeastRequests => Method::LeastRequests,
            api::Method::RoundRobin => Method::RoundRobin,
        },
        slow_start: balancing.slow_start.get(),
        sticky: sticky.flatten(),
        failover,
        timeouts,
        body_limit: spec.limits.as_ref().and_then(|l| l.request_body).map(|b| b.get()),
        preserve_host: spec.preserve_host.unwrap_or(false),
        reverse,
        request_headers,
        response_headers,
        access,
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
    let parse = |(at, host): (usize, &String)| {
        problems.take(format!("spec.hosts[{at}]"), HostPattern::parse(host))
    };
    hosts.iter().enumerate().filter_map(parse).collect()
}

fn prefix(path: &str, problems: &mut Problems) -> Option<Prefix> {
    problems.take("spec.path", short(path, MAX_PATH).and_then(|()| Prefix::parse(path)))
}

fn short(text: &str, most: usize) -> Result<(), String> {
    let length = text.chars().count();
    if length > most {
        return Err(format!("must have at most {most} characters, not {length}"));
    }
    Ok(())
}

fn redirect(redirect: &api::Redirect, problems: &mut Problems) -> Option<Redirect> {
    let field = "spec.redirect.to";
    let to = problems.take(field, redirect_target(&redirect.to));
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

fn redirect_target(to: &str) -> Result<Box<str>, String> {
    let wrong = || format!("`{to}` must be an http or https URL, or a path that begins with one /");
    short(to, MAX_URL)?;
    HeaderValue::try_from(to).map_err(|_| wrong())?;
    if to.starts_with('/') && !to.starts_with("//") && !to.contains('\\') {
        return Ok(to.into());
    }
    let uri = to.parse::<Uri>().map_err(|_| wrong())?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    if !web || uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    Ok(to.into())
}

fn entries(spec: &api::BalancerSpec, place: Place, problems: &mut Problems) -> Vec<Entry> {
    problems.at_most("spec.members", spec.members.len(), MAX_MEMBERS);
    match (spec.redirect.is_some(), spec.members.is_empty()) {
        (false, true) => problems.add(
            "spec.members",
            "must have at least one member, unless spec.redirect answers instead",
        ),
        (true, false) => problems.add(
            "spec.redirect",
            "must not be beside spec.members: a Balancer redirects or forwards, not both",
        ),
        _ => {}
    }
    shares(&spec.members, problems);
    unique(&spec.members, problems);
    let entry = |(at, member)| self::entry(at, member, place, problems);
    let mut entries: Vec<_> = spec.members.iter().enumerate().filter_map(entry).collect();
    tell_apart(&mut entries, &spec.members);
    entries
}

fn shares(members: &[api::Member], problems: &mut Problems) {
    let shared = members.iter().filter(|member| member.share.is_some()).count();
    if shared > 0 && shared < members.len() {
        problems.add("spec.members", "must all have a share, or none of them");
    } else if shared > 0 && members.iter().all(|member| member.share == Some(0)) {
        problems.add("spec.members", "must have at least one share above 0");
    }
}

fn unique(members: &[api::Member], problems: &mut Problems) {
    let mut seen = HashMap::new();
    for (at, name) in members.iter().enumerate().filter_map(|(at, m)| Some((at, m.name.as_ref()?)))
    {
        if let Some(first) = seen.insert(name, at) {
            let message = format!("must be unique: spec.members[{first}] is named `{name}` too");
            problems.add(format!("spec.members[{at}].name"), message);
        }
    }
}

/// A derived name that occurs twice gets its port.
fn tell_apart(entries: &mut [Entry], members: &[api::Member]) {
    let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
    for entry in &*entries {
        *counts.entry(Arc::clone(&entry.name)).or_default() += 1;
    }
    for (entry, member) in entries.iter_mut().zip(members) {
        if member.name.is_none() && counts.get(&entry.name).is_some_and(|count| *count > 1) {
            entry.name = format!("{}:{}", entry.name, entry.target.port).into();
        }
    }
}

fn entry(at: usize, member: &api::Member, place: Place, problems: &mut Problems) -> Option<Entry> {
    let field = |name: &str| format!("spec.members[{at}].{name}");
    if let Some(name) = &member.name
        && !is_label(name)
    {
        let message = format!(
            "`{name}` must be at most {MAX_NAME} lower-case letters, digits and -, such as app-1"
        );
        problems.add(field("name"), message);
    }
    let url = match (&member.url, &member.service, place) {
        (Some(url), None, _) => url,
        (None, Some(_), Place::File) => {
            problems.add(
                field("service"),
                "Services are known in a cluster only: give a url in files, such as \
                 http://app1.site.com/",
            );
            return None;
        }
        _ => {
            problems.add(format!("spec.members[{at}]"), "must have either url or service");
            return None;
        }
    };
    beside_url(at, member, problems);
    if !(1..=MAX_WEIGHT).contains(&member.weight) {
        problems.add(field("weight"), format!("must be from 1 to {MAX_WEIGHT}"));
    }
    if member.share.is_some_and(|share| share > MAX_WEIGHT) {
        problems.add(field("share"), format!("must be from 0 to {MAX_WEIGHT}"));
    }
    let route = member.route.as_deref().map(route).transpose();
    let route = problems.take(field("route"), route);
    let (target, path) = problems.take(field("url"), member_url(url))?;
    let host = HeaderValue::try_from(host_field(&target)).ok();
    Some(Entry {
        name: member.name.clone().unwrap_or_else(|| host_name(&target)).into(),
        path,
        host: host?,
        route: route?,
        weight: f64::from(member.weight),
        share: member.share.map(f64::from),
        state: match member.state {
            api::State::Active => State::Active,
            api::State::Standby => State::Standby,
            api::State::Draining => State::Draining,
            api::State::Disabled => State::Disabled,
        },
        target,
    })
}

fn beside_url(at: usize, member: &api::Member, problems: &mut Problems) {
    let field = |name: &str| format!("spec.members[{at}].{name}");
    if member.path.is_some() {
        problems.add(
            field("path"),
            "must not be beside url: write the path into the URL, such as \
             http://app1.site.com/media/",
        );
    }
    if member.route_from.is_some() {
        problems.add(
            field("routeFrom"),
            "must not be beside url: a URL has no pods, give its route itself",
        );
    }
}

fn is_label(name: &str) -> bool {
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    inner
        && !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn route(route: &str) -> Result<Arc<str>, String> {
    short(route, MAX_ROUTE)?;
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | ';' | ',' | '\\');
    if route.is_empty() || !route.chars().all(fits) {
        return Err(format!(
            "`{route}` must be what a cookie can hold: letters, digits and marks, but no spaces, \
             quotes, commas, semicolons or backslashes"
        ));
    }
    Ok(route.into())
}

/// Reads a member's URL: where it is, and under which path.
fn member_url(text: &str) -> Result<(Target, Box<str>), String> {
    let wrong = |why: &str| format!("`{text}` {why}, such as http://app1.site.com/media/");
    short(text, MAX_URL)?;
    if text.contains(['@', '?', '#', '\\']) {
        return Err(wrong("must have no user, query, fragment or backslash"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong("must be an http or https URL"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("must be an http or https URL")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("must name a host"))?;
    let port = match (authority.port(), authority.as_str().ends_with(':')) {
        (Some(port), _) => port.as_u16(),
        (None, false) if authority.as_str().len() == authority.host().len() => default_port(tls),
        _ => return Err(wrong("must have a port from 1 to 65535, or none")),
    };
    if port == 0 {
        return Err(wrong("must have a port from 1 to 65535, or none"));
    }
    let host =
        member_host(authority.host()).ok_or_else(|| wrong("must name a host or an address"))?;
    let path = uri.path();
    let resolved = RequestPath::resolve(path).map_err(|_| wrong("must have a plain path"))?;
    if resolved.sent() != path || path.contains("//") {
        return Err(wrong("must have a path without . or .. and without //"));
    }
    let tls =
        if tls { Some(server_name(&host).ok_or_else(|| wrong("must name a host"))?) } else { None };
    Ok((Target { host, port, tls }, path.into()))
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// A name or an address; no number that some resolvers take for an address (`0x7f.1`).
fn member_host(text: &str) -> Option<Host> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return (address.is_ipv4() == (bare.len() == text.len())).then_some(Host::Address(address));
    }
    let HostPattern::Exact(name) = HostPattern::parse(text).ok()? else {
        return None;
    };
    let last = name.rsplit('.').next()?;
    let hex =
        last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || hex;
    (!numeric).then(|| Host::Name(name.as_ref().into()))
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.to_string()).ok(),
        Host::Address(address) => Some(ServerName::from(*address)),
    }
}

fn host_name(target: &Target) -> String {
    match &target.host {
        Host::Name(name) => name.to_string(),
        Host::Address(address) => address.to_string(),
    }
}

/// The Host field that a member expects: without the port that its scheme implies.
fn host_field(target: &Target) -> String {
    let host = match &target.host {
        Host::Name(name) => name.to_string(),
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        Host::Address(address) => address.to_string(),
    };
    if target.port == default_port(target.tls.is_some()) {
        host
    } else {
        format!("{host}:{}", target.port)
    }
}

fn sticky(sticky: &api::Sticky, path: &str, problems: &mut Problems) -> Option<Sticky> {
    let field = |name: &str| format!("spec.sticky.{name}");
    if sticky.cookie.is_none() && sticky.parameter.is_none() && sticky.issue.is_none() {
        problems.add(
            "spec.sticky",
            "must have cookie, parameter or issue: where a request names its session",
        );
    }
    for (name, value) in [("cookie", &sticky.cookie), ("parameter", &sticky.parameter)] {
        if let Some(value) = value {
            problems.take(field(name), token(value));
        }
    }
    let extract = match (&sticky.route_regex, &sticky.separator) {
        (Some(_), Some(_)) => {
            problems.add(
                field("separator"),
                "must not be beside routeRegex: either finds the route in the session's value",
            );
            None
        }
        (Some(regex), None) => {
            let extract = short(regex, MAX_REGEX).and_then(|()| Extract::regex(regex));
            problems.take(field("routeRegex"), extract)
        }
        (None, Some(separator)) => problems.take(field("separator"), self::separator(separator)),
        (None, None) => Some(Extract::Whole),
    };
    let issue = sticky.issue.as_ref().map(|issue| self::issue(issue, sticky, path, problems));
    Some(Sticky {
        cookie: sticky.cookie.as_deref().map(Into::into),
        parameter: sticky.parameter.as_deref().map(Into::into),
        extract: extract?,
        failover: sticky.failover,
        issue,
    })
}

/// A cookie or parameter name (RFC 9110's token).
fn token(text: &str) -> Result<(), String> {
    let mark = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || mark(b));
    if text.is_empty() || text.len() > MAX_ROUTE || !fits {
        return Err(format!("`{text}` is no name: letters, digits and marks such as - and _"));
    }
    Ok(())
}

fn separator(text: &str) -> Result<Extract, String> {
    if !(1..=8).contains(&text.chars().count()) {
        return Err("must have 1 to 8 characters".to_owned());
    }
    Ok(Extract::Separator(text.into()))
}

fn issue(issue: &api::Issue, sticky: &api::Sticky, path: &str, problems: &mut Problems) -> Issue {
    let field = |name: &str| format!("spec.sticky.issue.{name}");
    let before = problems.0.len();
    problems.take(field("name"), token(&issue.name));
    if sticky.cookie.as_ref() == Some(&issue.name) {
        problems
            .add(field("name"), "must differ from sticky.cookie, which is the application's own");
    }
    let path = issue.path.as_deref().unwrap_or(path);
    if !path.starts_with('/')
        || path.contains([';', ','])
        || !path.bytes().all(|b| b.is_ascii_graphic())
    {
        problems
            .add(field("path"), format!("`{path}` must begin with / and have no ; , or spaces"));
    }
    if issue.same_site == api::SameSite::None && !issue.secure {
        problems.add(
            field("secure"),
            "must be true with sameSite None: browsers refuse the cookie otherwise",
        );
    }
    let issue = Issue {
        name: issue.name.as_str().into(),
        path: path.into(),
        same_site: match issue.same_site {
            api::SameSite::Strict => SameSite::Strict,
            api::SameSite::Lax => SameSite::Lax,
            api::SameSite::None => SameSite::None,
        },
        secure: issue.secure,
        http_only: issue.http_only,
        max_age: issue.max_age.map(|age| age.get()),
    };
    if before == problems.0.len() {
        problems.take("spec.sticky.issue", issue.check());
    }
    issue
}

fn failover(failover: &api::Failover, problems: &mut Problems) -> Failover {
    if !(1..=16).contains(&failover.attempts) {
        problems.add("spec.failover.attempts", "must be from 1 to 16");
    }
    if failover.retry_share > 100 {
        problems.add("spec.failover.retryShare", "must be from 0 to 100");
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
        statuses: failover.statuses.iter().enumerate().filter_map(status).collect(),
        exclude_for: failover.exclude_for.get(),
        retry_percent: failover.retry_share.into(),
    }
}

fn timeouts(timeouts: &api::Timeouts) -> Timeouts {
    let limit = |time: api::Duration| if time.get().is_zero() { FOREVER } else { time.get() };
    Timeouts {
        connect: limit(timeouts.connect),
        response: limit(timeouts.response),
        request: timeouts.request.map(|whole| whole.get()).filter(|whole| !whole.is_zero()),
        idle: limit(timeouts.idle),
    }
}

fn reverse(reverse: &api::Reverse, problems: &mut Problems) -> Option<reverse::Rules> {
    let mut rules = reverse::Rules::default();
    let lists: [(&str, &[api::Mapping], AddRule); 3] = [
        ("locations", &reverse.locations, reverse::Rules::add_location),
        ("cookieDomains", &reverse.cookie_domains, reverse::Rules::add_cookie_domain),
        ("cookiePaths", &reverse.cookie_paths, reverse::Rules::add_cookie_path),
    ];
    for (name, mappings, add) in lists {
        let field = format!("spec.reverse.{name}");
        problems.at_most(&field, mappings.len(), MAX_MAPPINGS);
        for (at, mapping) in mappings.iter().enumerate() {
            problems.take(format!("{field}[{at}]"), add(&mut rules, &mapping.from, &mapping.to));
        }
    }
    reverse.enabled.then_some(rules)
}

type AddRule = fn(&mut reverse::Rules, &str, &str) -> Result<(), String>;

fn edits(headers: Option<&api::HeaderEdit>, field: &str, problems: &mut Problems) -> Edits {
    let Some(headers) = headers else {
        return Edits::default();
    };
    let mut edits = Edits::default();
    let lists = [("set", &headers.set, &mut edits.set), ("add", &headers.add, &mut edits.add)];
    for (name, from, to) in lists {
        problems.at_most(&format!("{field}.{name}"), from.len(), MAX_EDITS);
        for (at, header) in from.iter().enumerate() {
            let name = format!("{field}.{name}[{at}]");
            let value = problems.take(format!("{name}.value"), edit::parse_value(&header.value));
            let name = problems.take(format!("{name}.name"), edit::parse_name(&header.name));
            to.extend(name.zip(value));
        }
    }
    for (at, (name, _)) in edits.set.iter().enumerate() {
        if edits.set[..at].iter().any(|(other, _)| other == name) {
            let message = "must have each name once: set replaces, add appends";
            problems.add(format!("{field}.set[{at}].name"), message);
        }
    }
    problems.at_most(&format!("{field}.remove"), headers.remove.len(), MAX_EDITS);
    for (at, name) in headers.remove.iter().enumerate() {
        let name = problems.take(format!("{field}.remove[{at}]"), edit::parse_name(name));
        edits.remove.extend(name);
    }
    edits
}

fn access(access: Option<&api::Access>, problems: &mut Problems) -> Access {
    let Some(access) = access else {
        return Access::default();
    };
    let mut networks = |name: &str, list: &[String]| {
        let field = format!("spec.access.{name}");
        problems.at_most(&field, list.len(), MAX_NETWORKS);
        let parse = |(at, text): (usize, &String)| -> Option<IpNet> {
            problems.take(format!("{field}[{at}]"), parse_network(text))
        };
        Networks::new(list.iter().enumerate().filter_map(parse).collect())
    };
    Access { allow: networks("allow", &access.allow), deny: networks("deny", &access.deny) }
}
