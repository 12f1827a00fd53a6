//! The life of a Balancer: created, served, changed, in conflict, deleted; and what its status says.

use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, eventually};
use crate::gibbon::Gibbon;
use crate::pods::{Namespace, Pod};
use crate::support::{Member, ok};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    a_balancer_is_served_changed_and_deleted,
    of_two_with_the_same_host_and_path_the_older_serves,
    what_is_wrong_is_said_in_the_status_and_in_events,
    a_balancer_that_becomes_wrong_is_not_served_until_it_is_right,
    nothing_is_written_when_nothing_changed,
];

/// A pod of a Service, and the member that answers with its name there.
pub fn pod<'c>(namespace: &Namespace<'c>, name: &str, service: &str) -> (Pod<'c>, Member) {
    let pod = namespace.pod(name, service);
    let answer = name.to_owned();
    let member = pod.serve(8080, move |_| ok(&answer));
    (pod, member)
}

/// A Balancer to the Service `app`.
pub fn balancer(name: &str, host: &str, more: &str) -> String {
    format!(
        "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: [{host}]\n  members:\n  - service: {{name: app, port: http}}\n{more}"
    )
}

/// The condition of a Balancer: status, reason and message.
pub fn condition(namespace: &Namespace, name: &str, type_: &str) -> (String, String, String) {
    let path = namespace.path(&format!("gibbon.dev/v1alpha1/balancers/{name}"));
    let object = namespace.control_plane.get(&path);
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|c| c["type"] == type_).unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Waits until a condition has a status and reason; returns its message.
pub fn until(namespace: &Namespace, name: &str, type_: &str, status: &str, reason: &str) -> String {
    eventually(&format!("{name} is {type_} {status} {reason}"), || {
        let seen = condition(namespace, name, type_);
        (seen.0.as_str(), seen.1.as_str()) == (status, reason)
    });
    condition(namespace, name, type_).2
}

