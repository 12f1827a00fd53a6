//! What is recorded of a request that will be explained: one that was drawn, or that has begun to
//! fail. Of all others nothing is: whether there is an [`Explanation`] is all that they pay for.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::{self, PathAndQuery};
use jiff::Timestamp;

use super::error::Error;
use super::headers::{Added, Client};
use super::visit::{InFlight, Visit};
use crate::explain::{
    Answer, Attempt, Because, Explanation, Found, Head, MEMBERS, Matched, Outcome,
};
use crate::table::balance::{self, Ask, Tried};
use crate::table::tally::Session;
use crate::table::{Member, Route, path};

/// Notes how a pick sees the members, the first time that this is known.
pub fn survey(visit: &mut Visit, route: &Route, ask: &Ask<'_>) {
    if let Some(explanation) = visit.explanation.as_mut().filter(|e| e.members.is_empty()) {
        explanation.see(route, balance::survey(route, ask), MEMBERS);
    }
}

/// Notes what came of an attempt.
pub fn attempt(
    visit: &mut Visit,
    member: &Member,
    sent: Instant,
    result: Outcome,
    excluded: Option<Duration>,
) {
    if excluded.is_some() {
        visit.explain(Because::Excluded);
    }
    let begun = visit.begun();
    let probe = visit.pick.is_some_and(|pick| pick.probe);
    let Some(explanation) = &mut visit.explanation else {
        return;
    };
    explanation.attempt(Attempt {
        member: member.name.clone(),
        address: member.address,
        at: sent.saturating_duration_since(begun),
        took: sent.elapsed(),
        result,
        probe,
        excluded,
    });
}

/// Notes a member's answer.
pub fn answered(
    visit: &mut Visit,
    route: &Route,
    member: &Member,
    status: u16,
    excluded: Option<Duration>,
) {
    let sent = visit.in_flight.as_ref().map_or(visit.begun(), InFlight::sent);
    attempt(visit, member, sent, Outcome::Status(status), excluded);
    let own = visit.pick.filter(|pick| pick.session == Session::Hit).map(|pick| pick.member);
    let tried = Tried::default();
    let now = Instant::now();
    let ask = Ask { wanted: own.as_slice(), tried: &tried, idempotent: true, tunnel: false, now };
    survey(visit, route, &ask);
}

/// The response's fields before they are changed, if the changes will be told.
#[must_use]
pub fn before(visit: &Visit, headers: &HeaderMap) -> Option<HeaderMap> {
    visit.explanation.as_ref().map(|_| headers.clone())
}

/// Notes what was changed since [`before`].
pub fn after(visit: &mut Visit, before: Option<&HeaderMap>, headers: &HeaderMap) {
    let (Some(explanation), Some(before)) = (&mut visit.explanation, before) else {
        return;
    };
    let new = headers.keys().filter(|name| !before.contains_key(*name));
    for name in before.keys().chain(new) {
        let (old, new) = (values(before, name), values(headers, name));
        for at in 0..old.len().max(new.len()) {
            let (old, new) = (old.get(at).cloned(), new.get(at).cloned());
            explanation.rewrite("response", name.as_str(), old, new);
        }
    }
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers.get_all(name).iter().map(|value| crate::explain::mask::field(name, value)).collect()
}

/// Notes what was asked and which rule it fell to, when it is known whether the request is kept: the
/// head is still there, and nothing of it had to be copied before.
pub fn asked(
    visit: &mut Visit,
    parts: &mut Parts,
    mut added: Added,
    client: &Client,
    error: Option<&Error>,
) {
    let failed =
        |error: &&Error| error.status().is_server_error() && !matches!(error, Error::Refused(_));
    if error.as_ref().is_some_and(failed) {
        visit.explain(Because::Failed);
    }
    if visit.explanation.is_none() {
        return;
    }
    let version = visit.worker.shared.table.load().version();
    let Visit { route, pick, explanation: Some(explanation), .. } = visit else {
        return;
    };
    added.move_into(&mut parts.headers);
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(uri::Authority::as_str).or(host).unwrap_or_default();
    let (method, headers) = (&parts.method, &parts.headers);
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let head = Head::new(client.ip, method, client.https, authority, target, headers);
    explanation.head = Some(head);
    explanation.version = version;
    let Some(route) = route else {
        return;
    };
    let host = path::host_of(authority).unwrap_or_default();
    explanation.matched = Some(Matched::of(route, &host));
    let findings = route.findings(parts.uri.path(), parts.uri.query(), headers);
    explanation.findings = findings.into_iter().map(|f| Found::new(f, route, false)).collect();
    if let Some(pick) = pick {
        let member = &route.members[pick.member];
        explanation.rewrite_request(route, member, authority, parts.uri.path());
    }
}

/// Keeps what was recorded, now that the request has ended.
pub fn keep(visit: &Visit, mut explanation: Explanation, duration: Duration) {
    let now = Timestamp::now();
    explanation.id = visit.id.to_str().ok().map(Into::into);
    explanation.at = now.checked_sub(duration).unwrap_or(now);
    explanation.session = visit.session.map(Session::label);
    // What belongs to the request is told first.
    explanation.rewritten.sort_by_key(|change| change.message);
    if let Some(route) = &visit.route {
        explanation.matched.get_or_insert_with(|| Matched::of(route, ""));
    }
    explanation.answer = Some(Answer { duration, ..visit.answer() });
    visit.worker.shared.kept.keep(explanation);
}
