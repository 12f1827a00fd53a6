//! `docs/reference.md` is what the program says of itself. After a change of a field, flag or metric:
//! `BLESS=1 cargo test --test docs`.

mod support;

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use gibbon::api::Balancer;
use gibbon::args::Cli;
use gibbon::import::known::{self, Known};
use gibbon::import::report::Verdict;
use gibbon::metrics::Metrics;
use gibbon::proxy::log::{AccessLog, Asked, Format, Served};
use gibbon::source::status::Reason;
use gibbon::table::access::{Networks, parse_network};
use kube::CustomResourceExt;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{Gibbon, Member, Options, balancer, data, member, ok};

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

/// Where the tables of `docs/import.md` begin.
const TABLES: &str = "<!-- Written by `BLESS=1 cargo test --test docs` -->\n";

#[test]
fn the_page_on_import_says_what_the_importer_does() {
    let path = data("../docs/import.md");
    let committed = std::fs::read_to_string(&path).unwrap();
    let (prose, _) = committed.split_once(TABLES).expect("the page has a place for its tables");
    let text = format!("{prose}{TABLES}{}", imported());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == text, "docs/import.md is old: BLESS=1 cargo test --test docs");
}

/// The tables, each line of which was tried.
fn imported() -> String {
    let mut text = String::new();
    let lists = [
        ("Directives", known::DIRECTIVES, directive as fn(&Known) -> Option<Verdict>),
        ("Parameters of a balancer", known::BALANCER_PARAMETERS, balancer_parameter),
        ("Parameters of a member", known::MEMBER_PARAMETERS, member_parameter),
    ];
    for (title, list, verdict) in lists {
        let _ = write!(text, "\n## {title}\n\n| name | becomes | how |\n|---|---|---|\n");
        for known in list {
            assert_eq!(verdict(known), Some(known.verdict), "{}: {}", known.name, known.example);
            let (name, word) = (known.name, known.verdict.word());
            let _ = writeln!(text, "| `{name}` | {word} | {} |", cell(known.meaning));
        }
    }
    text
}

fn import(config: &str) -> gibbon::import::report::Report {
    let files = [("httpd.conf".to_owned(), config.to_owned())];
    let options = gibbon::import::Options::default();
    let find = |_: &std::path::Path| Ok(vec![("more.conf".to_owned(), String::new())]);
    gibbon::import::apache(&files, &find, &options).unwrap().report
}

fn directive(known: &Known) -> Option<Verdict> {
    let example = match known.name {
        _ if !known.example.is_empty() => known.example.to_owned(),
        "<VirtualHost>" | "ServerName" | "ServerAlias" | "BalancerMember" => String::new(),
        "Include" => "Include more.conf".to_owned(),
        name => match name.strip_prefix('<') {
            Some(rest) => format!("<{} x>\n</{rest}", rest.trim_end_matches('>')),
            None => format!("{name} x"),
        },
    };
    let config = format!(
        "<VirtualHost *:80>\nServerName www.site.com\nServerAlias site.com\n{example}\n\
         ProxyPass /b balancer://b\n<Proxy balancer://b>\nBalancerMember http://b.site.com\n\
         </Proxy>\nProxyPass / http://last.site.com/\n</VirtualHost>"
    );
    let report = import(&config);
    let name = known.name.trim_end_matches('>');
    let starts = |line: &str| {
        line.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '>']))
    };
    report.entries().iter().find(|entry| starts(&entry.directive)).map(|entry| entry.verdict)
}

fn parameter(config: &str, parameter: &str) -> Option<Verdict> {
    let report = import(config);
    let mut parts = report.entries().iter().flat_map(|entry| &entry.parameters);
    parts.find(|part| part.parameter == parameter).map(|part| part.verdict)
}

fn balancer_parameter(known: &Known) -> Option<Verdict> {
    let example = known.example;
    let config = format!(
        "ProxyPass / balancer://b {example}\n<Proxy balancer://b>\n\
         BalancerMember http://b.site.com\n</Proxy>"
    );
    parameter(&config, example)
}

