//! Which member serves a request: wanted, tried, load → member.
//!
//! Every member has an *effective weight*: its weight, less the slower it answers and the more it
//! fails:
//!
//! ```text
//! alike  = 1.35, or exp(6 × standard deviation of the latencies' logarithms) if that is more, at most 2
//! speed  = 1 / max(1, latency / (alike × latency of the fastest))⁴, at least 1/40 of the mean speed
//! weight = configured weight × slow start × speed / (1 + 25 × (failure rate − 2 %))²
//! score  = (in flight + 1) / weight − ¼ × how far it is behind its part, at most one request's worth
//! ```
//!
//! A pick goes to the member with the least score. The first term sends work where it will be done
//! soonest; the second is the virtual time of weighted fair queueing (Demers, Keshav, Shenker 1989),
//! and makes the shares of idle members exact in the long run. The constants come from the
//! laboratory, `docs/balancing.md`.

mod survey;

use std::cmp::Ordering;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use super::load::Admission;
use super::stage::Stage;
use super::tally::Session;
use super::{Group, Member, Route, State};

pub use survey::{Candidate, Standing, survey};

/// The part of its fair share that is left to the slowest member, so that it is known when it is well.
const FLOOR: f64 = 0.025;
/// Members that are slower than the fastest by less than this factor count as equally fast: that much
/// is chance, and would otherwise be amplified.
const ALIKE: f64 = 1.35;
/// Where estimates are less certain, more than that is chance: so many times their standard deviation,
/// as the fastest of several is so by chance too, and answers that wait for the same heavy request are
/// slow together.
const CHANCE: f64 = 6.0;
/// No more than this is chance.
const ALIKE_MOST: f64 = 2.0;
/// Seconds that make no difference to anybody, and that are mostly the noise of the measurement.
const UNFELT: f64 = 0.001;
/// How much slower a member that always fails is taken to be; its weight goes with the square of that.
const FAILURE_COST: f64 = 25.0;
/// Share of failures that is no member's fault: that many requests fail anywhere.
const FAILURES_BORNE: f64 = 0.02;
/// How much having had less than one's part counts against requests in flight.
const FAIRNESS: f64 = 0.25;
/// Requests that a member may be behind its part; more is forgotten, so that no member is flooded.
/// With [`FAIRNESS`] it draws one request to an idle member, and none to one whose requests are stuck.
const BEHIND: f64 = 1.0 / FAIRNESS;
/// Requests that a member may be ahead or behind where they are dealt in turn.
const LAG: f64 = 32.0;
/// How long requests that can be repeated have precedence in finding out if a member is back.
const PRECEDENCE: Duration = Duration::from_secs(1);
/// Groups with more members than this are sampled rather than scanned.
const SCAN: usize = 64;
/// How long a group is taken to be as it was found, in microseconds. Estimates follow many answers, and
/// to go through all members for each request is most of what a pick costs.
const RECENT: u64 = 500;
/// How many members are drawn from a large group, by weight; twice the choices of two, because
/// draws repeat.
const DRAWS: usize = 4;

/// How requests are spread over the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// By latency, failures and requests in flight.
    #[default]
    Latency,
    /// By requests in flight alone.
    LeastRequests,
    /// In turn, smoothly.
    RoundRobin,
}

/// What has been given out so far, in virtual time.
#[derive(Debug, Default)]
pub struct Cursor(AtomicU64);

impl Cursor {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    fn advance(&self, by: f64) {
        let add = |bits| Some((f64::from_bits(bits) + by).to_bits());
        // The closure always answers, so the update cannot fail.
        let _ = self.0.fetch_update(Relaxed, Relaxed, add);
    }

    fn swap(&self, value: f64) -> f64 {
        f64::from_bits(self.0.swap(value.to_bits(), Relaxed))
    }
}

/// What a group was last found to be, and when; of threads that find it at once, any one's.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Microseconds of its first member's age, and one; 0: never.
    at: AtomicU64,
    /// Whose turn it was, and how many of those were usable.
    key: AtomicU64,
    mean: Cursor,
    fastest: Cursor,
    alike: Cursor,
    floor: Cursor,
    total: Cursor,
}

impl Gauge {
    fn holds(&self, at: u64, key: u64) -> bool {
        let found = self.at.load(Acquire);
        found > 0 && at.wrapping_sub(found - 1) < RECENT && self.key.load(Relaxed) == key
    }

    fn keep(&self, at: u64, key: u64, pool: &Pool) {
        self.mean.set(pool.mean);
        self.fastest.set(pool.fastest);
        self.alike.set(pool.alike);
        self.floor.set(pool.floor);
        self.total.set(pool.total);
        self.key.store(key, Relaxed);
        self.at.store(at + 1, Release);
    }
}

/// What a member was given, and what its part was.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In virtual time.
    given: Cursor,
    /// In requests.
    part: Cursor,
    /// The [clock of the group's parts](Route::clock) up to which the part was reckoned.
    until: Cursor,
}

impl Ledger {
    /// The member joins a group of this virtual time, whose parts have this clock.
    pub fn join(&self, group: &Cursor, clock: &Cursor) {
        self.given.set(group.get());
        self.skip(clock);
    }

    /// The requests that were its part, as far as they are reckoned: its weight over that of all,
    /// of each request that the group got, or should have got by its share.
    #[must_use]
    pub fn part(&self) -> f64 {
        self.part.get()
    }

    /// Begins to reckon now: what the group got before was not for this member.
    pub fn skip(&self, clock: &Cursor) {
        self.until.set(clock.get());
    }

    fn reckon(&self, clock: f64, weight: f64) {
        let since = self.until.swap(clock);
        if clock > since {
            self.part.advance((clock - since) * weight);
        }
    }

    /// It got a request that the weights do not deal out.
    fn gift(&self, clock: &Cursor) {
        self.skip(clock);
        self.part.advance(1.0);
    }
}

impl Route {
    /// What the parts of a group's members are reckoned by. Alone, it has what it gets: its virtual
    /// time. Of several, each has what its share is of all, in requests.
    pub(super) fn clock<'r>(&self, group: &'r Group) -> &'r Cursor {
        if self.groups.len() == 1 { &group.cursor } else { &group.owed }
    }

    /// The part that a member of this effective weight has of what the [clock](Self::clock) of its
    /// group tells.
    fn rate(&self, weight: f64, pool: &Pool) -> f64 {
        if self.groups.len() == 1 { weight } else { weight / pool.total.max(weight) }
    }
}

/// Reckons the parts of all members up to now.
pub fn reckon(route: &Route, now: Instant) {
    let tried = Tried::default();
    let ask = Ask { wanted: &[], tried: &tried, idempotent: false, tunnel: false, now };
    let Some(stage) = stage(route, &ask) else { return };
    for group in &route.groups {
        let clock = route.clock(group).get();
        let is_behind = |index: &usize| {
            route.members[*index].tally.ledger.until.get() < clock
                && takes_part(route, *index, &stage, now)
        };
        let mut members = group.range.clone().filter(is_behind).peekable();
        if members.peek().is_some() {
            let pool = Pool::of(route, group, now, Some(&stage));
            let members = members.map(|index| &route.members[index]);
            let rate = |member| route.rate(pool.weight(member, now), &pool);
            members.for_each(|m| m.tally.ledger.reckon(clock, rate(m)));
        }
    }
}

/// Whether a member gets its part of what comes.
fn takes_part(route: &Route, index: usize, stage: &Stage, now: Instant) -> bool {
    stage.has(route, index) && route.members[index].admission(now) == Admission::Usable
}

/// Whether a member that gets a request has a part of what comes. The request counts in what the
/// groups should get by then, by the shares of those that can; if it stays in its group, in that.
fn owe(route: &Route, index: usize, ask: &Ask<'_>, stage: Option<&Stage>) -> bool {
    let Some(stage) = stage.filter(|stage| takes_part(route, index, stage, ask.now)) else {
        return false;
    };
    let own = route.members[index].group;
    if route.groups[own].share == 0.0 || route.groups.len() == 1 {
        return route.groups[own].share > 0.0;
    }
    if ask.tried.0.last().is_some_and(|last| route.members[*last].group == own) {
        route.groups[own].owed.advance(1.0);
        return true;
    }
    let can = |group: &&Group| {
        let any = |index| takes_part(route, index, stage, ask.now);
        group.share > 0.0 && group.range.clone().any(any)
    };
    let all: f64 = route.groups.iter().filter(can).map(|group| group.share).sum();
    route.groups.iter().filter(can).for_each(|group| group.owed.advance(group.share / all));
    true
}

