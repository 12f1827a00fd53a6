//! Who writes Balancers in one namespace is not trusted with another's hosts, nor with what Gibbon
//! reaches.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, eventually};
use crate::gibbon::Gibbon;
use crate::life::{balancer, pod, until};
use crate::pods::{Namespace, address};
use crate::support::{Member, ok};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    a_host_belongs_to_the_namespace_that_claimed_it_first,
    a_balancer_that_is_edited_later_takes_no_host_over,
    who_leaves_the_class_and_comes_back_takes_no_host_over,
    who_is_edited_while_gibbon_is_away_keeps_its_hosts,
    nothing_is_served_before_a_namespace_is_known,
    a_member_that_is_added_while_its_name_is_unknown_ends_nothing,
    hosts_are_shared_if_the_operator_says_so,
    wildcards_and_any_host_get_no_names_of_others,
    external_names_are_members_by_url,
    addresses_of_gibbon_and_of_the_machine_are_no_members,
    only_services_beside_gibbon_are_its_own,
    a_tenant_may_not_write_statuses,
];

/// A Gibbon of both namespaces; its lease is in the first.
fn of_both(one: &Namespace, two: &Namespace, flags: &[&str]) -> Gibbon {
    let both = format!("{},{}", one.name, two.name);
    let own = ["--namespaces", &both, "--lease-namespace", &one.name];
    let flags: Vec<_> = own.iter().chain(flags).copied().collect();
    Gibbon::ready(&one.control_plane.kubeconfig, &flags)
}

fn path(namespace: &Namespace, name: &str) -> String {
    namespace.path(&format!("gibbon.dev/v1alpha1/balancers/{name}"))
}

/// A namespace with a Service `app` and one pod that answers with this name.
macro_rules! tenant {
    ($control_plane:ident, $name:literal, $pod:ident) => {{
        let namespace = $control_plane.namespace($name);
        namespace.service("app", &[("http", 80, 8080)]);
        $pod = pod(&namespace, $name, "app");
        namespace
    }};
}

fn a_host_belongs_to_the_namespace_that_claimed_it_first(control_plane: &ControlPlane) {
    let (_one, _two);
    let first = tenant!(control_plane, "first", _one);
    let second = tenant!(control_plane, "second", _two);
    let gibbon = of_both(&first, &second, &[]);
    first.apply(&balancer("app", "www.site.com", ""));
    until(&first, "app", "Accepted", "True", "Accepted");
    second.apply(&balancer("app", "www.site.com", "  path: /deeper/\n"));
    second.apply(&balancer("partly", "'WWW.site.com', own.site.com", "  path: /deeper/\n"));
    let message = until(&second, "app", "Accepted", "False", "HostOwnedByAnotherNamespace");
    let owner = format!("host www.site.com belongs to namespace {}", first.name);
    assert!(message.contains(&owner), "{message}");
    let message = until(&second, "partly", "Accepted", "True", "PartiallyAccepted");
    assert!(message.contains("HostOwnedByAnotherNamespace"), "{message}");
    assert_eq!(gibbon.get("www.site.com", "/deeper/x").text(), "first");
    assert_eq!(gibbon.get("own.site.com", "/deeper/x").text(), "second");
    // The owner leaves: the next claim counts.
    control_plane.delete(&path(&first, "app"));
    until(&second, "app", "Accepted", "True", "Accepted");
    assert_eq!(gibbon.get("www.site.com", "/deeper/x").text(), "second");
}

