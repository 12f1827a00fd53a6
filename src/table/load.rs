//! What is known of one backend: latency, failures, requests in flight, exclusion.
//! It stands behind the table and survives every swap; time is always an argument.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time constant of the latency estimate, in seconds: how long a sample keeps 1/e of its say.
const LATENCY_TAU: f64 = 5.0;
/// Fewer samples than this do not tell how far their mean may be off.
const ENOUGH: f64 = 10.0;
/// What a response under way weighs against a request that waits for its head: a download or an
/// event stream costs a member less than an answer that it still has to make, but not nothing.
const BODY: f64 = 0.25;
/// Seconds that count for an answer which took none: the estimate is a mean of logarithms.
const SHORTEST: f64 = 1e-6;
/// Time constant of the failure rate, in seconds.
const FAILURE_TAU: f64 = 5.0;
/// The least say of one outcome in the failure rate: seven failures in a row make it more than one half.
const FAILURE_GAIN: f64 = 0.1;
/// A failure rate without news for this long, in seconds, begins to fade.
const IDLE_GRACE: f64 = 1.0;
/// Time constant, in seconds, with which it fades.
const IDLE_TAU: f64 = 10.0;
/// The same of an estimate that is slower than the pool's mean, which it relaxes towards. It is
/// longer: what is slow is asked now and then anyway, and at one request a second that is news enough.
const SLOW_GRACE: f64 = 5.0;
/// See [`SLOW_GRACE`].
const SLOW_TAU: f64 = 30.0;
/// Transport failures in a row that exclude a member.
const FAILURES_TO_EXCLUDE: u32 = 3;
/// The say of one attempt in the share of broken ones: about the last twenty count.
const BROKEN_GAIN: f64 = 0.05;
/// The share of broken attempts that excludes a member although some go well between them.
const BROKEN_TO_EXCLUDE: f64 = 0.4;
/// An exclusion never grows beyond this multiple of its first interval.
const EXCLUDE_GROWTH: u32 = 12;
/// A probe that has not come back after this time no longer keeps others from probing.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// Share of its weight with which a new member begins its slow start.
const RAMP_FLOOR: f64 = 0.1;
/// Ticks of the packed clocks are milliseconds: 32 bits of them last 49 days, after which a
/// forgotten estimate looks fresh until the next sample.
const TICKS_A_SECOND: f64 = 1000.0;
/// A reader's clock may be this many ticks behind that of the last writer.
const BEHIND: u32 = 60_000;

/// What went wrong with one attempt at a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The connection was refused or could not be routed.
    Refused,
    /// The connection was not made in time.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The connection broke before a response head was complete.
    Reset,
    /// The member was silent for too long.
    Timeout,
    /// The member's answer is not HTTP, or is framed ambiguously.
    Protocol,
    /// The member answered with a 5xx status that speaks of its own trouble.
    Status,
    /// The member answered with one of `failover.statuses`.
    ExcludingStatus,
    /// The member had no place for one stream more.
    StreamRefused,
    /// This machine has no socket or port left: nothing is said of the member.
    Local,
}

impl Failure {
    /// All failures, in the order of [`Failure::index`].
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Reset,
        Self::Timeout,
        Self::Protocol,
        Self::Status,
        Self::ExcludingStatus,
        Self::StreamRefused,
        Self::Local,
    ];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::ExcludingStatus => "excluding_status",
            Self::StreamRefused => "stream_refused",
            Self::Local => "local",
        }
    }

    /// Position in [`Failure::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether no connection could be made, so that any other member is better.
    #[must_use]
    pub const fn is_unreachable(self) -> bool {
        matches!(self, Self::Refused | Self::ConnectTimeout | Self::Tls)
    }

    const fn excludes_at_once(self) -> bool {
        matches!(self, Self::Refused | Self::ExcludingStatus)
    }
}

/// Whether a member takes requests at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Usable,
    /// Its exclusion ran out this long ago, and one live request may find out whether it is back.
    Probe(Duration),
    /// No, not before this time has passed (zero while another request probes).
    Excluded(Duration),
}

