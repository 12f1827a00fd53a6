//! The attempts to have a request answered: pick a member, send, book what came of it, and go on to
//! the next where that is safe.

use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response, StatusCode};
use hyper::body::Body;
use tokio::time::timeout;

use super::Worker;
use super::body::{Upload, Watch};
use super::error::Error;
use super::forward::Authority;
use super::headers::{Added, Hop};
use super::upstream::message::Message;
use super::upstream::{self, Failed, Incoming, Reach, Reply, Terms};
use super::visit::{InFlight, Visit};
use super::waiting::Waiting;
use super::{explain, grpc};
use crate::explain::{Because, Outcome};
use crate::table::balance::{self, Ask, NoMember, Pick, Tried};
use crate::table::gate;
use crate::table::load::Failure;
use crate::table::path::Prefix;
use crate::table::tally::Session;
use crate::table::{Member, Route, Wish};

/// How often it is looked whether a request that finds out if its member is back waits for its client:
/// one that does lets the next one try, and so each gets so long.
const SLOW_UPLOAD: Duration = Duration::from_millis(500);

/// A request ready for members: what is the same for each of them.
pub struct Ready<'a> {
    /// The head, changed in all that does not depend on the member.
    pub parts: &'a Parts,
    /// What members are told besides.
    pub added: &'a Added,
    /// What the client asked of its connection.
    pub hop: Hop,
    /// The body.
    pub upload: Upload,
    /// Host and port as the client wrote them.
    pub authority: &'a Authority,
    /// What the client asked for below the rule's prefix.
    pub rest: &'a str,
    /// It asks for another protocol.
    pub tunnel: bool,
}

/// Sends the request to one member after the other until one answers. Says which route that member is
/// of, if the Balancer has got another one while the request waited.
///
/// # Errors
/// What the client is told when none does.
pub async fn forward(
    worker: &Rc<Worker>,
    route: &Arc<Route>,
    ready: &Ready<'_>,
    visit: &mut Visit,
) -> Result<(Reply, Option<Arc<Route>>), Error> {
    route.budget.earn(route.rule.failover.retry_percent);
    let mut newer: Option<Arc<Route>> = None;
    let mut begun = Some(visit.begun());
    let mut waiting = Waiting::default();
    loop {
        let on = newer.as_ref().unwrap_or(route);
        let mut attempts = Attempts::new(worker, on, ready, visit, begun.take(), waiting);
        if let Some(reply) = attempts.go(visit).await? {
            return Ok((reply, newer));
        }
        visit.route.clone_from(&attempts.newer);
        (newer, waiting) = (attempts.newer, attempts.waiting);
    }
}

/// The attempts to have a request answered.
struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    route: &'a Arc<Route>,
    ready: &'a Ready<'a>,
    wish: Wish<'a>,
    terms: Terms<'a>,
    /// When the request's time is over as the rule has it, whatever the client says.
    over: Option<Instant>,
    idempotent: bool,
    /// The time of the first attempt, as good as now.
    begun: Option<Instant>,
    tried: Tried,
    /// What the client is told if nobody is left.
    last: Error,
    /// A member whose kept connection turned out closed: it gets the request on a fresh one.
    again: Option<Pick>,
    /// The last member that had no place for the request.
    refused: Option<Pick>,
    /// How long the last failure excludes its member, if that is news.
    excluded: Option<Duration>,
    /// Its patience where members are full.
    waiting: Waiting,
    /// The route that it should have instead.
    newer: Option<Arc<Route>>,
}

impl<'a> Attempts<'a> {
    fn new(
        worker: &'a Rc<Worker>,
        route: &'a Arc<Route>,
        ready: &'a Ready<'a>,
        visit: &Visit,
        begun: Option<Instant>,
        waiting: Waiting,
    ) -> Self {
        let (rule, parts) = (&route.rule, ready.parts);
        let idempotent = gate::is_idempotent(&parts.method);
        Self {
            worker,
            route,
            ready,
            wish: route.wish(parts.uri.path(), parts.uri.query(), &parts.headers),
            terms: Terms {
                connect: rule.timeouts.connect,
                response: match visit.call {
                    Some(_) => rule.timeouts.messages,
                    None => rule.timeouts.response,
                },
                deadline: deadline(route, visit),
                repeatable: idempotent && ready.upload.is_empty(),
                fresh: false,
                begun: visit.begun(),
                system: &worker.shared.system,
            },
            over: rule.timeouts.request.map(|whole| visit.begun() + whole),
            idempotent,
            begun,
            tried: Tried::default(),
            last: Error::NoMember,
            again: None,
            refused: None,
            excluded: None,
            waiting,
            newer: None,
        }
    }

