//! The alerts of the chart, evaluated by promtool over series that are made up: each fires for what it is
//! about, and not for what is well. Their series are those that the program has.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// An alert, and what makes it fire.
struct Case {
    alert: &'static str,
    /// The labels that it fires with.
    labels: &'static str,
    /// When it does, at the latest.
    by: &'static str,
    /// Series, with their values each minute as promtool writes them.
    bad: &'static [(&'static str, &'static str)],
    /// The same where nothing is wrong.
    well: &'static [(&'static str, &'static str)],
}

const OF_APP: &str = "namespace=\"site\",balancer=\"app\"";

const CASES: [Case; 15] = [
    Case {
        alert: "GibbonBalancerDown",
        labels: OF_APP,
        by: "3m",
        bad: &[
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"usable\"}", "0x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"excluded\"}", "1x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"failing\"}", "1x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"two\",state=\"usable\"}", "1x90"),
        ],
        well: &[
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"usable\"}", "0x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"spare\"}", "1x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"redirect\",state=\"usable\"}", "0x90"),
        ],
    },
    Case {
        alert: "GibbonMembersExcluded",
        labels: OF_APP,
        by: "11m",
        bad: &[
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"usable\"}", "2x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"failing\"}", "1x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"excluded\"}", "1x90"),
        ],
        well: &[
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"usable\"}", "3x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"unresolved\"}", "1x90"),
            ("gibbon_members{namespace=\"site\",balancer=\"app\",state=\"disabled\"}", "9x90"),
        ],
    },
    Case {
        alert: "GibbonErrors",
        labels: OF_APP,
        by: "12m",
        bad: &[
            ("gibbon_requests_total{namespace=\"site\",balancer=\"app\",code=\"2xx\"}", "0+90x90"),
            ("gibbon_requests_total{namespace=\"site\",balancer=\"app\",code=\"5xx\"}", "0+10x90"),
        ],
        well: &[
            ("gibbon_requests_total{namespace=\"site\",balancer=\"app\",code=\"2xx\"}", "0+99x90"),
            ("gibbon_requests_total{namespace=\"site\",balancer=\"app\",code=\"5xx\"}", "0+1x90"),
        ],
    },
    Case {
        alert: "GibbonRetriesDenied",
        labels: OF_APP,
        by: "12m",
        bad: &[("gibbon_retries_denied_total{namespace=\"site\",balancer=\"app\"}", "0+1x90")],
        well: &[("gibbon_retries_denied_total{namespace=\"site\",balancer=\"app\"}", "7x90")],
    },
    Case {
        alert: "GibbonLeakedAddresses",
        labels: OF_APP,
        by: "17m",
        bad: &[("gibbon_leaked_addresses_total{namespace=\"site\",balancer=\"app\"}", "0+1x90")],
        well: &[("gibbon_leaked_addresses_total{namespace=\"site\",balancer=\"app\"}", "7x90")],
    },
    Case {
        alert: "GibbonConnectionsRefused",
        labels: "instance=\"a\"",
        by: "7m",
        bad: &[("gibbon_connections_refused_total{instance=\"a\"}", "0+1x90")],
        well: &[("gibbon_connections_refused_total{instance=\"a\"}", "7x90")],
    },
    Case {
        alert: "GibbonConnectionsHigh",
        labels: "instance=\"a\"",
        by: "11m",
        bad: &[("gibbon_connections_open{instance=\"a\"}", "16001x90")],
        well: &[("gibbon_connections_open{instance=\"a\"}", "15999x90")],
    },
    Case {
        alert: "GibbonApiServerSilent",
        labels: "instance=\"a\"",
        by: "7m",
        bad: &[("gibbon_cluster_contact_timestamp_seconds{instance=\"a\"}", "0x90")],
        well: &[("gibbon_cluster_contact_timestamp_seconds{instance=\"a\"}", "0+60x90")],
    },
    Case {
        alert: "GibbonBalancersRefused",
        labels: "job=\"gibbon\"",
        by: "16m",
        bad: &[
            ("gibbon_balancers_refused{job=\"gibbon\",instance=\"a\"}", "1x90"),
            ("gibbon_balancers_refused{job=\"gibbon\",instance=\"b\"}", "0x90"),
        ],
        well: &[("gibbon_balancers_refused{job=\"gibbon\",instance=\"a\"}", "0x90")],
    },
    Case {
        alert: "GibbonStatusesFailing",
        labels: "instance=\"a\"",
        by: "17m",
        bad: &[("gibbon_status_writes_total{instance=\"a\",result=\"failed\"}", "0+1x90")],
        well: &[
            ("gibbon_status_writes_total{instance=\"a\",result=\"failed\"}", "3x90"),
            ("gibbon_status_writes_total{instance=\"a\",result=\"written\"}", "0+1x90"),
        ],
    },
    Case {
        alert: "GibbonNoLeader",
        labels: "job=\"gibbon\"",
        by: "16m",
        bad: &[
            ("gibbon_leader{job=\"gibbon\",instance=\"a\"}", "0x90"),
            ("gibbon_leader{job=\"gibbon\",instance=\"b\"}", "0x90"),
        ],
        well: &[
            ("gibbon_leader{job=\"gibbon\",instance=\"a\"}", "0x90"),
            ("gibbon_leader{job=\"gibbon\",instance=\"b\"}", "1x90"),
        ],
    },
    Case {
        alert: "GibbonCertificateExpires",
        labels: "host=\"www.site.com\"",
        by: "61m",
        bad: &[
            ("gibbon_certificate_expiry_timestamp_seconds{host=\"www.site.com\"}", "1200000x90"),
            ("gibbon_certificate_expiry_timestamp_seconds{host=\"shop.site.com\"}", "2000000x90"),
        ],
        well: &[("gibbon_certificate_expiry_timestamp_seconds{host=\"*\"}", "2000000x90")],
    },
    Case {
        alert: "GibbonAccessLogDropped",
        labels: "instance=\"a\"",
        by: "17m",
        bad: &[("gibbon_access_log_dropped_total{instance=\"a\"}", "0+1x90")],
        well: &[("gibbon_access_log_dropped_total{instance=\"a\"}", "7x90")],
    },
    // Two thirds go to one of two members that are meant to be equal, so a sixth to another: well.
    Case {
        alert: "GibbonSharesOff",
        labels: OF_APP,
        by: "50m",
        bad: &[
            (ONE_OF_TWO, "0+280x90"),
            (TWO_OF_TWO, "0+20x90"),
            (PART_OF_ONE, "0+150x90"),
            (PART_OF_TWO, "0+150x90"),
        ],
        well: &[
            (ONE_OF_TWO, "0+200x90"),
            (TWO_OF_TWO, "0+100x90"),
            (PART_OF_ONE, "0+150x90"),
            (PART_OF_TWO, "0+150x90"),
        ],
    },
    // One request a second is too few to tell.
    Case {
        alert: "GibbonSharesOff",
        labels: OF_APP,
        by: "50m",
        bad: &[(ONE_OF_TWO, "0+61x90"), (PART_OF_ONE, "0+0x90"), (PART_OF_TWO, "0+61x90")],
        well: &[(ONE_OF_TWO, "0+59x90"), (PART_OF_ONE, "0+0x90"), (PART_OF_TWO, "0+59x90")],
    },
];