/// Latency, failures and requests in flight of one backend; shared by all threads and tables.
#[derive(Debug)]
pub struct Load {
    id: u64,
    born: Instant,
    ramps: bool,
    latency: Decaying,
    /// How far the estimate of the latency may be off: the variance of its logarithm.
    doubt: Doubt,
    failures: Decaying,
    /// The share of the last attempts that got no answer.
    broken: Decaying,
    in_flight: AtomicU32,
    bodies: AtomicU32,
    tunnels: AtomicU32,
    in_a_row: AtomicU32,
    excluded_until: AtomicU64,
    probing_until: AtomicU64,
    exclusion: Mutex<Exclusion>,
}

#[derive(Debug, Default)]
struct Exclusion {
    level: u32,
    since: u64,
}

impl Load {
    /// Of a backend seen first at `now`; `ramps` if it joins others that already serve.
    #[must_use]
    pub fn new(now: Instant, ramps: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            born: now,
            ramps,
            latency: Decaying::default(),
            doubt: Doubt::default(),
            failures: Decaying::default(),
            broken: Decaying::default(),
            in_flight: AtomicU32::new(0),
            bodies: AtomicU32::new(0),
            tunnels: AtomicU32::new(0),
            in_a_row: AtomicU32::new(0),
            excluded_until: AtomicU64::new(0),
            probing_until: AtomicU64::new(0),
            exclusion: Mutex::default(),
        }
    }

    /// A number that no other load of this process has.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// One request more is under way.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// One request more is under way, unless there are so many; false then.
    #[must_use]
    pub fn begin_within(&self, most: u32) -> bool {
        let more = |under_way: u32| (under_way < most).then_some(under_way + 1);
        self.in_flight.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// One request less is under way.
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// The head of a response has come, and its body is under way.
    pub fn begin_body(&self) {
        self.bodies.fetch_add(1, Relaxed);
    }

    /// The body has ended; before [`Load::end`].
    pub fn end_body(&self) {
        self.bodies.fetch_sub(1, Relaxed);
    }

    /// What the requests under way weigh: one whose response has begun, a part of one that waits.
    #[must_use]
    pub fn busy(&self) -> f64 {
        let bodies = f64::from(self.bodies.load(Relaxed));
        (f64::from(self.in_flight()) - (1.0 - BODY) * bodies).max(0.0)
    }

    /// A tunnel was opened.
    pub fn open_tunnel(&self) {
        self.tunnels.fetch_add(1, Relaxed);
    }

    /// A tunnel has ended.
    pub fn close_tunnel(&self) {
        self.tunnels.fetch_sub(1, Relaxed);
    }

    /// Tunnels that are open.
    #[must_use]
    pub fn tunnels(&self) -> u32 {
        self.tunnels.load(Relaxed)
    }

    /// The member answered well, `latency` after it was asked at `sent`.
    pub fn succeeded(&self, sent: Instant, latency: Duration, now: Instant) {
        let tick = self.tick(now);
        let seconds = latency.as_secs_f64().max(SHORTEST);
        let (off, gain) = self.latency.log_mean(seconds, tick, LATENCY_TAU);
        self.doubt.sample(off, gain);
        if self.failures.get().is_some_and(|(rate, _)| rate > 0.0) {
            self.failures.rate(0.0, tick, FAILURE_TAU, 0.0);
        }
        self.reached(sent);
    }

    /// The member answered what it was asked at `sent`, whatever it said: it is not out of reach.
    pub fn reached(&self, sent: Instant) {
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
        if self.broken.get().is_some_and(|(share, _)| share > 0.0) {
            self.broken.count(0.0, BROKEN_GAIN);
        }
        if self.excluded_until.load(Relaxed) != 0 {
            self.readmit(self.micros(sent));
        }
    }

    /// An attempt failed. `first` is the length of a first exclusion; zero never excludes.
    /// Returns how long the member is excluded from now on, if that is news.
    pub fn failed(
        &self,
        failure: Failure,
        sent: Instant,
        first: Duration,
        now: Instant,
    ) -> Option<Duration> {
        if failure == Failure::Local {
            return None;
        }
        self.failures.rate(1.0, self.tick(now), FAILURE_TAU, FAILURE_GAIN);
        if matches!(failure, Failure::Status | Failure::StreamRefused) {
            self.reached(sent);
            return None;
        }
        let in_a_row = self.in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        let probed = self.excluded_until.load(Relaxed) != 0;
        let broken = self.broken.count(1.0, BROKEN_GAIN);
        let excludes = failure.excludes_at_once()
            || probed
            || in_a_row >= FAILURES_TO_EXCLUDE
            || broken >= BROKEN_TO_EXCLUDE;
        if excludes && !first.is_zero() { self.exclude(first, sent, now) } else { None }
    }

    /// The estimate: seconds to the response head. An idle one that is slower than `mean` relaxes
    /// towards it; one that is faster stays, or it would be kept idle. Before the first sample it
    /// is `mean`.
    #[must_use]
    pub fn latency(&self, mean: f64, now: Instant) -> f64 {
        let Some((value, at)) = self.latency.get() else {
            return mean;
        };
        if value <= mean {
            return value;
        }
        let idle = seconds_between(at, self.tick(now)) - SLOW_GRACE;
        if idle <= 0.0 { value } else { mean + (value - mean) * (-idle / SLOW_TAU).exp() }
    }

    /// The last estimate as it was recorded, in seconds; none before the first sample.
    #[must_use]
    pub fn recorded(&self) -> Option<f64> {
        self.latency.get().map(|(value, _)| value)
    }

    /// The variance of the estimate's logarithm, as far as the samples are independent; none if they
    /// are too few.
    #[must_use]
    pub fn doubt(&self) -> Option<f64> {
        self.doubt.get()
    }

    /// The share of attempts that failed lately, 0 to 1; fades while nothing is tried.
    #[must_use]
    pub fn failure_rate(&self, now: Instant) -> f64 {
        let Some((rate, at)) = self.failures.get() else {
            return 0.0;
        };
        if rate == 0.0 {
            return 0.0;
        }
        let idle = seconds_between(at, self.tick(now)) - IDLE_GRACE;
        if idle <= 0.0 { rate } else { rate * (-idle / IDLE_TAU).exp() }
    }

    /// The share of its weight that a member has `now` in its slow start, 0.1 to 1.
    #[must_use]
    pub fn ramp(&self, slow_start: Duration, now: Instant) -> f64 {
        if !self.ramps || slow_start.is_zero() {
            return 1.0;
        }
        (self.age(now).as_secs_f64() / slow_start.as_secs_f64()).clamp(RAMP_FLOOR, 1.0)
    }

    /// How long the backend has been known.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    /// Whether the member takes requests at `now`.
    #[must_use]
    pub fn admission(&self, now: Instant) -> Admission {
        let until = self.excluded_until.load(Relaxed);
        if until == 0 {
            return Admission::Usable;
        }
        let now = self.micros(now);
        if now < until {
            return Admission::Excluded(Duration::from_micros(until - now));
        }
        if now < self.probing_until.load(Relaxed) {
            return Admission::Excluded(Duration::ZERO);
        }
        Admission::Probe(Duration::from_micros(now - until))
    }

    /// Takes the one place of a probe; false if another request was quicker.
    #[must_use]
    pub fn begin_probe(&self, now: Instant) -> bool {
        let until = self.micros(now + PROBE_PATIENCE);
        let now = self.micros(now);
        self.probing_until
            .fetch_update(Relaxed, Relaxed, |held| (held <= now).then_some(until))
            .is_ok()
    }

    /// A probe ended without telling anything: the next request may try.
    pub fn end_probe(&self) {
        self.probing_until.store(0, Relaxed);
    }

    fn exclude(&self, first: Duration, sent: Instant, now: Instant) -> Option<Duration> {
        let mut exclusion = self.exclusion.lock().unwrap_or_else(PoisonError::into_inner);
        let until = self.excluded_until.load(Relaxed);
        let now = self.micros(now);
        // Neither what was under way when it began nor what was tried while it lasted, because nobody
        // else was there, tells anything new: only a failed probe makes the next interval longer.
        if self.micros(sent) < until.max(exclusion.since) {
            return None;
        }
        let growth = 1u32.checked_shl(exclusion.level).unwrap_or(EXCLUDE_GROWTH);
        let interval = first * growth.min(EXCLUDE_GROWTH);
        exclusion.level = (exclusion.level + 1).min(8);
        exclusion.since = now;
        let length = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX / 4);
        self.excluded_until.store(now.saturating_add(length).max(1), Relaxed);
        self.broken.forget();
        self.probing_until.store(0, Relaxed);
        Some(interval)
    }

    fn readmit(&self, sent: u64) {
        let mut exclusion = self.exclusion.lock().unwrap_or_else(PoisonError::into_inner);
        if sent >= exclusion.since {
            *exclusion = Exclusion { level: 0, since: sent };
            self.excluded_until.store(0, Relaxed);
            self.probing_until.store(0, Relaxed);
        }
    }

    /// The time since the backend was known, in microseconds.
    pub(super) fn micros(&self, at: Instant) -> u64 {
        u64::try_from(self.age(at).as_micros()).unwrap_or(u64::MAX)
    }

    fn tick(&self, at: Instant) -> u32 {
        // Wraps on purpose: only differences are used.
        u32::try_from(self.age(at).as_millis() & u128::from(u32::MAX)).unwrap_or_default()
    }
}

