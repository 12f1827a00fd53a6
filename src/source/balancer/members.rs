//! `spec.members`: where they are, what they are for, how they are told apart.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;

use super::checks;
use super::problems::{Of, Problems};
use super::{Cause, Place};
use crate::api;
use crate::api::schema;
use crate::table::path::HostPattern;
use crate::table::upstream::Protocol;
use crate::table::{Authority, Entry, Host, PortRef, RouteName, ServicePort, State, Target};

const MAX_MEMBERS: usize = 512;
const MAX_WEIGHT: u16 = 10_000;
const MAX_TIER: u8 = 99;

/// Reads `spec.members`.
pub fn entries(
    spec: &api::BalancerSpec,
    namespace: &Arc<str>,
    place: Place<'_>,
    problems: &mut Problems,
) -> Vec<Entry> {
    problems.at_most("spec.members", spec.members.len(), MAX_MEMBERS);
    match (spec.redirect.is_some(), spec.members.is_empty()) {
        (false, true) if spec.refuse.is_none() => problems.add(
            "spec.members",
            "must have at least one member, unless spec.redirect or spec.refuse answers instead",
        ),
        (true, false) => problems.add(
            "spec.redirect",
            "must not be beside spec.members: a Balancer redirects or forwards, not both",
        ),
        _ => {}
    }
    if spec.refuse.is_some() && (spec.redirect.is_some() || !spec.members.is_empty()) {
        problems.add(
            "spec.refuse",
            "must not be beside spec.members or spec.redirect: a Balancer does one of the three",
        );
    }
    shares(&spec.members, problems);
    failover_routes(&spec.members, problems);
    let mut names = HashSet::new();
    if !spec.members.iter().filter_map(|m| m.name.as_ref()).all(|name| names.insert(name)) {
        problems.add("spec.members", "must have unique names");
    }
    let entry = |(at, member): (usize, &api::Member)| {
        let mut entry = self::entry(at, member, namespace, place, problems)?;
        entry.preserve_host = spec.preserve_host.unwrap_or(member.service.is_some());
        Some(entry)
    };
    let mut entries: Vec<_> = spec.members.iter().enumerate().filter_map(entry).collect();
    tell_apart(&mut entries, &spec.members);
    entries.shrink_to_fit();
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

/// Sessions go to routes that there are; those of pods come and go.
fn failover_routes(members: &[api::Member], problems: &mut Problems) {
    if members.iter().any(|member| member.route_from.is_some()) {
        return;
    }
    let routes: HashSet<_> = members.iter().filter_map(|m| m.route.as_ref()).collect();
    let leads = |route| routes.contains(route);
    if !members.iter().filter_map(|m| m.failover_route.as_ref()).all(leads) {
        let message = "must have a member with each failoverRoute as its route";
        problems.add("spec.members", message);
    }
}

/// A derived name that occurs twice gets its port, and a number if that is not enough.
fn tell_apart(entries: &mut [Entry], members: &[api::Member]) {
    if entries.len() < 2 {
        return;
    }
    let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
    for entry in &*entries {
        *counts.entry(Arc::clone(&entry.name)).or_default() += 1;
    }
    let mut taken: HashSet<Arc<str>> =
        members.iter().filter_map(|m| m.name.as_deref()).map(Into::into).collect();
    for (entry, _) in entries.iter_mut().zip(members).filter(|(_, member)| member.name.is_none()) {
        let mut name = Arc::clone(&entry.name);
        if counts.get(&name).is_some_and(|count| *count > 1) {
            name = format!("{name}:{}", port_of(&entry.target)).into();
        }
        let plain = Arc::clone(&name);
        for number in 2.. {
            if taken.insert(Arc::clone(&name)) {
                break;
            }
            name = format!("{plain}-{number}").into();
        }
        entry.name = name;
    }
}

fn entry(
    at: usize,
    member: &api::Member,
    namespace: &Arc<str>,
    place: Place<'_>,
    problems: &mut Problems,
) -> Option<Entry> {
    let field = |name: &'static str| Of("spec.members", at, name);
    if let Some(name) = &member.name {
        problems.text(field(".name"), name, checks::MEMBER_NAME);
    }
    if !(1..=MAX_WEIGHT).contains(&member.weight) {
        problems.add(field(".weight"), format!("must be from 1 to {MAX_WEIGHT}"));
    }
    if member.share.is_some_and(|share| share > MAX_WEIGHT) {
        problems.add(field(".share"), format!("must be from 0 to {MAX_WEIGHT}"));
    }
    if member.max_in_flight == Some(0) {
        problems.add(field(".maxInFlight"), "must be from 1 to 65535; leave it out for no limit");
    }
    if let Some(route) = &member.route {
        problems.text(field(".route"), route, checks::ROUTE);
    }
    if let Some(route) = &member.failover_route {
        problems.text(field(".failoverRoute"), route, checks::ROUTE);
    }
    if member.failover_route.is_some() && member.failover_route == member.route {
        problems.add(field(".failoverRoute"), "must be the route of another member, not its own");
    }
    if member.tier > MAX_TIER {
        problems.add(field(".tier"), format!("must be from 0 to {MAX_TIER}"));
    }
    if member.route.is_some() && member.route_from.is_some() {
        problems.add(field(".route"), "must not be beside routeFrom: a member has one route");
    }
    if let Some(path) = &member.path {
        problems.text(field(".path"), path, checks::PATH);
    }
    let (target, path) = match (&member.url, &member.service) {
        (Some(url), None) => self::url(at, member, url, namespace, place, problems)?,
        (None, Some(service)) => self::service(at, member, service, namespace, place, problems)?,
        _ => {
            problems.add(field(""), "must have either url or service");
            return None;
        }
    };
    let protocol = member.protocol.map(protocol);
    if let (Some(protocol), Target::Url(authority)) = (protocol, &target)
        && authority.tls.is_some() != protocol.is_tls()
    {
        problems.add(field(".protocol"), schema::PROTOCOL_OF_URL);
    }
    Some(Entry {
        name: member.name.clone().unwrap_or_else(|| host_name(&target)).into(),
        path,
        protocol,
        preserve_host: false,
        host: HeaderValue::try_from(host_field(&target, protocol)).ok()?,
        route: match (&member.route, member.route_from) {
            (Some(route), _) => RouteName::Fixed(route.as_str().into()),
            (None, Some(api::RouteFrom::PodName)) => RouteName::PodName,
            (None, Some(api::RouteFrom::Hostname)) => RouteName::Hostname,
            (None, None) => RouteName::None,
        },
        weight: f64::from(member.weight),
        share: member.share.map(f64::from),
        max_in_flight: member.max_in_flight.map(u32::from),
        state: match member.state {
            api::State::Active => State::Active,
            api::State::Standby => State::Standby,
            api::State::Spare => State::Spare,
            api::State::Draining => State::Draining,
            api::State::Disabled => State::Disabled,
        },
        tier: member.tier,
        failover_route: member.failover_route.as_deref().map(Into::into),
        target,
    })
}

const fn protocol(protocol: api::Protocol) -> Protocol {
    match protocol {
        api::Protocol::Http1 => Protocol::Http1,
        api::Protocol::H2c => Protocol::H2c,
        api::Protocol::Https => Protocol::Https,
        api::Protocol::Https1 => Protocol::Https1,
        api::Protocol::H2 => Protocol::H2,
    }
}

fn url(
    at: usize,
    member: &api::Member,
    url: &str,
    namespace: &str,
    place: Place<'_>,
    problems: &mut Problems,
) -> Option<(Target, Arc<str>)> {
    beside_url(at, member, problems);
    let field = Of("spec.members", at, ".url");
    if let Place::Cluster(policy) = place
        && !policy.url_members.contain(namespace)
    {
        problems.refuse(Cause::UrlMembersNotPermitted, field, no_urls(namespace));
    }
    let (authority, path) = problems.read(field, url, checks::MEMBER_URL, member_url)?;
    Some((Target::Url(authority), path))
}

/// What is wrong with the URL of a member, if anything is.
#[must_use]
pub fn url_fault(url: &str) -> Option<String> {
    let mut problems = Problems::default();
    let read = problems.read("url", url, checks::MEMBER_URL, member_url);
    problems.unless_any(read.map(drop)).err()?.into_iter().next().map(|problem| problem.message)
}

/// Why a namespace has no members but Services, and what would change that.
#[must_use]
pub fn no_urls(namespace: &str) -> String {
    format!(
        "must not be used in namespace {namespace}: give a service, or have the operator name the \
         namespace in --url-members (the chart's urlMembers)"
    )
}

fn service(
    at: usize,
    member: &api::Member,
    service: &api::Service,
    namespace: &Arc<str>,
    place: Place<'_>,
    problems: &mut Problems,
) -> Option<(Target, Arc<str>)> {
    let field = |name: &'static str| Of("spec.members", at, name);
    let good = problems.text(field(".service.name"), &service.name, checks::SERVICE_NAME);
    if place == Place::File {
        problems.add(
            field(".service"),
            "Services are known in a cluster only: give a url in files, such as \
             http://app1.site.com/",
        );
        return None;
    }
    let port = match &service.port {
        api::Port::Number(number) => PortRef::Number(*number),
        api::Port::Name(name) => PortRef::Name(name.as_str().into()),
    };
    let (namespace, name) = (Arc::clone(namespace), service.name.as_str().into());
    let path = member.path.as_deref().unwrap_or("/").into();
    good.then_some((Target::Service(ServicePort { namespace, name, port }), path))
}

fn beside_url(at: usize, member: &api::Member, problems: &mut Problems) {
    let field = |name: &'static str| Of("spec.members", at, name);
    if member.path.is_some() {
        problems.add(
            field(".path"),
            "must not be beside url: write the path into the URL, such as \
             http://app1.site.com/media/",
        );
    }
    if member.route_from.is_some() {
        problems.add(
            field(".routeFrom"),
            "must not be beside url: a URL has no pods, give its route itself",
        );
    }
}

/// Reads a member's URL that keeps the schema's rules: where it is, and under which path.
fn member_url(text: &str) -> Result<(Authority, Arc<str>), String> {
    let uri: Uri = text.parse().map_err(|_| "must be an http or https URL")?;
    let tls = uri.scheme_str() == Some("https");
    let authority = uri.authority().ok_or("must name a host")?;
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str() == authority.host() => default_port(tls),
        None => 0,
    };
    if port == 0 {
        return Err("must have a port from 1 to 65535, or none".to_owned());
    }
    let host = member_host(authority.host()).ok_or(
        "must name a host, or write an address in full: 127.0.0.1 or [::1], not as one number",
    )?;
    let path = uri.path();
    if path.contains("//") {
        return Err("must have a path without //".to_owned());
    }
    let name = || server_name(&host).ok_or("must name a host that a certificate can have");
    let tls = if tls { Some(name()?) } else { None };
    Ok((Authority { host, port, tls }, path.into()))
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// A name or an address; no number that some resolvers take for an address (`0x7f.1`).
fn member_host(text: &str) -> Option<Host> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let bracketed = bare.len() < text.len();
        return (address.is_ipv6() == bracketed).then_some(Host::Address(address));
    }
    let HostPattern::Exact(name) = HostPattern::parse(text).ok()? else { return None };
    let last = name.rsplit('.').next()?;
    let hex = last.strip_prefix("0x").unwrap_or(last);
    let numeric = hex.bytes().all(|b| b.is_ascii_digit())
        || (hex.len() < last.len() && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    (!numeric).then(|| Host::Name(name.as_ref().into()))
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.to_string()).ok(),
        Host::Address(address) => Some(ServerName::from(*address)),
    }
}

