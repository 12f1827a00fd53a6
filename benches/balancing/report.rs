//! The results as text and pictures.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::rules::{Name, RULES};
use super::scenarios::{Bar, Look, Result, Scenario};

/// A scenario with what came of it.
pub type Played<'s> = (&'s Scenario, Vec<Result>, Vec<Bar>);

const INTRODUCTION: &str = "\
# Balancing: Gibbon's rule and its peers' in a laboratory

<!-- Written by `cargo bench --bench balancing`. -->

`cargo bench --bench balancing` writes this page. It runs the code that Gibbon picks members with (`src/table/balance.rs`,
`load.rs`) and seven other rules in virtual time: the same requests, from the same three seeds, to the same members. Each member
has workers and a queue; service times are lognormal, 20 ms on average. Unless a scenario says otherwise there are ten members
with four workers each, two proxies that know nothing of each other, and 70 % load (60 % and less where a member is missing).

The peers' rules are written from their published formulas (`benches/balancing/rules.rs`), without health checks: only the picking is compared.
Hot-cold is Prequal's rule on what a proxy knows by itself; Prequal's members also tell. Failed requests are not sent again; refused
connections are, by all rules.

The bars: p50, p99 and errors of the (light) requests that went well within 5 % of the best rule *for that figure*; at most 1 % errors with one
failing member, after a second; half its fair share within 10 s of the end of an exclusion; in its first second a new member gets something,
and no more than its fair share; no healthy member gets less than 2 % of its fair share. Rules that starve members are often the best in one
column, so some bars cannot be met together.
";

/// Why a bar is missed, by scenario.
const CAUSES: [(&str, &str); 10] = [
    (
        "slow-3",
        "1/40 of a third of the requests is 0.8 % at the slow member: the 99th percentile is that of the fast ones only for rules that starve it.",
    ),
    (
        "classes",
        "1/40 of five members' fair share is over 1 %, so the 99th percentile is a request at a slow member. The best rule gives those nothing.",
    ),
    (
        "lone",
        "The median lies between the fast member's answers and the slow ones'. Speed to the fourth power loads the fast member more than is good for the median; the second power meets this bar and misses p99 of `slow`, `slow-3`, `classes`, `sticky` and `proxies-10`.",
    ),
    (
        "rare",
        "With a request a second the slow member gets 1 in 60 requests, to find out if it is well. Rules that meet the bar never ask it again.",
    ),
    (
        "fails-10",
        "agentgateway has no errors because it never asks a member again that failed. The rest of the errors here are the requests that find out.",
    ),
    ("fails-3", "As in `fails-10`."),
    (
        "fails-2",
        "As in `fails-10`; and the well member serves twice the requests, where rules that send half of them into errors leave it idle.",
    ),
    ("half", "As in `fails-10`."),
    (
        "now-and-then",
        "Who had more of the failures lately than others gets less, and the rest gets more than is good: with failures of up to 3 % borne instead of 2 % it is 59.2 ms, but a shorter run is worse with that.",
    ),
    (
        "proxies-10",
        "Each proxy asks the slow member 1/40 of its fair share, and each sees only a tenth of what is under way.",
    ),
];

/// A scenario's results as a table, and its bars.
pub fn table(scenario: &Scenario, results: &[Result], bars: &[Bar]) -> String {
    let mut text = String::new();
    let figure = heading(scenario.look);
    let more = figure.map_or(String::new(), |f| format!(" {f} |"));
    let _ = writeln!(text, "| {} | p50 ms | p99 ms | errors | least share |{more}", scenario.title);
    let _ = writeln!(text, "|---|--:|--:|--:|--:|{}", if figure.is_some() { "--:|" } else { "" });
    for result in results {
        let _ = write!(
            text,
            "| {} | {:.1} | {:.1} | {:.2} % | {} |",
            result.name.label(),
            result.p50,
            result.p99,
            result.errors * 100.0,
            number(result.least)
        );
        if let Some(figure) = result.figure {
            let _ = write!(text, " {} |", number(figure));
        }
        text.push('\n');
    }
    text.push('\n');
    for bar in bars {
        let _ = writeln!(text, "* {}", verdict(bar));
    }
    text
}