const ONE_OF_TWO: &str = "gibbon_member_requests_total\
     {namespace=\"site\",balancer=\"app\",member=\"m\",address=\"10.0.0.1:80\"}";
const TWO_OF_TWO: &str = "gibbon_member_requests_total\
     {namespace=\"site\",balancer=\"app\",member=\"m\",address=\"10.0.0.2:80\"}";
const PART_OF_ONE: &str = "gibbon_member_intended_requests_total\
     {namespace=\"site\",balancer=\"app\",member=\"m\",address=\"10.0.0.1:80\"}";
const PART_OF_TWO: &str = "gibbon_member_intended_requests_total\
     {namespace=\"site\",balancer=\"app\",member=\"m\",address=\"10.0.0.2:80\"}";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rules as Helm makes them with the chart's values; that it does is for the cluster tests.
fn rules() -> String {
    let alerts = read("charts/gibbon/files/alerts.yaml");
    let alerts = alerts
        .replace("{{ .Values.metrics.prometheusRule.errorRatio }}", "0.05")
        .replace("{{ mulf 0.8 .Values.maxConnections | int64 }}", "16000")
        .replace("{{ int64 .Values.maxConnections }}", "20000")
        .replace("{{ `", "")
        .replace("` }}", "");
    assert!(!alerts.contains(".Values"), "{alerts}");
    let values = read("charts/gibbon/values.yaml");
    assert!(values.contains("errorRatio: 0.05\n") && values.contains("maxConnections: 20000\n"));
    format!("groups:\n- name: gibbon\n  rules:\n  {}", alerts.replace('\n', "\n  "))
}