/// What a member is called that has no name of its own.
fn host_name(target: &Target) -> String {
    match target {
        Target::Url(Authority { host: Host::Name(name), .. }) => name.to_string(),
        Target::Url(Authority { host: Host::Address(address), .. }) => address.to_string(),
        Target::Service(service) => service.name.to_string(),
    }
}

fn port_of(target: &Target) -> String {
    match target {
        Target::Url(authority) => authority.port.to_string(),
        Target::Service(service) => service.port.to_string(),
    }
}

/// The Host field that a member expects: without the port that its scheme implies.
fn host_field(target: &Target, protocol: Option<Protocol>) -> String {
    let (host, port, default) = match target {
        Target::Url(authority) => {
            let host = match &authority.host {
                Host::Name(name) => name.to_string(),
                Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
                Host::Address(address) => address.to_string(),
            };
            (host, Some(authority.port), default_port(authority.tls.is_some()))
        }
        Target::Service(ServicePort { namespace, name, port }) => {
            let port = match port {
                PortRef::Number(number) => Some(*number),
                PortRef::Name(_) => None,
            };
            let tls = protocol.is_some_and(Protocol::is_tls);
            (format!("{name}.{namespace}.svc"), port, default_port(tls))
        }
    };
    match port.filter(|port| *port != default) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}
