//! The programs that the tests use, and whose rights they have.

use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, eventually};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    kubectl_and_the_api_server_have_the_pinned_version,
    helm_reaches_the_api_server,
    an_account_has_the_rights_of_its_roles_only,
];

const PINS: &str = include_str!("../tools/go.mod");

fn kubectl_and_the_api_server_have_the_pinned_version(control_plane: &ControlPlane) {
    let output = control_plane.kubectl(&["version", "-o", "json"]);
    let versions: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut words = PINS.split_whitespace();
    words.find(|word| *word == "k8s.io/kubernetes").unwrap();
    let pinned = words.next().unwrap();
    assert_eq!(versions["serverVersion"]["gitVersion"], pinned);
    assert_eq!(versions["clientVersion"]["gitVersion"], pinned);
}

fn helm_reaches_the_api_server(control_plane: &ControlPlane) {
    let output = control_plane.helm(&["list", "--all-namespaces", "-o", "json"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap().is_array());
}

fn an_account_has_the_rights_of_its_roles_only(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("rights");
    control_plane
        .create(&namespace.path("serviceaccounts"), &json!({"metadata": {"name": "reader"}}));
    let kubeconfig = control_plane.kubeconfig_of(&namespace.name, "reader");
    let may = |verb: &str| {
        let flag = format!("--kubeconfig={}", kubeconfig.display());
        let arguments = [&flag, "-n", &namespace.name, "auth", "can-i", verb, "services"];
        control_plane.kubectl(&arguments).status.success()
    };
    assert!(!may("list"));
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader"}]});
    namespace.apply(&format!("{role}\n---\n{binding}"));
    eventually("the role is in force", || may("list"));
    assert!(!may("delete"));
}