    /// All attempts: a reply, or nothing if there is a newer route before the first.
    async fn go(&mut self, visit: &mut Visit) -> Result<Option<Reply>, Error> {
        loop {
            let reply = self.next(visit).await?;
            if reply.is_some() || self.newer.is_some() {
                return Ok(reply);
            }
        }
    }

    /// One attempt: a reply, or nothing if the next member should be asked, or those of a newer route.
    async fn next(&mut self, visit: &mut Visit) -> Result<Option<Reply>, Error> {
        self.terms.fresh = self.again.is_some();
        let Some((pick, mut in_flight)) = self.seize(visit).await? else {
            return Ok(None);
        };
        visit.picked(pick, session(pick, self.wish));
        visit.attempts += 1;
        if visit.attempts > 1 {
            self.route.tally.retries.inc();
        }
        let member = &self.route.members[pick.member];
        let message = self.ready.message(self.route, member);
        self.terms.begun = in_flight.sent();
        let result = if pick.probe {
            // Apart, as hardly any does.
            Box::pin(self.probe(member, &message, &mut in_flight)).await
        } else {
            upstream::send(&self.worker.pool, member, &message, &self.terms).await
        };
        match result {
            Ok(reply) => {
                visit.in_flight = Some(in_flight);
                Ok(Some(reply))
            }
            Err(failed) => {
                let sent = in_flight.sent();
                let result = self.failed(pick, in_flight, &failed);
                self.explain(pick, sent, failed.failure, result.err(), visit);
                result.map(|()| None)
            }
        }
    }

    /// Sends a request that is to find out whether its member is back. One whose client is slow to send
    /// it says nothing of the member for as long: another may find out then.
    async fn probe(
        &self,
        member: &Member,
        message: &Message<'_>,
        in_flight: &mut InFlight,
    ) -> Result<Reply, Failed> {
        let sent = upstream::send(&self.worker.pool, member, message, &self.terms);
        let mut sent = pin!(sent);
        loop {
            match timeout(SLOW_UPLOAD, &mut sent).await {
                Ok(result) => return result,
                Err(_) if self.ready.upload.waits_for_client() => break,
                Err(_) => {}
            }
        }
        in_flight.yield_probe();
        sent.await
    }

    /// A member that the request counts at from now on; waits for one if they are full. None if there
    /// is a newer route by then.
    async fn seize(&mut self, visit: &mut Visit) -> Result<Option<(Pick, InFlight)>, Error> {
        loop {
            let again = self.again.take();
            let now = self.begun.take().unwrap_or_else(Instant::now);
            match again.map_or_else(|| self.pick(visit, now), Ok) {
                Ok(pick) if self.cannot_carry(pick) => self.pass_over(pick),
                Ok(pick) => {
                    let in_flight = InFlight::begin(self.route, pick, now);
                    // Else another was quicker.
                    if let Some(in_flight) = in_flight {
                        self.waiting = Waiting::default();
                        return Ok(Some((pick, in_flight)));
                    }
                }
                Err(Error::Busy) if self.waiting.more(self.route, self.terms.deadline).await => {
                    self.newer = self.newer().filter(|_| visit.attempts == 0);
                    if self.newer.is_some() {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    visit.explain(Because::Failed);
                    explain::survey(visit, self.route, &self.ask(now));
                    return Err(error);
                }
            }
        }
    }

    /// The route that the Balancer has by now, for a request that was sent nowhere yet: if it is another,
    /// and serves what was prepared for the one before.
    fn newer(&self) -> Option<Arc<Route>> {
        let table = self.worker.shared.table.load();
        let newer = table.route(&self.route.rule.id)?;
        let (new, old) = (&newer.rule, &self.route.rule);
        let serves = Arc::ptr_eq(new, old)
            || (!new.entries.is_empty()
                && (&new.hosts, &new.prefix, &new.request_headers)
                    == (&old.hosts, &old.prefix, &old.request_headers));
        (self.tried.count() == 0 && serves && !Arc::ptr_eq(newer, self.route))
            .then(|| Arc::clone(newer))
    }

    /// Whether the request leaves HTTP, and the member cannot.
    fn cannot_carry(&self, pick: Pick) -> bool {
        self.ready.tunnel && !self.route.members[pick.member].protocol.can_switch()
    }

    /// Leaves a member alone that nothing was sent to.
    fn pass_over(&mut self, pick: Pick) {
        if pick.probe {
            self.route.members[pick.member].load.end_probe();
        }
        self.tried.add(pick.member);
        self.last = Error::NoUpgrade;
    }

    fn pick(&mut self, visit: &mut Visit, now: Instant) -> Result<Pick, Error> {
        let ask = self.ask(now);
        explain::survey(visit, self.route, &ask);
        let pick = balance::pick(self.route, &ask, &mut self.worker.rng.borrow_mut());
        if let Ok(Pick { member, session: Session::Hit, .. }) = pick {
            let member = &self.route.members[member];
            member.tally.session(member.load.age(ask.now));
        }
        pick.or_else(|none| match none {
            NoMember::Session => {
                visit.session = Some(Session::Refused);
                Err(Error::SessionMember)
            }
            NoMember::Busy => Err(Error::Busy),
            // Who had no place for the request may have one now.
            NoMember::None => self.refused.take().ok_or(self.last),
        })
    }

    fn ask(&self, now: Instant) -> Ask<'_> {
        Ask {
            wanted: self.wish.members,
            tried: &self.tried,
            idempotent: self.idempotent,
            tunnel: self.ready.tunnel,
            now,
        }
    }

