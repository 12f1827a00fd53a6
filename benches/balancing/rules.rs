//! The rules that are compared: the product's own code, and the peers' from their published
//! formulas. One value is one proxy with its own state; time and seeds are arguments.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gibbon::table::access::Access;
use gibbon::table::balance::{self, Ask, Method, Tried};
use gibbon::table::edit::Edits;
use gibbon::table::load::{Admission, Failure, Load};
use gibbon::table::pages::Pages;
use gibbon::table::path::{HostPattern, Prefix};
use gibbon::table::upstream::UpstreamTls;
use gibbon::table::{
    Authority, Endpoints, Entry, Failover, Host, RouteName, Rule, RuleId, State, Table, Target,
    Timeouts,
};
use http::HeaderValue;

/// Every rule, in the order of the tables.
pub const RULES: [Name; 8] = [
    Name::RoundRobin,
    Name::LeastRequest,
    Name::IngressNginx,
    Name::PeakEwma,
    Name::Agentgateway,
    Name::LeastTime,
    Name::HotCold,
    Name::Gibbon,
];

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// In turn, smoothly by weight, as nginx does it.
    RoundRobin,
    /// The one of two at random with fewer requests under way; where weights differ, earliest
    /// deadline first by `weight / (requests under way + 1)`, as Envoy does it.
    LeastRequest,
    /// ingress-nginx `ewma`: the one of two at random with the less mean response time, which
    /// decays to nothing with a time constant of ten seconds (`balancer/ewma.lua`).
    IngressNginx,
    /// Linkerd and tower `PeakEwma`: the one of two with the less `estimate × (under way + 1)`; a
    /// slower answer is believed at once, a faster one within ten seconds.
    PeakEwma,
    /// agentgateway: the one of two with the greater
    /// `health / (1 + latency × (1 + 0.1 × under way))`.
    Agentgateway,
    /// Traefik `leasttime`: of all, the least `mean of 100 × (under way + 1) / weight`, in whole
    /// milliseconds; requests of sessions are not counted.
    LeastTime,
    /// Prequal's hot-cold rule (NSDI 2024) on what a proxy knows by itself: of those with at most
    /// the 0.84 quantile's requests under way, the least latency at that many; else the fewest.
    HotCold,
    /// `src/table/balance.rs` and `load.rs`.
    Gibbon,
}

impl Name {
    /// As the tables call it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::LeastRequest => "P2C least request",
            Self::IngressNginx => "ingress-nginx ewma",
            Self::PeakEwma => "peak-EWMA P2C",
            Self::Agentgateway => "agentgateway",
            Self::LeastTime => "Traefik leasttime",
            Self::HotCold => "hot-cold",
            Self::Gibbon => "Gibbon",
        }
    }
}

/// How an attempt came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A good answer.
    Success,
    /// A 5xx answer.
    Status,
    /// No connection.
    Refused,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// The member it is at.
    pub member: usize,
    sent: Duration,
    /// Requests under way at the member when it began.
    beside: u32,
    /// Whether the rule takes notice of it.
    counted: bool,
    slot: usize,
}

/// One proxy's rule and state.
pub enum Proxy {
    /// A peer's.
    Peer(Box<Peer>),
    /// The product's.
    Gibbon(Box<Gibbon>),
}

impl Proxy {
    /// A proxy in front of members of these weights, all of which are there.
    pub fn new(name: Name, weights: &[f64], sticky: bool, seed: u64) -> Self {
        if name == Name::Gibbon {
            Self::Gibbon(Box::new(Gibbon::new(weights, seed)))
        } else {
            Self::Peer(Box::new(Peer::new(name, weights, sticky, seed)))
        }
    }

    /// These members are there from now on.
    pub fn members(&mut self, present: &[usize], now: Duration) {
        match self {
            Self::Peer(peer) => peer.members(present, now),
            Self::Gibbon(gibbon) => gibbon.members(present, now),
        }
    }

