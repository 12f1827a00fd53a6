//! Members with workers and a queue, and a stream of requests, in virtual time: a simulation of
//! discrete events. Everything random comes from seeds, and requests are the same for each rule.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::rules::{Name, Outcome, Proxy, Ticket};

/// A time of the scenario, in seconds: from, to.
pub type Span = (f64, f64);

/// How long a connection takes that is refused.
const REFUSED: Duration = Duration::from_micros(500);
/// How long a member takes to fail.
const FAILING: Duration = Duration::from_millis(1);
/// Members that one request may be sent to where connections are refused.
const ATTEMPTS: usize = 3;
/// Spread of the service times: they are lognormal, with this standard deviation of the logarithm.
const SPREAD: f64 = 0.5;
/// How often it is looked whether a member is excluded.
const LOOK: Duration = Duration::from_millis(100);

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Requests that it serves at a time; others wait.
    pub workers: usize,
    /// Its weight.
    pub weight: f64,
    /// How many times slower it is, and when.
    pub slower: Vec<(Span, f64)>,
    /// Which part of the requests stalls, and for how many seconds more.
    pub stalls: (f64, f64),
    /// Which part of the requests fails in a millisecond, and when.
    pub fails: Vec<(Span, f64)>,
    /// When it refuses connections.
    pub refuses: Vec<Span>,
    /// When it is not there.
    pub away: Vec<Span>,
}

impl Member {
    /// Whether it is there, answers, and answers well, all the time.
    pub fn healthy(&self) -> bool {
        self.fails.is_empty() && self.refuses.is_empty() && self.away.is_empty()
    }

    /// How many times slower it is at a time.
    pub fn factor(&self, at: f64) -> f64 {
        self.slower.iter().filter(|(span, _)| within(*span, at)).map(|(_, by)| by).product()
    }

    /// Which part of the requests fails at a time.
    pub fn failing(&self, at: f64) -> f64 {
        self.fails.iter().find(|(span, _)| within(*span, at)).map_or(0.0, |(_, part)| *part)
    }

    /// Whether it refuses connections at a time.
    pub fn refusing(&self, at: f64) -> bool {
        self.refuses.iter().any(|span| within(*span, at))
    }

    fn present(&self, at: f64) -> bool {
        !self.away.iter().any(|span| within(*span, at))
    }
}

fn within((from, to): Span, at: f64) -> bool {
    (from..to).contains(&at)
}

/// Members, and what is asked of them.
#[derive(Clone, Debug)]
pub struct World {
    /// The members.
    pub members: Vec<Member>,
    /// Mean service time of a light request, in seconds.
    pub service: f64,
    /// Requests a second.
    pub rate: f64,
    /// Every two seconds, for 0.2 seconds, this many times the rate.
    pub burst: f64,
    /// Which part of the requests is heavy, and how many times more work those are.
    pub heavy: (f64, f64),
    /// Which part of the responses goes on after its head, and for how many seconds; without a worker.
    pub streams: (f64, f64),
    /// Which part of the requests belongs to sessions, of twenty requests each.
    pub sticky: f64,
    /// Seconds between the pauses of a second that a member makes, on average; 0 for none.
    pub pauses: f64,
    /// Proxies, each with its own state.
    pub proxies: usize,
    /// Length of the scenario, in seconds.
    pub length: f64,
    /// What comes before this is not measured.
    pub from: f64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Latencies of the light requests that went well, in seconds.
    pub latencies: Vec<f64>,
    /// Per second of the scenario: requests of clients, and those that failed.
    pub seconds: Vec<(u32, u32)>,
    /// Per member and second: attempts that it got.
    pub served: Vec<Vec<u32>>,
    /// Per member: when a proxy excluded it last, in seconds; 0 if never.
    pub excluded: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Membership,
    End(usize),
    Head(usize),
    Arrival,
    Look,
}

/// One client's request.
#[derive(Clone, Debug)]
struct Request {
    arrived: Duration,
    proxy: usize,
    work: f64,
    heavy: bool,
    stream: bool,
    luck: f64,
    session: Option<usize>,
    tried: Vec<usize>,
    ticket: Option<Ticket>,
    outcome: Outcome,
}

struct Simulation<'w> {
    world: &'w World,
    proxies: Vec<Proxy>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    order: u64,
    requests: Vec<Request>,
    free: Vec<usize>,
    /// Per member: when each worker is free.
    workers: Vec<BinaryHeap<Reverse<Duration>>>,
    pauses: Vec<Vec<Duration>>,
    sessions: Vec<(usize, u32)>,
    random: fastrand::Rng,
    run: Run,
}

/// Runs the world under a rule.
pub fn run(world: &World, name: Name, seed: u64) -> Run {
    let mut simulation = Simulation::new(world, name, seed);
    while simulation.step() {}
    simulation.run
}

