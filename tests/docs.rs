//! `docs/reference.md` is what the program says of itself. After a change of a field, flag or metric:
//! `BLESS=1 cargo test --test docs`.

mod support;

use std::fmt::Write;
use std::sync::Arc;

use clap::CommandFactory;
use gibbon::api::Balancer;
use gibbon::args::Cli;
use gibbon::metrics::Metrics;
use gibbon::source::status::Reason;
use kube::CustomResourceExt;
use serde_json::Value;
use support::{Gibbon, Member, balancer, data, member, ok};

#[test]
fn the_reference_is_what_the_program_says() {
    let text = reference();
    let path = data("../docs/reference.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "docs/reference.md is old: BLESS=1 cargo test --test docs");
}

fn reference() -> String {
    let mut text = String::from(
        "# Reference\n\nWritten by `BLESS=1 cargo test --test docs`, and compared with the program by every test run.\n\n\
         ## Balancer\n\n`apiVersion: gibbon.dev/v1alpha1`, `kind: Balancer`. Unknown keys in files are errors.\n\n\
         | field | type | meaning |\n|---|---|---|\n",
    );
    let crd = serde_json::to_value(Balancer::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    fields(&mut text, "spec", &schema["spec"]);
    fields(&mut text, "status", &schema["status"]);
    reasons(&mut text);
    flags(&mut text);
    metrics(&mut text);
    pages(&mut text);
    text
}

fn fields(text: &mut String, name: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, property) in properties {
        let name = format!("{name}.{key}");
        let (name, inner) = match &property["items"] {
            Value::Null => (name, property),
            items => (format!("{name}[]"), items),
        };
        let meaning = property["description"].as_str().or(inner["description"].as_str());
        let meaning = meaning.unwrap_or_else(|| panic!("{name} has no description"));
        let _ = writeln!(text, "| `{name}` | {} | {} |", kind(property), cell(meaning));
        fields(text, &name, inner);
    }
}

fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().map(|v| v.as_str().map_or(v.to_string(), str::to_owned));
        return values.collect::<Vec<_>>().join(" \\| ");
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer \\| string".to_owned();
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some(kind) => kind.to_owned(),
        None => String::new(),
    }
}

fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn reasons(text: &mut String) {
    text.push_str(
        "\n## Conditions\n\nA condition's reason is one of these; its message names the field.\n\n\
         | reason | where | meaning |\n|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let _ = writeln!(text, "| `{reason}` | {} | {} |", reason.occurs(), reason.meaning());
    }
}

fn flags(text: &mut String) {
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(text, "\n## gibbon {}\n\n{about}.\n", command.get_name());
        let shown = command.get_arguments().filter(|a| a.get_id() != "help").collect::<Vec<_>>();
        if !shown.is_empty() {
            text.push_str("\n| flag | environment | default | meaning |\n|---|---|---|---|\n");
        }
        for argument in shown {
            let value = argument.get_value_names().map(|names| names[0].to_string());
            let takes = argument.get_action().takes_values();
            let value = value.filter(|_| takes).map_or(String::new(), |v| format!(" {v}"));
            let name =
                argument.get_long().map_or(value.trim().to_owned(), |l| format!("--{l}{value}"));
            let env = argument.get_env().map(|env| format!("`{}`", env.to_string_lossy()));
            let defaults = argument.get_default_values().iter();
            let default = defaults.map(|d| d.to_string_lossy()).collect::<Vec<_>>().join(", ");
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let env = env.unwrap_or_default();
            let _ = writeln!(text, "| `{name}` | {env} | {default} | {} |", cell(&help));
        }
    }
}

/// From a Gibbon that has served, failed and refused something, so that every family has a series.
fn metrics(text: &mut String) {
    let app = Member::new(ok("x"));
    let members = [member(Member::dead(), "route: a"), member(app.address, "route: b")];
    let own = balancer(&members, "sticky: {cookie: s}\ntls: {secretName: www, redirect: false}");
    let gibbon = Gibbon::start(&format!("{}---\n{own}", support::secret("www", "www.site.com")));
    // A handshake that fails is one, too.
    drop(std::net::TcpStream::connect(gibbon.secure).unwrap());
    support::eventually(|| gibbon.metric("gibbon_tls_handshakes_total"));
    gibbon.ask("GET", "www.site.com", "/", &[("Cookie", "s=a")]);
    gibbon.get("other.org", "/");
    text.push_str("\n## Metrics\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    families(text, &gibbon.page("/metrics").text());
    text.push_str(
        "\nIn a cluster also:\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    families(text, &of_a_cluster());
}

/// The page of a Gibbon that follows a cluster, without what is on every page.
fn of_a_cluster() -> String {
    let metrics = Metrics::new(&Arc::default()).unwrap();
    let always = metrics.text().unwrap();
    metrics.of_cluster().unwrap().statuses.with_label_values(&["written"]);
    let page = metrics.text().unwrap();
    let more: Vec<_> = page.lines().filter(|line| !always.lines().any(|l| l == *line)).collect();
    more.join("\n")
}

fn families(text: &mut String, page: &str) {
    for line in page.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        let kind = page.lines().find_map(|l| l.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        let series = page.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        let labels = series.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let labels = labels.split("\",").filter_map(|pair| pair.split_once('='));
        let labels: Vec<_> =
            labels.map(|(label, _)| label).filter(|label| *label != "le").collect();
        let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
}

fn pages(text: &mut String) {
    text.push_str(
        "\n## Admin pages\n\n| page | shows |\n|---|---|\n\
         | `/metrics` | the metrics, for Prometheus |\n\
         | `/livez` | 200 while the process lives |\n\
         | `/readyz` | 200 while requests are welcome; `?verbose` says why, and which source has faults |\n\
         | `/table` | what is being served, as JSON; to this machine only, unless `--admin-table` |\n",
    );
}
