//! The charts, installed by Helm on the real API server; and Gibbon with the flags and rights that the
//! chart gives it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use clap::Parser;
use gibbon::args::{Cli, Command};
use serde_json::{Value, json};

use crate::certificates::secret;
use crate::control_plane::{ControlPlane, condition, eventually};
use crate::gibbon::Gibbon;
use crate::life::{balancer, pod, until};
use crate::pods::Namespace;
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    the_definition_is_taken_over_upgraded_and_kept,
    its_flags_are_those_that_the_program_understands,
    its_pods_pass_the_level_restricted_through_its_life,
    each_option_is_accepted_by_the_api_server,
    a_wrong_value_is_refused_with_its_place,
    its_account_serves_all_namespaces_with_the_rights_that_it_has,
    its_account_serves_some_namespaces_with_rights_in_these_alone,
    who_edits_a_namespace_writes_its_balancers_but_no_status,
];

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/balancers.gibbon.dev";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

/// What a role may name: group, resource, subresource.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("gibbon.dev", "balancers", ""),
    ("gibbon.dev", "balancers", "status"),
    ("", "services", ""),
    ("discovery.k8s.io", "endpointslices", ""),
    ("events.k8s.io", "events", ""),
    ("coordination.k8s.io", "leases", ""),
    ("", "secrets", ""),
    ("", "configmaps", ""),
    ("", "pods", ""),
    ("", "events", ""),
    ("", "namespaces", ""),
];
const VERBS: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];

/// What it needs where its Balancers are.
const SERVES: &[&str] = &[
    "list balancers",
    "watch balancers",
    "patch balancers/status",
    "list services",
    "watch services",
    "list endpointslices",
    "watch endpointslices",
    "create events.k8s.io/events",
    "patch events.k8s.io/events",
];
/// What TLS needs besides.
const READS_SECRETS: &[&str] = &["get secrets", "list secrets", "watch secrets"];
/// What it needs where it runs.
const LEADS: &[&str] = &["create leases", "get leases", "update leases"];
/// What it needs where its own Service is.
const SEES: &[&str] =
    &["list services", "watch services", "list endpointslices", "watch endpointslices"];

fn chart(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts").join(name).display().to_string()
}

/// Runs helm; returns what it prints, or what it complains of.
fn helm(control_plane: &ControlPlane, arguments: &[&str]) -> Result<String, String> {
    let output = control_plane.helm(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Installs or upgrades a release `gibbon` with these values; returns its notes.
fn install(namespace: &Namespace, values: &Value) -> Result<String, String> {
    let values = values.to_string();
    let chart = chart("gibbon");
    let arguments =
        ["upgrade", "--install", "gibbon", &chart, "-n", &namespace.name, "--set-json", &values];
    helm(namespace.control_plane, &arguments)
}

/// One object out of the templates.
fn rendered(control_plane: &ControlPlane, template: &str, values: &Value) -> Value {
    let (chart, values) = (chart("gibbon"), values.to_string());
    let arguments = ["template", "gibbon", &chart, "--set-json", &values, "--show-only", template];
    serde_saphyr::from_str(&helm(control_plane, &arguments).unwrap()).unwrap()
}

/// A namespace that admits Pods of the level `restricted` only.
fn restricted<'c>(control_plane: &'c ControlPlane, prefix: &str) -> Namespace<'c> {
    let namespace = control_plane.namespace(prefix);
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let path = format!("/api/v1/namespaces/{}", namespace.name);
    control_plane.merge(&path, &json!({"metadata": {"labels": labels}}));
    namespace
}

/// Whether a Pod would be admitted; else why not.
fn admitted(namespace: &Namespace, spec: &Value) -> Result<(), String> {
    let mut spec = spec.clone();
    // Its own is in the release's namespace only.
    spec["serviceAccountName"] = "default".into();
    let pod = json!({"metadata": {"name": "tried"}, "spec": spec});
    let path = namespace.path("pods?dryRun=All");
    match namespace.control_plane.ask("POST", &path, &pod).unwrap() {
        (201, _) => Ok(()),
        (_, refusal) => Err(refusal["message"].as_str().unwrap_or_default().to_owned()),
    }
}