    /// Records a failure that will be explained; not one that the client is to blame for.
    fn explain(
        &mut self,
        pick: Pick,
        sent: Instant,
        failure: Failure,
        error: Option<Error>,
        visit: &mut Visit,
    ) {
        let excluded = self.excluded.take();
        match error {
            None => visit.explain(Because::Retried),
            Some(Error::Upload(_)) => return,
            Some(_) => visit.explain(Because::Failed),
        }
        // Not if it is not asked again after all.
        let stale = error.is_none() && self.again.is_some();
        let outcome = if stale { Outcome::Stale } else { Outcome::Failed(failure.reason()) };
        explain::attempt(visit, &self.route.members[pick.member], sent, outcome, excluded);
        explain::survey(visit, self.route, &self.ask(Instant::now()));
    }

    /// Books a failure. An error, unless another member may have the request.
    fn failed(
        &mut self,
        pick: Pick,
        mut in_flight: InFlight,
        failed: &Failed,
    ) -> Result<(), Error> {
        if let Some(error) = self.ready.upload.error() {
            return Err(Error::Upload(error));
        }
        if self.terms.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            if self.took_most_of_it(&in_flight) {
                self.book(pick, &mut in_flight, failed.failure);
            }
            return Err(Error::Deadline);
        }
        // A member that has said anything has begun to serve the request.
        let broke = failed.failure == Failure::Reset && failed.reach != Reach::Answered;
        let whole = self.ready.upload.is_whole();
        let may_resend = self.idempotent && whole && broke;
        let unseen = match failed.reach {
            Reach::Unsent => true,
            Reach::Unprocessed => whole,
            Reach::Lost | Reach::Answered => false,
        };
        if failed.reused && broke {
            // The member closed a kept connection, as it may: no failure of its.
            self.again = Some(pick);
            return if may_resend || unseen { Ok(()) } else { Err(Error::Member(failed.failure)) };
        }
        self.book(pick, &mut in_flight, failed.failure);
        if failed.failure == Failure::StreamRefused && !self.tried.has(pick.member) {
            self.refused = Some(pick);
        }
        self.tried.add(pick.member);
        // Who is no member of this site is not merely away.
        let unverified = failed.failure == Failure::Tls;
        self.last =
            if unseen && !unverified { Error::NoMember } else { Error::Member(failed.failure) };
        let left = self.tried.count() < self.route.rule.failover.attempts;
        if left && (unseen || (may_resend && self.spend())) { Ok(()) } else { Err(self.last) }
    }

    fn book(&mut self, pick: Pick, in_flight: &mut InFlight, failure: Failure) {
        let (member, now) = (&self.route.members[pick.member], Instant::now());
        let first = self.route.exclusion(member, failure, now);
        self.excluded = in_flight.failed(failure, first, now);
        report(self.route, member, failure, self.excluded);
    }

    /// Whether the request's time was spent on waiting for this member, not for the client or
    /// others before.
    fn took_most_of_it(&self, in_flight: &InFlight) -> bool {
        let is_over = self.over.is_some_and(|over| over <= Instant::now());
        let whole = self.route.rule.timeouts.request.unwrap_or_default();
        let took = in_flight.sent().elapsed() * 2 >= whole;
        is_over && took && !self.ready.upload.waits_for_client()
    }

    /// Whether the retry budget allows for one more.
    fn spend(&self) -> bool {
        let allowed = self.route.rule.failover.retry_percent > 0;
        let may = allowed && self.route.budget.spend(self.worker.shared.seconds());
        if !may {
            self.route.tally.retries_denied.inc();
        }
        may
    }
}

