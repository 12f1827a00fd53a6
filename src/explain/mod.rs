//! Why a request went where it went: what is recorded of some requests, kept in bounded memory, and
//! worked out for a request that is only described; told as JSON and as text. Shows no secret: see
//! [`mask`].

pub mod dry;
pub mod json;
pub mod kept;
pub mod mask;
pub mod text;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use jiff::Timestamp;

use crate::table::balance::{Candidate, Standing};
use crate::table::explain::{Finding, Other, Place};
use crate::table::load::Admission;
use crate::table::path::RequestPath;
use crate::table::{Member, Route, RuleId};

/// Members of one request that are kept; those that it was sent to are told of anyway.
pub const MEMBERS: usize = 32;
/// Attempts, header fields and changes of one request that are kept.
const PARTS: usize = 32;

/// Why a request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It was drawn.
    Sampled,
    /// Gibbon answered it with a 5xx status.
    Failed,
    /// It was sent more than once.
    Retried,
    /// It took a member out.
    Excluded,
    /// The member broke its response off.
    Cut,
}

impl Because {
    /// The label on pages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Excluded => "excluded",
            Self::Cut => "cut",
        }
    }
}

/// All that is told of one request.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// What the request is called; one that is only described has no name.
    pub id: Option<Box<str>>,
    /// When it came, or was described.
    pub at: Timestamp,
    /// Why it is kept.
    pub because: Vec<Because>,
    /// What was asked.
    pub head: Option<Head>,
    /// Which Balancer it fell to.
    pub matched: Option<Matched>,
    /// The [version](crate::table::Table::version) of the table that decided.
    pub version: u64,
    /// Why the others did not get it. Of a kept request, worked out when that is asked for; not
    /// known when the Balancers have changed since.
    pub others: Option<Vec<Other>>,
    /// What is done without a member: `redirect to https://…`.
    pub instead: Option<String>,
    /// What it depends on besides, and is not known of a request that is only described.
    pub unknown: Vec<&'static str>,
    /// What the request says of its session.
    pub findings: Vec<Found>,
    /// How the session fared.
    pub session: Option<&'static str>,
    /// The members as the first pick saw them; of a request that was not sampled, as they were when its
    /// first attempt had failed.
    pub members: Vec<Seen>,
    /// How many more there are.
    pub more_members: usize,
    /// Who would be picked now, and why; of a request that is only described.
    pub pick: Option<Picked>,
    /// What it was sent to.
    pub attempts: Vec<Attempt>,
    /// What was changed on the way to the member and back.
    pub rewritten: Vec<Rewritten>,
    /// What came of it.
    pub answer: Option<Answer>,
}

/// What was asked; without secrets.
#[derive(Clone, Debug)]
pub struct Head {
    /// The client.
    pub client: IpAddr,
    /// The method.
    pub method: Method,
    /// Whether the client speaks TLS.
    pub https: bool,
    /// Host and port as the client wrote them.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// The fields, as far as Gibbon had prepared them for members.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Leaves out what is secret.
    #[must_use]
    pub fn new(
        client: IpAddr,
        method: &Method,
        https: bool,
        authority: &str,
        target: &str,
        headers: &HeaderMap,
    ) -> Self {
        let fields = headers.iter().take(PARTS);
        let fields = fields.map(|(name, value)| (name.to_string(), mask::field(name, value)));
        Self {
            client,
            method: method.clone(),
            https,
            authority: mask::authority(authority).into_owned(),
            target: mask::target(target),
            fields: fields.collect(),
        }
    }
}

/// The Balancer that a request fell to.
#[derive(Clone, Debug)]
pub struct Matched {
    /// Its name.
    pub rule: RuleId,
    /// The host that matched, as it was written.
    pub host: String,
    /// The path that matched.
    pub path: String,
}

impl Matched {
    /// That of a host in lower case, without port.
    #[must_use]
    pub fn of(route: &Route, host: &str) -> Self {
        let rule = &route.rule;
        Self {
            rule: rule.id.clone(),
            host: rule.covering(host).map(ToString::to_string).unwrap_or_default(),
            path: rule.prefix.to_string(),
        }
    }
}

/// What one place in the request says of its session.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// The name of the cookie or parameter.
    pub name: String,
    /// The route that was found there, or what is told of it instead.
    pub gave: Gave,
    /// The members that it names.
    pub members: Vec<Arc<str>>,
}

/// What a pattern has found in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gave {
    /// Nothing.
    Nothing,
    /// A route.
    Route(String),
    /// Text of so many characters that is no member's route: it may be anything, and is not shown.
    Unknown(usize),
}

impl Found {
    /// Shows routes that members have, and with `all` others too.
    #[must_use]
    pub fn new(finding: Finding, route: &Route, all: bool) -> Self {
        let names = finding.members.iter().map(|at| Arc::clone(&route.members[*at].name));
        let members: Vec<_> = names.collect();
        let gave = match finding.gave {
            None => Gave::Nothing,
            Some(text) if all || !members.is_empty() => Gave::Route(text),
            Some(text) => Gave::Unknown(text.chars().count()),
        };
        Self { place: finding.place, name: finding.name, gave, members }
    }
}