fn verdict(bar: &Bar) -> String {
    let sign = if bar.most { "≤" } else { "≥" };
    let best = bar.best.map_or(String::new(), |best| format!(" (best: {})", best.label()));
    let (have, limit) = (number(bar.have), number(bar.limit));
    let met = match (bar.met(), bar.limit > 0.0) {
        (true, _) => "met".to_owned(),
        (false, true) => {
            format!("**missed** by {:.1} %", (bar.have / bar.limit - 1.0).abs() * 100.0)
        }
        (false, false) => "**missed**".to_owned(),
    };
    format!("{}: {have} {sign} {limit}{best}: {met}", bar.what)
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        "–".to_owned()
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn heading(look: Look) -> Option<&'static str> {
    match look {
        Look::Latency => None,
        Look::Share => Some("its share"),
        Look::Failing(_) => Some("its share after 1 s"),
        Look::Recovers(_) | Look::Returns => Some("s to half its share"),
        Look::Joins(_) => Some("its share in the first second"),
    }
}

/// Writes the document and the pictures.
///
/// # Errors
/// When a file cannot be written.
pub fn write(played: &[Played<'_>]) -> std::io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    fs::create_dir_all(docs.join("balancing"))?;
    let mut text = format!("{INTRODUCTION}\n## 99th percentile, in ms\n\n");
    text += &summary(played, 1, |result| result.p99);
    text += "\n## Median, in ms\n\n";
    text += &summary(played, 1, |result| result.p50);
    text += "\n## Errors, in %, where there are any\n\n";
    text += &summary(played, 2, |result| result.errors * 100.0);
    text += "\n## Bars missed\n\n";
    text += &missed(played);
    let before = fs::read_to_string(docs.join("balancing.md")).unwrap_or_default();
    let _ = write!(text, "\n{LIVE}{}\n", live_of(&before));
    text += "\n## The scenarios\n\nShares are in parts of the fair share. The curve is the first member's.\n";
    for (scenario, results, bars) in played {
        let _ = writeln!(text, "\n### {}: {}\n", scenario.id, scenario.title);
        let _ = writeln!(text, "![{}](balancing/{}.svg)\n", scenario.title, scenario.id);
        text += &table(scenario, results, bars);
        let picture = docs.join("balancing").join(format!("{}.svg", scenario.id));
        fs::write(picture, draw(scenario, results))?;
    }
    fs::write(docs.join("balancing.md"), text)
}

/// Where the live section begins; it ends where the scenarios do.
const LIVE: &str = "<!-- Written by `cargo bench --bench balancing -- live`. -->\n";
const SCENARIOS: &str = "\n## The scenarios";

/// The live section of a document, which has one from the first time on that it was played.
fn live_of(document: &str) -> &str {
    let section = document.split_once(LIVE).map_or("", |(_, rest)| rest);
    section.split_once(SCENARIOS).map_or("", |(section, _)| section).trim_end()
}

/// Puts a new live section in the document.
///
/// # Errors
/// When the document cannot be written, or was never written as a whole.
pub fn write_live(section: &str) -> std::io::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/balancing.md");
    let document = fs::read_to_string(&file)?;
    let (before, after) = document.split_once(SCENARIOS).ok_or(std::io::ErrorKind::InvalidData)?;
    let before = before.split_once(LIVE).map_or(before, |(before, _)| before).trim_end();
    fs::write(file, format!("{before}\n\n{LIVE}{}\n{SCENARIOS}{after}", section.trim_end()))
}

