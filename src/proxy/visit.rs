//! One request's stay in Gibbon: holds what must be given back when it ends, however it ends, and
//! then books and logs it.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;

use super::Worker;
use super::body::{DownloadError, Upload, Watch};
use super::io;
use super::log::{Begun, Served};
use super::upstream::{self, Connection};
use super::{explain, grpc};
use crate::explain::{Answer, Because, Explanation};
use crate::metrics::Open;
use crate::table::balance::Pick;
use crate::table::load::{Failure, Load};
use crate::table::queue::Queue;
use crate::table::tally::{MemberTally, Session};
use crate::table::{Member, Route};

/// A client that leaves before this time hardly wanted an answer.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A request under way at a member: counted from its making to its drop.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
    tally: Arc<MemberTally>,
    /// Waits for its end, where the member has at most so many.
    queue: Option<Arc<Queue>>,
    probe: bool,
    /// The response's head has come.
    body: bool,
    sent: Instant,
}

impl InFlight {
    /// An attempt begins; none if the member has as many requests as it may have.
    #[must_use]
    pub fn begin(route: &Route, pick: Pick, now: Instant) -> Option<Self> {
        let (member, probe) = (&route.members[pick.member], pick.probe);
        match member.max_in_flight {
            None => member.load.begin(),
            Some(most) if member.load.begin_within(most) => {}
            Some(_) => {
                if probe {
                    member.load.end_probe();
                }
                return None;
            }
        }
        member.tally.requests.inc();
        let (load, tally) = (Arc::clone(&member.load), Arc::clone(&member.tally));
        let queue = member.max_in_flight.map(|_| Arc::clone(&route.queue));
        Some(Self { load, tally, queue, probe, body: false, sent: now })
    }

    /// The member answered well.
    pub fn succeeded(&mut self, latency: Duration, now: Instant) {
        self.probe = false;
        self.begin_body();
        self.load.succeeded(self.sent, latency, now);
    }

    /// The attempt failed; says how long the member is excluded, if it is.
    pub fn failed(&mut self, failure: Failure, first: Duration, now: Instant) -> Option<Duration> {
        self.tally.failed(failure);
        let excluded = self.load.failed(failure, self.sent, first, now);
        if excluded.is_none() {
            // It has told nothing: the next may try.
            self.yield_probe();
        }
        self.probe = false;
        excluded
    }

    /// It will be long until it tells whether the member is back: another request may find out.
    pub fn yield_probe(&mut self) {
        if std::mem::take(&mut self.probe) {
            self.load.end_probe();
        }
    }

    /// The member has begun to answer; whether well, will be known later. What it has under way weighs
    /// no more than another response: it may be a stream of hours.
    pub fn reached(&mut self) {
        self.begin_body();
        self.load.reached(self.sent);
    }

    fn begin_body(&mut self) {
        if !std::mem::replace(&mut self.body, true) {
            self.load.begin_body();
        }
    }

    /// When the attempt began.
    #[must_use]
    pub const fn sent(&self) -> Instant {
        self.sent
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.body {
            self.load.end_body();
        }
        self.load.end();
        if self.probe {
            self.load.end_probe();
        }
        if let Some(queue) = &self.queue {
            queue.call();
        }
    }
}

/// A tunnel to a member: counted from its making to its drop.
#[derive(Debug)]
struct Tunnel {
    load: Arc<Load>,
    _open: Open,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.load.close_tunnel();
    }
}

/// What a call of gRPC is more than another request.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// When its client no longer waits for it.
    pub until: Option<Instant>,
}