/// Ticks from one time to a later one; zero if it is really a little earlier.
fn ticks_between(earlier: u32, later: u32) -> u32 {
    let ticks = later.wrapping_sub(earlier);
    if ticks > u32::MAX - BEHIND { 0 } else { ticks }
}

fn seconds_between(earlier: u32, later: u32) -> f64 {
    f64::from(ticks_between(earlier, later)) / TICKS_A_SECOND
}

/// An exponentially weighted mean in continuous time, value and time in one word, so that
/// an update is one compare-and-swap. The gain of a sample is `1 - exp(-Δt/τ)`; until τ has passed,
/// `1/n` for the nth sample, which is the plain mean, so that the first does not rule the rest.
/// The mean is arithmetic for rates and geometric for latencies.
#[derive(Debug)]
struct Decaying {
    word: AtomicU64,
    samples: AtomicU32,
}

impl Default for Decaying {
    fn default() -> Self {
        Self { word: AtomicU64::new(pack(f32::NAN, 0)), samples: AtomicU32::new(0) }
    }
}

impl Decaying {
    fn get(&self) -> Option<(f64, u32)> {
        let (value, at) = unpack(self.word.load(Relaxed));
        (!value.is_nan()).then_some((f64::from(value), at))
    }

    /// A sample of a geometric mean that begins with its first sample: one answer that takes 50
    /// times as long as usual, for which the request is to blame or a pause, moves it no more than
    /// one that takes a fiftieth. Returns by how much the sample's logarithm was above that of the
    /// mean, and its gain.
    fn log_mean(&self, sample: f64, tick: u32, tau: f64) -> (f64, f64) {
        let before = self.samples.fetch_add(1, Relaxed);
        if before == u32::MAX {
            self.samples.store(u32::MAX / 2, Relaxed);
        }
        let news = Cell::new((0.0, 1.0));
        let mean = |value: Option<f64>, gain: f64| {
            let Some(value) = value else { return sample };
            let off = (sample / value).ln();
            news.set((off, gain));
            value * (off * gain).exp()
        };
        self.update(tick, tau, 1.0 / (f64::from(before) + 1.0), mean);
        news.get()
    }