    /// Begins an attempt at a member that is none of `tried`; at the session's own, if it is there.
    pub fn begin(&mut self, own: Option<usize>, tried: &[usize], now: Duration) -> Option<Ticket> {
        match self {
            Self::Peer(peer) => peer.begin(own, tried, now),
            Self::Gibbon(gibbon) => gibbon.begin(own, tried, now),
        }
    }

    /// The response head has come.
    pub fn head(&mut self, ticket: Ticket, outcome: Outcome, now: Duration) {
        match self {
            Self::Peer(peer) => peer.head(ticket, outcome, now),
            Self::Gibbon(gibbon) => gibbon.head(ticket, outcome, now),
        }
    }

    /// The response has ended.
    pub fn end(&mut self, ticket: Ticket) {
        match self {
            Self::Peer(peer) => peer.end(ticket),
            Self::Gibbon(gibbon) => gibbon.end(ticket),
        }
    }

    /// Whether a member is excluded. Only the product excludes here: the peers' health checks are not
    /// part of their picking rules.
    pub fn excludes(&self, member: usize, now: Duration) -> bool {
        match self {
            Self::Peer(_) => false,
            Self::Gibbon(gibbon) => gibbon.excludes(member, now),
        }
    }
}

/// A peer's rule with its state.
pub struct Peer {
    name: Name,
    sticky: bool,
    weighted: bool,
    present: Vec<usize>,
    seen: Vec<Seen>,
    clock: f64,
    rng: fastrand::Rng,
}

/// What a peer knows of one member.
#[derive(Clone, Debug, Default)]
struct Seen {
    known: bool,
    weight: f64,
    in_flight: u32,
    /// Latency in seconds, and when it was written.
    estimate: f64,
    at: f64,
    health: f64,
    /// When it is next by earliest deadline first.
    deadline: f64,
    /// The last samples, for leasttime in milliseconds.
    last: VecDeque<f64>,
    /// The last samples by requests under way when they began, for hot-cold.
    by_load: Vec<VecDeque<f64>>,
}

impl Peer {
    /// Seconds until a member's past has 1/e of its say, in ingress-nginx and Linkerd.
    const DECAY: f64 = 10.0;
    /// Linkerd's estimate of a member that it has not asked yet.
    const DEFAULT_RTT: f64 = 0.030;
    /// agentgateway's weight of a sample.
    const ALPHA: f64 = 0.3;
    /// Traefik's samples.
    const SAMPLES: usize = 100;
    /// Prequal's quantile, in percent, and how many samples its median is of.
    const HOT: usize = 84;
    const RECENT: usize = 9;

    fn new(name: Name, weights: &[f64], sticky: bool, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let member = |weight: &f64| Seen {
            weight: *weight,
            health: 1.0,
            // Proxies do not begin in step.
            deadline: rng.f64() / weight,
            ..Seen::default()
        };
        let members = weights.iter().map(member).collect();
        let weighted = weights.iter().any(|weight| weight.to_bits() != weights[0].to_bits());
        let present = (0..weights.len()).collect();
        Self { name, sticky, weighted, present, seen: members, clock: 0.0, rng }
    }

    fn members(&mut self, present: &[usize], now: Duration) {
        let before: Vec<f64> = self.present.iter().map(|m| self.seen[*m].estimate).collect();
        let mean = before.iter().sum::<f64>() / before.len().max(1) as f64;
        for member in present.iter().filter(|m| !self.present.contains(m)) {
            let old = &self.seen[*member];
            // ingress-nginx gives a new member the mean of the others; the rest know nothing of it.
            self.seen[*member] = Seen {
                weight: old.weight,
                in_flight: old.in_flight,
                health: 1.0,
                estimate: if self.name == Name::IngressNginx { mean } else { 0.0 },
                at: now.as_secs_f64(),
                deadline: self.clock + 1.0 / old.weight,
                ..Seen::default()
            };
        }
        self.present = present.to_vec();
    }