/// What a user may do in a namespace, or everywhere if it is empty, with objects of this name.
fn rights(
    control_plane: &ControlPlane,
    user: &str,
    namespace: &str,
    name: &str,
) -> BTreeSet<String> {
    let may = |verb: &str, (group, resource, subresource): &(&str, &str, &str)| {
        let attributes = json!({"verb": verb, "group": group, "resource": resource,
            "subresource": subresource, "namespace": namespace, "name": name});
        let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        control_plane.create(path, &review)["status"]["allowed"] == true
    };
    let mut found = BTreeSet::new();
    for resource in RESOURCES {
        for verb in VERBS.iter().filter(|verb| may(verb, resource)) {
            found.insert(match *resource {
                (group, "events", _) if !group.is_empty() => format!("{verb} {group}/events"),
                (_, resource, "") => format!("{verb} {resource}"),
                (_, resource, subresource) => format!("{verb} {resource}/{subresource}"),
            });
        }
    }
    found
}

fn expected(parts: &[&[&str]]) -> BTreeSet<String> {
    parts.iter().flat_map(|part| part.iter()).map(ToString::to_string).collect()
}

/// The arguments of the container of the release.
fn arguments(namespace: &Namespace) -> Vec<String> {
    let deployment = namespace.control_plane.get(&namespace.path("apps/v1/deployments/gibbon"));
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let env = container["env"].as_array().unwrap().iter();
    let env: Vec<_> = env
        .map(|v| [&v["name"], &v["valueFrom"]["fieldRef"]["fieldPath"]].map(Value::to_string))
        .collect();
    let known = [
        ["\"GIBBON_IDENTITY\"", "\"metadata.name\""],
        ["\"GIBBON_OWN_ADDRESSES\"", "\"status.podIPs\""],
    ];
    assert_eq!(env, known);
    serde_json::from_value(container["args"].clone()).unwrap()
}

/// Gibbon as the release's Pod would run it: with its token, flags and variables, but where it listens.
fn run(namespace: &Namespace, address: &str) -> Gibbon {
    let kubeconfig = namespace.control_plane.kubeconfig_of(&namespace.name, "gibbon");
    let mut flags = arguments(namespace);
    assert_eq!(flags.remove(0), "serve");
    flags.retain(|flag| !flag.starts_with("--listen=") && !flag.starts_with("--admin="));
    flags.push("--identity=gibbon-pod".into());
    flags.push(format!("--own-addresses={address},2001:db8::7"));
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    Gibbon::ready(&kubeconfig, &flags)
}

fn lease(namespace: &Namespace, name: &str) -> Value {
    let path = namespace.path(&format!("coordination.k8s.io/v1/leases/{name}"));
    namespace.control_plane.find(&path).unwrap_or_default()
}

/// How often an Event of this reason was told of a Balancer.
fn told(namespace: &Namespace, balancer: &str, reason: &str) -> u64 {
    let events = namespace.control_plane.get(&namespace.path("events.k8s.io/v1/events"));
    let events = events["items"].as_array().unwrap().iter();
    let of = events.filter(|e| e["reason"] == reason && e["regarding"]["name"] == balancer);
    of.map(|event| event["series"]["count"].as_u64().unwrap_or(1)).sum()
}