/// Deals shares out exactly: the golden ratio's multiples fill the unit interval evenly, so after
/// `n` draws each group has its share of `n` to within a few requests.
#[derive(Debug, Default)]
pub struct Dealer(AtomicU64);

impl Dealer {
    /// The next number; `dry` leaves it for the next draw.
    fn draw(&self, dry: bool) -> f64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let n = if dry { self.0.load(Relaxed) } else { self.0.fetch_add(1, Relaxed) };
        (n.wrapping_mul(GOLDEN) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The members that a request has been to.
#[derive(Clone, Debug, Default)]
pub struct Tried(Vec<usize>);

impl Tried {
    /// Adds the member of this index.
    pub fn add(&mut self, member: usize) {
        self.0.push(member);
    }

    /// How many members were tried.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether the member of this index was tried.
    #[must_use]
    pub fn has(&self, member: usize) -> bool {
        self.0.contains(&member)
    }
}

/// What a pick depends on besides the route.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Members that the client's session belongs to, by index; empty if none.
    pub wanted: &'a [usize],
    /// Members that failed this request already.
    pub tried: &'a Tried,
    /// Whether the request can be repeated, and so finds out best if an excluded member is back.
    pub idempotent: bool,
    /// Whether the request asks for a tunnel; those are spread by their own count.
    pub tunnel: bool,
    /// The time.
    pub now: Instant,
}

impl Ask<'_> {
    /// What a member has under way of the kind that is asked for.
    fn at(&self, member: &Member, method: Method) -> f64 {
        match (self.tunnel, method) {
            (true, _) => f64::from(member.load.tunnels()),
            (false, Method::Latency) => member.load.busy(),
            (false, _) => f64::from(member.load.in_flight()),
        }
    }
}

/// A member for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index into the route's members.
    pub member: usize,
    /// How the session fared.
    pub session: Session,
    /// Whether this request is the one that finds out if the member is back.
    pub probe: bool,
}

/// Nobody can serve the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMember {
    /// The session's member cannot, and the rule forbids another.
    Session,
    /// Those that could have as many requests as they may have.
    Busy,
    /// All were tried, or are switched off, or there is none.
    None,
}

/// Picks a member of `route`, and books the pick.
///
/// # Errors
/// When no member is left that could serve the request.
pub fn pick(route: &Route, ask: &Ask<'_>, rng: &mut fastrand::Rng) -> Result<Pick, NoMember> {
    choose(route, ask, rng, false)
}

/// What [`pick`] would pick now. Nothing is booked, no probe is begun: all stays as it was.
///
/// # Errors
/// When no member is left that could serve the request.
pub fn preview(route: &Route, ask: &Ask<'_>, rng: &mut fastrand::Rng) -> Result<Pick, NoMember> {
    choose(route, ask, rng, true)
}

fn choose(
    route: &Route,
    ask: &Ask<'_>,
    rng: &mut fastrand::Rng,
    dry: bool,
) -> Result<Pick, NoMember> {
    if let Some(pick) = own_member(route, ask, ask.wanted, Session::Hit, dry)? {
        return Ok(pick);
    }
    if let Some(pick) = successor(route, ask, dry)? {
        return Ok(pick);
    }
    let session = match (ask.wanted, &route.rule.sticky) {
        ([], _) => Session::New,
        (_, Some(sticky)) if !sticky.failover => return bound_member(route, ask, dry),
        _ => Session::Failover,
    };
    let (member, probe) = any_member(route, ask, rng, dry)?;
    let session = if ask.wanted.contains(&member) { Session::Hit } else { session };
    Ok(Pick { member, session, probe })
}

/// A member for a session that no other may take over: although it is excluded, one of its own, else
/// one of those that they leave their sessions to. To be asked for nothing would not bring it back.
fn bound_member(route: &Route, ask: &Ask<'_>, dry: bool) -> Result<Pick, NoMember> {
    let (mut own, mut session) = (ask.wanted, Session::Hit);
    // Routes may lead in a circle.
    for _ in 0..=route.rule.entries.len() {
        let mut left = own.iter().copied().filter(|member| is_left(route, ask, *member)).peekable();
        if left.peek().is_some() {
            let free = left.find(|member| !route.members[*member].is_full());
            let member = free.ok_or(NoMember::Busy)?;
            give(route, member, dry);
            return Ok(Pick { member, session, probe: false });
        }
        let Some(next) = route.successors(own) else { break };
        (own, session) = (next, Session::Failover);
    }
    Err(NoMember::Session)
}

/// Whether a member could be tried, usable or not.
fn is_left(route: &Route, ask: &Ask<'_>, member: usize) -> bool {
    route.members[member].state != State::Disabled && !ask.tried.has(member)
}

/// Books a request that goes to a member out of turn.
fn give(route: &Route, member: usize, dry: bool) {
    if !dry {
        let member = &route.members[member];
        member.tally.ledger.gift(route.clock(&route.groups[member.group]));
    }
}

/// The usable one, least busy, of the members that a session may be on; standbys last. It is waited
/// for: to be busy is no reason to lose a session.
fn own_member(
    route: &Route,
    ask: &Ask<'_>,
    own: &[usize],
    session: Session,
    dry: bool,
) -> Result<Option<Pick>, NoMember> {
    let usable = |member: &usize| {
        let m = &route.members[*member];
        m.state != State::Disabled && !ask.tried.has(*member) && admits(m, ask)
    };
    let rank = |member: &usize| {
        let m = &route.members[*member];
        (m.tier, matches!(m.state, State::Standby | State::Spare))
    };
    let busy = |member: &usize| {
        let m = &route.members[*member];
        (ask.at(m, route.rule.method) + 1.0) / m.weight
    };
    let mut own = own.iter().copied().filter(usable).peekable();
    if own.peek().is_none() {
        return Ok(None);
    }
    let free = own.filter(|member| !route.members[*member].is_full());
    let least =
        |a: &usize, b: &usize| rank(a).cmp(&rank(b)).then_with(|| busy(a).total_cmp(&busy(b)));
    let member = free.min_by(least).ok_or(NoMember::Busy)?;
    let m = &route.members[member];
    if !dry {
        let stage = stage(route, ask);
        let pool = Pool::recent(route, &route.groups[m.group], ask.now, stage.as_ref());
        let part = owe(route, member, ask, stage.as_ref());
        book_session(route, m, &pool, part, ask.now);
    }
    let probe = is_due(m, ask) && (dry || m.load.begin_probe(ask.now));
    Ok(Some(Pick { member, session, probe }))
}

/// A member of the route that the session's own members leave their sessions to; if none of it can,
/// of the route that those leave them to.
fn successor(route: &Route, ask: &Ask<'_>, dry: bool) -> Result<Option<Pick>, NoMember> {
    let mut own = ask.wanted;
    // Routes may lead in a circle.
    for _ in 0..route.rule.entries.len() {
        let Some(next) = route.successors(own) else { break };
        own = next;
        let pick = own_member(route, ask, own, Session::Failover, dry)?;
        if pick.is_some() {
            return Ok(pick);
        }
    }
    Ok(None)
}

/// Whether a member takes requests of its own sessions.
fn admits(member: &Member, ask: &Ask<'_>) -> bool {
    member.admission(ask.now) == Admission::Usable
        || is_due(member, ask)
        || member.keeps_sessions(ask.now)
}

/// Whether this request may find out if the member is back. One that cannot be repeated leaves
/// that to others for a while, but not for ever: there may be no others.
fn is_due(member: &Member, ask: &Ask<'_>) -> bool {
    match member.admission(ask.now) {
        Admission::Probe(overdue) => ask.idempotent || overdue >= PRECEDENCE,
        Admission::Usable | Admission::Excluded(_) => false,
    }
}