/// One figure of all scenarios and rules, and Gibbon's place.
fn summary(played: &[Played<'_>], digits: usize, of: impl Fn(&Result) -> f64) -> String {
    let mut text = String::from("| scenario |");
    for name in RULES {
        let _ = write!(text, " {} |", name.label());
    }
    let _ = writeln!(text, " Gibbon's place |\n|---|{}--:|", "--:|".repeat(RULES.len()));
    let some = |results: &[Result]| results.iter().any(|result| of(result) > 0.0);
    for (scenario, results, _) in played.iter().filter(|(_, results, _)| some(results)) {
        let _ = write!(text, "| {} |", scenario.title);
        let printed = |value: f64| format!("{value:.digits$}");
        let own = results.iter().find(|r| r.name == Name::Gibbon).map_or(0.0, &of);
        let best = results.iter().map(&of).fold(f64::INFINITY, f64::min);
        for result in results {
            let value = of(result);
            let mark = if printed(value) == printed(best) { "**" } else { "" };
            let _ = write!(text, " {mark}{value:.digits$}{mark} |");
        }
        // What is printed alike shares a place.
        let before = |r: &&Result| of(r) < own && printed(of(r)) != printed(own);
        let place = 1 + results.iter().filter(before).count();
        let _ = writeln!(text, " {place} |");
    }
    text
}

fn missed(played: &[Played<'_>]) -> String {
    let mut text = String::new();
    let (mut met, mut all) = (0, 0);
    for (scenario, _, bars) in played {
        met += bars.iter().filter(|bar| bar.met()).count();
        all += bars.len();
        for bar in bars.iter().filter(|bar| !bar.met()) {
            let _ = writeln!(text, "* `{}`, {}", scenario.id, verdict(bar));
        }
        let cause = CAUSES.iter().find(|(id, _)| *id == scenario.id);
        if let Some((_, cause)) = cause.filter(|_| bars.iter().any(|bar| !bar.met())) {
            let _ = writeln!(text, "  {cause}");
        }
    }
    format!("{met} of {all} bars are met. The others, and why:\n\n{text}")
}

const COLOURS: [&str; 8] =
    ["#999", "#56b4e9", "#e69f00", "#0072b2", "#cc79a7", "#d55e00", "#b59f00", "#009e73"];

/// Bars of median and 99th percentile on a logarithmic scale; beside them, where a scenario is about
/// one member, what it got.
fn draw(scenario: &Scenario, results: &[Result]) -> String {
    let curve = heading(scenario.look).is_some();
    let width = if curve { 950 } else { 530 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 250\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"250\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"18\" font-weight=\"bold\">{}: p50 and p99, ms</text>\n",
        scenario.title
    );
    let x = |ms: f64| 140.0 + (ms.clamp(10.0, 100_000.0) / 10.0).log10() * 80.0;
    for (row, (result, colour)) in results.iter().zip(COLOURS).enumerate() {
        let y = 40 + 25 * row;
        let (middle, end) = (x(result.p50), x(result.p99));
        let errors = if result.errors > 0.0 {
            format!(", {:.2} % errors", result.errors * 100.0)
        } else {
            String::new()
        };
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{}</text><rect x=\"140\" y=\"{y}\" width=\"{:.0}\" height=\"16\" fill=\"{colour}\" opacity=\".45\"/>\
             <rect x=\"140\" y=\"{y}\" width=\"{:.0}\" height=\"16\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"{}\">{:.0} / {:.0}{errors}</text>",
            y + 12,
            result.name.label(),
            end - 140.0,
            middle - 140.0,
            end + 5.0,
            y + 12,
            result.p50,
            result.p99
        );
    }
    if curve {
        svg += &curves(results);
    }
    svg + "</svg>\n"
}

fn curves(results: &[Result]) -> String {
    const MOST: f64 = 2.5;
    let mut svg = String::from(
        "<text x=\"560\" y=\"18\" font-weight=\"bold\">the member's share, in parts of a fair one</text>\n",
    );
    for share in 0..3 {
        let y = 235.0 - f64::from(share) / MOST * 200.0;
        let _ = writeln!(
            svg,
            "<path d=\"M560 {y}h370\" stroke=\"#ddd\"/><text x=\"545\" y=\"{y}\">{share}</text>"
        );
    }
    for (result, colour) in results.iter().zip(COLOURS) {
        // Long scenarios have more seconds than the picture has room for.
        let step = result.first.len().div_ceil(100).max(1);
        let means: Vec<f64> =
            result.first.chunks(step).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect();
        let points = means.iter().enumerate().map(|(at, share)| {
            let x = 560.0 + at as f64 / means.len() as f64 * 370.0;
            format!("{x:.0},{:.1}", 235.0 - share.min(MOST) / MOST * 200.0)
        });
        let points = points.collect::<Vec<_>>().join(" ");
        let wide = if result.name == Name::Gibbon { 2.5 } else { 1.0 };
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{wide}\"/>"
        );
    }
    svg
}
