//! An explanation as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Attempt, Because, Explanation, Found, Gave, Outcome, Rewritten, Seen};
use crate::table::explain::{Other, Why};

/// All of it.
#[must_use]
pub fn whole(e: &Explanation) -> Value {
    let head = e.head.as_ref().map(|head| {
        let fields = head.fields.iter().map(|(name, value)| json!({"name": name, "value": value}));
        json!({
            "client": head.client.to_string(),
            "method": head.method.as_str(),
            "scheme": if head.https { "https" } else { "http" },
            "host": head.authority,
            "path": head.target,
            "headers": fields.collect::<Vec<_>>(),
        })
    });
    let matched = e.matched.as_ref().map(|matched| {
        let balancer = matched.rule.to_string();
        json!({"balancer": balancer, "host": matched.host, "path": matched.path})
    });
    let pick = e.pick.as_ref().map(|pick| {
        let (name, address) = pick.member.clone().unzip();
        json!({"member": name.as_deref(), "address": address, "why": pick.why})
    });
    json!({
        "id": e.id,
        "time": format!("{:.3}", e.at),
        "because": e.because.iter().copied().map(Because::label).collect::<Vec<_>>(),
        "request": head,
        "matched": matched,
        "others": e.others.as_ref().map(|others| others.iter().map(other).collect::<Vec<_>>()),
        "instead": e.instead,
        "unknown": e.unknown,
        "session": {
            "result": e.session,
            "found": e.findings.iter().map(found).collect::<Vec<_>>(),
        },
        "members": e.members.iter().map(seen).collect::<Vec<_>>(),
        "moreMembers": e.more_members,
        "pick": pick,
        "attempts": e.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "rewritten": e.rewritten.iter().map(rewritten).collect::<Vec<_>>(),
        "answer": answer(e),
    })
}

/// What tells one from another in a list.
#[must_use]
pub fn short(e: &Explanation) -> Value {
    let head = e.head.as_ref();
    json!({
        "id": e.id,
        "time": format!("{:.3}", e.at),
        "because": e.because.iter().copied().map(Because::label).collect::<Vec<_>>(),
        "method": head.map(|head| head.method.as_str()),
        "host": head.map(|head| &head.authority),
        "path": head.map(|head| &head.target),
        "balancer": e.matched.as_ref().map(|matched| matched.rule.to_string()),
        "status": e.answer.as_ref().and_then(|answer| answer.status),
        "reason": e.answer.as_ref().and_then(|answer| answer.reason),
    })
}

fn other(other: &Other) -> Value {
    let than = match &other.why {
        Why::OtherHost | Why::OtherPath => None,
        Why::HostOwned(namespace) => Some(namespace.to_string()),
        Why::Conflict(rule) => Some(rule.to_string()),
        Why::LessSpecificHost(text) | Why::ShorterPath(text) => Some(text.clone()),
    };
    json!({
        "balancer": other.rule.to_string(),
        "host": other.host,
        "path": other.path,
        "why": other.why.label(),
        "for": than,
    })
}

fn found(found: &Found) -> Value {
    let (route, characters) = match &found.gave {
        Gave::Nothing => (None, None),
        Gave::Route(route) => (Some(route), None),
        Gave::Unknown(characters) => (None, Some(*characters)),
    };
    json!({
        "in": found.place.label(),
        "name": found.name,
        "route": route,
        "unknownRouteOfCharacters": characters,
        "members": found.members.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
    })
}

fn seen(seen: &Seen) -> Value {
    let candidate = &seen.candidate;
    json!({
        "name": *seen.name,
        "address": seen.address.to_string(),
        "route": seen.route.as_deref(),
        "state": seen.state,
        "standing": candidate.standing.label(),
        "excludedForSeconds": seen.excluded().map(|left| left.as_secs_f64()),
        "latencySeconds": candidate.estimate,
        "measured": candidate.measured,
        "inFlight": candidate.in_flight,
        "maxInFlight": seen.max_in_flight,
        "failureRate": candidate.failure_rate,
        "weight": seen.weight,
        "effectiveWeight": candidate.effective,
        "share": seen.share,
        "part": candidate.part,
        "score": candidate.score,
    })
}

fn attempt(attempt: &Attempt) -> Value {
    let (status, failure) = match attempt.result {
        Outcome::Status(status) => (Some(status), None),
        Outcome::Failed(reason) => (None, Some(reason)),
        Outcome::Stale => (None, Some("stale")),
    };
    json!({
        "member": *attempt.member,
        "address": attempt.address.to_string(),
        "atSeconds": attempt.at.as_secs_f64(),
        "seconds": attempt.took.as_secs_f64(),
        "status": status,
        "failure": failure,
        "probe": attempt.probe,
        "excludedForSeconds": attempt.excluded.map(|time| time.as_secs_f64()),
    })
}

fn rewritten(change: &Rewritten) -> Value {
    json!({"in": change.message, "what": change.what, "from": change.from, "to": change.to})
}

fn answer(e: &Explanation) -> Value {
    let Some(answer) = &e.answer else {
        return Value::Null;
    };
    let (member, address) = answer.member.clone().unzip();
    json!({
        "status": answer.status,
        "grpcStatus": answer.grpc_status,
        "reason": answer.reason,
        "member": member.as_deref(),
        "address": address,
        "attempts": answer.attempts,
        "latencySeconds": answer.latency.as_ref().map(Duration::as_secs_f64),
        "seconds": answer.duration.as_secs_f64(),
        "received": answer.received,
        "sent": answer.sent,
        "cut": answer.cut,
    })
}