impl<'w> Simulation<'w> {
    fn new(world: &'w World, name: Name, seed: u64) -> Self {
        let weights: Vec<f64> = world.members.iter().map(|m| m.weight).collect();
        let seconds = index(world.length.ceil()) + 1;
        let proxy =
            |number: u64| Proxy::new(name, &weights, world.sticky > 0.0, seed * 100 + number);
        let workers = |m: &Member| (0..m.workers).map(|_| Reverse(Duration::ZERO)).collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let pauses = world.members.iter().map(|_| pauses(world, &mut random)).collect();
        let mut simulation = Self {
            world,
            proxies: (0..).take(world.proxies).map(proxy).collect(),
            events: BinaryHeap::new(),
            order: 0,
            requests: Vec::new(),
            free: Vec::new(),
            workers: world.members.iter().map(workers).collect(),
            pauses,
            sessions: Vec::new(),
            random,
            run: Run {
                seconds: vec![(0, 0); seconds],
                served: vec![vec![0; seconds]; world.members.len()],
                excluded: vec![0.0; world.members.len()],
                ..Run::default()
            },
        };
        let away = world.members.iter().flat_map(|m| &m.away);
        let mut changes: Vec<f64> = away.flat_map(|(from, to)| [*from, *to]).collect();
        changes.sort_by(f64::total_cmp);
        for at in changes.into_iter().filter(|at| *at < world.length) {
            simulation.at(Duration::from_secs_f64(at), Event::Membership);
        }
        simulation.at(Duration::ZERO, Event::Arrival);
        if world.members.iter().any(|m| !m.refuses.is_empty()) {
            simulation.at(LOOK, Event::Look);
        }
        simulation
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    /// Handles the next event; false if it is over.
    fn step(&mut self) -> bool {
        let Some(Reverse((now, _, event))) = self.events.pop() else {
            return false;
        };
        match event {
            Event::Membership => self.membership(now),
            Event::Arrival => self.arrival(now),
            Event::Head(request) => self.head(request, now),
            Event::End(request) => self.end(request),
            Event::Look => self.look(now),
        }
        true
    }

    fn membership(&mut self, now: Duration) {
        let at = now.as_secs_f64();
        let members = self.world.members.iter().enumerate();
        let present: Vec<usize> = members.filter(|(_, m)| m.present(at)).map(|(i, _)| i).collect();
        for proxy in &mut self.proxies {
            proxy.members(&present, now);
        }
    }

    fn look(&mut self, now: Duration) {
        for (member, last) in self.run.excluded.iter_mut().enumerate() {
            if self.proxies.iter().any(|proxy| proxy.excludes(member, now)) {
                *last = now.as_secs_f64();
            }
        }
        if now.as_secs_f64() < self.world.length {
            self.at(now + LOOK, Event::Look);
        }
    }

    fn arrival(&mut self, now: Duration) {
        let world = self.world;
        let bursting = world.burst > 1.0 && now.as_secs_f64() % 2.0 < 0.2;
        let rate = world.rate * if bursting { world.burst } else { 1.0 };
        let next = now + Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / rate);
        if next.as_secs_f64() < world.length {
            self.at(next, Event::Arrival);
        }
        let request = self.request(now);
        let second = index(now.as_secs_f64());
        self.run.seconds[second].0 += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.requests[slot] = request;
                slot
            }
            None => {
                self.requests.push(request);
                self.requests.len() - 1
            }
        };
        self.attempt(slot, now);
    }

    /// The next request. All that is random about it is drawn here, so that it does not depend on
    /// what a rule made of those before.
    fn request(&mut self, now: Duration) -> Request {
        let drawn = draw(self.world, &mut self.random);
        let proxy = self.random.usize(..self.world.proxies);
        let of_session = self.random.f64() < self.world.sticky;
        let session = if of_session { Some(self.session()) } else { None };
        Request {
            arrived: now,
            proxy,
            work: drawn.work,
            heavy: drawn.heavy,
            stream: drawn.stream,
            luck: drawn.luck,
            session,
            tried: Vec::new(),
            ticket: None,
            outcome: Outcome::Success,
        }
    }

    /// One of the sessions; those that have had their requests give way to new ones.
    fn session(&mut self) -> usize {
        const SESSIONS: usize = 2000;
        let session = self.random.usize(..SESSIONS);
        if self.sessions.is_empty() {
            self.sessions = vec![(usize::MAX, 0); SESSIONS];
        }
        let (member, left) = &mut self.sessions[session];
        if *left == 0 {
            (*member, *left) = (usize::MAX, 20);
        }
        *left -= 1;
        session
    }

    fn attempt(&mut self, slot: usize, now: Duration) {
        let at = now.as_secs_f64();
        let request = &self.requests[slot];
        let own = request.session.map(|session| self.sessions[session].0);
        let proxy = &mut self.proxies[request.proxy];
        let own = own.filter(|member| *member != usize::MAX);
        let Some(ticket) = proxy.begin(own, &request.tried, now) else {
            return self.done(slot, false, now);
        };
        let member = &self.world.members[ticket.member];
        self.run.served[ticket.member][index(at)] += 1;
        let request = &mut self.requests[slot];
        request.ticket = Some(ticket);
        if let Some(session) = request.session {
            self.sessions[session].0 = ticket.member;
        }
        let head = if member.refusing(at) {
            request.outcome = Outcome::Refused;
            now + REFUSED
        } else if request.luck < member.failing(at) {
            request.outcome = Outcome::Status;
            now + FAILING
        } else {
            request.outcome = Outcome::Success;
            let stalls = request.luck > 1.0 - member.stalls.0;
            let work = request.work + if stalls { member.stalls.1 } else { 0.0 };
            self.serve(ticket.member, work, now)
        };
        self.at(head, Event::Head(slot));
    }

    /// When a member will have done this much work, which it begins as soon as a worker is free.
    fn serve(&mut self, member: usize, work: f64, now: Duration) -> Duration {
        let workers = &mut self.workers[member];
        let free = workers.pop().map_or(now, |Reverse(at)| at);
        let mut at = free.max(now);
        let mut left =
            Duration::from_secs_f64(work * self.world.members[member].factor(at.as_secs_f64()));
        let pauses = &self.pauses[member];
        for pause in &pauses[pauses.partition_point(|p| *p + Duration::from_secs(1) <= at)..] {
            if at + left <= *pause {
                break;
            }
            left -= pause.saturating_sub(at);
            at = *pause + Duration::from_secs(1);
        }
        workers.push(Reverse(at + left));
        at + left
    }

    fn head(&mut self, slot: usize, now: Duration) {
        let request = &mut self.requests[slot];
        let (outcome, stream, proxy) = (request.outcome, request.stream, request.proxy);
        let Some(ticket) = request.ticket else {
            return;
        };
        self.proxies[proxy].head(ticket, outcome, now);
        if outcome == Outcome::Refused {
            self.proxies[proxy].end(ticket);
            request.tried.push(ticket.member);
            if request.tried.len() < ATTEMPTS {
                return self.attempt(slot, now);
            }
            return self.done(slot, false, now);
        }
        self.book(slot, outcome == Outcome::Success, now);
        let rest = if stream { self.world.streams.1 } else { 0.0 };
        self.at(now + Duration::from_secs_f64(rest), Event::End(slot));
    }

    fn end(&mut self, slot: usize) {
        let request = &self.requests[slot];
        if let Some(ticket) = request.ticket {
            self.proxies[request.proxy].end(ticket);
        }
        self.free.push(slot);
    }

    fn done(&mut self, slot: usize, good: bool, now: Duration) {
        self.book(slot, good, now);
        self.free.push(slot);
    }

    fn book(&mut self, slot: usize, good: bool, now: Duration) {
        let request = &self.requests[slot];
        let arrived = request.arrived.as_secs_f64();
        if !good {
            self.run.seconds[index(arrived)].1 += 1;
        } else if !request.heavy && arrived >= self.world.from {
            self.run.latencies.push(now.saturating_sub(request.arrived).as_secs_f64());
        }
    }
}

