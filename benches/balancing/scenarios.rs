//! The scenarios, and the bars that the product is held to in each.

use super::model::{Member, Run, Span, World, index, run};
use super::rules::Name;

/// How near the best rule's figure the product's must be.
const NEAR: f64 = 1.05;
/// Errors that are allowed with one failing member, after its first second.
const ERRORS: f64 = 0.01;
/// The least part of its fair share that a healthy member gets.
const STARVED: f64 = 0.02;
/// How soon after its exclusion a member has half its fair share, in seconds.
const BACK: f64 = 10.0;

/// One scenario.
pub struct Scenario {
    /// File name of its picture.
    pub id: &'static str,
    /// What happens.
    pub title: &'static str,
    /// The world.
    pub world: World,
    /// What is looked at besides latency and errors.
    pub look: Look,
}

/// What a scenario is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    /// Latency and errors alone.
    Latency,
    /// The share of the first member, which is another than the rest all the time.
    Share,
    /// The first member fails from this second on.
    Failing(f64),
    /// The first member is well again from this second on.
    Recovers(f64),
    /// The first member joins, or joins again, at this second.
    Joins(f64),
    /// The first member's exclusion ends.
    Returns,
}

/// What a rule made of a scenario, over all seeds.
#[derive(Clone, Debug)]
pub struct Result {
    /// The rule.
    pub name: Name,
    /// Latency of light requests in milliseconds: median and 99th percentile.
    pub p50: f64,
    /// See `p50`.
    pub p99: f64,
    /// Share of requests that failed, after the first second of a failure.
    pub errors: f64,
    /// The least share that a healthy member got, in parts of its fair share.
    pub least: f64,
    /// Per second, the first member's share in parts of its fair share; the mean of all seeds.
    pub first: Vec<f64>,
    /// What the scenario looks at: a share or a time in seconds.
    pub figure: Option<f64>,
}

/// A bar, and whether it is met.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it is about.
    pub what: &'static str,
    /// The product's figure.
    pub have: f64,
    /// The limit.
    pub limit: f64,
    /// Whether less is better.
    pub most: bool,
    /// The best rule, where the limit is taken from one.
    pub best: Option<Name>,
}

impl Bar {
    /// Whether the figure is within the limit.
    pub fn met(&self) -> bool {
        // Figures are compared as they are printed.
        let slack = 0.0005 * self.limit.abs() + 1e-9;
        if self.most { self.have <= self.limit + slack } else { self.have >= self.limit - slack }
    }
}

fn member(workers: usize, weight: f64) -> Member {
    Member {
        workers,
        weight,
        slower: Vec::new(),
        stalls: (0.0, 0.0),
        fails: Vec::new(),
        refuses: Vec::new(),
        away: Vec::new(),
    }
}

const ALWAYS: Span = (0.0, f64::INFINITY);

/// Alike members with four workers, two proxies, and as many requests as make this load.
fn alike(members: usize, load: f64) -> World {
    let service = 0.020;
    World {
        members: vec![member(4, 1.0); members],
        service,
        rate: members as f64 * 4.0 / service * load,
        burst: 1.0,
        heavy: (0.0, 1.0),
        streams: (0.0, 0.0),
        sticky: 0.0,
        pauses: 0.0,
        proxies: 2,
        length: 45.0,
        from: 5.0,
    }
}

/// The same where something happens to the first member.
fn first(mut world: World, change: impl Fn(&mut Member)) -> World {
    change(&mut world.members[0]);
    world
}

fn scenario(id: &'static str, title: &'static str, look: Look, world: World) -> Scenario {
    Scenario { id, title, world, look }
}

/// All scenarios.
pub fn all() -> Vec<Scenario> {
    let mut all = steady();
    all.extend(failing());
    all.extend(changing());
    all.extend(mixed());
    all
}

fn steady() -> Vec<Scenario> {
    let slow = |world| first(world, |m| m.slower = vec![(ALWAYS, 5.0)]);
    let mut classes = alike(10, 0.7);
    classes.members.iter_mut().skip(5).for_each(|m| m.slower = vec![(ALWAYS, 4.0)]);
    classes.rate = 5.0 * (200.0 + 50.0) * 0.7;
    let mut lone = alike(10, 0.0);
    lone.members.iter_mut().skip(1).for_each(|m| m.slower = vec![(ALWAYS, 4.0)]);
    lone.rate = (200.0 + 9.0 * 50.0) * 0.7;
    let mut weights = alike(3, 0.0);
    weights.members = vec![member(2, 1.0), member(4, 2.0), member(8, 4.0)];
    weights.rate = 14.0 / 0.020 * 0.7;
    let rare = World { rate: 1.0, length: 3000.0, from: 100.0, proxies: 1, ..alike(3, 0.0) };
    vec![
        scenario("alike-30", "all alike, 30 % load", Look::Latency, alike(10, 0.3)),
        scenario("alike-70", "all alike, 70 % load", Look::Latency, alike(10, 0.7)),
        scenario("alike-90", "all alike, 90 % load", Look::Latency, alike(10, 0.9)),
        scenario("slow", "one of 10 is 5× slow", Look::Share, slow(alike(10, 0.7))),
        scenario("slow-3", "one of 3 is 5× slow", Look::Share, slow(alike(3, 0.5))),
        scenario("classes", "5 members, and 5 that are 4× slow", Look::Latency, classes),
        scenario("lone", "one member, and 9 that are 4× slow", Look::Latency, lone),
        scenario(
            "many",
            "all alike, 100 members",
            Look::Latency,
            World { length: 15.0, ..alike(100, 0.7) },
        ),
        scenario("weights", "weights 1:2:4, and as many workers", Look::Latency, weights),
        scenario("rare", "3 members, one 5× slow, 1 request a second", Look::Share, slow(rare)),
    ]
}