/// A member as a pick saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// The name that sessions know it by.
    pub route: Option<Arc<str>>,
    /// What it is used for.
    pub state: &'static str,
    /// Its capacity.
    pub weight: f64,
    /// The share of its entry.
    pub share: Option<f64>,
    /// How many requests it has at once at most.
    pub max_in_flight: Option<u32>,
    /// What the pick made of it.
    pub candidate: Candidate,
}

impl Seen {
    fn new(route: &Route, candidate: Candidate) -> Self {
        let member = &route.members[candidate.member];
        Self {
            name: Arc::clone(&member.name),
            address: member.address,
            route: member.route.clone(),
            state: member.state.label(),
            weight: member.weight,
            share: route.rule.entries[member.entry].share,
            max_in_flight: member.max_in_flight,
            candidate,
        }
    }

    /// How long it is excluded, if it is.
    #[must_use]
    pub const fn excluded(&self) -> Option<Duration> {
        match self.candidate.admission {
            Admission::Excluded(left) => Some(left),
            Admission::Usable | Admission::Probe(_) => None,
        }
    }
}

/// Who would be picked.
#[derive(Clone, Debug)]
pub struct Picked {
    /// Its name and address; none if nobody can serve the request.
    pub member: Option<(Arc<str>, SocketAddr)>,
    /// Why.
    pub why: &'static str,
}

/// One attempt at a member.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The member's name.
    pub member: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// When it began, from the request's head on.
    pub at: Duration,
    /// How long it took to fail, or to the response head.
    pub took: Duration,
    /// What came of it.
    pub result: Outcome,
    /// It was to find out whether the member is back.
    pub probe: bool,
    /// How long the member is excluded because of it.
    pub excluded: Option<Duration>,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// This went wrong.
    Failed(&'static str),
    /// The member had closed a kept connection, as it may: it is asked once more.
    Stale,
}

/// Something that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// What it belongs to: `request` or `response`.
    pub message: &'static str,
    /// The field's name, or `path`.
    pub what: String,
    /// What it was before; none if it was not there.
    pub from: Option<String>,
    /// What it is now; none if it was removed.
    pub to: Option<String>,
}

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status; none if the client went away first.
    pub status: Option<u16>,
    /// The status of a call of gRPC.
    pub grpc_status: Option<u8>,
    /// Why Gibbon answered itself, or cut the answer off.
    pub reason: Option<&'static str>,
    /// The member that served it, or was asked last.
    pub member: Option<(Arc<str>, SocketAddr)>,
    /// Attempts at members.
    pub attempts: usize,
    /// From the member's being asked to its response head.
    pub latency: Option<Duration>,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// The response was cut off.
    pub cut: bool,
}

impl Explanation {
    /// One more reason to keep it.
    pub fn because(&mut self, reason: Because) {
        if !self.because.contains(&reason) {
            self.because.push(reason);
        }
    }

    /// Notes what a pick sees of the members: of many, the best and those that are special.
    pub fn see(&mut self, route: &Route, mut candidates: Vec<Candidate>, most: usize) {
        if candidates.len() > most {
            let dull = |c: &Candidate| matches!(c.standing, Standing::Usable);
            candidates
                .sort_by(|a, b| dull(a).cmp(&dull(b)).then_with(|| a.score.total_cmp(&b.score)));
            self.more_members = candidates.len() - most;
            candidates.truncate(most);
        }
        self.members = candidates.into_iter().map(|c| Seen::new(route, c)).collect();
    }

    /// Notes an attempt.
    pub fn attempt(&mut self, attempt: Attempt) {
        if self.attempts.len() < PARTS {
            self.attempts.push(attempt);
        }
    }

    /// Notes a change.
    pub fn rewrite(
        &mut self,
        message: &'static str,
        what: &str,
        from: Option<String>,
        to: Option<String>,
    ) {
        if from != to && self.rewritten.len() < PARTS {
            self.rewritten.push(Rewritten { message, what: what.to_owned(), from, to });
        }
    }

    /// Notes what changes on the way to a member that is asked for `authority` and the path `asked`.
    pub fn rewrite_request(
        &mut self,
        route: &Route,
        member: &Member,
        authority: &str,
        asked: &str,
    ) {
        let Ok(resolved) = RequestPath::resolve(asked) else {
            return;
        };
        let entry = &route.rule.entries[member.entry];
        let rest = route.rule.prefix.rest(&resolved).unwrap_or_default();
        let target = route.rule.prefix.at_member(&route.rule.entries[member.entry].path, rest);
        self.rewrite("request", "path", Some(mask::target(asked)), Some(mask::target(&target)));
        if !entry.preserve_host {
            let host = String::from_utf8_lossy(entry.host.as_bytes()).into_owned();
            self.rewrite(
                "request",
                "host",
                Some(mask::authority(authority).into_owned()),
                Some(host),
            );
        }
        let edits = &route.rule.request_headers;
        for name in &edits.remove {
            self.rewrite("request", name.as_str(), Some(mask::HIDDEN.to_owned()), None);
        }
        for (name, value) in edits.set.iter().chain(&edits.add) {
            self.rewrite("request", name.as_str(), None, Some(mask::field(name, value)));
        }
    }
}

impl Answer {
    /// Whether somebody should look at it.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.cut || self.status.is_none_or(|status| status >= 500)
    }
}
