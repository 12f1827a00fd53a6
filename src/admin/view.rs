//! The table as JSON.

use std::time::Instant;

use serde_json::{Value, json};

use crate::metrics::condition;
use crate::table::load::{Admission, Failure};
use crate::table::{Member, Route, Rule, Table};

/// What is being served, and what is not.
pub fn table(table: &Table) -> Value {
    let now = Instant::now();
    let conflicts = table.verdicts().iter().map(|verdict| {
        json!({
            "balancer": verdict.rule.to_string(),
            "host": verdict.host,
            "path": verdict.path,
            "servedBy": verdict.holder.to_string(),
        })
    });
    json!({
        "balancers": table.routes.iter().map(|r| route(r, now)).collect::<Vec<_>>(),
        "conflicts": conflicts.collect::<Vec<_>>(),
    })
}

fn route(route: &Route, now: Instant) -> Value {
    let rule = &route.rule;
    let means = route.means();
    let members = route.members.iter().map(|m| member(rule, m, means[m.group], now));
    let unresolved = route.unresolved.iter().map(|entry| {
        let entry = &rule.entries[*entry];
        json!({"name": *entry.name, "url": entry.target.to_string()})
    });
    json!({
        "namespace": *rule.id.namespace,
        "name": *rule.id.name,
        "hosts": rule.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "path": rule.prefix.as_str(),
        "exact": rule.prefix.is_exact(),
        "redirect": rule.redirect.as_ref().map(|redirect| &*redirect.to),
        "refuse": rule.refuse.map(|status| status.as_u16()),
        "waiting": route.queue.waiting(),
        "members": members.collect::<Vec<_>>(),
        "unresolved": unresolved.collect::<Vec<_>>(),
    })
}

fn member(rule: &Rule, member: &Member, mean: f64, now: Instant) -> Value {
    let load = &member.load;
    let failures = Failure::ALL.into_iter().filter(|f| member.tally.failures(*f) > 0);
    let failures = failures.map(|f| (f.reason().to_owned(), json!(member.tally.failures(f))));
    let entry = &rule.entries[member.entry];
    json!({
        "name": *member.name,
        "address": member.address.to_string(),
        "url": entry.target.to_string(),
        "path": *entry.path,
        "protocol": member.protocol.label(),
        "route": member.route.as_deref(),
        "weight": member.weight,
        "share": entry.share,
        "state": member.state.label(),
        "tier": member.tier,
        "failoverRoute": entry.failover_route.as_deref(),
        "condition": condition(member, now),
        "excludedForSeconds": match load.admission(now) {
            Admission::Excluded(time) => Some(time.as_secs_f64()),
            _ => None,
        },
        "healthChecks": member.checked.as_ref().map(|checked| json!({
            "passed": checked.passed.get(),
            "failed": checked.failed.get(),
        })),
        "inFlight": load.in_flight(),
        "maxInFlight": member.max_in_flight,
        "tunnels": load.tunnels(),
        "latencySeconds": load.latency(mean, now),
        "failureRate": load.failure_rate(now),
        "requests": member.tally.requests.get(),
        "sessionRequests": member.tally.sessions.get(),
        "lastSessionSecondsAgo": member.tally.since_session(load.age(now)).map(|ago| ago.as_secs()),
        "failures": failures.collect::<serde_json::Map<_, _>>(),
    })
}