fn failing() -> Vec<Scenario> {
    let fails = |members, load, part| {
        let world = World { length: 40.0, ..alike(members, load) };
        first(world, |m| m.fails = vec![((10.0, f64::INFINITY), part)])
    };
    let look = Look::Failing(10.0);
    let mut now_and_then = alike(10, 0.7);
    now_and_then.members.iter_mut().for_each(|m| m.fails = vec![(ALWAYS, 0.02)]);
    vec![
        scenario("fails-10", "one of 10 fails in 1 ms", look, fails(10, 0.6, 1.0)),
        scenario("fails-3", "one of 3 fails in 1 ms", look, fails(3, 0.4, 1.0)),
        scenario("fails-2", "one of 2 fails in 1 ms", look, fails(2, 0.3, 1.0)),
        scenario("half", "one of 10 fails half of the time", look, fails(10, 0.6, 0.5)),
        scenario("now-and-then", "2 % of all requests fail", Look::Latency, now_and_then),
    ]
}

fn changing() -> Vec<Scenario> {
    let world = || World { length: 70.0, ..alike(10, 0.6) };
    let slow = first(world(), |m| m.slower = vec![((10.0, 30.0), 5.0)]);
    let cold = first(world(), |m| {
        m.away = vec![(0.0, 10.0)];
        m.slower = vec![((10.0, 18.0), 8.0)];
    });
    let gone = first(world(), |m| m.away = vec![(10.0, 30.0)]);
    let down = |members, load| {
        let world = World { length: 100.0, ..alike(members, load) };
        first(world, |m| m.refuses = vec![(10.0, 35.0)])
    };
    vec![
        scenario("recovers", "one of 10 is 5× slow for 20 s", Look::Recovers(30.0), slow),
        scenario("cold", "a new one of 10 is 8× slow for 8 s", Look::Joins(10.0), cold),
        scenario("gone", "one of 10 is removed for 20 s", Look::Joins(30.0), gone),
        scenario("down", "one of 10 refuses for 25 s", Look::Returns, down(10, 0.6)),
        scenario("down-2", "one of 2 refuses for 25 s", Look::Returns, down(2, 0.3)),
    ]
}

fn mixed() -> Vec<Scenario> {
    let base = || alike(10, 0.7);
    let heavy = World { heavy: (0.04, 25.0), rate: base().rate / 1.96, ..base() };
    let slow = |proxies| {
        let world = World { proxies, ..base() };
        first(world, |m| m.slower = vec![(ALWAYS, 5.0)])
    };
    let bursts = World { burst: 3.0, rate: base().rate * 0.6 / 0.7, ..base() };
    let pauses = World { pauses: 20.0, length: 85.0, rate: base().rate * 0.5 / 0.7, ..base() };
    let stalls = first(alike(3, 0.5), |m| m.stalls = (0.05, 1.0));
    let streams = World { streams: (0.05, 10.0), ..base() };
    let sticky = first(World { sticky: 0.8, ..alike(10, 0.5) }, |m| m.slower = vec![(ALWAYS, 2.0)]);
    vec![
        scenario("heavy", "4 % of the requests are 25× heavy", Look::Latency, heavy),
        scenario("sticky", "80 % sticky, one is 2× slow", Look::Share, sticky),
        scenario("proxies-1", "one of 10 is 5× slow, 1 proxy", Look::Share, slow(1)),
        scenario("proxies-10", "one of 10 is 5× slow, 10 proxies", Look::Share, slow(10)),
        scenario(
            "alike-10",
            "all alike, 10 proxies",
            Look::Latency,
            World { proxies: 10, ..base() },
        ),
        scenario("bursts", "bursts: 3× for 0.2 s of 2 s", Look::Latency, bursts),
        scenario("pauses", "each pauses for 1 s, every 21 s", Look::Latency, pauses),
        scenario("stalls", "one of 3 stalls for 1 s, 1 in 20 times", Look::Share, stalls),
        scenario("streams", "5 % of the responses last 10 s", Look::Latency, streams),
    ]
}