fn a_balancer_that_is_edited_later_takes_no_host_over(control_plane: &ControlPlane) {
    let (_one, _two);
    let old = tenant!(control_plane, "old", _one);
    let young = tenant!(control_plane, "young", _two);
    let gibbon = of_both(&old, &young, &[]);
    old.apply(&balancer("app", "old.site.com", ""));
    until(&old, "app", "Accepted", "True", "Accepted");
    young.apply(&balancer("app", "www.site.com", ""));
    until(&young, "app", "Accepted", "True", "Accepted");
    // The older object asks for the host now, which was claimed before.
    old.apply(&balancer("app", "old.site.com, www.site.com", ""));
    until(&old, "app", "Accepted", "True", "PartiallyAccepted");
    assert_eq!(gibbon.get("www.site.com", "/").text(), "young");
    // So it is to a Gibbon that begins later, and knows no more than what is written.
    drop(gibbon);
    let again = of_both(&old, &young, &[]);
    assert_eq!(again.get("www.site.com", "/").text(), "young");
    assert_eq!(again.get("old.site.com", "/").text(), "old");
}

fn who_leaves_the_class_and_comes_back_takes_no_host_over(control_plane: &ControlPlane) {
    let (_one, _two);
    let evil = tenant!(control_plane, "evil", _one);
    let good = tenant!(control_plane, "good", _two);
    let gibbon = of_both(&evil, &good, &[]);
    evil.apply(&balancer("app", "www.site.com", ""));
    until(&evil, "app", "Accepted", "True", "Accepted");
    let class = |class: Value| {
        control_plane.merge(&path(&evil, "app"), &json!({"spec": {"className": class}}));
    };
    class("elsewhere".into());
    eventually("nothing of it is left", || {
        let status = &control_plane.get(&path(&evil, "app"))["status"];
        status["hosts"].as_array().is_none_or(Vec::is_empty) && status["ready"].is_null()
    });
    good.apply(&balancer("app", "www.site.com", ""));
    until(&good, "app", "Accepted", "True", "Accepted");
    class(Value::Null);
    until(&evil, "app", "Accepted", "False", "HostOwnedByAnotherNamespace");
    assert_eq!(gibbon.get("www.site.com", "/").text(), "good");
    drop(gibbon);
    // And to one that has seen nothing of it.
    let gibbon = of_both(&evil, &good, &[]);
    assert_eq!(gibbon.get("www.site.com", "/").text(), "good");
}

fn who_is_edited_while_gibbon_is_away_keeps_its_hosts(control_plane: &ControlPlane) {
    let (_one, _two);
    let good = tenant!(control_plane, "edited", _one);
    let evil = tenant!(control_plane, "waiting", _two);
    let gibbon = of_both(&good, &evil, &[]);
    good.apply(&balancer("app", "www.site.com", ""));
    until(&good, "app", "Accepted", "True", "Accepted");
    evil.apply(&balancer("app", "www.site.com", ""));
    until(&evil, "app", "Accepted", "False", "HostOwnedByAnotherNamespace");
    let claimed = || control_plane.get(&path(&good, "app"))["status"]["hosts"].clone();
    let before = claimed();
    // No end that could be told of.
    gibbon.signal("-KILL");
    drop(gibbon);
    good.apply(&balancer("app", "www.site.com", "  timeouts: {connect: 1s}\n"));
    let gibbon = of_both(&good, &evil, &[]);
    assert_eq!(gibbon.get("www.site.com", "/").text(), "edited");
    eventually("its status is of the edit", || {
        let object = control_plane.get(&path(&good, "app"));
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
    });
    assert_eq!(claimed(), before);
    assert_eq!(gibbon.get("www.site.com", "/").text(), "edited");
    until(&evil, "app", "Accepted", "False", "HostOwnedByAnotherNamespace");
}