    /// A sample of a rate that begins with nothing, with this gain at least.
    fn rate(&self, sample: f64, tick: u32, tau: f64, least: f64) {
        let mean = |value: Option<f64>, gain: f64| {
            let value = value.unwrap_or_default();
            value + (sample - value) * gain
        };
        self.update(tick, tau, least, mean);
    }

    /// An outcome in a share that counts outcomes, not time; returns the share.
    fn count(&self, sample: f64, gain: f64) -> f64 {
        self.rate(sample, 0, f64::INFINITY, gain);
        self.get().map_or(0.0, |(share, _)| share)
    }

    fn forget(&self) {
        self.word.store(pack(0.0, 0), Relaxed);
    }

    #[allow(clippy::cast_possible_truncation)] // Seven digits are plenty for an estimate.
    fn update(&self, tick: u32, tau: f64, least: f64, mean: impl Fn(Option<f64>, f64) -> f64) {
        let update = |old| {
            let (value, at) = unpack(old);
            if value.is_nan() {
                return Some(pack(mean(None, least) as f32, tick));
            }
            let gain = (1.0 - (-seconds_between(at, tick) / tau).exp()).max(least);
            let at = at.wrapping_add(ticks_between(at, tick));
            Some(pack(mean(Some(f64::from(value)), gain) as f32, at))
        };
        // The closure always answers, so the update cannot fail.
        let _ = self.word.fetch_update(Relaxed, Relaxed, update);
    }
}