/// A member whose turn it is; when all are excluded, one of those rather than nobody. Where those
/// whose turn it is are full, they are waited for.
fn any_member(
    route: &Route,
    ask: &Ask<'_>,
    rng: &mut fastrand::Rng,
    dry: bool,
) -> Result<(usize, bool), NoMember> {
    if let Some(member) = one_of_all(route, ask, dry) {
        return Ok((member, false));
    }
    let now = stage(route, ask);
    if let Some(member) = probe(route, ask, now.as_ref(), dry) {
        return Ok((member, true));
    }
    if let Some(own) = own_without_others(route, ask).filter(|_| now.is_none()) {
        give(route, own, dry);
        return Ok((own, false));
    }
    let untried = |index: usize| !ask.tried.has(index);
    let stage = now.or_else(|| first_stage(route, ask, &untried)).ok_or(NoMember::None)?;
    let fits = |index: usize| {
        stage.has(route, index)
            && if now.is_some() { is_usable(route, ask, index) } else { untried(index) }
    };
    let free = |index: usize| !route.members[index].is_full() && fits(index);
    let group = group(route, ask, &free, dry);
    let least = group.and_then(|group| least(route, group, ask, &stage, &free, rng, dry));
    if let Some(member) = least {
        return Ok((member, false));
    }
    let dealt = |index: &usize| route.groups[route.members[*index].group].share > 0.0;
    let full = route.room > 0 && (0..route.members.len()).filter(dealt).any(fits);
    Err(if full { NoMember::Busy } else { NoMember::None })
}

/// What comes out where all members serve side by side and none is away, as is so most of the time:
/// the same as for others, found in one go.
fn one_of_all(route: &Route, ask: &Ask<'_>, dry: bool) -> Option<usize> {
    let stage = Stage::only(route)?;
    let [group] = &*route.groups else { return None };
    let members = &route.members;
    let is_usable = |m: &Member| m.admission(ask.now) == Admission::Usable;
    let tried = ask.tried.count() > 0 || group.share == 0.0;
    if tried || members.len() > SCAN || !members.iter().all(is_usable) {
        return None;
    }
    let pool = Pool::found(route, group, ask.now, &stage, members.len());
    let clock = group.cursor.get();
    let scores = members.iter().map(|m| pool.score(m, clock, ask)).enumerate();
    let (picked, _) = scores.min_by(|a, b| a.1.cmp(&b.1))?;
    if !dry {
        book(route, &members[picked], &pool, true, ask.now);
    }
    Some(picked)
}

/// A member of the session, for when nobody is usable: if any is asked then, it is the one that knows
/// the session.
fn own_without_others(route: &Route, ask: &Ask<'_>) -> Option<usize> {
    let fits = |member: &usize| is_left(route, ask, *member) && !route.members[*member].is_full();
    ask.wanted.iter().copied().find(fits)
}

fn is_usable(route: &Route, ask: &Ask<'_>, index: usize) -> bool {
    !ask.tried.has(index) && route.members[index].admission(ask.now) == Admission::Usable
}

/// Whose turn it is, if anybody is usable.
fn stage(route: &Route, ask: &Ask<'_>) -> Option<Stage> {
    first_stage(route, ask, &|index| is_usable(route, ask, index))
}

fn first_stage(route: &Route, ask: &Ask<'_>, usable: &impl Fn(usize) -> bool) -> Option<Stage> {
    let last = ask.tried.0.last().map(|member| route.members[*member].group);
    let is_drawn = |index: usize| {
        let group = route.members[index].group;
        route.groups[group].share > 0.0 || Some(group) == last
    };
    let fits = |index: usize| usable(index) && is_drawn(index);
    let able = |stage: &Stage| {
        (0..route.members.len()).any(|index| stage.has(route, index) && fits(index))
    };
    Stage::all(route, usable).find(able)
}

/// A member whose exclusion has run out, if no other request is probing it.
fn probe(route: &Route, ask: &Ask<'_>, now: Option<&Stage>, dry: bool) -> Option<usize> {
    let due = |index: &usize| {
        let m = &route.members[*index];
        matches!(m.state, State::Active | State::Standby | State::Spare)
            && now.is_none_or(|stage| stage.reaches(route, *index))
            && !ask.tried.has(*index)
            && !m.is_full()
            && is_due(m, ask)
            && (dry || m.load.begin_probe(ask.now))
    };
    // A first attempt alone probes: a request that has failed already deserves a sure member.
    let found = (ask.tried.count() == 0).then(|| (0..route.members.len()).find(due)).flatten()?;
    give(route, found, dry);
    Some(found)
}

/// The group to pick from: the one of the member tried last while it can serve, else by share.
fn group(route: &Route, ask: &Ask<'_>, fits: &impl Fn(usize) -> bool, dry: bool) -> Option<usize> {
    let able = |group: &usize| route.groups[*group].range.clone().any(fits);
    if route.groups.len() == 1 {
        return able(&0).then_some(0);
    }
    let last = ask.tried.0.last().map(|member| route.members[*member].group);
    if let Some(last) = last.filter(able) {
        return Some(last);
    }
    let shared = || (0..route.groups.len()).filter(|g| route.groups[*g].share > 0.0 && able(g));
    let total: f64 = shared().map(|group| route.groups[group].share).sum();
    if total == 0.0 {
        return None;
    }
    let mut left = route.dealer.draw(dry) * total;
    let found = shared().find(|group| {
        left -= route.groups[*group].share;
        left < 0.0
    });
    // Rounding may leave a crumb of the last share.
    found.or_else(|| shared().next_back())
}

/// The fitting member of the group that will be done soonest and has not had more than its part.
fn least(
    route: &Route,
    group: usize,
    ask: &Ask<'_>,
    stage: &Stage,
    fits: &impl Fn(usize) -> bool,
    rng: &mut fastrand::Rng,
    dry: bool,
) -> Option<usize> {
    let group = &route.groups[group];
    let pool = Pool::recent(route, group, ask.now, Some(stage));
    let clock = group.cursor.get();
    let score = |index: &usize| pool.score(&route.members[*index], clock, ask);
    let least = |members: &mut dyn Iterator<Item = usize>| {
        members.map(|m| (score(&m), m)).min_by(|a, b| a.0.cmp(&b.0)).map(|(_, m)| m)
    };
    let all = group.range.clone();
    let picked = if all.len() > SCAN {
        let mut drawn = (0..DRAWS * 4).map(|_| group.draw(rng)).filter(|m| fits(*m)).take(DRAWS);
        least(&mut drawn).or_else(|| least(&mut all.filter(|m| fits(*m))))
    } else {
        least(&mut all.filter(|m| fits(*m)))
    }?;
    if !dry {
        let part = owe(route, picked, ask, Some(stage));
        book(route, &route.members[picked], &pool, part, ask.now);
        if group.range.len() <= SCAN {
            // Who is out of turn is owed nothing when it is back.
            let away = |m: &usize| !fits(*m) && !route.members[*m].is_full();
            for ledger in group.range.clone().filter(away).map(|m| &route.members[m].tally.ledger) {
                ledger.join(&group.cursor, route.clock(group));
            }
        }
    }
    Some(picked)
}

/// What a member is picked by: the least is best.
#[derive(Clone, Copy, Debug)]
struct Score {
    value: f64,
    /// Requests that it is behind, however many. Where many go to one member by sessions, all others
    /// are behind by more than counts, and none would be before another.
    waits: f64,
}

impl Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.total_cmp(&other.value).then(other.waits.total_cmp(&self.waits))
    }
}

/// How far ahead of its part a member is, in virtual time, as far as it counts. Where latency
/// decides, being ahead by picks is no fault: who had more was free more often, as others waited for
/// a heavy request or a pause. Being ahead by sessions counts, as those come whatever is picked.
fn lag(member: &Member, clock: f64, weight: f64, method: Method) -> f64 {
    let lag = member.tally.ledger.given.get() - clock;
    match method {
        Method::Latency if lag > 0.0 => (lag - 1.0 / weight).clamp(0.0, LAG / weight),
        Method::Latency => lag.max(-BEHIND / weight),
        Method::LeastRequests => lag.clamp(-BEHIND / weight, BEHIND / weight),
        Method::RoundRobin => lag.clamp(-LAG / weight, LAG / weight),
    }
}