fn nothing_is_served_before_a_namespace_is_known(control_plane: &ControlPlane) {
    let _pod;
    let open = tenant!(control_plane, "open", _pod);
    let shut = control_plane.namespace("shut");
    open.apply(&balancer("app", "www.site.com", ""));
    let config = control_plane.kubeconfig_of(&open.name, "default");
    let both = format!("{},{}", open.name, shut.name);
    let flags = ["--namespaces", &both, "--lease-namespace", &open.name];
    let gibbon = Gibbon::start(&config, &flags);
    eventually("it says so", || {
        let page = gibbon.page("/readyz?verbose").unwrap();
        page.status == 503 && page.text().contains("balancers in")
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(gibbon.page("/readyz").unwrap().status, 503);
    // Rights in one namespace; that the other stays closed is seen in time.
    let all = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["*"]});
    let granted = json!([
        all("gibbon.dev", &["balancers", "balancers/status"]),
        all("discovery.k8s.io", &["endpointslices"]),
        all("coordination.k8s.io", &["leases"]),
        all("", &["services"]),
    ]);
    let role = json!({"metadata": {"name": "gibbon"}, "rules": granted});
    control_plane.create(&open.path("rbac.authorization.k8s.io/v1/roles"), &role);
    let binding = json!({
        "metadata": {"name": "gibbon"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gibbon"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": open.name}],
    });
    control_plane.create(&open.path("rbac.authorization.k8s.io/v1/rolebindings"), &binding);
    eventually("it is ready", || gibbon.page("/readyz").unwrap().status == 200);
    assert_eq!(gibbon.get("www.site.com", "/").text(), "open");
}

fn a_member_that_is_added_while_its_name_is_unknown_ends_nothing(control_plane: &ControlPlane) {
    let _pod;
    let namespace = tenant!(control_plane, "unknown", _pod);
    let gibbon = Gibbon::of(&namespace, &["--url-members", "*"]);
    let one = balancer("app", "www.site.com", "");
    namespace.apply(&one);
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    namespace.apply(&format!(
        "{one}  - url: http://nowhere.invalid/\n  - url: http://localhost:8080/\n"
    ));
    let message = until(&namespace, "app", "ResolvedRefs", "False", "NameNotResolved");
    assert!(message.contains("spec.members[1].url: nowhere.invalid"), "{message}");
    assert_eq!(gibbon.get("www.site.com", "/").text(), "unknown");
}

fn hosts_are_shared_if_the_operator_says_so(control_plane: &ControlPlane) {
    let (_one, _two);
    let first = tenant!(control_plane, "share-one", _one);
    let second = tenant!(control_plane, "share-two", _two);
    let gibbon = of_both(&first, &second, &["--share-hosts"]);
    first.apply(&balancer("app", "www.site.com", ""));
    second.apply(&balancer("deeper", "www.site.com", "  path: /deeper/\n"));
    until(&second, "deeper", "Accepted", "True", "Accepted");
    eventually("both are served", || gibbon.get("www.site.com", "/deeper/").text() == "share-two");
    assert_eq!(gibbon.get("www.site.com", "/").text(), "share-one");
}

fn wildcards_and_any_host_get_no_names_of_others(control_plane: &ControlPlane) {
    let (_one, _two);
    let owner = tenant!(control_plane, "owner", _one);
    let other = tenant!(control_plane, "other", _two);
    let gibbon = of_both(&owner, &other, &["--any-host", &other.name]);
    owner.apply(&balancer("app", "www.site.com", "  path: /app/\n"));
    until(&owner, "app", "Accepted", "True", "Accepted");
    other.apply(&balancer("wild", "'*.site.com'", ""));
    until(&other, "wild", "Accepted", "True", "Accepted");
    let any = balancer("any", "x", "").replace("hosts: [x]", "path: /any/");
    other.apply(&any);
    until(&other, "any", "Accepted", "True", "Accepted");
    owner.apply(&any);
    let message = until(&owner, "any", "Accepted", "False", "AnyHostNotPermitted");
    assert!(message.contains("--any-host (the chart's anyHost)"), "{message}");
    assert_eq!(gibbon.get("www.site.com", "/app/").text(), "owner");
    assert_eq!(gibbon.get("www.site.com", "/").status, 404);
    assert_eq!(gibbon.get("www.site.com", "/any/").status, 404);
    assert_eq!(gibbon.get("a.site.com", "/").text(), "other");
    assert_eq!(gibbon.get("unknown.org", "/any/").text(), "other");
}

