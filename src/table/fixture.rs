//! Rules and tables for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::access::Access;
use super::balance::Method;
use super::edit::Edits;
use super::pages::Pages;
use super::path::{HostPattern, Prefix};
use super::reverse::Rules;
use super::upstream::UpstreamTls;
use super::{
    Authority, Endpoints, Entry, Failover, Host, Route, RouteName, Rule, RuleId, State, Table,
    Target, Timeouts,
};

/// A rule of this name for `www.site.com` and a path, without entries.
pub fn rule(name: &str, path: &str) -> Rule {
    Rule {
        id: RuleId { namespace: "site".into(), name: name.into() },
        created: None,
        hosts: vec![HostPattern::parse("www.site.com").unwrap()],
        prefix: Prefix::parse(path).unwrap(),
        redirect: None,
        refuse: None,
        entries: Vec::new(),
        method: Method::Latency,
        slow_start: Duration::from_secs(10),
        queue_for: Duration::from_secs(1),
        sticky: None,
        failover: Failover {
            attempts: 8,
            statuses: Vec::new(),
            grpc_statuses: Vec::new(),
            exclude_for: Duration::from_secs(5),
            retry_percent: 20,
            excluded_percent: 50,
        },
        health: None,
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            response: Duration::from_secs(60),
            messages: Duration::from_secs(3600),
            request: None,
            idle: Duration::from_secs(3600),
        },
        body_limit: None,
        reverse: Some(Rules::default()),
        request_headers: Edits::default(),
        response_headers: Edits::default(),
        pages: Pages::default(),
        access: Access::default(),
        tls: None,
        upstream_tls: UpstreamTls::default(),
    }
}

/// An entry whose only address has this last number.
pub fn entry(name: &str, number: u8) -> Entry {
    Entry {
        name: name.into(),
        target: url(Host::Address([127, 0, 1, number].into())),
        path: "/".into(),
        protocol: None,
        preserve_host: false,
        host: HeaderValue::from_static("member"),
        route: RouteName::Fixed(name.into()),
        weight: 1.0,
        share: None,
        max_in_flight: None,
        state: State::Active,
        tier: 0,
        failover_route: None,
    }
}

/// A URL's host, without TLS at port 80.
pub const fn url(host: Host) -> Target {
    Target::Url(Authority { host, port: 80, tls: None })
}

/// A rule with one entry a weight, named `m0`, `m1`, ….
pub fn weighted(weights: &[f64]) -> Rule {
    let entries = weights.iter().enumerate().map(|(number, weight)| Entry {
        weight: *weight,
        ..entry(&format!("m{number}"), u8::try_from(number).unwrap())
    });
    Rule { entries: entries.collect(), ..rule("app", "/") }
}

/// The only route of a table with this rule.
pub fn route(rule: Rule, now: Instant) -> Arc<Route> {
    let table =
        Table::build(&[Arc::new(rule)], &Endpoints::default(), None, &Table::default(), now);
    Arc::clone(&table.routes[0])
}

/// Endpoints with these names.
pub fn endpoints(names: &[(&str, u16, &[&str])]) -> Endpoints {
    let names = names.iter().map(|(name, port, addresses)| {
        let addresses = addresses.iter().map(|a| a.parse::<SocketAddr>().unwrap());
        (((*name).into(), *port), Arc::new(addresses.collect()))
    });
    Endpoints { names: names.collect(), ..Endpoints::default() }
}