fn the_definition_is_taken_over_upgraded_and_kept(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("crds");
    let chart = chart("gibbon-crds");
    helm(control_plane, &["lint", "--strict", &chart]).unwrap();
    let upgrade = |more: &[&str]| {
        let common = ["upgrade", "--install", "gibbon-crds", &chart, "-n", &namespace.name];
        helm(control_plane, &[&common[..], more].concat())
    };
    let refusal = upgrade(&["--set", "label=a"]).unwrap_err();
    assert!(refusal.contains("additional properties 'label' not allowed"), "{refusal}");
    // It was applied by kubectl before.
    let refusal = upgrade(&[]).unwrap_err();
    assert!(refusal.contains("cannot be imported into the current release"), "{refusal}");
    let notes = upgrade(&["--take-ownership"]).unwrap();
    assert!(notes.contains("kubectl explain balancer.spec"), "{notes}");
    upgrade(&["--set", "commonLabels.team=web"]).unwrap();
    let definition = control_plane.get(DEFINITION);
    assert_eq!(definition["metadata"]["labels"]["team"], "web");
    assert!(condition(&definition, "Established"));

    namespace.apply(&balancer("app", "kept.site.com", ""));
    helm(control_plane, &["uninstall", "gibbon-crds", "-n", &namespace.name]).unwrap();
    let path = namespace.path("gibbon.dev/v1alpha1/balancers/app");
    assert!(control_plane.find(DEFINITION).is_some() && control_plane.find(&path).is_some());
    upgrade(&[]).unwrap();
}

fn its_flags_are_those_that_the_program_understands(control_plane: &ControlPlane) {
    let values = json!({
        "className": "inner", "watchNamespaces": ["shop", "blog"], "shareHosts": true,
        "anyHost": ["*"], "urlMembers": ["shop"], "denyMembers": ["10.0.0.0/28", "fd00::/8"],
        "publishAddresses": ["198.51.100.7", "lb.site.com"], "trustedProxies": ["10.1.0.0/16"],
        "workers": 2, "log": {"access": "json"}, "listenAddress": "::",
        "extraArgs": ["--max-head=131072"],
    });
    let workload = rendered(control_plane, "templates/workload.yaml", &values);
    let arguments = &workload["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments: Vec<String> = serde_json::from_value(arguments.clone()).unwrap();
    let cli = Cli::try_parse_from([vec!["gibbon".to_owned()], arguments].concat()).unwrap();
    let Command::Serve(serve) = cli.command else { panic!("not serve") };
    assert_eq!((serve.max_head, serve.workers), (131_072, 2));
    assert_eq!(serve.listen, ["[::]:8080".parse().unwrap()]);
    let cluster = serve.cluster;
    assert_eq!(cluster.class.as_deref(), Some("inner"));
    assert_eq!(cluster.namespaces, ["shop", "blog"]);
    assert!(cluster.share_hosts);
    assert_eq!((cluster.any_host, cluster.url_members), (vec!["*".into()], vec!["shop".into()]));
    assert_eq!((cluster.deny_members.len(), serve.trusted_proxies.len()), (2, 1));
    assert_eq!(cluster.publish_address, ["198.51.100.7", "lb.site.com"]);
    assert_eq!(cluster.publish_service, None);
    assert_eq!(cluster.lease_namespace.as_deref(), Some("default"));
}

fn its_pods_pass_the_level_restricted_through_its_life(control_plane: &ControlPlane) {
    let namespace = restricted(control_plane, "level");
    let chart = chart("gibbon");
    helm(control_plane, &["lint", "--strict", &chart]).unwrap();
    let notes = install(&namespace, &json!({})).unwrap();
    assert!(!notes.contains("MISSING"), "{notes}");
    let pods = || {
        let list = namespace.path("pods?labelSelector=app.kubernetes.io%2Fname%3Dgibbon");
        control_plane.get(&list)["items"].as_array().unwrap().clone()
    };
    eventually("its Pods are made", || pods().len() == 2);
    let events = control_plane.get(&namespace.path("events.k8s.io/v1/events"));
    let failed = |event: &&Value| event["reason"] == "FailedCreate";
    assert_eq!(events["items"].as_array().unwrap().iter().find(failed), None);
    let spec = &pods()[0]["spec"];
    assert_eq!(spec["serviceAccountName"], "gibbon");
    assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);

    // That the level is in force; then other Pods of the chart.
    let refusal = admitted(&namespace, &json!({"containers": [{"name": "a", "image": "a"}]}));
    assert!(refusal.unwrap_err().contains("violates PodSecurity \"restricted"));
    let test = rendered(control_plane, "templates/tests/ready.yaml", &json!({}));
    admitted(&namespace, &test["spec"]).unwrap();
    let variant = |values: Value| {
        let workload = rendered(control_plane, "templates/workload.yaml", &values);
        admitted(&namespace, &workload["spec"]["template"]["spec"])
    };
    variant(json!({"kind": "DaemonSet"})).unwrap();
    for values in [json!({"hostNetwork": true}), json!({"hostPort": {"enabled": true}})] {
        assert!(variant(values).unwrap_err().contains("violates PodSecurity"));
    }

    install(&namespace, &json!({"replicas": 3, "className": "level"})).unwrap();
    let deployment = control_plane.get(&namespace.path("apps/v1/deployments/gibbon"));
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert!(arguments(&namespace).contains(&"--class=level".to_owned()));
    let role = format!("{ROLES}/gibbon.{}", namespace.name);
    assert!(control_plane.find(&role).is_some());
    helm(control_plane, &["uninstall", "gibbon", "-n", &namespace.name]).unwrap();
    eventually("its Pods are gone", || pods().is_empty());
    assert!(control_plane.find(&role).is_none() && control_plane.find(DEFINITION).is_some());
}