fn member_parameter(known: &Known) -> Option<Verdict> {
    let example = known.example;
    let config = format!(
        "ProxyPass / balancer://b\n<Proxy balancer://b>\nBalancerMember http://b.site.com {example}\n\
         </Proxy>"
    );
    parameter(&config, example)
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
    headers(&mut text);
    access_log(&mut text);
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
        command_flags(text, "gibbon", command);
    }
}

fn command_flags(text: &mut String, parent: &str, command: &clap::Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let name = format!("{parent} {}", command.get_name());
    let _ = write!(text, "\n## {name}\n\n{about}.\n");
    let shown = command.get_arguments().filter(|a| a.get_id() != "help").collect::<Vec<_>>();
    if !shown.is_empty() {
        text.push_str("\n| flag | environment | default | meaning |\n|---|---|---|---|\n");
    }
    for argument in shown {
        let value = argument
            .get_value_names()
            .map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        let takes = argument.get_action().takes_values();
        let value = value.filter(|_| takes).map_or(String::new(), |v| format!(" {v}"));
        let name = argument.get_long().map_or(value.trim().to_owned(), |l| format!("--{l}{value}"));
        let env = argument.get_env().map(|env| format!("`{}`", env.to_string_lossy()));
        let defaults = argument.get_default_values().iter();
        let default = defaults.map(|d| d.to_string_lossy()).collect::<Vec<_>>().join(", ");
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let env = env.unwrap_or_default();
        let _ = writeln!(text, "| `{name}` | {env} | {default} | {} |", cell(&help));
    }
    for inner in command.get_subcommands() {
        command_flags(text, &name, inner);
    }
}

/// From a Gibbon that has served, failed and refused something, so that every family has a series.
fn metrics(text: &mut String) {
    let app = Member::new(ok("x"));
    let members = [(Member::dead(), "a"), (app.address, "b")]
        .map(|(address, route)| member(address, &format!("route: {route}, maxInFlight: 9")));
    let own = balancer(
        &members,
        "sticky: {cookie: s}\ntls: {secretName: www, redirect: false}\nhealthCheck: {}",
    );
    let mut options = Options::default();
    options.settings.announcing = Networks::new(vec![parse_network("127.0.0.2").unwrap()]);
    let yaml = format!("{}---\n{own}", support::secret("www", "www.site.com"));
    let gibbon = Gibbon::with(&yaml, options);
    // So is a header of the PROXY protocol that does not come.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&gibbon.address.into()).unwrap();
    drop(socket);
    support::eventually(|| gibbon.metric("gibbon_proxy_headers_total"));
    // A handshake that fails is one.
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
    let source = std::fs::read_to_string(data("../src/metrics.rs")).unwrap();
    for name in source.split('"').filter(|text| text.starts_with("gibbon_")) {
        assert!(text.contains(&format!("\n| `{name}` |")), "{name} has no series");
    }
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
         | `/table` | what is being served, as JSON; to this machine only, unless `--admin-table` |\n\
         | `/explain` | the requests that are kept to be explained, the newest first; to this machine only, unless `--admin-explain` |\n\
         | `/explain/ID` | all that is known of the requests with this `X-Request-Id` |\n\
         | `/explain?url=URL` | what would become of a request; also `method=`, `client=`, and `header=` several times |\n\n\
         The pages below `/explain` are text, with `json` in the query or `Accept: application/json` JSON.\n",
    );
}

