//! What the chart says of the program, and what its documentation says of the chart. That Helm and
//! the API server accept it is shown in `tests/cluster/chart.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use clap::CommandFactory;
use gibbon::args::Cli;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The words of a text that begin so, as far as their letters are like these.
fn words<'t>(text: &'t str, start: &str, is_part: fn(char) -> bool) -> BTreeSet<&'t str> {
    let found = text.match_indices(start).map(|(at, _)| {
        let word = &text[at..];
        word.find(|letter| !is_part(letter)).map_or(word, |end| &word[..end])
    });
    found.filter(|word| *word != start).collect()
}

#[test]
fn the_charts_definition_of_balancer_is_the_programs() {
    let copy = read("charts/gibbon-crds/files/balancer.yaml");
    assert!(
        copy == read("crds/balancer.yaml"),
        "old: cp crds/balancer.yaml charts/gibbon-crds/files/"
    );
}

#[test]
fn each_flag_and_variable_in_the_chart_is_the_programs() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    let flags: Vec<_> = serve.get_arguments().filter_map(|a| a.get_long()).collect();
    let variables: Vec<_> = serve.get_arguments().filter_map(|a| a.get_env()?.to_str()).collect();
    let helpers = read("charts/gibbon/templates/_helpers.tpl");
    let passed = words(&helpers, "\"--", |c| c.is_ascii_lowercase() || "\"-".contains(c));
    assert!(passed.len() > 10, "{passed:?}");
    for flag in passed {
        assert!(flags.contains(&flag.trim_matches('"').trim_start_matches("--")), "{flag}");
    }
    let workload = read("charts/gibbon/templates/workload.yaml");
    let passed = words(&workload, "GIBBON_", |c| c.is_ascii_uppercase() || c == '_');
    assert_eq!(passed, ["GIBBON_IDENTITY", "GIBBON_OWN_ADDRESSES"].into());
    assert!(passed.iter().all(|name| variables.contains(name)));
}

#[test]
fn alerts_use_metrics_that_exist() {
    let reference = read("docs/reference.md");
    let alerts = read("charts/gibbon/files/alerts.yaml");
    let expressions = alerts.split("- alert: ").skip(1).map(|alert| {
        let (expression, _) = alert.split_once("\n  for: ").unwrap();
        expression.split_once("expr: ").unwrap().1
    });
    let expressions = expressions.collect::<String>();
    let metrics = words(&expressions, "gibbon_", |c| c.is_ascii_lowercase() || c == '_');
    assert!(metrics.len() > 5, "{metrics:?}");
    for metric in metrics {
        assert!(reference.contains(&format!("| `{metric}` |")), "{metric}");
    }
    let documented = read("docs/chart.md");
    for name in alerts.lines().filter_map(|line| line.strip_prefix("- alert: ")) {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/chart.md");
    }
}

/// A value by its path, and the comment above it.
fn values() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    for line in read("charts/gibbon/values.yaml").lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if let Some(more) = text.strip_prefix("# ") {
            comment.push(more.to_owned());
        } else if let Some((key, _)) = text.split_once(':').filter(|_| !comment.is_empty()) {
            path.retain(|(of, _)| *of < depth);
            path.push((depth, key.to_owned()));
            let keys: Vec<_> = path.iter().map(|(_, key)| key.as_str()).collect();
            found.push((keys.join("."), comment.join(" ")));
            comment.clear();
        } else if text.is_empty() {
            comment.clear();
        }
    }
    found
}

#[test]
fn each_value_is_documented_in_the_words_of_the_chart() {
    let documented = read("docs/chart.md");
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| "));
    let rows: BTreeSet<_> = rows
        .filter_map(|row| {
            let (name, rest) = row.split_once(" |")?;
            let meaning = rest.trim_end_matches(" |").rsplit_once("| ")?.1;
            Some((name.trim_matches(['*', '`']).to_owned(), meaning.to_owned()))
        })
        .collect();
    let values = values();
    assert!(values.len() > 100, "{}", values.len());
    let missing: Vec<_> = values.iter().filter(|value| !rows.contains(value)).collect();
    assert!(missing.is_empty(), "not in docs/chart.md: {missing:#?}");
}