/// What is known of a request while it is served.
#[derive(Debug)]
pub struct Visit {
    pub(super) worker: Rc<Worker>,
    begun: Instant,
    /// The first part of its line in the log, if there is one.
    line: Option<Begun>,
    /// What the request is called.
    pub id: HeaderValue,
    /// The rule that serves it.
    pub route: Option<Arc<Route>>,
    /// The member that serves it, or was asked last.
    pub pick: Option<Pick>,
    /// How the session fared.
    pub session: Option<Session>,
    /// What is recorded of the request, if it will be explained.
    pub explanation: Option<Box<Explanation>>,
    /// Attempts at members.
    pub attempts: usize,
    /// From the member's being asked to its response head.
    pub latency: Option<Duration>,
    /// It is a call of gRPC.
    pub call: Option<Call>,
    /// The latency of an answer of gRPC whose trailers will say how it was.
    undecided: Option<Duration>,
    /// The status of gRPC, once it is known.
    pub grpc_status: Option<u8>,
    /// The client's body while nobody wants it.
    pub unread: Option<Incoming>,
    /// The client's body.
    pub upload: Option<Upload>,
    /// Counts at the member until the response has ended.
    pub in_flight: Option<InFlight>,
    /// Goes back to the idle ones when the response has ended.
    pub connection: Option<Connection>,
    tunnel: Option<Tunnel>,
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    sent: u64,
    complete: bool,
    /// When it was complete, if that is when the request has ended.
    ended: Option<Instant>,
    /// The client takes the end of the connection for the end of the response, as HTTP/1.0 does.
    pub ends_by_close: bool,
    /// Other requests may be on the same connection, which shows nothing of this one's end.
    pub multiplexed: bool,
    busy: Option<io::Request>,
}

impl Visit {
    /// Begins now; `line` only if there is a log.
    #[must_use]
    pub fn begin(
        worker: Rc<Worker>,
        id: HeaderValue,
        line: Option<Begun>,
        busy: io::Request,
    ) -> Box<Self> {
        Box::new(Self {
            worker,
            begun: Instant::now(),
            line,
            id,
            route: None,
            pick: None,
            session: None,
            explanation: None,
            attempts: 0,
            latency: None,
            call: None,
            undecided: None,
            grpc_status: None,
            unread: None,
            upload: None,
            in_flight: None,
            connection: None,
            tunnel: None,
            status: None,
            reason: None,
            sent: 0,
            complete: false,
            ended: None,
            ends_by_close: false,
            multiplexed: false,
            busy: Some(busy),
        })
    }

    /// The member that serves it, or was asked last.
    pub fn member(&self) -> Option<&Member> {
        Some(&self.route.as_ref()?.members[self.pick?.member])
    }

    /// When the request's head was complete.
    #[must_use]
    pub const fn begun(&self) -> Instant {
        self.begun
    }

    /// The session's result is known.
    pub fn picked(&mut self, pick: Pick, session: Session) {
        self.pick = Some(pick);
        // A failover keeps its name through later attempts.
        if self.session != Some(Session::Failover) {
            self.session = Some(session);
        }
    }

    /// Records from now on what will be told of the request, for this reason; not if nothing is kept.
    pub fn explain(&mut self, because: Because) {
        if self.worker.shared.kept.is_open() {
            self.explanation.get_or_insert_default().because(because);
        }
    }

    /// The response's head is on its way.
    pub fn answered(&mut self, status: StatusCode, reason: Option<&'static str>) {
        self.status = Some(status);
        self.reason = reason;
        if let Some(route) = &self.route {
            route.tally.answered(status.as_u16());
        }
    }