/// A test of promtool: what fires at a time, of all alerts but the one that all is gone.
fn test(series: &[(&str, &str)], at: &str, fires: &[String]) -> String {
    let firing = "sum without (severity, alertstate) \
                  (ALERTS{alertname!=\"GibbonAbsent\",alertstate=\"firing\"})";
    tell(firing, series, at, fires)
}

/// The same of that one, where there is this series.
fn absent(series: &str, at: &str, fires: &[String]) -> String {
    let firing = "count(ALERTS{alertname=\"GibbonAbsent\",alertstate=\"firing\"})";
    tell(firing, &[(series, "0x90")], at, fires)
}

fn tell(firing: &str, series: &[(&str, &str)], at: &str, fires: &[String]) -> String {
    let mut text = "- interval: 1m\n  input_series:\n".to_owned();
    for (series, values) in series {
        let _ = writeln!(text, "  - {{series: '{series}', values: '{values}'}}");
    }
    let samples = fires.iter().map(|labels| format!("{{labels: '{{{labels}}}', value: 1}}"));
    let samples = samples.collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        text,
        "  promql_expr_test:\n  - {{expr: '{firing}', eval_time: {at}, exp_samples: [{samples}]}}"
    );
    text
}

/// Runs promtool in a folder with these files.
fn promtool(name: &str, tests: &str) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promtool");
    let found = Command::new(script).output().unwrap();
    assert!(found.status.success(), "tests/promtool: {}", String::from_utf8_lossy(&found.stderr));
    let program = String::from_utf8(found.stdout).unwrap();
    let folder = std::env::temp_dir().join(format!("gibbon-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("rules.yaml"), rules()).unwrap();
    let head = "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n";
    std::fs::write(folder.join("tests.yaml"), format!("{head}{tests}")).unwrap();
    let output = Command::new(program.trim())
        .args(["test", "rules", "tests.yaml"])
        .current_dir(&folder)
        .output()
        .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    if output.status.success() { Ok(out.into()) } else { Err(format!("{out}{err}")) }
}

#[test]
fn each_alert_fires_for_what_it_is_about_and_not_for_what_is_well() {
    let mut tests = String::new();
    for case in &CASES {
        let labels = format!("alertname=\"{}\",{}", case.alert, case.labels);
        tests += &test(case.bad, case.by, &[labels]);
        tests += &test(case.well, "89m", &[]);
    }
    // With nothing there at all.
    tests += &absent("up", "6m", &[String::new()]);
    tests += &absent("gibbon_connections_open{instance=\"a\"}", "89m", &[]);
    if let Err(said) = promtool("alerts", &tests) {
        panic!("{said}");
    }
    let mut tested: BTreeSet<_> = CASES.iter().map(|case| case.alert).collect();
    tested.insert("GibbonAbsent");
    let alerts = read("charts/gibbon/files/alerts.yaml");
    let all: BTreeSet<_> =
        alerts.lines().filter_map(|line| line.strip_prefix("- alert: ")).collect();
    assert_eq!(tested, all);
}

#[test]
fn a_test_of_an_alert_can_fail() {
    let said = promtool("alerts-fail", &test(CASES[0].bad, CASES[0].by, &[])).unwrap_err();
    assert!(said.contains("GibbonBalancerDown"), "{said}");
}

#[test]
fn the_series_that_alerts_are_tested_with_are_the_programs() {
    let reference = read("docs/reference.md");
    let states = reference.split_once("| Members by state: ").unwrap().1;
    let states: Vec<_> = states.split_once(" |").unwrap().0.split(", ").collect();
    for (series, _) in CASES.iter().flat_map(|case| case.bad.iter().chain(case.well)) {
        let (metric, labels) = series.split_once('{').unwrap();
        let row = reference.lines().find(|line| line.starts_with(&format!("| `{metric}` |")));
        let has = row.unwrap_or_else(|| panic!("{metric}")).split(" | ").nth(2).unwrap();
        let has: Vec<_> = has.split(", ").chain(["instance", "job"]).collect();
        for label in labels.trim_end_matches('}').split("\",") {
            let (name, value) = label.split_once("=\"").unwrap();
            assert!(has.contains(&name), "{series}: {name}");
            assert!(name != "state" || states.contains(&value.trim_matches('"')), "{series}");
        }
    }
}
