//! Balancers as the API server and kubectl see them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::control_plane::{ControlPlane, condition, eventually};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    the_definition_is_established_and_has_short_names,
    fields_are_explained,
    each_good_balancer_is_accepted,
    each_bad_balancer_is_refused_with_field_and_message,
];

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/balancers.gibbon.dev";

const MINIMAL: &str = "
apiVersion: gibbon.dev/v1alpha1
kind: Balancer
metadata: {name: app}
spec: {hosts: [resource.site.com], members: [{url: 'http://192.0.2.1/'}]}
";

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/balancers").join(path)
}

fn printed(control_plane: &ControlPlane, arguments: &[&str]) -> String {
    let output = control_plane.kubectl(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn the_definition_is_established_and_has_short_names(control_plane: &ControlPlane) {
    let definition = control_plane.get(DEFINITION);
    for kind in ["Established", "NamesAccepted"] {
        assert!(condition(&definition, kind), "{kind}: {}", definition["status"]);
    }
    assert!(!condition(&definition, "NonStructuralSchema"), "{}", definition["status"]);
    let namespace = control_plane.namespace("resource");
    namespace.apply(MINIMAL);
    for name in ["bal", "gibbon", "balancer"] {
        let list = printed(control_plane, &["get", name, "-n", &namespace.name, "-o", "name"]);
        assert_eq!(list.trim(), "balancer.gibbon.dev/app");
    }
}

fn fields_are_explained(control_plane: &ControlPlane) {
    let schema = control_plane.get(DEFINITION)["spec"]["versions"][0]["schema"].clone();
    let sticky = &schema["openAPIV3Schema"]["properties"]["spec"]["properties"]["sticky"];
    let documented = words(sticky["properties"]["routeRegex"]["description"].as_str().unwrap());
    // The API server publishes a definition's documentation some time after it is established.
    eventually("kubectl explains the field", || {
        let output = control_plane.kubectl(&["explain", "balancer.spec.sticky.routeRegex"]);
        let text = words(&String::from_utf8_lossy(&output.stdout));
        text.contains("FIELD: routeRegex <string>") && text.contains(&documented)
    });
}

/// The text without its line breaks.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn each_good_balancer_is_accepted(control_plane: &ControlPlane) {
    let directory = data("good");
    let list = printed(
        control_plane,
        &["apply", "--dry-run=server", "-o", "name", "-f", &directory.to_string_lossy()],
    );
    assert_eq!(list.lines().count(), std::fs::read_dir(directory).unwrap().count(), "{list}");
}

/// kubectl goes on after an object that is refused, and its complaints name the object or the file.
fn each_bad_balancer_is_refused_with_field_and_message(control_plane: &ControlPlane) {
    let directory = data("bad");
    let output = control_plane.kubectl(&[
        "apply",
        "--dry-run=server",
        "-o",
        "name",
        "-f",
        &directory.to_string_lossy(),
    ]);
    let accepted = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    let complaints = by_name(&complaints);
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let comments: Vec<_> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
        let comment = |what: &str| {
            let find = |line: &&str| line.strip_prefix(what)?.strip_prefix(": ").map(str::to_owned);
            comments.iter().find_map(find)
        };
        let was_accepted = accepted.lines().any(|line| line.ends_with(&format!("/{name}")));
        let complaint = complaints.get(name).map_or("", String::as_str);
        if comment("only").is_some_and(|only| only.starts_with("check: ")) {
            if !was_accepted {
                faults.push(format!("{name}: not only check refuses it: {complaint}"));
            }
            continue;
        }
        let field = comment("field").unwrap();
        let message = comment("kubectl").or(comment("message")).unwrap();
        if was_accepted || !complaint.contains(&field) || !complaint.contains(&message) {
            faults.push(format!("{name}: not {field}: {message}, but {complaint:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What kubectl says of each object, by its name, which is its file's too.
fn by_name(complaints: &str) -> HashMap<&str, String> {
    let mut found = HashMap::<_, String>::new();
    let mut current = "";
    for line in complaints.lines() {
        if line.starts_with("The Balancer ") || line.starts_with("Error from server ") {
            let quoted = line.split('"').nth(1).unwrap();
            current = Path::new(quoted).file_stem().unwrap().to_str().unwrap();
        }
        *found.entry(current).or_default() += line;
    }
    found
}