/// The variance of an exponentially weighted mean, from the samples that it is of: each has the square
/// of its part in the mean. The sum of these is one over the number of samples that are as good as
/// them all (Kish's effective sample size), and stands in the same word.
#[derive(Debug)]
struct Doubt(AtomicU64);

impl Default for Doubt {
    fn default() -> Self {
        Self(AtomicU64::new(pack(0.0, 1f32.to_bits())))
    }
}

impl Doubt {
    #[allow(clippy::cast_possible_truncation)] // Seven digits are plenty for an estimate.
    fn sample(&self, off: f64, gain: f64) {
        let (variance, parts) = self.both();
        let kept = (1.0 - gain) * (1.0 - gain);
        let variance = kept * variance + gain * off * gain * off;
        let parts = kept * parts + gain * gain;
        // Of two at once, one may be lost.
        self.0.store(pack(variance as f32, (parts as f32).to_bits()), Relaxed);
    }

    fn get(&self) -> Option<f64> {
        let (variance, parts) = self.both();
        (parts < 1.0 / ENOUGH).then_some(variance)
    }

    fn both(&self) -> (f64, f64) {
        let (variance, parts) = unpack(self.0.load(Relaxed));
        (f64::from(variance), f64::from(f32::from_bits(parts)))
    }
}

fn pack(value: f32, tick: u32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(tick)
}