/// Runs a scenario under one rule.
pub fn result(scenario: &Scenario, name: Name, seeds: u64) -> Result {
    let runs: Vec<Run> = (1..=seeds).map(|seed| run(&scenario.world, name, seed)).collect();
    let mut latencies: Vec<f64> = runs.iter().flat_map(|run| run.latencies.clone()).collect();
    latencies.sort_by(f64::total_cmp);
    let world = &scenario.world;
    let after = match scenario.look {
        Look::Failing(at) => at + 1.0,
        _ => world.from,
    };
    let seconds = || runs.iter().flat_map(|run| run.seconds.iter().skip(index(after)));
    let (asked, failed) = seconds().fold((0, 0), |(a, f), (asked, failed)| (a + asked, f + failed));
    let healthy = (0..world.members.len()).filter(|m| world.members[*m].healthy());
    let least = healthy.map(|m| {
        let parts = runs.iter().map(|run| part(world, run, m, world.from, world.length));
        parts.fold(f64::INFINITY, f64::min)
    });
    let parts =
        |run| (0..index(world.length)).map(move |s| part(world, run, 0, s as f64, s as f64 + 1.0));
    let mut curve = vec![0.0; index(world.length)];
    for run in &runs {
        curve.iter_mut().zip(parts(run)).for_each(|(sum, part)| *sum += part / runs.len() as f64);
    }
    Result {
        name,
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        errors: f64::from(failed) / f64::from(asked.max(1)),
        least: least.fold(f64::INFINITY, f64::min),
        figure: figure(scenario, &runs),
        first: curve,
    }
}

/// The scenario's own figure: the worst of all seeds.
fn figure(scenario: &Scenario, runs: &[Run]) -> Option<f64> {
    let world = &scenario.world;
    let worst = |figures: &mut dyn Iterator<Item = f64>| figures.fold(0.0, f64::max);
    let mean = |from, to| {
        runs.iter().map(|run| part(world, run, 0, from, to)).sum::<f64>() / runs.len() as f64
    };
    match scenario.look {
        Look::Latency => None,
        Look::Share => Some(mean(world.from, world.length)),
        Look::Failing(at) => Some(mean(at + 1.0, world.length)),
        Look::Joins(at) => Some(mean(at, at + 1.0)),
        Look::Recovers(at) => Some(worst(&mut runs.iter().map(|run| back(world, run, at)))),
        Look::Returns => {
            let ends = |run: &Run| run.excluded[0].max(world.members[0].refuses[0].1).ceil();
            Some(worst(&mut runs.iter().map(|run| back(world, run, ends(run)))))
        }
    }
}

/// Seconds from a time until the first member has half its fair share.
fn back(world: &World, run: &Run, at: f64) -> f64 {
    let ends = (index(at)..index(world.length)).map(|second| second as f64);
    let found = ends.clone().find(|second| part(world, run, 0, *second, second + 1.0) >= 0.5);
    found.map_or(f64::INFINITY, |second| second - at)
}

/// What a member got between two times, in parts of its fair share.
fn part(world: &World, run: &Run, member: usize, from: f64, to: f64) -> f64 {
    let got = |m: usize| f64::from(run.served[m][index(from)..index(to)].iter().sum::<u32>());
    let all: f64 = (0..world.members.len()).map(got).sum();
    let weight: f64 = world.members.iter().map(|m| m.weight).sum();
    got(member) / all.max(1.0) * weight / world.members[member].weight
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(f64::INFINITY, |latency| latency * 1000.0)
}

/// The bars of a scenario.
pub fn bars(scenario: &Scenario, results: &[Result]) -> Vec<Bar> {
    let Some(own) = results.iter().find(|result| result.name == Name::Gibbon) else {
        return Vec::new();
    };
    let near = |what, of: &dyn Fn(&Result) -> f64| {
        let best = results.iter().min_by(|a, b| of(a).total_cmp(&of(b)));
        let limit = best.map_or(0.0, of) * NEAR;
        Bar { what, have: of(own), limit, most: true, best: best.map(|best| best.name) }
    };
    let most = |what, have, limit| Bar { what, have, limit, most: true, best: None };
    let least = |what, have, limit| Bar { what, have, limit, most: false, best: None };
    let mut bars = vec![
        near("p50", &|result| result.p50),
        near("p99", &|result| result.p99),
        near("errors", &|result| result.errors),
        least("least share", own.least, STARVED),
    ];
    let figure = own.figure.unwrap_or_default();
    match scenario.look {
        Look::Failing(_) if scenario.id != "half" => {
            bars.push(most("errors after 1 s", own.errors, ERRORS));
        }
        Look::Joins(_) => {
            bars.push(most("share in the first second", figure, 1.0));
            bars.push(least("share in the first second", figure, 0.001));
        }
        Look::Returns => bars.push(most("seconds to half its share", figure, BACK)),
        Look::Latency | Look::Share | Look::Failing(_) | Look::Recovers(_) => {}
    }
    bars
}
