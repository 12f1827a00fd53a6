//! The laboratory: the product's picking rule against every peer's, in virtual time.
//!
//! `cargo bench --bench balancing` writes `docs/balancing.md` and its pictures. With `SCENARIO=heavy,slow`
//! it prints only those. With `-- live` it plays some with real proxies, and writes that section;
//! with `ROUNDS=3` each of them so many times.

mod live;
mod model;
#[path = "../peers/proxies.rs"]
#[allow(dead_code)]
mod peers;
mod report;
mod rules;
mod scenarios;

/// Runs of each rule in each scenario, with a seed each.
const SEEDS: u64 = 3;

fn main() {
    // `cargo test --all-targets` runs benches too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let only = std::env::var("SCENARIO").ok();
    let chosen = |id: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == id));
    if std::env::args().any(|argument| argument == "live") {
        let rounds =
            std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().expect("ROUNDS is a number"));
        let section = live::play(chosen, rounds).expect("the proxies can be played");
        println!("{section}");
        if only.is_none() {
            report::write_live(&section).expect("docs can be written");
        }
        return;
    }
    let scenarios = scenarios::all();
    let mut played = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| chosen(scenario.id)) {
        let results = rules::RULES.map(|name| scenarios::result(scenario, name, SEEDS));
        let bars = scenarios::bars(scenario, &results);
        println!("{}", report::table(scenario, &results, &bars));
        played.push((scenario, results.to_vec(), bars));
    }
    if only.is_none() {
        report::write(&played).expect("docs can be written");
    }
}
