//! The programs that the tests use, and whose rights they have.

use std::process::Command;

use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, eventually};
use crate::gibbon::Gibbon;
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    kubectl_and_the_api_server_have_the_pinned_version,
    helm_reaches_the_api_server,
    an_account_has_the_rights_of_its_roles_only,
    in_a_pod_gibbon_has_its_service_account,
    without_a_cluster_gibbon_says_what_it_wants,
];

const GIBBON: &str = env!("CARGO_BIN_EXE_gibbon");
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

fn in_a_pod_gibbon_has_its_service_account(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("pod");
    let everything = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "gibbon"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "gibbon"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gibbon"},
        "subjects": [{"kind": "ServiceAccount", "name": "default"}]});
    namespace.apply(&format!("{everything}\n---\n{binding}"));
    let environment = control_plane.as_in_a_pod(&namespace.name, "default");
    let flags = ["--namespaces", &namespace.name, "--identity", "pod"];
    let gibbon = Gibbon::start_with(&environment, &flags);
    eventually("it is ready", || gibbon.page("/readyz").is_some_and(|seen| seen.status == 200));
    // The lease is in the pod's own namespace.
    let lease = namespace.path("coordination.k8s.io/v1/leases/gibbon");
    eventually("it leads", || {
        control_plane.find(&lease).is_some_and(|lease| lease["spec"]["holderIdentity"] == "pod")
    });
    // A probe by the program itself.
    let probe = |page: &str| {
        let url = format!("http://{}{page}", gibbon.admin);
        Command::new(GIBBON).args(["healthz", &url]).output().unwrap()
    };
    let ready = probe("/readyz");
    assert!(ready.status.success() && ready.stdout == b"ok\n");
    assert_eq!(probe("/nothing").status.code(), Some(1));
}

fn without_a_cluster_gibbon_says_what_it_wants(_: &ControlPlane) {
    let mut gibbon = Command::new(GIBBON);
    gibbon.arg("serve").env_clear().env("KUBECONFIG", "/nowhere");
    let output = gibbon.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("no cluster is known: give --files DIR"), "{error}");
}