fn external_names_are_members_by_url(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("external");
    let at = address();
    let _member = Member::at((at, 8080).into(), |_| ok("outside"));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        // A name that the resolver knows without asking anybody.
        "spec": {"type": "ExternalName", "externalName": "outside.example", "ports": [{"name": "http", "port": 80}]},
    });
    control_plane.create(&namespace.path("services"), &service);
    let to = format!("outside.example:80:{at}:8080");
    let fixed = ["--connect-to", to.as_str()];
    let gibbon = Gibbon::of(&namespace, &fixed);
    namespace.apply(&balancer("app", "www.site.com", ""));
    let message = until(&namespace, "app", "ResolvedRefs", "False", "UrlMembersNotPermitted");
    assert!(message.contains("--url-members (the chart's urlMembers)"), "{message}");
    assert_eq!(gibbon.get("www.site.com", "/").status, 503);
    drop(gibbon);
    let permitted = [&fixed[..], &["--url-members", &namespace.name]].concat();
    let gibbon = Gibbon::of(&namespace, &permitted);
    eventually("it is served", || gibbon.get("www.site.com", "/").text() == "outside");
    // The same by URL.
    let url = "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {name: url}\nspec:\n  hosts: [url.site.com]\n  members:\n  - url: http://outside.example/\n  - service: {name: app, port: http}\n";
    namespace.apply(url);
    eventually("both entries are members", || gibbon.members("url", "usable") == 2);
}

fn addresses_of_gibbon_and_of_the_machine_are_no_members(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("barred");
    let (own, denied, good) = (address(), address(), address());
    let _members = [own, denied, good].map(|at| Member::at((at, 8080).into(), |_| ok("reached")));
    let flags = ["--url-members", "*", "--own-addresses", &own.to_string(), "--deny-members"];
    let denied_network = format!("{denied}/32");
    let names = [("inside.example", "127.0.0.1".to_owned()), ("own.example", own.to_string())];
    let to: Vec<_> = names.iter().map(|(name, ip)| format!("{name}:8080:{ip}:8080")).collect();
    let to = to.join(",");
    let flags = [&flags[..], &[&denied_network, "--connect-to", &to]].concat();
    let gibbon = Gibbon::of(&namespace, &flags);
    let apply = |name: &str, member: &str| {
        namespace.apply(&format!(
            "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {{name: {name}}}\nspec:\n  \
             hosts: [{name}.site.com]\n  members:\n  - {member}\n"
        ));
    };
    for (name, host) in [
        ("loopback", "127.0.0.1".to_owned()),
        ("loopback6", "[::1]".to_owned()),
        ("mapped", "[::ffff:127.0.0.1]".to_owned()),
        ("metadata", "169.254.169.254".to_owned()),
        ("own", own.to_string()),
        ("denied", denied.to_string()),
        ("by-name", "inside.example".to_owned()),
        ("own-by-name", "own.example".to_owned()),
    ] {
        apply(name, &format!("url: 'http://{host}:8080/'"));
        let message = until(&namespace, name, "ResolvedRefs", "False", "AddressNotPermitted");
        assert!(message.starts_with("spec.members[0].url"), "{message}");
        assert_eq!(gibbon.get(&format!("{name}.site.com"), "/").status, 503, "{name}");
    }
    apply("good", &format!("url: 'http://{good}:8080/'"));
    eventually("others are", || gibbon.get("good.site.com", "/").text() == "reached");
    // A slice that somebody has written by hand is filtered too.
    namespace.service("hand", &[("http", 80, 8080)]);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "hand"}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [own.to_string()]}, {"addresses": [good.to_string()]}],
    });
    control_plane.create(&namespace.path("discovery.k8s.io/v1/endpointslices"), &slice);
    apply("hand", "service: {name: hand, port: http}");
    eventually("the other address is a member", || gibbon.members("hand", "usable") == 1);
}