fn each_option_is_accepted_by_the_api_server(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("options");
    let class = namespace.name.clone();
    for (more, resource) in [
        (
            json!({"autoscaling": {"enabled": true}}),
            "autoscaling/v2/horizontalpodautoscalers/gibbon",
        ),
        (
            json!({"networkPolicy": {"enabled": true, "egress": [{"ports": [{"port": 443}]}]}}),
            "networking.k8s.io/v1/networkpolicies/gibbon",
        ),
        (
            json!({"podDisruptionBudget": {"minAvailable": "50%", "maxUnavailable": null}}),
            "policy/v1/poddisruptionbudgets/gibbon",
        ),
        (
            json!({"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}}),
            "services/gibbon",
        ),
        (json!({"kind": "DaemonSet", "hostPort": {"enabled": true}}), "apps/v1/daemonsets/gibbon"),
        (json!({"kind": "DaemonSet", "hostNetwork": true}), "apps/v1/daemonsets/gibbon"),
        (
            json!({"priorityClassName": "system-cluster-critical", "minReadySeconds": 5,
                "listenAddress": "::", "tolerations": [{"operator": "Exists"}],
                "updateStrategy": {"type": "Recreate"}, "commonLabels": {"team": "web"}}),
            "apps/v1/deployments/gibbon",
        ),
    ] {
        let mut values = more.clone();
        values["className"] = class.clone().into();
        install(&namespace, &values).unwrap_or_else(|refusal| panic!("{more}: {refusal}"));
        assert!(control_plane.find(&namespace.path(resource)).is_some(), "{more}");
    }
    helm(control_plane, &["uninstall", "gibbon", "-n", &namespace.name]).unwrap();
}

fn a_wrong_value_is_refused_with_its_place(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("values");
    for (values, message) in [
        (json!({"replica": 3}), "additional properties 'replica' not allowed"),
        (json!({"log": {"levels": "x"}}), "at '/log': additional properties 'levels' not allowed"),
        (json!({"replicas": "many"}), "at '/replicas': got string, want integer"),
        (json!({"extraArgs": ["--class=a"], "className": "b"}), "--class is set already"),
        (json!({"ports": {"http": 9090}}), "ports.admin must differ from ports.http"),
    ] {
        let refusal = install(&namespace, &values).unwrap_err();
        assert!(refusal.contains(message), "{values}: {refusal}");
    }
    let releases = helm(control_plane, &["list", "-n", &namespace.name, "-o", "json"]).unwrap();
    assert_eq!(releases.trim(), "[]");
}

fn its_account_serves_all_namespaces_with_the_rights_that_it_has(control_plane: &ControlPlane) {
    let own = restricted(control_plane, "rights");
    let site = control_plane.namespace("rights-site");
    let class = own.name.clone();
    let log = json!({"level": "info,gibbon=debug"});
    install(&own, &json!({"className": class, "log": log})).unwrap();
    let user = format!("system:serviceaccount:{}:gibbon", own.name);
    let held = "gibbon".to_owned();
    eventually("its rights are in force, and no others", || {
        rights(control_plane, &user, &own.name, &held) == expected(&[SERVES, LEADS])
            && rights(control_plane, &user, &site.name, "any") == expected(&[SERVES])
    });
    assert_eq!(
        rights(control_plane, &user, &own.name, "other"),
        expected(&[SERVES, &["create leases"]]),
        "other leases are not its own"
    );

    site.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&site, "app-0", "app");
    site.service("self", &[("http", 80, 8080)]);
    let (itself, _member) = pod(&site, "self-0", "self");
    let in_class = format!("  className: {class}\n");
    let text = balancer("app", "rights.site.com", &in_class);
    site.apply(&text);
    let gibbon = run(&own, &itself.address.to_string());
    until(&site, "app", "Programmed", "True", "Programmed");
    until(&site, "app", "ResolvedRefs", "True", "ResolvedRefs");
    assert_eq!(gibbon.get("rights.site.com", "/").text(), "app-0");
    assert_eq!(lease(&own, &held)["spec"]["holderIdentity"], "gibbon-pod");
    eventually("an Event tells of it", || told(&site, "app", "Programmed") == 1);

    let service = own.path("services/gibbon/status");
    let ingress = json!([{"ip": "198.51.100.7"}, {"hostname": "lb.site.com"}]);
    control_plane.merge(&service, &json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    let path = site.path("gibbon.dev/v1alpha1/balancers/app");
    let addresses = json!([{"ip": "198.51.100.7"}, {"hostname": "lb.site.com"}]);
    eventually("the Service's addresses are in the status", || {
        control_plane.get(&path)["status"]["addresses"] == addresses
    });
    site.apply(&text.replace("name: app", "name: self").replace("rights.", "self."));
    let message = until(&site, "self", "ResolvedRefs", "False", "AddressNotPermitted");
    assert!(message.contains("Gibbon's own"), "{message}");
    // The same Event again is a change of the first.
    for _ in 0..2 {
        control_plane.delete(&site.path("services/app"));
        until(&site, "app", "ResolvedRefs", "False", "ServiceNotFound");
        site.service("app", &[("http", 80, 8080)]);
        until(&site, "app", "ResolvedRefs", "True", "ResolvedRefs");
    }
    eventually("Events tell of it twice", || told(&site, "app", "ServiceNotFound") == 2);
    let log = gibbon.log();
    assert!(!log.contains("forbidden"), "{log}");
    let ready = gibbon.page("/readyz?verbose").unwrap().text();
    assert!(!ready.contains("[!]"), "{ready}");
    drop(gibbon);

    // With TLS it may read Secrets, and needs to.
    let tls = json!({"enabled": true, "defaultCertificate": format!("{}/any", own.name)});
    install(&own, &json!({"className": class, "log": {"level": "info,gibbon=debug"}, "tls": tls}))
        .unwrap();
    eventually("its rights have grown by these", || {
        rights(control_plane, &user, &site.name, "any") == expected(&[SERVES, READS_SECRETS])
    });
    let any = secret(&own, "any", &["rights.site.com"]);
    let gibbon = run(&own, &itself.address.to_string());
    let secure = (Ipv4Addr::LOCALHOST, 8443).into();
    eventually("it serves with TLS", || {
        any.get(secure, "rights.site.com").is_ok_and(|seen| seen.text() == "app-0")
    });
    assert!(!gibbon.log().contains("forbidden"), "{}", gibbon.log());
    drop(gibbon);
    helm(control_plane, &["uninstall", "gibbon", "-n", &own.name]).unwrap();
    assert!(control_plane.find(&path).is_some());
}

fn its_account_serves_some_namespaces_with_rights_in_these_alone(control_plane: &ControlPlane) {
    let own = restricted(control_plane, "roles");
    let sites = [control_plane.namespace("roles-a"), control_plane.namespace("roles-b")];
    let other = control_plane.namespace("roles-other");
    let watched = [&sites[0].name, &sites[1].name];
    let log = json!({"level": "info,gibbon=debug"});
    let notes = install(&own, &json!({"watchNamespaces": watched, "log": log})).unwrap();
    let roles = control_plane.get(ROLES);
    let named = |role: &&Value| role["metadata"]["name"].as_str().unwrap().contains(&own.name);
    assert_eq!(roles["items"].as_array().unwrap().iter().find(named), None);
    let user = format!("system:serviceaccount:{}:gibbon", own.name);
    let has = |namespace: &str, parts: &[&[&str]]| {
        rights(control_plane, &user, namespace, "gibbon") == expected(parts)
    };
    eventually("its rights are in force, and no others", || {
        sites.iter().all(|site| has(&site.name, &[SERVES]))
            && has(&own.name, &[SEES, LEADS])
            && has(&other.name, &[])
            && has("", &[])
    });

    for site in [&sites[0], &sites[1], &other] {
        site.service("app", &[("http", 80, 8080)]);
    }
    let _pods = sites.each_ref().map(|site| pod(site, "app-0", "app"));
    let gibbon = run(&own, "203.0.113.254");
    // As the notes say.
    let (_, rest) = notes.split_once("<<'END'\n").unwrap();
    let (first, _) = rest.split_once("\nEND\n").unwrap();
    sites[0].apply(first);
    sites[1].apply(&balancer("app", "roles-b.site.com", ""));
    other.apply(&balancer("app", "roles-other.site.com", ""));
    for site in &sites {
        until(site, "app", "Programmed", "True", "Programmed");
        until(site, "app", "ResolvedRefs", "True", "ResolvedRefs");
        eventually("an Event tells of it", || told(site, "app", "Programmed") == 1);
    }
    assert_eq!(gibbon.get("www.site.com", "/").text(), "app-0");
    assert_eq!(gibbon.get("roles-b.site.com", "/").text(), "app-0");
    assert_eq!(gibbon.get("roles-other.site.com", "/").status, 404);
    assert_eq!(lease(&own, "gibbon")["spec"]["holderIdentity"], "gibbon-pod");
    let log = gibbon.log();
    assert!(!log.contains("forbidden"), "{log}");
    let ready = gibbon.page("/readyz?verbose").unwrap().text();
    assert!(!ready.contains("[!]"), "{ready}");
    drop(gibbon);
    helm(control_plane, &["uninstall", "gibbon", "-n", &own.name]).unwrap();
    assert!(!sites.iter().any(|site| has(&site.name, &[SERVES])));
}

fn who_edits_a_namespace_writes_its_balancers_but_no_status(control_plane: &ControlPlane) {
    let own = control_plane.namespace("users");
    let site = control_plane.namespace("users-site");
    install(&own, &json!({"className": own.name})).unwrap();
    for role in ["edit", "view"] {
        site.apply(
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}],
            })
            .to_string(),
        );
    }
    let of_balancers = |user: &str| -> BTreeSet<_> {
        let all = rights(control_plane, user, &site.name, "any").into_iter();
        all.filter(|right| right.contains("balancers")).collect()
    };
    eventually("the roles were extended", || {
        of_balancers("view").len() == 3 && of_balancers("edit").len() == VERBS.len()
    });
    for user in ["view", "edit"] {
        assert!(!of_balancers(user).iter().any(|right| right.ends_with("/status")));
    }
    helm(control_plane, &["uninstall", "gibbon", "-n", &own.name]).unwrap();
}