    /// The head of an answer of gRPC says nothing of how it is.
    pub fn wait_for_trailers(&mut self, latency: Duration) {
        self.undecided = Some(latency);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.reached();
        }
    }

    /// How an answer of gRPC was: its status, or that it has none.
    fn decide(&mut self, status: Option<u8>) {
        let (Some(latency), Some((route, pick))) =
            (self.undecided.take(), self.route.as_ref().zip(self.pick))
        else {
            return;
        };
        self.grpc_status = status;
        let statuses = &route.rule.failover.grpc_statuses;
        let failed = status.is_none_or(|status| statuses.contains(&status));
        if let Some(in_flight) = &mut self.in_flight {
            let now = Instant::now();
            if failed {
                let first = route.exclusion(&route.members[pick.member], Failure::Status, now);
                in_flight.failed(Failure::Status, first, now);
            } else {
                in_flight.succeeded(latency, now);
            }
        }
    }

    /// The request becomes a tunnel: it counts as one, and no more as in flight.
    pub fn open_tunnel(&mut self, member: &Member) {
        member.load.open_tunnel();
        let load = Arc::clone(&member.load);
        self.tunnel = Some(Tunnel { load, _open: self.worker.shared.metrics.tunnel() });
        self.in_flight = None;
    }

    /// Bytes went through a tunnel.
    pub fn tunnelled(&mut self, sent: u64) {
        self.sent = sent;
        self.complete = true;
    }

    /// The response has no body, or one of Gibbon's own, which is not watched, or one that was `read`.
    pub fn complete(&mut self, read: Option<upstream::Incoming>) {
        self.decide(None);
        self.complete = true;
        self.in_flight = None;
        let now = Instant::now();
        if self.multiplexed {
            // A client that does not take the end of it has the connection's idle time for that.
            self.busy = None;
        } else {
            // hyper drops the body as soon as it has its end.
            self.ended = Some(now);
        }
        if let Some(upload) = self.upload.as_ref().filter(|upload| upload.is_withheld()) {
            upload.refuse();
            self.connection = None;
        }
        if let Some(connection) = self.connection.take() {
            connection.give_back(read, now);
        }
    }

    /// The response has ended before its end; the member may have failed.
    fn broke_off(&mut self, reason: &'static str, failure: Option<Failure>) {
        self.reason = Some(reason);
        if let Some(busy) = self.busy.as_ref().filter(|_| self.ends_by_close) {
            busy.cut();
        }
        // A body that the client broke off takes the member's connection with it.
        let blameless = self.upload.as_ref().is_some_and(|upload| upload.error().is_some());
        let failure = failure.filter(|_| !blameless);
        if !blameless {
            self.explain(Because::Cut);
        }
        let at = self.route.as_ref().zip(self.pick);
        if let (Some(mut in_flight), Some(failure), Some((route, pick))) =
            (self.in_flight.take(), failure, at)
        {
            let now = Instant::now();
            let first = route.exclusion(&route.members[pick.member], failure, now);
            in_flight.failed(failure, first, now);
        }
        self.connection = None;
    }

    /// What has come of it so far.
    pub(super) fn answer(&self) -> Answer {
        let member = self.member();
        Answer {
            status: self.status.map(|status| status.as_u16()),
            grpc_status: self.grpc_status,
            reason: self.reason,
            member: member.map(|member| (Arc::clone(&member.name), member.address)),
            attempts: self.attempts,
            latency: self.latency,
            duration: self.begun.elapsed(),
            received: self.upload.as_ref().map_or(0, Upload::bytes),
            sent: self.sent,
            cut: !self.complete && self.status.is_some(),
        }
    }

    fn served(&self, duration: Duration) -> Served<'_> {
        let member = self.member();
        Served {
            status: self.status.map(|status| status.as_u16()),
            grpc_status: self.grpc_status,
            received: self.upload.as_ref().map_or(0, Upload::bytes),
            sent: self.sent,
            duration,
            balancer: self.route.as_ref().map(|route| &route.rule.id),
            member: member.map(|member| &*member.name),
            address: member.map(|member| member.address),
            attempts: self.attempts,
            session: self.session.map(Session::label),
            latency: self.latency,
            reason: self.reason,
            cut: !self.complete && self.status.is_some(),
            id: self.id.to_str().unwrap_or_default(),
        }
    }
}