/// Counts a request that a member was picked for.
fn book(route: &Route, member: &Member, pool: &Pool, part: bool, now: Instant) {
    let weight = pool.weight(member, now);
    let clock = route.groups[member.group].cursor.get();
    let from = clock + lag(member, clock, weight, pool.method);
    advance(route, member, pool, from, weight, part);
}

/// Counts a request that a member gets because of its session.
fn book_session(route: &Route, member: &Member, pool: &Pool, part: bool, now: Instant) {
    let weight = pool.weight(member, now);
    let (clock, bound) = (route.groups[member.group].cursor.get(), LAG / weight);
    let from = member.tally.ledger.given.get().clamp(clock - bound, clock + bound);
    advance(route, member, pool, from, weight, part);
}

fn advance(route: &Route, member: &Member, pool: &Pool, from: f64, weight: f64, part: bool) {
    let group = &route.groups[member.group];
    member.tally.ledger.given.set(from + 1.0 / weight);
    group.cursor.advance(1.0 / pool.total.max(weight));
    let clock = route.clock(group);
    if part {
        member.tally.ledger.reckon(clock.get(), route.rate(weight, pool));
    } else {
        member.tally.ledger.gift(clock);
    }
}

/// What the members of a group are measured against.
#[derive(Clone, Copy, Debug)]
struct Pool {
    method: Method,
    slow_start: Duration,
    mean: f64,
    fastest: f64,
    /// Members that are slower than the fastest by less than this factor count as equally fast.
    alike: f64,
    /// The least speed that a member is taken to have.
    floor: f64,
    total: f64,
}

impl Pool {
    /// Of the group's members whose turn it is. A large group is measured on a part.
    fn of(route: &Route, group: &Group, now: Instant, stage: Option<&Stage>) -> Self {
        let range = &group.range;
        let mut pool = Self {
            method: route.rule.method,
            slow_start: route.rule.slow_start,
            mean: 0.0,
            fastest: f64::INFINITY,
            alike: ALIKE,
            floor: 0.0,
            total: 0.0,
        };
        let usable =
            |index: &usize| stage.is_some_and(|stage| takes_part(route, *index, stage, now));
        let step = range.len().div_ceil(SCAN).max(1);
        let sample = || range.clone().step_by(step);
        let members = || sample().filter(usable).map(|index| &route.members[index]);
        if pool.method == Method::Latency {
            pool.mean = mean(members());
            let latencies = members().map(|m| m.load.latency(pool.mean, now));
            pool.fastest = latencies.fold(f64::INFINITY, f64::min);
            pool.alike = alike(members());
            let speeds = members().map(|m| (m.weight, m.weight * pool.speed(m, now)));
            let (weights, speeds) = speeds.fold((0.0, 0.0), |(w, s), m| (w + m.0, s + m.1));
            pool.floor = FLOOR * speeds / weights;
        }
        let seen: f64 = sample().map(|index| route.members[index].weight).sum();
        let effective: f64 = members().map(|m| pool.weight(m, now)).sum();
        pool.total = effective * group.weight() / seen;
        pool
    }

    /// The same, as it was found by a pick a moment ago if nobody has come or gone since.
    fn recent(route: &Route, group: &Group, now: Instant, stage: Option<&Stage>) -> Self {
        let Some(stage) = stage else { return Self::of(route, group, now, None) };
        let step = group.range.len().div_ceil(SCAN).max(1);
        let sample = group.range.clone().step_by(step);
        let usable = sample.filter(|index| takes_part(route, *index, stage, now)).count();
        Self::found(route, group, now, stage, usable)
    }

    /// The same, where it is known how many of those that are looked at are usable.
    fn found(route: &Route, group: &Group, now: Instant, stage: &Stage, usable: usize) -> Self {
        let key = stage.key() << 7 | usable as u64;
        let at = route.members[group.range.start].load.micros(now);
        let gauge = &group.gauge;
        if gauge.holds(at, key) {
            return Self {
                method: route.rule.method,
                slow_start: route.rule.slow_start,
                mean: gauge.mean.get(),
                fastest: gauge.fastest.get(),
                alike: gauge.alike.get(),
                floor: gauge.floor.get(),
                total: gauge.total.get(),
            };
        }
        let pool = Self::of(route, group, now, Some(stage));
        gauge.keep(at, key, &pool);
        pool
    }

    /// What a member is picked by, where `clock` is its group's: the least is best.
    fn score(&self, member: &Member, clock: f64, ask: &Ask<'_>) -> Score {
        let weight = self.weight(member, ask.now);
        let ahead = lag(member, clock, weight, self.method);
        let value = match self.method {
            Method::RoundRobin => ahead + 1.0 / weight,
            Method::Latency | Method::LeastRequests => {
                (ask.at(member, self.method) + 1.0) / weight + FAIRNESS * ahead
            }
        };
        Score { value, waits: (clock - member.tally.ledger.given.get()) * weight }
    }

    /// A member's effective weight.
    fn weight(&self, member: &Member, now: Instant) -> f64 {
        let load = &member.load;
        match self.method {
            Method::RoundRobin => member.weight,
            Method::LeastRequests => member.weight * load.ramp(self.slow_start, now),
            Method::Latency => {
                let failing = (load.failure_rate(now) - FAILURES_BORNE).max(0.0);
                let cost = 1.0 + FAILURE_COST * failing;
                let speed = self.speed(member, now).max(self.floor);
                member.weight * load.ramp(self.slow_start, now) * speed / (cost * cost)
            }
        }
    }

    /// How fast a member is against the fastest, to the fourth power: to have the 99th percentile of
    /// the fast ones, all must send less than 1 % to a slow one.
    fn speed(&self, member: &Member, now: Instant) -> f64 {
        let latency = member.load.latency(self.mean, now);
        let slower = ((latency + UNFELT) / (self.fastest + UNFELT) / self.alike).max(1.0);
        1.0 / (slower * slower * slower * slower)
    }
}

/// How much slower than the fastest a member may seem by chance, from the harmonic mean of the
/// variances: a member that is uneven where others are not is not excused by that.
fn alike<'m>(members: impl Iterator<Item = &'m Member>) -> f64 {
    let doubts = members.filter_map(|member| member.load.doubt());
    let (count, sum) =
        doubts.fold((0.0, 0.0), |(n, sum), doubt| (n + 1.0, sum + 1.0 / doubt.max(1e-6)));
    let variance: f64 = if count > 0.0 { count / sum } else { 0.0 };
    (CHANCE * variance.sqrt()).exp().clamp(ALIKE, ALIKE_MOST)
}