    fn begin(&mut self, own: Option<usize>, tried: &[usize], now: Duration) -> Option<Ticket> {
        let may = |m: &usize| self.present.contains(m) && !tried.contains(m);
        let own = own.filter(may);
        let left: Vec<usize> = self.present.iter().copied().filter(may).collect();
        let member = match own {
            Some(own) => own,
            None if left.is_empty() => return None,
            None => self.choose(&left, now.as_secs_f64()),
        };
        let counted = own.is_none() || self.name != Name::LeastTime;
        let beside = self.seen[member].in_flight;
        self.seen[member].in_flight += u32::from(counted);
        Some(Ticket { member, sent: now, beside, counted, slot: 0 })
    }

    fn choose(&mut self, of: &[usize], now: f64) -> usize {
        match self.name {
            Name::LeastRequest if self.weighted => self.by_deadline(of, true),
            // With sessions ingress-nginx does not use its `ewma` but a hash.
            Name::IngressNginx if self.sticky => of[self.rng.usize(..of.len())],
            Name::RoundRobin => self.by_deadline(of, false),
            Name::LeastTime => {
                let score = |m: &usize| {
                    let seen = &self.seen[*m];
                    let mean = seen.last.iter().sum::<f64>() / seen.last.len().max(1) as f64;
                    mean * f64::from(1 + seen.in_flight) / seen.weight
                };
                let least = of.iter().map(score).fold(f64::INFINITY, f64::min);
                let equal: Vec<usize> = of.iter().copied().filter(|m| score(m) <= least).collect();
                if equal.len() == 1 { equal[0] } else { self.by_deadline(&equal, false) }
            }
            Name::HotCold => self.hot_cold(of),
            _ => {
                let first = self.rng.usize(..of.len());
                let other = (first + 1 + self.rng.usize(..of.len().max(2) - 1)) % of.len();
                let (a, b) = (of[first], of[other]);
                if self.cost(b, now) < self.cost(a, now) { b } else { a }
            }
        }
    }

    /// What the choice of two compares.
    fn cost(&self, member: usize, now: f64) -> f64 {
        let seen = &self.seen[member];
        let decayed = seen.estimate * (-(now - seen.at).max(0.0) / Self::DECAY).exp();
        let busy = f64::from(seen.in_flight);
        match self.name {
            Name::IngressNginx => decayed,
            Name::PeakEwma if !seen.known => Self::DEFAULT_RTT * (busy + 1.0),
            Name::PeakEwma => decayed * (busy + 1.0),
            Name::Agentgateway => -seen.health / (1.0 + seen.estimate * (1.0 + busy * 0.1)),
            _ => busy,
        }
    }

    fn by_deadline(&mut self, of: &[usize], by_load: bool) -> usize {
        let deadline = |m: &&usize| self.seen[**m].deadline;
        let first = of.iter().min_by(|a, b| deadline(a).total_cmp(&deadline(b)));
        let member = first.copied().unwrap_or(of[0]);
        let seen = &mut self.seen[member];
        self.clock = self.clock.max(seen.deadline);
        let busy = if by_load { f64::from(seen.in_flight + 1) } else { 1.0 };
        seen.deadline = self.clock + busy / seen.weight;
        member
    }

    fn hot_cold(&mut self, of: &[usize]) -> usize {
        let mut loads: Vec<u32> = of.iter().map(|m| self.seen[*m].in_flight).collect();
        loads.sort_unstable();
        let limit = loads[(of.len() * Self::HOT / 100).min(of.len() - 1)];
        let cost = |m: &usize| {
            let seen = &self.seen[*m];
            if seen.in_flight > limit { f64::INFINITY } else { seen.latency_at_load() }
        };
        let least = of.iter().map(cost).fold(f64::INFINITY, f64::min);
        let equal: Vec<usize> = of.iter().copied().filter(|m| cost(m) <= least).collect();
        equal[self.rng.usize(..equal.len())]
    }

