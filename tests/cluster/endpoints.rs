//! What the endpointslice controller makes of pods.

use std::net::IpAddr;

use serde_json::Value;

use crate::control_plane::{ControlPlane, eventually};
use crate::support::{Client, ok};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    a_pod_is_an_endpoint_of_its_service_until_it_is_removed,
    a_member_answers_at_the_address_of_its_pod,
];

fn a_pod_is_an_endpoint_of_its_service_until_it_is_removed(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("endpoints");
    namespace.service("app", &[("http", 80, 8080)]);
    let (one, two) = (namespace.pod("app-1", "app"), namespace.pod("app-2", "app"));
    let seen = |name: &str| {
        let endpoints = namespace.endpoints("app");
        endpoints.into_iter().find(|endpoint| endpoint["targetRef"]["name"] == name)
    };
    let is = |name: &str, condition: &str| {
        seen(name).is_some_and(|endpoint| endpoint["conditions"][condition] == true)
    };
    eventually("both are ready", || is("app-1", "ready") && is("app-2", "ready"));
    let address = Value::from(one.address.to_string());
    assert_eq!(seen("app-1").unwrap()["addresses"][0], address);

    one.ready(false);
    eventually("the first is not ready", || !is("app-1", "ready"));
    one.ready(true);
    eventually("it is ready again", || is("app-1", "ready"));
    one.terminate();
    eventually("it drains", || is("app-1", "terminating"));
    assert!(is("app-1", "serving") && !is("app-1", "ready"));
    one.remove();
    eventually("it is gone", || seen("app-1").is_none());
    two.remove();
    eventually("the slices are empty", || namespace.endpoints("app").is_empty());
}

fn a_member_answers_at_the_address_of_its_pod(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("members");
    namespace.service("app", &[("http", 80, 8080)]);
    let pods = [namespace.pod("app-1", "app"), namespace.pod("app-2", "app")];
    let _members = [pods[0].serve(8080, |_| ok("one")), pods[1].serve(8080, |_| ok("two"))];
    eventually("both are endpoints", || namespace.endpoints("app").len() == 2);
    for endpoint in namespace.endpoints("app") {
        let address: IpAddr = endpoint["addresses"][0].as_str().unwrap().parse().unwrap();
        let mut client = Client::new((address, 8080).into());
        let seen = client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").read().unwrap();
        let expected = if endpoint["targetRef"]["name"] == "app-1" { "one" } else { "two" };
        assert_eq!(seen.text(), expected);
    }
}
