//! Counters of a rule and of a member: plain atomics that the request path adds to and metrics read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::balance::Ledger;
use super::load::Failure;

/// Upper bounds of the duration histogram's buckets, in seconds.
pub const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How a request's wish for a member came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Session {
    /// It named no member.
    New,
    /// It went to the member it named.
    Hit,
    /// It named a member that is not there.
    Lost,
    /// The member it named could not be used, and another took over.
    Failover,
    /// The member it named could not be used, and the rule forbids another.
    Refused,
}

impl Session {
    /// All results, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::New, Self::Hit, Self::Lost, Self::Failover, Self::Refused];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Hit => "hit",
            Self::Lost => "lost",
            Self::Failover => "failover",
            Self::Refused => "refused",
        }
    }
}

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A duration histogram with the bounds of [`BUCKETS`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is of those beyond all bounds.
    buckets: [Counter; BUCKETS.len() + 1],
    micros: Counter,
}

impl Histogram {
    /// Books one duration.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].inc();
        self.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Cumulative counts, one a bound of [`BUCKETS`].
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets.iter().zip(BUCKETS).scan(0, |sum, (counter, bound)| {
            *sum += counter.get();
            Some((bound, *sum))
        })
    }

    /// How many durations were booked.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// Their sum in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.micros.get() as f64 / 1e6
    }
}

/// What happened to the requests of one rule.
#[derive(Debug, Default)]
pub struct RuleTally {
    classes: [Counter; 5],
    sessions: [Counter; Session::ALL.len()],
    /// Time from the request's head to the end of the response's body.
    pub duration: Histogram,
    /// Attempts at another member, or again at the same, after one that failed.
    pub retries: Counter,
    /// Attempts that the retry budget forbade.
    pub retries_denied: Counter,
    /// Requests that waited for a member.
    pub queued: Counter,
    /// Response fields that still named a member's own address.
    pub leaks: Counter,
    /// Requests whose client went away before the response was complete.
    pub aborted: Counter,
}

impl RuleTally {
    /// Labels of the status classes, in the order of [`RuleTally::class`].
    pub const CLASSES: [&'static str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

    /// Books a response's status.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].inc();
    }

    /// Responses of a class: 0 is 1xx, 4 is 5xx and beyond.
    #[must_use]
    pub fn class(&self, class: usize) -> u64 {
        self.classes.get(class).map_or(0, Counter::get)
    }

    /// Books how a session fared.
    pub fn session(&self, session: Session) {
        self.sessions[session as usize].inc();
    }

    /// How many sessions fared so.
    #[must_use]
    pub fn sessions(&self, session: Session) -> u64 {
        self.sessions[session as usize].get()
    }
}

/// What happened to the attempts at one member.
#[derive(Debug, Default)]
pub struct MemberTally {
    /// Attempts, whatever came of them.
    pub requests: Counter,
    connections: [Counter; 2],
    /// Requests of sessions that belong to it.
    pub sessions: Counter,
    session_at: AtomicU64,
    failures: [Counter; Failure::ALL.len()],
    /// What its rule has given it.
    pub ledger: Ledger,
}

impl MemberTally {
    /// Books a connection that was opened for HTTP/1.1, or for HTTP/2.
    pub fn connected(&self, http2: bool) {
        self.connections[usize::from(http2)].inc();
    }

    /// Connections opened, with their protocols.
    pub fn connections(&self) -> [(&'static str, u64); 2] {
        let [http1, http2] = &self.connections;
        [("http1", http1.get()), ("http2", http2.get())]
    }

    /// Books a request of a session that belongs to the member, which has been known for so long.
    pub fn session(&self, age: Duration) {
        self.sessions.inc();
        self.session_at.store(age.as_secs(), Relaxed);
    }

    /// How long ago the last of those was, of a member that has been known for so long; none if
    /// there was none.
    #[must_use]
    pub fn since_session(&self, age: Duration) -> Option<Duration> {
        let at = Duration::from_secs(self.session_at.load(Relaxed));
        (self.sessions.get() > 0).then(|| age.saturating_sub(at))
    }

    /// Books a failure.
    pub fn failed(&self, failure: Failure) {
        self.failures[failure.index()].inc();
    }

    /// Failures of one kind.
    #[must_use]
    pub fn failures(&self, failure: Failure) -> u64 {
        self.failures[failure.index()].get()
    }
}