#[allow(clippy::cast_possible_truncation)] // Each half is taken on purpose.
fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FIRST: Duration = Duration::from_secs(5);

    fn load() -> (Load, Instant) {
        let now = Instant::now();
        (Load::new(now, false), now)
    }

    #[test]
    fn what_was_tried_during_an_exclusion_makes_no_other() {
        let (load, now) = load();
        assert!(load.failed(Failure::Refused, now, FIRST, now).is_some());
        // Sent within, failed after it.
        assert_eq!(load.failed(Failure::Timeout, now + SECOND, FIRST, now + 7 * SECOND), None);
        let probe = now + 6 * SECOND;
        load.succeeded(probe, SECOND, now + 8 * SECOND);
        assert_eq!(load.admission(now + 8 * SECOND), Admission::Usable);
        // An old one tells nothing of a member that was well later.
        let old = load.failed(Failure::Refused, now + SECOND, FIRST, now + 9 * SECOND);
        assert_eq!(old, None);
        let new = now + 10 * SECOND;
        assert_eq!(load.failed(Failure::Refused, new, FIRST, new), Some(FIRST));
    }

    #[test]
    fn a_new_member_is_as_fast_as_the_mean() {
        let (load, now) = load();
        assert_eq!(load.latency(0.25, now).to_bits(), 0.25f64.to_bits());
    }

    #[test]
    fn the_estimate_is_the_plain_geometric_mean_until_its_time_has_passed() {
        let (load, now) = load();
        load.succeeded(now, 1000 * SECOND, now);
        for _ in 0..9 {
            load.succeeded(now, SECOND, now);
        }
        let expected = 1000f64.powf(0.1);
        assert!((load.latency(1.0, now) - expected).abs() < 0.01);
    }

    #[test]
    fn two_first_answers_at_once_do_not_make_the_estimate_nothing() {
        let estimate = Decaying::default();
        // Another has counted its sample and not entered it yet.
        estimate.samples.store(1, Relaxed);
        estimate.log_mean(3.0, 0, LATENCY_TAU);
        assert!((estimate.get().unwrap().0 - 3.0).abs() < 1e-6);
    }

    #[test]
    fn an_answer_in_no_time_does_not_make_the_estimate_nothing() {
        let (load, now) = load();
        load.succeeded(now, Duration::ZERO, now);
        load.succeeded(now, SECOND, now);
        assert!((load.latency(1.0, now) - 0.001).abs() < 0.0001);
    }

    #[test]
    fn later_samples_weigh_as_much_as_their_time() {
        let (load, start) = load();
        for tenth in 0..200 {
            let now = start + tenth * SECOND / 10;
            load.succeeded(now, SECOND, now);
        }
        let now = start + 20 * SECOND;
        for _ in 0..20 {
            load.succeeded(now, 100 * SECOND, now);
        }
        // A burst of twenty is worth a tenth of what two hundred were, whatever it says at once.
        let burst = load.latency(1.0, now);
        assert!(burst < 1.8, "{burst}");
        let later = now + 5 * SECOND;
        load.succeeded(later, SECOND, later);
        let estimate = load.latency(1.0, later);
        let expected = burst.powf((-1.0f64).exp());
        assert!((estimate - expected).abs() < 0.01, "{estimate}");
    }

    #[test]
    fn an_estimate_of_last_month_is_no_news() {
        let (load, now) = load();
        load.succeeded(now, 8 * SECOND, now);
        load.failed(Failure::Status, now, FIRST, now);
        for hours in [24, 38, 62, 77, 30 * 24] {
            let later = now + hours * 3600 * SECOND;
            assert!(load.latency(1.0, later) < 1.01, "{hours}");
            assert!(load.failure_rate(later) < 0.01, "{hours}");
        }
        let later = now + 62 * 3600 * SECOND;
        load.succeeded(later, SECOND, later);
        assert!(load.latency(5.0, later) < 1.01);
    }

    #[test]
    fn an_idle_slow_estimate_relaxes_towards_the_mean_and_reading_does_not_change_it() {
        let (load, now) = load();
        load.succeeded(now, 8 * SECOND, now);
        let later = now + Duration::from_secs(180);
        assert!(load.latency(1.0, later) < 1.1);
        assert!((load.latency(1.0, now) - 8.0).abs() < 0.01);
    }

    #[test]
    fn one_that_was_faster_than_the_mean_does_not_become_slow_by_idling() {
        let (load, now) = load();
        load.succeeded(now, SECOND, now);
        assert!(load.latency(8.0, now + Duration::from_secs(60)) < 1.01);
    }

    #[test]
    fn one_refused_connection_excludes_and_three_resets_do() {
        let (load, now) = load();
        assert_eq!(load.failed(Failure::Reset, now, FIRST, now), None);
        assert_eq!(load.failed(Failure::Reset, now, FIRST, now), None);
        assert_eq!(load.failed(Failure::Reset, now, FIRST, now), Some(FIRST));
        let (load, now) = self::load();
        assert_eq!(load.failed(Failure::Refused, now, FIRST, now), Some(FIRST));
        assert_eq!(load.admission(now), Admission::Excluded(FIRST));
        assert_eq!(load.admission(now + FIRST), Admission::Probe(Duration::ZERO));
    }

    #[test]
    fn a_success_between_failures_ends_the_row() {
        let (load, now) = load();
        for _ in 0..5 {
            load.failed(Failure::Reset, now, FIRST, now);
            load.failed(Failure::Timeout, now, FIRST, now);
            load.succeeded(now, SECOND, now);
        }
        assert_eq!(load.admission(now), Admission::Usable);
    }

    #[test]
    fn a_5xx_raises_the_failure_rate_and_never_excludes() {
        let (load, now) = load();
        for _ in 0..100 {
            assert_eq!(load.failed(Failure::Status, now, FIRST, now), None);
        }
        assert!(load.failure_rate(now) > 0.9);
        assert_eq!(load.admission(now), Admission::Usable);
        assert!(load.failure_rate(now + Duration::from_secs(60)) < 0.1);
    }

    #[test]
    fn exclusions_grow_and_end_with_a_success() {
        let (load, mut now) = load();
        for growth in [1, 2, 4, 8, 12, 12] {
            assert_eq!(load.failed(Failure::Refused, now, FIRST, now), Some(FIRST * growth));
            now += FIRST * growth;
        }
        assert_eq!(load.admission(now), Admission::Probe(Duration::ZERO));
        load.succeeded(now, SECOND, now);
        assert_eq!(load.admission(now), Admission::Usable);
        assert_eq!(load.failed(Failure::Refused, now, FIRST, now), Some(FIRST));
    }

    #[test]
    fn failures_during_an_exclusion_do_not_lengthen_it_and_old_answers_do_not_end_it() {
        let (load, sent) = load();
        let now = sent + SECOND;
        assert_eq!(load.failed(Failure::Refused, sent, FIRST, now), Some(FIRST));
        assert_eq!(load.failed(Failure::Refused, sent, FIRST, now + SECOND), None);
        let later = now + SECOND;
        assert_eq!(load.failed(Failure::Refused, later, FIRST, later), None);
        load.succeeded(sent, SECOND, now + SECOND);
        assert_eq!(load.admission(now + SECOND), Admission::Excluded(4 * SECOND));
    }

    #[test]
    fn a_failure_of_what_was_sent_before_an_exclusion_does_not_undo_its_probe() {
        let (load, sent) = load();
        let now = sent + SECOND;
        assert_eq!(load.failed(Failure::Refused, sent, FIRST, now), Some(FIRST));
        let probed = now + FIRST;
        assert!(load.begin_probe(probed));
        assert_eq!(load.failed(Failure::Timeout, sent, FIRST, probed + SECOND), None);
        load.succeeded(probed, SECOND, probed + 2 * SECOND);
        assert_eq!(load.admission(probed + 2 * SECOND), Admission::Usable);
    }

    #[test]
    fn a_response_under_way_weighs_less_than_a_request_that_waits() {
        let (load, _) = load();
        load.begin();
        load.begin();
        load.begin_body();
        assert!((load.busy() - 1.25).abs() < f64::EPSILON);
        assert_eq!(load.in_flight(), 2);
        load.end_body();
        load.end();
        assert!((load.busy() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn every_second_attempt_that_breaks_excludes_though_never_two_in_a_row_do() {
        let (load, now) = load();
        let mut broken = 0;
        let excluded = (0..50).find_map(|_| {
            load.succeeded(now, SECOND, now);
            broken += 1;
            load.failed(Failure::Reset, now, SECOND, now)
        });
        assert_eq!(excluded, Some(SECOND));
        assert!((10..20).contains(&broken), "{broken}");
        // Back again, the share begins anew.
        load.succeeded(now + SECOND, SECOND, now + SECOND);
        assert_eq!(load.admission(now + SECOND), Admission::Usable);
        assert_eq!(load.failed(Failure::Reset, now + SECOND, SECOND, now + SECOND), None);
    }

    #[test]
    fn a_tenth_that_breaks_excludes_nobody() {
        let (load, now) = load();
        for number in 0..1000 {
            if number % 10 == 0 {
                assert_eq!(load.failed(Failure::Reset, now, SECOND, now), None, "{number}");
            } else {
                load.succeeded(now, SECOND, now);
            }
        }
    }

    #[test]
    fn one_request_at_a_time_probes() {
        let (load, now) = load();
        load.failed(Failure::Refused, now, FIRST, now);
        let later = now + FIRST;
        assert!(load.begin_probe(later));
        assert!(!load.begin_probe(later));
        assert_eq!(load.admission(later), Admission::Excluded(Duration::ZERO));
        load.end_probe();
        assert!(load.begin_probe(later));
    }

    #[test]
    fn what_this_machine_lacks_says_nothing_of_a_member() {
        let (load, now) = load();
        for _ in 0..10 {
            assert_eq!(load.failed(Failure::Local, now, FIRST, now), None);
        }
        assert_eq!(load.admission(now), Admission::Usable);
        assert!(load.failure_rate(now) < f64::MIN_POSITIVE);
    }

    #[test]
    fn without_an_interval_nothing_excludes() {
        let (load, now) = load();
        assert_eq!(load.failed(Failure::Refused, now, Duration::ZERO, now), None);
        assert_eq!(load.admission(now), Admission::Usable);
    }
}