fn headers(text: &mut String) {
    text.push_str(
        "\n## Headers\n\nWhat Gibbon does by itself, before `spec.headers`.\n\n\
         | header | to members | to clients |\n|---|---|---|\n\
         | `X-Request-Id` | the client's, if it is the only one and has at most 128 characters, all letters, digits or of `-_.~+/=:`; else a new one of 32 hexadecimal digits | the same, whatever the member says |\n\
         | `traceparent`, `tracestate` | the client's; with `--traceparent sampled` or `unsampled` a new `traceparent` where there is no valid one | |\n\
         | `X-Forwarded-For`, `-Host`, `-Proto`, `X-Real-IP` | the peer's address is added to what a trusted proxy says; what others say is replaced | |\n\
         | `Forwarded` | a trusted proxy's; others' is removed | |\n\
         | `CDN-Loop` | `gibbon` is added | |\n\
         | `X-Client-Cert-Subject` | the subject of the client's certificate, if it was asked for one and has shown it; what anybody says is removed | |\n\
         | `Strict-Transport-Security` | | as `spec.tls.hsts` says, to those who come with TLS; on Gibbon's own answers too |\n",
    );
}

/// What each field of a line means.
const LOG: [(&str, &str); 21] = [
    ("time", "when the request had ended"),
    ("client", "the client's address"),
    ("method", "the method"),
    ("host", "host and port as the client wrote them, but for a user"),
    ("path", "path and query as the client wrote them"),
    ("protocol", "`HTTP/1.1` and the like"),
    ("status", "the status sent; none if the client went away first"),
    ("grpcStatus", "the status of gRPC, if it was a call: the member's, or Gibbon's own"),
    ("received", "body bytes from the client"),
    ("sent", "body bytes to the client"),
    ("duration", "seconds from the request's head to the end of the response"),
    ("balancer", "the Balancer, `namespace/name`"),
    ("member", "the member that served it, or was asked last"),
    ("address", "that member's address"),
    ("attempts", "attempts at members"),
    ("session", "how the session fared: new, hit, lost, failover, refused"),
    ("latency", "seconds from the member's being asked to its response head"),
    ("reason", "why Gibbon answered itself, or cut the response off"),
    ("cut", "whether the response was cut off"),
    ("id", "the `X-Request-Id`, by which `/explain/ID` finds it"),
    ("trace", "the trace's id in a valid `traceparent`"),
];

fn access_log(text: &mut String) {
    text.push_str(
        "\n## Access log\n\nWith `--access-log json` a line has these fields; with `text` most of them, in another order. \
         It goes to standard output. Lines are written together, 20 ms after the first or when there are 32 KiB of them; what is not \
         written when the process is killed is lost. While standard output takes nothing, as where its disk is full, up to 4 MiB \
         wait for it, and then lines are dropped and counted (`gibbon_access_log_dropped_total`); a line is there as a whole or not \
         at all. At its end Gibbon waits up to a second for the last lines to be written, and tries once what standard output does not take.\n\n\
         | field | meaning |\n|---|---|\n",
    );
    let line: serde_json::Map<String, Value> = serde_json::from_str(&logged()).unwrap();
    assert_eq!(line.len(), LOG.len());
    for (field, meaning) in LOG {
        assert!(line.contains_key(field), "{field}");
        let _ = writeln!(text, "| `{field}` | {meaning} |");
    }
}

/// A line of the log as it is written.
fn logged() -> String {
    let asked = Asked {
        client: [192, 0, 2, 7].into(),
        method: &http::Method::GET,
        host: "www.site.com".into(),
        path: "/",
        protocol: "HTTP/1.1",
        trace: None,
    };
    let served = Served {
        status: Some(404),
        grpc_status: None,
        received: 0,
        sent: 0,
        duration: Duration::ZERO,
        balancer: None,
        member: None,
        address: None,
        attempts: 0,
        session: None,
        latency: None,
        reason: None,
        cut: false,
        id: "a",
    };
    let (read, write) = std::os::unix::net::UnixStream::pair().unwrap();
    let (log, thread) = AccessLog::start(Format::Json, write).unwrap();
    assert!(log.end(log.begin(&asked), &served));
    drop(log);
    thread.join().unwrap();
    std::io::read_to_string(read).unwrap()
}