    fn head(&mut self, ticket: Ticket, outcome: Outcome, now: Duration) {
        if !ticket.counted {
            return;
        }
        let rtt = now.saturating_sub(ticket.sent).as_secs_f64();
        let now = now.as_secs_f64();
        let seen = &mut self.seen[ticket.member];
        let past = (-(now - seen.at).max(0.0) / Self::DECAY).exp();
        match self.name {
            Name::IngressNginx => {
                seen.estimate = seen.estimate * past + rtt * (1.0 - past);
                seen.at = now;
            }
            Name::PeakEwma => {
                let before = if seen.known { seen.estimate } else { Self::DEFAULT_RTT };
                let peak = rtt > before * past;
                seen.estimate = if peak { rtt } else { before * past + rtt * (1.0 - past) };
                seen.at = now;
            }
            Name::Agentgateway => {
                let good = outcome == Outcome::Success;
                let mix = |old: f64, new: f64| Self::ALPHA * new + (1.0 - Self::ALPHA) * old;
                seen.health = mix(seen.health, f64::from(u8::from(good)));
                if good {
                    seen.estimate = if seen.known { mix(seen.estimate, rtt) } else { rtt };
                }
            }
            Name::LeastTime => {
                seen.last.push_back((rtt * 1000.0).floor());
                if seen.last.len() > Self::SAMPLES {
                    seen.last.pop_front();
                }
            }
            Name::HotCold => seen.learn_at_load(ticket.beside, rtt, Self::RECENT),
            Name::RoundRobin | Name::LeastRequest | Name::Gibbon => {}
        }
        seen.known |= outcome == Outcome::Success || self.name != Name::Agentgateway;
        if self.name == Name::PeakEwma {
            // Linkerd's handle ends with the response head.
            seen.in_flight -= 1;
        }
    }

    fn end(&mut self, ticket: Ticket) {
        if ticket.counted && self.name != Name::PeakEwma {
            self.seen[ticket.member].in_flight -= 1;
        }
    }
}

impl Seen {
    fn learn_at_load(&mut self, beside: u32, rtt: f64, keep: usize) {
        let at = usize::try_from(beside).unwrap_or_default().min(255);
        if self.by_load.len() <= at {
            self.by_load.resize(at + 1, VecDeque::new());
        }
        let samples = &mut self.by_load[at];
        samples.push_back(rtt);
        if samples.len() > keep {
            samples.pop_front();
        }
    }