impl Ready<'_> {
    /// The request for one member.
    fn message<'m>(&'m self, route: &'m Route, member: &Member) -> Message<'m> {
        let entry = &route.rule.entries[member.entry];
        Message {
            method: &self.parts.method,
            target: self.target(&route.rule.prefix, &entry.path),
            head: &self.parts.headers,
            added: self.added,
            host: if entry.preserve_host { self.authority.value() } else { &entry.host },
            upgrade: self.hop.upgrade.as_ref().filter(|_| self.tunnel),
            upload: self.upload.again(),
        }
    }

    /// The member's path with what the client asked below the prefix; the query as it came.
    fn target(&self, prefix: &Prefix, member_path: &str) -> Cow<'_, PathAndQuery> {
        let from = &self.parts.uri;
        let path = prefix.at_member(member_path, self.rest);
        let target = match (from.path_and_query(), from.query()) {
            (Some(target), _) if target.path() == path => return Cow::Borrowed(target),
            (_, Some(query)) => PathAndQuery::try_from(format!("{path}?{query}")),
            (_, None) => PathAndQuery::try_from(path.into_owned()),
        };
        // What was a valid target stays one: a join of two valid paths, and the query as it was.
        Cow::Owned(target.unwrap_or(PathAndQuery::from_static("/")))
    }
}

/// When the request has taken all the time that its rule and its client give it.
#[must_use]
pub fn deadline(route: &Route, visit: &Visit) -> Option<Instant> {
    let over = route.rule.timeouts.request.map(|whole| visit.begun() + whole);
    over.into_iter().chain(visit.call.and_then(|call| call.until)).min()
}

/// How the session fared with this pick.
fn session(pick: Pick, wish: Wish<'_>) -> Session {
    let lost = wish.named && wish.members.is_empty();
    if pick.session == Session::New && lost { Session::Lost } else { pick.session }
}

/// Books what an answer says of the member; returns how long that is excluded, if it is.
pub fn judge(
    route: &Route,
    member: &Member,
    response: &Response<Incoming>,
    asked: Instant,
    visit: &mut Visit,
) -> Option<Duration> {
    let now = Instant::now();
    let in_flight = visit.in_flight.as_mut()?;
    let latency = now.saturating_duration_since(asked.max(in_flight.sent()));
    visit.latency = Some(latency);
    let status = response.status();
    let head = response.headers();
    // A head without a body stands for trailers.
    let in_head = response.body().is_end_stream() && grpc::kind(head).is_some();
    let is_call = visit.call.is_some() && status == StatusCode::OK;
    if is_call && (in_head || grpc::has_trailers(head)) {
        visit.wait_for_trailers(latency);
        if in_head {
            visit.trailers(head);
        }
        return None;
    }
    let failure = if route.rule.failover.statuses.contains(&status) {
        Failure::ExcludingStatus
    } else if status.is_server_error()
        && status != StatusCode::NOT_IMPLEMENTED
        && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED
    {
        Failure::Status
    } else {
        in_flight.succeeded(latency, now);
        return None;
    };
    let first = route.exclusion(member, failure, now);
    let excluded = in_flight.failed(failure, first, now);
    report(route, member, failure, excluded);
    excluded
}

fn report(route: &Route, member: &Member, failure: Failure, excluded: Option<Duration>) {
    let (balancer, reason) = (&route.rule.id, failure.reason());
    let (name, address) = (&member.name, member.address);
    match excluded {
        Some(time) => tracing::warn!(
            %balancer, member = %name, %address, reason, seconds = time.as_secs_f64(),
            "member failed and is excluded"
        ),
        None => tracing::debug!(%balancer, member = %name, %address, reason, "member failed"),
    }
}
