//! A reduced laboratory: the bars of `docs/balancing.md` that the picking rule meets, on its own
//! code in virtual time.

#![allow(dead_code)] // The report of the laboratory uses the rest.

#[path = "../benches/balancing/model.rs"]
mod model;
#[path = "../benches/balancing/rules.rs"]
mod rules;
#[path = "../benches/balancing/scenarios.rs"]
mod scenarios;

use rules::Name;
use scenarios::{Bar, Look, Result, Scenario, bars, result};

fn scenario(id: &str) -> Scenario {
    scenarios::all().into_iter().find(|scenario| scenario.id == id).expect("a scenario")
}

/// Without optimisation there is time for a part of each: so many seconds of what it is about.
fn shortened(mut scenario: Scenario, seconds: f64) -> Scenario {
    match scenario.look {
        Look::Latency | Look::Share if scenario.world.rate > 10.0 => {
            scenario.world.length = seconds;
        }
        Look::Failing(at) | Look::Joins(at) | Look::Recovers(at) => {
            scenario.world.length = at + seconds;
        }
        Look::Latency | Look::Share | Look::Returns => {}
    }
    scenario
}

/// One seed and a part of the time leave so much to chance.
fn is_near(bar: &Bar) -> bool {
    let near = if bar.most { bar.have <= bar.limit * 1.03 } else { bar.have >= bar.limit * 0.97 };
    bar.met() || near
}

fn own(scenario: &Scenario) -> Result {
    result(scenario, Name::Gibbon, 1)
}

/// Holds all bars of a scenario, where this peer's rule is the best that others have.
fn hold(id: &str, best: Name) {
    let scenario = shortened(scenario(id), 15.0);
    let results = [best, Name::Gibbon].map(|name| result(&scenario, name, 1));
    for bar in bars(&scenario, &results) {
        assert!(is_near(&bar), "{id}: {bar:?}");
    }
}

// Those bars that are met with a margin, in tests that run side by side.

#[test]
fn where_nothing_changes_it_is_within_5_percent_of_the_best_rule() {
    for id in ["alike-30", "alike-70", "slow", "weights", "alike-10"] {
        hold(id, Name::LeastTime);
    }
}

#[test]
fn where_members_fail_it_is_within_5_percent_of_the_best_rule() {
    for id in ["fails-3", "fails-10", "down-2"] {
        hold(id, Name::RoundRobin);
    }
    hold("now-and-then", Name::LeastTime);
}

#[test]
fn where_members_come_and_go_it_is_within_5_percent_of_the_best_rule() {
    for id in ["recovers", "cold"] {
        hold(id, Name::LeastTime);
    }
}

#[test]
fn where_requests_differ_it_is_within_5_percent_of_the_best_rule() {
    for id in ["heavy", "pauses", "streams"] {
        hold(id, Name::LeastTime);
    }
    hold("sticky", Name::HotCold);
    hold("bursts", Name::LeastRequest);
}

#[test]
fn no_scenario_misses_a_bar_that_is_not_relative() {
    // These are long, and the others say as much.
    let long = ["many", "alike-30", "alike-90", "proxies-1", "bursts"];
    for scenario in scenarios::all().into_iter().filter(|scenario| !long.contains(&scenario.id)) {
        // Less is too short for ten proxies, at each of which a slow member may be behind by four.
        let scenario = shortened(scenario, 25.0);
        // Alone it is its own best.
        for bar in bars(&scenario, &[own(&scenario)]) {
            assert!(is_near(&bar), "{}: {bar:?}", scenario.id);
        }
    }
}

#[test]
fn a_run_repeats_itself() {
    let scenario = scenario("fails-3");
    let (one, two) = (own(&scenario), own(&scenario));
    assert_eq!((one.p50.to_bits(), one.p99.to_bits()), (two.p50.to_bits(), two.p99.to_bits()));
}