fn a_balancer_is_served_changed_and_deleted(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("life");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pods = [pod(&namespace, "app-0", "app"), pod(&namespace, "app-1", "app")];
    let gibbon = Gibbon::of(&namespace, &[]);
    assert_eq!(gibbon.get("www.site.com", "/").status, 404);

    namespace.apply(&balancer(
        "app",
        "www.site.com",
        "    routeFrom: PodName\n  sticky: {cookie: id, separator: '!'}\n",
    ));
    eventually("both are served", || gibbon.members("app", "usable") == 2);
    let names: Vec<_> = (0..10).map(|_| gibbon.get("www.site.com", "/").text()).collect();
    assert!(names.contains(&"app-0".into()) && names.contains(&"app-1".into()), "{names:?}");
    for _ in 0..5 {
        let seen = gibbon.ask("www.site.com", "/", "Cookie: id=abc!app-1\r\n");
        assert_eq!(seen.text(), "app-1");
    }
    until(&namespace, "app", "Programmed", "True", "Programmed");
    let path = namespace.path("gibbon.dev/v1alpha1/balancers/app");
    let status = control_plane.get(&path)["status"].clone();
    assert_eq!(status["ready"], "2/2");
    assert_eq!(status["members"], json!({"ready": 2, "total": 2}));
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["hosts"][0]["host"], "www.site.com");
    let listed = control_plane.kubectl(&["-n", &namespace.name, "get", "bal"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let row: Vec<_> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["app", r#"["www.site.com"]"#, "/", "2/2", "True"], "{listed}");

    let claimed = status["hosts"][0]["claimedAt"].clone();
    namespace.apply(&balancer("app", "'*.site.com', www.site.com", ""));
    eventually("the wildcard is served", || gibbon.get("a.site.com", "/").status == 200);
    eventually("the change is observed", || {
        control_plane.get(&path)["status"]["observedGeneration"] == 2
    });
    let hosts = control_plane.get(&path)["status"]["hosts"].clone();
    assert_eq!(hosts.as_array().unwrap().len(), 2);
    let www = hosts.as_array().unwrap().iter().find(|h| h["host"] == "www.site.com").unwrap();
    assert_eq!(www["claimedAt"], claimed, "a claim keeps its time");

    control_plane.delete(&path);
    eventually("it is gone", || gibbon.get("www.site.com", "/").status == 404);
    assert_eq!(gibbon.metric("gibbon_member_requests_total{"), None);
}

fn of_two_with_the_same_host_and_path_the_older_serves(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("conflict");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    let gibbon = Gibbon::of(&namespace, &[]);
    let redirect = |name: &str, to: &str| {
        format!(
            "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {{name: {name}}}\nspec:\n  \
             hosts: [www.site.com]\n  redirect: {{to: {to}}}\n"
        )
    };
    namespace.apply(&redirect("z-first", "/first"));
    until(&namespace, "z-first", "Accepted", "True", "Accepted");
    let location = || gibbon.get("www.site.com", "/").header("location").map(str::to_owned);
    let is_first = || location().is_some_and(|to| to.ends_with("/first/"));
    // Objects made in the same second are told apart by name: wait for the next one.
    let path = |name: &str| namespace.path(&format!("gibbon.dev/v1alpha1/balancers/{name}"));
    let made = |name: &str| control_plane.get(&path(name))["metadata"]["creationTimestamp"].clone();
    let first = made("z-first");
    eventually("a later one", || {
        namespace.apply(&redirect("a-second", "/second"));
        let later = made("a-second") != first;
        if !later {
            control_plane.delete(&path("a-second"));
        }
        later
    });
    let message = until(&namespace, "a-second", "Accepted", "False", "Conflicted");
    let other = format!("{}/z-first serves host www.site.com and path /", namespace.name);
    assert!(message.contains(&other), "{message}");
    until(&namespace, "a-second", "Programmed", "False", "NotAccepted");
    assert!(is_first(), "{:?}", location());
    control_plane.delete(&path("z-first"));
    until(&namespace, "a-second", "Accepted", "True", "Accepted");
    assert!(!is_first());
}

fn what_is_wrong_is_said_in_the_status_and_in_events(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("wrong");
    let gibbon = Gibbon::of(&namespace, &[]);
    namespace.apply(&balancer("app", "www.site.com", ""));
    let message = until(&namespace, "app", "ResolvedRefs", "False", "ServiceNotFound");
    assert!(
        message.starts_with("spec.members[0].service.name: there is no Service app"),
        "{message}"
    );
    assert_eq!(gibbon.get("www.site.com", "/").status, 503);
    namespace.service("app", &[("web", 80, 8080)]);
    let message = until(&namespace, "app", "ResolvedRefs", "False", "PortNotFound");
    assert!(message.contains("has no port http, but: web (80)"), "{message}");
    namespace.apply(&balancer("app", "www.site.com", "").replace("port: http", "port: 80"));
    let message = until(&namespace, "app", "ResolvedRefs", "False", "NoEndpoints");
    assert!(message.contains("Service app has no ready endpoint (0 of 0)"), "{message}");
    let _pod = pod(&namespace, "app-0", "app");
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    assert_eq!(gibbon.get("www.site.com", "/").text(), "app-0");

    let url = "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {name: url}\nspec:\n  hosts: [url.site.com]\n  members:\n  - url: http://203.0.113.9/\n";
    namespace.apply(url);
    let message = until(&namespace, "url", "Accepted", "False", "UrlMembersNotPermitted");
    assert!(message.contains("--url-members (the chart's urlMembers)"), "{message}");
    namespace
        .apply(&url.replace("hosts: [url.site.com]", "path: /x").replace("name: url", "name: any"));
    until(&namespace, "any", "Accepted", "False", "AnyHostNotPermitted");
    // What only the regex crate refuses.
    let regex = "  sticky: {cookie: id, routeRegex: '(\\Qa\\E)'}\n";
    namespace.apply(&balancer("regex", "regex.site.com", regex));
    let message = until(&namespace, "regex", "Accepted", "False", "InvalidRegex");
    assert!(message.starts_with("spec.sticky.routeRegex: "), "{message}");

    eventually("events tell of it", || {
        let events = control_plane.get(&namespace.path("events.k8s.io/v1/events"));
        let events = events["items"].as_array().unwrap().clone();
        let told = |reason: &str, type_: &str, name: &str| {
            events.iter().any(|event: &Value| {
                event["reason"] == reason
                    && event["type"] == type_
                    && event["regarding"]["name"] == name
            })
        };
        told("ServiceNotFound", "Warning", "app")
            && told("ResolvedRefs", "Normal", "app")
            && told("Programmed", "Normal", "app")
            && told("InvalidRegex", "Warning", "regex")
    });
}

fn a_balancer_that_becomes_wrong_is_not_served_until_it_is_right(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("edited");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    let gibbon = Gibbon::of(&namespace, &[]);
    let good = balancer("app", "www.site.com", "");
    namespace.apply(&good);
    eventually("it is served", || gibbon.get("www.site.com", "/").text() == "app-0");
    let regex = "  sticky: {cookie: id, routeRegex: '(\\Qa\\E)'}\n";
    namespace.apply(&balancer("app", "www.site.com", regex));
    until(&namespace, "app", "Accepted", "False", "InvalidRegex");
    until(&namespace, "app", "Programmed", "False", "NotAccepted");
    assert_eq!(gibbon.get("www.site.com", "/").status, 404);
    assert_eq!(gibbon.metric("gibbon_balancers_refused"), Some(1.0));
    namespace.apply(&good);
    until(&namespace, "app", "Programmed", "True", "Programmed");
    assert_eq!(gibbon.get("www.site.com", "/").text(), "app-0");
}

fn nothing_is_written_when_nothing_changed(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("quiet");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    let mut gibbon = Gibbon::of(&namespace, &[]);
    namespace.apply(&balancer("app", "www.site.com", ""));
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    let path = namespace.path("gibbon.dev/v1alpha1/balancers/app");
    let version = || control_plane.get(&path)["metadata"]["resourceVersion"].clone();
    let written = || gibbon.metric("gibbon_status_writes_total{result=\"written\"}");
    let (before, count) = (version(), written());
    // Another Balancer's life, after which its status would have been written again.
    namespace.apply(&balancer("other", "other.site.com", ""));
    until(&namespace, "other", "Programmed", "True", "Programmed");
    eventually("only that was written", || written() > count);
    assert_eq!(version(), before);
    // Who takes over finds nothing to write either.
    gibbon.signal("-TERM");
    assert_eq!(gibbon.exit(), Some(0));
    let gibbon = Gibbon::of(&namespace, &[]);
    eventually("it leads", || gibbon.metric("gibbon_leader") == Some(1.0));
    namespace.apply(&balancer("third", "third.site.com", ""));
    until(&namespace, "third", "Programmed", "True", "Programmed");
    assert_eq!(version(), before);
}