impl Watch for Visit {
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        match self.busy.as_ref().filter(|_| self.multiplexed) {
            Some(busy) => busy.poll_room(cx),
            None => Poll::Ready(()),
        }
    }

    fn passed(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    fn hold(&self, part: Bytes) -> Bytes {
        match self.busy.as_ref().filter(|_| self.multiplexed) {
            Some(busy) => busy.hold(part),
            None => part,
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.decide(grpc::status(trailers));
    }

    fn ended(&mut self, result: Result<Option<upstream::Incoming>, DownloadError>) {
        if let Err(error) = result
            && self.multiplexed
            && self.undecided.is_some()
        {
            // What the client is told.
            self.grpc_status = grpc::status(&grpc::broken_off(error));
        }
        match result {
            Ok(read) => self.complete(read),
            // The visit goes with the body then: the client has gone, for all it matters.
            Err(DownloadError::Stalled) => {}
            Err(DownloadError::Deadline) => self.broke_off("deadline", None),
            Err(DownloadError::Idle) => self.broke_off("idle", None),
            Err(DownloadError::Broken) => {
                self.broke_off(Failure::Reset.reason(), Some(Failure::Reset));
            }
            Err(DownloadError::Timeout) => {
                self.broke_off(Failure::Timeout.reason(), Some(Failure::Timeout));
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = self.ended.unwrap_or_else(Instant::now);
        let duration = now.saturating_duration_since(self.begun);
        if self.multiplexed
            && !self.complete
            && self.reason.is_none()
            && duration < AT_ONCE
            && let Some(busy) = &self.busy
        {
            busy.reset_at_once();
        }
        if let Some(busy) = self.busy.take() {
            busy.end(now, self.upload.as_ref().is_some_and(Upload::was_read));
        }
        if let Some(route) = &self.route {
            route.tally.duration.observe(duration);
            if let Some(session) = self.session {
                route.tally.session(session);
            }
            if !self.complete && self.reason.is_none() {
                route.tally.aborted.inc();
            }
        }
        if let Some(explanation) = self.explanation.take() {
            explain::keep(self, *explanation, duration);
        }
        if let Some(line) = self.line.take() {
            self.worker.shared.log(line, &self.served(duration));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::fixture::{route, weighted};

    fn attempt(route: &Route, probe: bool, now: Instant) -> InFlight {
        let pick = Pick { member: 0, session: Session::New, probe };
        InFlight::begin(route, pick, now).unwrap()
    }

    #[test]
    fn a_probe_gives_its_place_back_however_it_ends() {
        let begun = Instant::now();
        let route = route(weighted(&[1.0, 1.0]), begun);
        let load = &route.members[0].load;
        let first = Duration::from_secs(5);
        assert!(load.failed(Failure::Refused, begun, first, begun).is_some());
        let now = begun + first;
        let probe = || {
            assert!(load.begin_probe(now) && !load.begin_probe(now));
            attempt(&route, true, now)
        };
        // A failure that excludes nobody, as so many are out already, or is not the member's.
        assert_eq!(probe().failed(Failure::Reset, Duration::ZERO, now), None);
        assert_eq!(probe().failed(Failure::Local, first, now), None);
        probe().yield_probe();
        drop(probe());
        // Who has given it back takes it from nobody else.
        let mut slow = probe();
        slow.yield_probe();
        let other = probe();
        drop(slow);
        assert!(!load.begin_probe(now));
        drop(other);
        assert!(probe().failed(Failure::Reset, first, now).is_some());
    }

    #[test]
    fn a_stream_of_grpc_weighs_as_a_body_once_its_head_has_come() {
        let route = route(weighted(&[1.0]), Instant::now());
        let load = &route.members[0].load;
        let mut stream = attempt(&route, false, Instant::now());
        assert!((load.busy() - 1.0).abs() < f64::EPSILON);
        stream.reached();
        assert!((load.busy() - 0.25).abs() < f64::EPSILON);
        // Its trailers say that it went well, or did not.
        stream.succeeded(Duration::ZERO, Instant::now());
        assert!((load.busy() - 0.25).abs() < f64::EPSILON);
        drop(stream);
        assert!(load.busy().abs() < f64::EPSILON && load.in_flight() == 0);
        let mut stream = attempt(&route, false, Instant::now());
        stream.reached();
        stream.failed(Failure::Status, Duration::ZERO, Instant::now());
        drop(stream);
        assert!(load.busy().abs() < f64::EPSILON);
    }
}
