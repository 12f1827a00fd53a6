//! The API server goes away.

use serde_json::Value;

use crate::control_plane::{ControlPlane, eventually};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![what_was_there_is_there_after_an_outage_of_the_api_server];

fn what_was_there_is_there_after_an_outage_of_the_api_server(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("outage");
    namespace.service("app", &[("http", 80, 8080)]);
    let one = namespace.pod("app-1", "app");
    eventually("it is an endpoint", || namespace.endpoints("app").len() == 1);
    control_plane.stop_api();
    assert!(control_plane.ask("GET", "/readyz", &Value::Null).is_err());
    control_plane.start_api();
    assert_eq!(namespace.endpoints("app").len(), 1);
    namespace.pod("app-2", "app");
    eventually("the controllers go on", || namespace.endpoints("app").len() == 2);
    one.remove();
    eventually("the controllers go on", || namespace.endpoints("app").len() == 1);
}