    /// The median latency with as many requests under way as now, or nearly as many.
    fn latency_at_load(&self) -> f64 {
        let now = usize::try_from(self.in_flight).unwrap_or_default();
        let known = self.by_load.iter().enumerate().filter(|(_, samples)| !samples.is_empty());
        let Some((_, samples)) = known.min_by_key(|(load, _)| load.abs_diff(now)) else {
            return 0.0;
        };
        let mut sorted: Vec<f64> = samples.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// The product, with its table, rule and loads.
pub struct Gibbon {
    start: Instant,
    weights: Vec<f64>,
    table: Table,
    present: Vec<usize>,
    /// Every load there ever was, and the place of each member's own.
    loads: Vec<Arc<Load>>,
    slots: Vec<usize>,
    rng: fastrand::Rng,
}

impl Gibbon {
    const FIRST_EXCLUSION: Duration = Duration::from_secs(5);

    fn new(weights: &[f64], seed: u64) -> Self {
        let mut gibbon = Self {
            start: Instant::now(),
            weights: weights.to_vec(),
            table: Table::default(),
            present: Vec::new(),
            loads: Vec::new(),
            slots: vec![0; weights.len()],
            rng: fastrand::Rng::with_seed(seed),
        };
        gibbon.members(&(0..weights.len()).collect::<Vec<_>>(), Duration::ZERO);
        gibbon
    }

    fn members(&mut self, present: &[usize], now: Duration) {
        let rule = rule(present.iter().map(|m| (*m, self.weights[*m])));
        let endpoints = Endpoints::default();
        let now = self.start + now;
        self.table = Table::build(&[Arc::new(rule)], &endpoints, None, &self.table, now);
        self.present = present.to_vec();
        for (member, at) in self.table.routes[0].members.iter().zip(present) {
            let known = self.loads.iter().position(|load| load.id() == member.load.id());
            self.slots[*at] = known.unwrap_or_else(|| {
                self.loads.push(Arc::clone(&member.load));
                self.loads.len() - 1
            });
        }
    }

    fn begin(&mut self, own: Option<usize>, tried: &[usize], now: Duration) -> Option<Ticket> {
        let route = &self.table.routes[0];
        let index = |member: usize| self.present.iter().position(|m| *m == member);
        let wanted: Vec<usize> = own.and_then(index).into_iter().collect();
        let mut been = Tried::default();
        tried.iter().filter_map(|m| index(*m)).for_each(|m| been.add(m));
        let ask = Ask {
            wanted: &wanted,
            tried: &been,
            idempotent: true,
            tunnel: false,
            now: self.start + now,
        };
        let pick = balance::pick(route, &ask, &mut self.rng).ok()?;
        let load = &route.members[pick.member].load;
        let beside = load.in_flight();
        load.begin();
        let member = self.present[pick.member];
        Some(Ticket { member, sent: now, beside, counted: true, slot: self.slots[member] })
    }

    fn head(&mut self, ticket: Ticket, outcome: Outcome, now: Duration) {
        let (sent, at) = (self.start + ticket.sent, self.start + now);
        let load = &self.loads[ticket.slot];
        load.begin_body();
        let failure = match outcome {
            Outcome::Success => return load.succeeded(sent, now.saturating_sub(ticket.sent), at),
            Outcome::Status => Failure::Status,
            Outcome::Refused => Failure::Refused,
        };
        load.failed(failure, sent, Self::FIRST_EXCLUSION, at);
    }

    fn end(&self, ticket: Ticket) {
        self.loads[ticket.slot].end_body();
        self.loads[ticket.slot].end();
    }

    fn excludes(&self, member: usize, now: Duration) -> bool {
        let load = &self.loads[self.slots[member]];
        load.admission(self.start + now) != Admission::Usable
    }
}

/// A rule with the defaults that a Balancer has.
fn rule(members: impl Iterator<Item = (usize, f64)>) -> Rule {
    let entries = members.map(|(number, weight)| Entry {
        name: format!("m{number}").into(),
        target: Target::Url(Authority {
            host: Host::Address(address(number)),
            port: 80,
            tls: None,
        }),
        path: "/".into(),
        protocol: None,
        preserve_host: false,
        host: HeaderValue::from_static("member"),
        route: RouteName::None,
        weight,
        share: None,
        max_in_flight: None,
        tier: 0,
        failover_route: None,
        state: State::Active,
    });
    Rule {
        id: RuleId { namespace: "site".into(), name: "app".into() },
        created: None,
        hosts: vec![HostPattern::Any],
        prefix: Prefix::parse("/").expect("a prefix"),
        redirect: None,
        refuse: None,
        entries: entries.collect(),
        method: Method::Latency,
        slow_start: Duration::from_secs(10),
        queue_for: Duration::from_secs(1),
        sticky: None,
        health: None,
        failover: Failover {
            attempts: 3,
            statuses: Vec::new(),
            grpc_statuses: Vec::new(),
            exclude_for: Gibbon::FIRST_EXCLUSION,
            retry_percent: 20,
            excluded_percent: 50,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            response: Duration::from_secs(60),
            messages: Duration::from_secs(3600),
            request: None,
            idle: Duration::from_secs(3600),
        },
        body_limit: None,
        reverse: None,
        request_headers: Edits::default(),
        response_headers: Edits::default(),
        pages: Pages::default(),
        access: Access::default(),
        tls: None,
        upstream_tls: UpstreamTls::default(),
    }
}

fn address(number: usize) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 80)).ip()
}