/// A Service with Gibbon's own pod behind it and these addresses.
fn leads_to_gibbon(namespace: &Namespace, addresses: [Ipv4Addr; 2]) {
    namespace.service("metrics", &[("http", 80, 8080)]);
    let [own, like] = addresses.map(|address| address.to_string());
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "metrics", "labels": {"kubernetes.io/service-name": "metrics"}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": [own], "targetRef": {"kind": "Pod", "name": "gibbon-1"}},
            {"addresses": [like], "targetRef": {"kind": "Pod", "name": "gibbon-2"}},
        ],
    });
    namespace.control_plane.create(&namespace.path("discovery.k8s.io/v1/endpointslices"), &slice);
}

fn only_services_beside_gibbon_are_its_own(control_plane: &ControlPlane) {
    let home = control_plane.namespace("home");
    let tenant = control_plane.namespace("foreign");
    let (own, like, victim) = (address(), address(), address());
    let _members = [like, victim].map(|at| Member::at((at, 8080).into(), |_| ok("reached")));
    let address = own.to_string();
    let flags = ["--url-members", "*", "--identity", "gibbon-1", "--own-addresses", &address];
    let gibbon = of_both(&home, &tenant, &flags);
    for (name, host) in [("like", like), ("victim", victim)] {
        home.apply(&format!(
            "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {{name: {name}}}\nspec:\n  \
             hosts: [{name}.site.com]\n  members:\n  - url: 'http://{host}:8080/'\n"
        ));
        until(&home, name, "ResolvedRefs", "True", "ResolvedRefs");
    }
    // A tenant's slice says what it likes, and a Balancer of its own makes it read.
    leads_to_gibbon(&tenant, [own, victim]);
    let yaml = balancer("app", "tenant.site.com", "").replace("{name: app,", "{name: metrics,");
    tenant.apply(&yaml);
    eventually("the tenant's is a member", || gibbon.members("app", "usable") == 1);
    leads_to_gibbon(&home, [own, like]);
    until(&home, "like", "ResolvedRefs", "False", "AddressNotPermitted");
    assert_eq!(gibbon.get("like.site.com", "/").status, 503);
    assert_eq!(gibbon.get("victim.site.com", "/").text(), "reached");
    // It leads there no more.
    control_plane.delete(&home.path("discovery.k8s.io/v1/endpointslices/metrics"));
    until(&home, "like", "ResolvedRefs", "True", "ResolvedRefs");
    assert_eq!(gibbon.get("like.site.com", "/").text(), "reached");
}

fn a_tenant_may_not_write_statuses(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("status");
    // As the chart gives it to those who may edit.
    let rules = json!([{"apiGroups": ["gibbon.dev"], "resources": ["balancers"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "tenant"}, "rules": rules});
    control_plane.create(&namespace.path("rbac.authorization.k8s.io/v1/roles"), &role);
    let binding = json!({
        "metadata": {"name": "tenant"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace.name}],
    });
    control_plane.create(&namespace.path("rbac.authorization.k8s.io/v1/rolebindings"), &binding);
    let config = control_plane.kubeconfig_of(&namespace.name, "default");
    namespace.apply(&balancer("app", "www.site.com", ""));
    let as_tenant = |arguments: &[&str]| {
        let own = ["--kubeconfig", config.to_str().unwrap(), "-n", &namespace.name];
        let output = control_plane.kubectl(&[&own[..], arguments].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let claim =
        r#"{"status":{"hosts":[{"host":"www.site.com","claimedAt":"1970-01-01T00:00:00Z"}]}}"#;
    let patch = ["patch", "balancer", "app", "--type", "merge", "-p", claim];
    let (written, _) = as_tenant(&patch);
    assert!(written, "the request itself is allowed");
    let status = control_plane.get(&path(&namespace, "app"))["status"].clone();
    assert!(
        status["hosts"].is_null() || status == Value::Null,
        "and its status is left out: {status}"
    );
    let (written, error) = as_tenant(&[&patch[..], &["--subresource", "status"]].concat());
    assert!(!written && error.contains("orbidden"), "{error}");
}