/// The members' mean latency by weight, of those that have an estimate; zero if none has.
pub(super) fn mean<'m>(members: impl Iterator<Item = &'m Member>) -> f64 {
    let known = members.filter_map(|m| m.load.recorded().map(|latency| (m.weight, latency)));
    let (weights, sum) =
        known.fold((0.0, 0.0), |(w, sum), (weight, latency)| (w + weight, sum + weight * latency));
    if weights > 0.0 { sum / weights } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture::{endpoints, entry, route, rule, url, weighted};
    use super::super::load::Failure;
    use super::super::load::Load;
    use super::super::sticky::{Extract, Sticky};
    use super::super::{Endpoints, Entry, Host, Rule, Table};
    use super::*;
    use proptest::strategy::Strategy;

    const MS: Duration = Duration::from_millis(1);

    /// A model of members behind a route, in virtual time: each answers after its latency, however
    /// many requests it has.
    struct Lab {
        route: Arc<Route>,
        rng: fastrand::Rng,
        now: Instant,
        /// When each request ends, and at which member.
        running: Vec<(Instant, usize, Instant)>,
        latencies: Vec<Duration>,
        failing: Vec<bool>,
        served: Vec<u32>,
        /// Picks while each had nothing under way.
        idle: Vec<u32>,
    }

    impl Lab {
        fn new(rule: Rule, latencies: &[Duration]) -> Self {
            let now = Instant::now();
            Self::on(&route(rule, now), latencies, now)
        }

        fn on(route: &Arc<Route>, latencies: &[Duration], now: Instant) -> Self {
            Self {
                route: Arc::clone(route),
                rng: fastrand::Rng::with_seed(7),
                now,
                running: Vec::new(),
                latencies: latencies.to_vec(),
                failing: vec![false; latencies.len()],
                served: vec![0; latencies.len()],
                idle: vec![0; latencies.len()],
            }
        }

        fn start(&mut self) {
            let tried = Tried::default();
            let ask =
                Ask { wanted: &[], tried: &tried, idempotent: true, tunnel: false, now: self.now };
            for (idle, member) in self.idle.iter_mut().zip(&self.route.members) {
                *idle += u32::from(member.load.in_flight() == 0);
            }
            let pick = pick(&self.route, &ask, &mut self.rng).unwrap();
            self.route.members[pick.member].load.begin();
            self.served[pick.member] += 1;
            self.running.push((self.now + self.latencies[pick.member], pick.member, self.now));
        }

        fn finish(&mut self) {
            let first = (0..self.running.len()).min_by_key(|at| self.running[*at].0).unwrap();
            let (end, member, sent) = self.running.remove(first);
            self.now = self.now.max(end);
            let load = &self.route.members[member].load;
            load.end();
            if self.failing[member] {
                load.failed(Failure::Status, sent, Duration::from_secs(5), self.now);
            } else {
                load.succeeded(sent, end - sent, self.now);
            }
        }

        /// Clients that each ask again as soon as they are answered.
        fn closed(mut self, clients: usize, requests: usize) -> Vec<f64> {
            self.run(clients, requests);
            let total: u32 = self.served.iter().sum();
            self.served.iter().map(|n| f64::from(*n) / f64::from(total)).collect()
        }

        fn run(&mut self, clients: usize, requests: usize) {
            for _ in 0..requests {
                self.start();
                if self.running.len() >= clients {
                    self.finish();
                }
            }
        }

        /// What the least served member got, in parts of its fair share of the requests that came
        /// while it had nothing to do: one that has not answered yet needs no other. It may be behind
        /// by a few, which count as had.
        fn least(&self) -> f64 {
            let members = self.served.len() as f64;
            let parts = self.served.iter().zip(&self.idle);
            let parts =
                parts.map(|(n, idle)| (f64::from(*n) + BEHIND) * members / f64::from(*idle));
            parts.fold(f64::INFINITY, f64::min)
        }
    }

    fn near(share: f64, wanted: f64) -> bool {
        (share - wanted).abs() <= wanted * 0.05
    }

    #[test]
    fn at_equal_latency_requests_are_proportional_to_weight_at_any_load() {
        for method in [Method::Latency, Method::LeastRequests, Method::RoundRobin] {
            for weights in
                [vec![1.0, 2.0], vec![1.0, 1.0, 1.0], vec![1.0, 2.0, 4.0, 1.0], vec![100.0, 1.0]]
            {
                for clients in [1, 2, 3, 5, 16, 64, 300] {
                    let rule = Rule { method, ..weighted(&weights) };
                    let shares =
                        Lab::new(rule, &vec![20 * MS; weights.len()]).closed(clients, 20_000);
                    let total: f64 = weights.iter().sum();
                    for (share, weight) in shares.iter().zip(&weights) {
                        assert!(
                            near(*share, weight / total),
                            "{method:?} {weights:?} with {clients} clients: {shares:?}"
                        );
                    }
                }
            }
        }
    }

    /// The part of the requests that went to others than intended.
    fn share_error(lab: &Lab) -> f64 {
        reckon(&lab.route, lab.now);
        let members = lab.served.iter().zip(&lab.route.members);
        let off: f64 = members.map(|(n, m)| (f64::from(*n) - m.tally.ledger.part()).abs()).sum();
        off / 2.0 / f64::from(lab.served.iter().sum::<u32>())
    }

    #[test]
    fn what_members_get_is_what_was_their_part() {
        for (weights, latencies) in [
            ([1.0, 2.0, 4.0], [20, 20, 20]),
            ([1.0, 1.0, 1.0], [20, 40, 60]),
            ([4.0, 1.0, 1.0], [90, 20, 20]),
        ] {
            let mut lab = Lab::new(weighted(&weights), &latencies.map(|ms| ms * MS));
            lab.run(6, 5000);
            let error = share_error(&lab);
            assert!(error < 0.05, "{weights:?} {latencies:?} {:?}: {error}", lab.served);
        }
    }

    #[test]
    fn who_is_full_gets_no_more_and_is_waited_for_rather_than_replaced() {
        let now = Instant::now();
        let limited = |name: &str, number, state| Entry {
            max_in_flight: Some(1),
            state,
            ..entry(name, number)
        };
        let entries = vec![
            limited("a", 1, State::Active),
            limited("b", 2, State::Active),
            limited("c", 3, State::Standby),
        ];
        let route = route(Rule { entries, ..rule("app", "/") }, now);
        let none = Tried::default();
        let begin = |wanted: &[usize]| {
            let member = pick_of(&route, wanted, &none, now)?.member;
            assert!(route.members[member].load.begin_within(1));
            Ok(member)
        };
        let first = begin(&[]).unwrap();
        assert_eq!(begin(&[first]), Err(NoMember::Busy));
        let second = begin(&[]).unwrap();
        assert_ne!(first, second);
        assert_eq!(begin(&[]), Err(NoMember::Busy));
        // Its own session goes to a standby at any time; others do when nobody else is usable.
        assert_eq!(begin(&[2]), Ok(2));
        route.members[2].load.end();
        for member in [first, second] {
            let load = &route.members[member].load;
            load.failed(Failure::Refused, now, Duration::from_secs(5), now);
        }
        assert_eq!(begin(&[]), Ok(2));
        assert_eq!(begin(&[]), Err(NoMember::Busy));
        route.members[2].load.end();
        assert_eq!(begin(&[]), Ok(2));
    }

    #[test]
    fn who_gets_nothing_because_it_is_excluded_has_no_part_either() {
        let mut lab = Lab::new(weighted(&[1.0, 1.0, 1.0]), &[20 * MS; 3]);
        lab.run(6, 300);
        let load = &lab.route.members[0].load;
        load.failed(Failure::Refused, lab.now, Duration::from_secs(600), lab.now);
        lab.run(6, 3000);
        let error = share_error(&lab);
        assert!(error < 0.01, "{:?}: {error}", lab.served);
    }

    #[test]
    fn sessions_at_one_member_show_as_a_share_error() {
        let now = Instant::now();
        let route = route(weighted(&[1.0, 1.0]), now);
        let none = Tried::default();
        for _ in 0..100 {
            pick_of(&route, &[1], &none, now).unwrap();
        }
        reckon(&route, now);
        let parts = [0, 1].map(|member: usize| route.members[member].tally.ledger.part());
        assert!(parts.iter().all(|part| near(*part, 50.0)), "{parts:?}");
    }

    #[test]
    fn sessions_against_the_shares_show_as_a_share_error() {
        let now = Instant::now();
        let shared = |name, number, share| Entry { share: Some(share), ..entry(name, number) };
        let entries = vec![shared("a", 1, 75.0), shared("b", 2, 25.0), shared("off", 3, 0.0)];
        let route = route(Rule { entries, ..rule("app", "/") }, now);
        let none = Tried::default();
        let parts = || {
            reckon(&route, now);
            [0, 1, 2].map(|member: usize| route.members[member].tally.ledger.part())
        };
        for _ in 0..100 {
            pick_of(&route, &[1], &none, now).unwrap();
        }
        let [a, b, off] = parts();
        assert!(near(a, 75.0) && near(b, 25.0) && off == 0.0, "{a} {b} {off}");
        // Those of what has no share are its own.
        for _ in 0..10 {
            pick_of(&route, &[2], &none, now).unwrap();
        }
        // Nor is one owed what it cannot take.
        route.members[0].load.failed(Failure::Refused, now, Duration::from_secs(5), now);
        for _ in 0..100 {
            assert_eq!(pick_of(&route, &[], &none, now).unwrap().member, 1);
        }
        let [a, b, off] = parts();
        assert!(near(a, 75.0) && near(b, 125.0) && near(off, 10.0), "{a} {b} {off}");
    }

    #[test]
    fn what_is_dealt_by_shares_is_what_was_intended() {
        let name = |name: &str| url(Host::Name(name.into()));
        let shared =
            |host, share| Entry { target: name(host), share: Some(share), ..entry(host, 1) };
        let rule = Rule { entries: vec![shared("a", 3.0), shared("b", 1.0)], ..rule("app", "/") };
        let addresses: &[&str] = &["127.0.0.1:1", "127.0.0.1:2"];
        let endpoints = endpoints(&[("a", 80, addresses), ("b", 80, &["127.0.0.1:3"])]);
        let (rules, before, now) = ([Arc::new(rule)], Table::default(), Instant::now());
        let table = Table::build(&rules, &endpoints, None, &before, now);
        let mut lab = Lab::on(&table.routes[0], &[20 * MS, 60 * MS, 20 * MS], now);
        lab.run(6, 5000);
        let error = share_error(&lab);
        assert!(error < 0.05, "{:?}: {error}", lab.served);
        // The groups change, and what was in one is in another.
        let rule = Rule {
            entries: vec![shared("b", 1.0), shared("c", 3.0), shared("a", 1.0)],
            ..super::super::fixture::rule("app", "/")
        };
        let endpoints = self::endpoints(&[
            ("a", 80, addresses),
            ("b", 80, &["127.0.0.1:3"]),
            ("c", 80, &["127.0.0.1:4"]),
        ]);
        let table = Table::build(&[Arc::new(rule)], &endpoints, None, &table, lab.now);
        let sum = |route: &Route| route.members.iter().map(|m| m.tally.ledger.part()).sum::<f64>();
        let before = sum(&table.routes[0]);
        let mut lab = Lab::on(&table.routes[0], &[20 * MS; 4], lab.now);
        lab.run(6, 1000);
        reckon(&lab.route, lab.now);
        assert!(near(sum(&lab.route) - before, 1000.0), "{}", sum(&lab.route) - before);
    }

    #[test]
    fn more_than_the_permitted_share_is_excluded_only_if_it_cannot_be_reached() {
        let now = Instant::now();
        for (members, may) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
            let route = route(weighted(&vec![1.0; members]), now);
            let exclude = |failure| {
                let excluded = route.members.iter().filter(|member| {
                    let first = route.exclusion(member, failure, now);
                    member.load.failed(failure, now, first, now).is_some()
                });
                excluded.count()
            };
            assert_eq!(exclude(Failure::ExcludingStatus), may, "of {members}");
            // Those that are left.
            assert_eq!(exclude(Failure::Refused), members - may, "of {members}");
        }
    }

    #[test]
    fn a_large_group_is_proportional_to_weight_too() {
        let weights: Vec<f64> = (0..200).map(|n| f64::from(1 + n % 4)).collect();
        let shares = Lab::new(weighted(&weights), &vec![20 * MS; 200]).closed(50, 100_000);
        let of = |class: usize| shares.iter().skip(class).step_by(4).sum::<f64>();
        for class in 0..4 {
            assert!(near(of(class), (class as f64 + 1.0) / 10.0), "{class}: {}", of(class));
        }
    }

    #[test]
    fn the_slower_of_two_gets_less_and_not_nothing() {
        let shares = Lab::new(weighted(&[1.0, 1.0]), &[10 * MS, 200 * MS]).closed(4, 5000);
        assert!(shares[0] > 0.9, "{shares:?}");
        assert!(shares[1] > 0.002, "{shares:?}");
    }

    #[test]
    fn what_may_be_chance_makes_nobody_slow() {
        let now = Instant::now();
        let alike_of = |latency: fn(u32, u32) -> f64| {
            let route = route(weighted(&[1.0; 3]), now);
            for n in 1..=400 {
                let at = now + n * 100 * MS;
                for (index, member) in (0..).zip(&route.members) {
                    let latency = Duration::from_secs_f64(latency(index, n));
                    member.load.succeeded(at, latency, at);
                }
            }
            alike(route.members.iter())
        };
        assert_eq!(alike_of(|_, _| 0.02).to_bits(), ALIKE.to_bits());
        let mixed = alike_of(|_, n| if n % 25 == 0 { 1.0 } else { 0.02 });
        assert!(mixed > 1.4 && mixed <= ALIKE_MOST, "{mixed}");
        // A member that is uneven by itself is not excused by that.
        let one = alike_of(|index, n| if index == 0 && n % 25 == 0 { 1.0 } else { 0.02 });
        assert_eq!(one.to_bits(), ALIKE.to_bits());
    }

    #[test]
    fn by_requests_in_flight_the_slower_gets_less() {
        let rule = Rule { method: Method::LeastRequests, ..weighted(&[1.0, 1.0]) };
        let shares = Lab::new(rule, &[5 * MS, 20 * MS]).closed(8, 5000);
        assert!((0.7..0.85).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn a_member_that_fails_fast_gets_almost_none() {
        for members in [2, 3, 10] {
            let mut latencies = vec![20 * MS; members];
            latencies[0] = MS;
            let mut lab = Lab::new(weighted(&vec![1.0; members]), &latencies);
            lab.failing[0] = true;
            let shares = lab.closed(8, 20_000);
            assert!(shares[0] < 0.01, "{members} members: {shares:?}");
        }
    }

    #[test]
    fn a_member_that_has_become_well_gets_its_part_again() {
        let mut lab = Lab::new(weighted(&[1.0, 1.0]), &[20 * MS, 200 * MS]);
        for _ in 0..2000 {
            lab.start();
            if lab.running.len() >= 4 {
                lab.finish();
            }
        }
        lab.latencies[1] = 20 * MS;
        let recovery = lab.now;
        while lab.now < recovery + Duration::from_secs(15) {
            lab.start();
            lab.finish();
        }
        lab.served = vec![0, 0];
        let shares = lab.closed(4, 4000);
        assert!(shares[1] > 0.4, "{shares:?}");
    }

    #[test]
    fn a_new_member_begins_with_a_tenth_of_its_part() {
        let now = Instant::now();
        let first = Arc::new(weighted(&[1.0, 1.0]));
        let table = Table::build(&[first], &Endpoints::default(), None, &Table::default(), now);
        for member in &table.routes[0].members {
            member.load.succeeded(now, 20 * MS, now);
        }
        let grown = Arc::new(weighted(&[1.0, 1.0, 1.0]));
        let table = Table::build(&[grown], &Endpoints::default(), None, &table, now);
        let lab = Lab::on(&table.routes[0], &[20 * MS; 3], now);
        let shares = lab.closed(8, 400);
        assert!(shares[2] > 0.01 && shares[2] < 0.2, "{shares:?}");
    }

    #[test]
    fn round_robin_is_smooth() {
        let rule = Rule { method: Method::RoundRobin, ..weighted(&[1.0, 2.0]) };
        let mut lab = Lab::new(rule, &[MS, MS]);
        let mut order = Vec::new();
        for _ in 0..9 {
            let before = lab.served.clone();
            lab.start();
            lab.finish();
            order.push((0..2).find(|m| lab.served[*m] > before[*m]).unwrap());
        }
        assert_eq!(order.iter().filter(|m| **m == 1).count(), 6, "{order:?}");
        assert!(order.windows(3).all(|w| w.contains(&0)), "{order:?}");
    }

    #[test]
    fn shares_are_drawn_exactly_whatever_the_latencies() {
        let rule = Rule {
            entries: vec![
                Entry { share: Some(95.0), ..entry("stable", 1) },
                Entry { share: Some(5.0), ..entry("canary", 2) },
            ],
            ..rule("app", "/")
        };
        let shares = Lab::new(rule, &[200 * MS, MS]).closed(16, 10_000);
        assert!((shares[1] - 0.05).abs() < 0.001, "{shares:?}");
    }

    #[test]
    fn a_group_without_a_usable_member_yields_its_share() {
        let rule = Rule {
            entries: vec![
                Entry { share: Some(50.0), ..entry("a", 1) },
                Entry { share: Some(50.0), state: State::Disabled, ..entry("b", 2) },
            ],
            ..rule("app", "/")
        };
        let shares = Lab::new(rule, &[MS, MS]).closed(4, 100);
        assert_eq!(shares, [1.0, 0.0]);
    }

    #[test]
    fn a_retry_stays_in_its_group_while_it_can() {
        let now = Instant::now();
        let name = |name: &str| url(Host::Name(name.into()));
        let shared =
            |name_, share| Entry { target: name(name_), share: Some(share), ..entry(name_, 1) };
        let rule = Rule { entries: vec![shared("a", 1.0), shared("b", 99.0)], ..rule("app", "/") };
        let endpoints =
            endpoints(&[("a", 80, &["127.0.0.1:1", "127.0.0.1:2"]), ("b", 80, &["127.0.0.1:3"])]);
        let table = Table::build(&[Arc::new(rule)], &endpoints, None, &Table::default(), now);
        let mut tried = Tried::default();
        tried.add(0);
        for _ in 0..20 {
            assert_eq!(pick_of(&table.routes[0], &[], &tried, now).unwrap().member, 1);
        }
        tried.add(1);
        assert_eq!(pick_of(&table.routes[0], &[], &tried, now).unwrap().member, 2);
    }

    fn ask<'a>(wanted: &'a [usize], tried: &'a Tried, now: Instant) -> Ask<'a> {
        Ask { wanted, tried, idempotent: true, tunnel: false, now }
    }

    fn pick_of(
        route: &Route,
        wanted: &[usize],
        tried: &Tried,
        now: Instant,
    ) -> Result<Pick, NoMember> {
        pick(route, &ask(wanted, tried, now), &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn a_session_stays_with_a_draining_member_and_new_ones_do_not_go_there() {
        let now = Instant::now();
        let rule = Rule {
            entries: vec![entry("a", 1), Entry { state: State::Draining, ..entry("b", 2) }],
            ..rule("app", "/")
        };
        let route = route(rule, now);
        let none = Tried::default();
        assert_eq!(pick_of(&route, &[1], &none, now).unwrap().member, 1);
        for _ in 0..20 {
            assert_eq!(pick_of(&route, &[], &none, now).unwrap().member, 0);
        }
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(pick_of(&route, &[], &tried, now), Err(NoMember::None));
    }

    #[test]
    fn where_all_are_excluded_a_session_is_still_its_own_members() {
        let now = Instant::now();
        let route =
            route(Rule { entries: vec![entry("a", 1), entry("b", 2)], ..rule("app", "/") }, now);
        for member in &route.members {
            member.load.failed(Failure::Refused, now, Duration::from_secs(5), now);
        }
        let none = Tried::default();
        for own in [0, 1] {
            for _ in 0..10 {
                let picked = pick_of(&route, &[own], &none, now).unwrap();
                assert_eq!((picked.member, picked.session), (own, Session::Hit));
            }
        }
        let mut tried = Tried::default();
        tried.add(1);
        assert_eq!(pick_of(&route, &[1], &tried, now).unwrap().member, 0);
    }

    #[test]
    fn a_standby_serves_its_own_sessions_and_all_when_nobody_else_can() {
        let now = Instant::now();
        let rule = Rule {
            entries: vec![entry("a", 1), Entry { state: State::Standby, ..entry("b", 2) }],
            ..rule("app", "/")
        };
        let route = route(rule, now);
        let mut tried = Tried::default();
        assert_eq!(pick_of(&route, &[], &tried, now).unwrap().member, 0);
        assert_eq!(pick_of(&route, &[1], &tried, now).unwrap().member, 1);
        tried.add(0);
        assert_eq!(pick_of(&route, &[], &tried, now).unwrap().member, 1);
    }

    #[test]
    fn an_excluded_member_is_tried_when_all_are_and_probed_when_its_time_has_come() {
        let now = Instant::now();
        let route = route(weighted(&[1.0, 1.0]), now);
        let first = Duration::from_secs(5);
        let none = Tried::default();
        route.members[0].load.failed(Failure::Refused, now, first, now);
        for _ in 0..20 {
            assert_eq!(pick_of(&route, &[], &none, now).unwrap().member, 1);
        }
        route.members[1].load.failed(Failure::Refused, now, first, now);
        assert!(pick_of(&route, &[], &none, now).is_ok());
        let later = now + first;
        let probe = pick_of(&route, &[], &none, later).unwrap();
        assert!(probe.probe);
        let other = pick_of(&route, &[], &none, later).unwrap();
        assert!(other.probe && other.member != probe.member);
        assert!(!pick_of(&route, &[], &none, later).unwrap().probe);
    }

    #[test]
    fn a_request_that_cannot_be_repeated_probes_when_nobody_else_does() {
        let now = Instant::now();
        let route = route(weighted(&[1.0, 1.0]), now);
        let first = Duration::from_secs(5);
        route.members[0].load.failed(Failure::Refused, now, first, now);
        let none = Tried::default();
        let post = |now| Ask { idempotent: false, ..ask(&[], &none, now) };
        let mut rng = fastrand::Rng::with_seed(1);
        assert!(!pick(&route, &post(now + first), &mut rng).unwrap().probe);
        let picked = pick(&route, &post(now + first + PRECEDENCE), &mut rng).unwrap();
        assert!(picked.probe && picked.member == 0);
    }

    #[test]
    fn a_session_whose_member_is_excluded_fails_over_unless_forbidden() {
        let now = Instant::now();
        let none = Tried::default();
        let sticky = |failover| Sticky {
            cookie: Some("sessionid".into()),
            parameter: None,
            extract: Extract::regex("!(.*)$").unwrap(),
            failover,
            issue: None,
        };
        for failover in [true, false] {
            let rule = Rule { sticky: Some(sticky(failover)), ..weighted(&[1.0, 1.0]) };
            let route = route(rule, now);
            route.members[1].load.failed(Failure::Refused, now, Duration::from_secs(5), now);
            let mut tried = Tried::default();
            for _ in 0..5 {
                let picked = pick_of(&route, &[1], &none, now).unwrap();
                let expected = if failover { (0, Session::Failover) } else { (1, Session::Hit) };
                assert_eq!((picked.member, picked.session), expected);
            }
            tried.add(1);
            let after = pick_of(&route, &[1], &tried, now).map(|pick| pick.member);
            assert_eq!(after, if failover { Ok(0) } else { Err(NoMember::Session) });
        }
    }

    #[test]
    fn a_session_that_nobody_may_take_over_is_its_own_members_and_its_heirs_though_they_are_out() {
        let now = Instant::now();
        let none = Tried::default();
        let limited =
            Entry { failover_route: Some("b".into()), max_in_flight: Some(1), ..entry("a", 1) };
        let off =
            Entry { state: State::Disabled, failover_route: Some("b".into()), ..entry("d", 4) };
        let sticky = Sticky {
            cookie: Some("sessionid".into()),
            parameter: None,
            extract: Extract::regex("!(.*)$").unwrap(),
            failover: false,
            issue: None,
        };
        let entries = vec![limited, entry("b", 2), entry("c", 3), off];
        let route = route(Rule { entries, sticky: Some(sticky), ..rule("app", "/") }, now);
        for member in &route.members[..2] {
            member.load.failed(Failure::Refused, now, Duration::from_secs(5), now);
        }
        let of = |wanted, tried: &Tried| {
            pick_of(&route, &[wanted], tried, now).map(|pick| (pick.member, pick.session))
        };
        assert_eq!(of(0, &none), Ok((0, Session::Hit)));
        assert_eq!(of(3, &none), Ok((1, Session::Failover)));
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(of(0, &tried), Ok((1, Session::Failover)));
        route.members[0].load.begin();
        assert_eq!(of(0, &none), Err(NoMember::Busy));
    }

    #[test]
    fn sticky_requests_count_in_what_a_member_has_had() {
        let now = Instant::now();
        let route = route(weighted(&[1.0, 1.0]), now);
        let none = Tried::default();
        for _ in 0..10 {
            pick_of(&route, &[0], &none, now).unwrap();
        }
        for _ in 0..8 {
            assert_eq!(pick_of(&route, &[], &none, now).unwrap().member, 1);
        }
    }

    /// What may happen at any time.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A member takes so many milliseconds from now on.
        Takes(usize, u64),
        /// It answers all with an error, breaks all off, or does neither.
        Fails(usize, Option<Failure>),
        /// It has another weight.
        Weighs(usize, u32),
        /// It leaves, or joins.
        Moves(usize),
        /// So many requests are under way at once.
        Clients(usize),
        /// Every third request is of a session at this member, if at any.
        Sessions(Option<usize>),
    }

    fn events() -> impl Strategy<Value = Event> {
        let fails = vec![None, Some(Failure::Status), Some(Failure::Reset)];
        proptest::prop_oneof![
            3 => (0..STORM, 1u64..1000).prop_map(|(m, ms)| Event::Takes(m, ms)),
            3 => (0..STORM, proptest::sample::select(fails))
                .prop_map(|(m, how)| Event::Fails(m, how)),
            1 => (0..STORM, 1u32..10).prop_map(|(m, weight)| Event::Weighs(m, weight)),
            2 => (0..STORM).prop_map(Event::Moves),
            1 => (1usize..16).prop_map(Event::Clients),
            1 => proptest::option::of(0..STORM).prop_map(Event::Sessions),
        ]
    }

    /// The members of a [`Storm`].
    const STORM: usize = 5;

    /// Members to which anything happens.
    struct Storm {
        table: Table,
        now: Instant,
        rng: fastrand::Rng,
        weights: [u32; STORM],
        here: [bool; STORM],
        latencies: [Duration; STORM],
        failing: [Option<Failure>; STORM],
        clients: usize,
        sessions: Option<usize>,
        asked: u32,
        /// When each request ends, at which member, which pick it was, and when it was sent.
        running: Vec<(Instant, usize, Arc<Load>, Pick, Instant)>,
        /// How often each has come.
        stays: [f64; STORM],
        /// What each got, and its fair share of what came while it was well and had nothing to do.
        served: [f64; STORM],
        due: [f64; STORM],
    }

    impl Storm {
        fn new() -> Self {
            let mut storm = Self {
                table: Table::default(),
                now: Instant::now(),
                rng: fastrand::Rng::with_seed(7),
                weights: [1; STORM],
                here: [true; STORM],
                latencies: [20 * MS; STORM],
                failing: [None; STORM],
                clients: 4,
                sessions: None,
                asked: 0,
                running: Vec::new(),
                stays: [1.0; STORM],
                served: [0.0; STORM],
                due: [0.0; STORM],
            };
            storm.build();
            storm
        }

        fn build(&mut self) {
            let here = (0..STORM).filter(|m| self.here[*m]);
            let entries = here.map(|m| Entry {
                weight: f64::from(self.weights[m]),
                ..entry(&format!("m{m}"), u8::try_from(m).unwrap())
            });
            let rule = Arc::new(Rule { entries: entries.collect(), ..rule("app", "/") });
            let none = Endpoints::default();
            self.table = Table::build(&[rule], &none, None, &self.table, self.now);
        }

        fn happens(&mut self, event: Event) {
            match event {
                Event::Takes(member, ms) => self.latencies[member] = Duration::from_millis(ms),
                Event::Fails(member, how) => self.failing[member] = how,
                Event::Weighs(member, weight) => self.weights[member] = weight,
                Event::Moves(member) => {
                    self.here[member] = !self.here[member];
                    self.stays[member] += f64::from(u8::from(self.here[member]));
                }
                Event::Clients(clients) => self.clients = clients,
                Event::Sessions(member) => self.sessions = member,
            }
            // Somebody is always there.
            self.here[0] |= self.here == [false; STORM];
            self.build();
        }

        /// The number of a member, whatever its place in the route.
        fn number(member: &Member) -> usize {
            member.name[1..].parse().unwrap()
        }

        fn request(&mut self) {
            let route = Arc::clone(&self.table.routes[0]);
            let tried = Tried::default();
            self.asked += 1;
            let sessions = self.sessions.filter(|_| self.asked.is_multiple_of(3));
            let its = |m: &usize| Some(Self::number(&route.members[*m])) == sessions;
            let own: Vec<_> = (0..route.members.len()).filter(its).collect();
            let ask = ask(&own, &tried, self.now);
            let weights: f64 = route.members.iter().map(|m| m.weight).sum();
            for member in route.members.iter().filter(|_| own.is_empty()) {
                let due = if self.is_well(member) { member.weight / weights } else { 0.0 };
                self.due[Self::number(member)] += due;
            }
            let pick = pick(&route, &ask, &mut self.rng).unwrap();
            let member = &route.members[pick.member];
            let at = Self::number(member);
            member.load.begin();
            self.served[at] += 1.0;
            let end = self.now + if self.failing[at].is_some() { MS } else { self.latencies[at] };
            self.running.push((end, at, Arc::clone(&member.load), pick, self.now));
            while self.running.len() >= self.clients {
                self.finish();
            }
        }

        /// Idle, in use, and neither new nor known to fail more than all do.
        fn is_well(&self, member: &Member) -> bool {
            let load = &member.load;
            self.failing[Self::number(member)].is_none()
                && load.in_flight() == 0
                && member.admission(self.now) == Admission::Usable
                && load.failure_rate(self.now) <= FAILURES_BORNE
                && load.ramp(Duration::from_secs(10), self.now) >= 1.0
        }

        fn finish(&mut self) {
            let first = (0..self.running.len()).min_by_key(|at| self.running[*at].0).unwrap();
            let (end, member, load, pick, sent) = self.running.remove(first);
            self.now = self.now.max(end);
            load.end();
            let Some(failure) = self.failing[member] else {
                return load.succeeded(sent, end - sent, self.now);
            };
            let excluded = load.failed(failure, sent, Duration::from_secs(5), self.now);
            if pick.probe && excluded.is_none() {
                load.end_probe();
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(100))]

        /// Members fail and are well again, become slow and quick, are weighed otherwise, leave and
        /// join, under more or less load: who is well keeps a part.
        #[test]
        fn no_sequence_of_events_starves_who_is_well(
            sequence in proptest::collection::vec(events(), 1..40),
        ) {
            let mut storm = Storm::new();
            for number in 0..4000 {
                if number % 100 == 0 {
                    storm.happens(sequence[number / 100 % sequence.len()]);
                }
                storm.request();
            }
            // Who comes anew is behind by nothing, and may fall behind again.
            for member in 0..STORM {
                let allowed = storm.stays[member] * BEHIND;
                let least = (storm.served[member] + allowed) / storm.due[member];
                proptest::prop_assert!(least > 0.02, "{:?} of {:?}", storm.served, storm.due);
            }
        }
    }

    proptest::proptest! {
        /// Each member's latency is another at each request: nobody is shut out for good by what it
        /// once said.
        #[test]
        fn no_sequence_of_latencies_starves(
            sequence in proptest::collection::vec(1u64..1000, 2..60),
            members in 2usize..6,
            clients in 1usize..12,
        ) {
            let mut lab = Lab::new(weighted(&vec![1.0; members]), &vec![MS; members]);
            let mut latencies = sequence.iter().cycle().map(|ms| Duration::from_millis(*ms));
            for request in 0..3000 {
                let next = latencies.next().unwrap();
                lab.latencies[request % members] = next;
                lab.start();
                if lab.running.len() >= clients {
                    lab.finish();
                }
            }
            proptest::prop_assert!(lab.least() > 0.02, "{:?}", lab.served);
        }

        /// Whatever members say and however long they take, each healthy one keeps a part.
        #[test]
        fn nobody_is_starved_or_flooded(
            latencies in proptest::collection::vec(1u64..2000, 2..8),
            clients in 1usize..20,
        ) {
            let members = latencies.len();
            let latencies: Vec<_> = latencies.into_iter().map(Duration::from_millis).collect();
            let fastest = latencies.iter().min().unwrap().as_secs_f64();
            let mut lab = Lab::new(weighted(&vec![1.0; members]), &latencies);
            lab.run(clients, 4000);
            proptest::prop_assert!(lab.least() > 0.02, "{:?} {latencies:?}", lab.served);
            let shares = lab.closed(clients, 4000);
            for (share, latency) in shares.iter().zip(&latencies) {
                let as_fast = latency.as_secs_f64() < fastest * 1.01;
                proptest::prop_assert!(as_fast || *share < 0.75, "{shares:?} {latencies:?}");
            }
        }
    }
}