/// What is random about a request.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// Seconds of a worker.
    pub work: f64,
    /// Whether it is a heavy one.
    pub heavy: bool,
    /// Whether its response goes on after its head.
    pub stream: bool,
    /// Decides whether it fails or stalls: uniform from 0 to 1.
    pub luck: f64,
}

/// Draws a request.
pub fn draw(world: &World, random: &mut fastrand::Rng) -> Drawn {
    let heavy = random.f64() < world.heavy.0;
    let normal =
        (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
    let mean = world.service * if heavy { world.heavy.1 } else { 1.0 };
    let (stream, luck) = (random.f64() < world.streams.0, random.f64());
    Drawn { work: mean * (SPREAD * normal - SPREAD * SPREAD / 2.0).exp(), heavy, stream, luck }
}

/// When a member pauses.
fn pauses(world: &World, random: &mut fastrand::Rng) -> Vec<Duration> {
    let mut all = Vec::new();
    let mut at = 0.0;
    while world.pauses > 0.0 && at < world.length {
        at += 1.0 - (1.0 - random.f64()).ln() * world.pauses;
        all.push(Duration::from_secs_f64(at));
    }
    all
}

/// The whole part of a number of seconds.
pub fn index(seconds: f64) -> usize {
    usize::try_from(Duration::from_secs_f64(seconds.max(0.0)).as_secs()).unwrap_or_default()
}
