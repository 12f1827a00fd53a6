//! Endpoints that come, drain and go under load; several Gibbons; an API server that is away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::control_plane::{ControlPlane, eventually};
use crate::gibbon::Gibbon;
use crate::life::{balancer, pod, until};
use crate::support::{Act, Client, Member, ok};
use crate::{Test, tests};

pub const TESTS: &[Test] = tests![
    pods_come_drain_and_go_and_no_request_is_lost,
    a_restarted_pod_of_a_new_address_keeps_its_sessions,
    a_terminating_pod_keeps_its_sessions_and_is_the_last_resort,
    a_slice_without_pods_and_a_headless_service_have_members,
    a_member_may_have_an_address_of_ipv6,
    a_pod_is_named_by_its_port_name_and_its_hostname,
    of_two_gibbons_one_writes_and_the_other_takes_over,
    where_clients_reach_gibbon_is_in_the_status,
    shutting_down_under_load_loses_no_request,
];

/// Those that stop the API server.
pub const ALONE: &[Test] = tests![
    an_api_server_that_is_away_changes_nothing_of_what_is_served,
    an_api_server_that_is_away_at_the_start_is_waited_for,
];

/// Requests one after the other on several connections, until it is stopped.
pub struct Load {
    going: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(address: SocketAddr, host: &str) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let good = Arc::<AtomicUsize>::default();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let thread = |_| {
            let (going, good, request) = (Arc::clone(&going), Arc::clone(&good), request.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                let mut client = None;
                while going.load(SeqCst) {
                    let open = client.get_or_insert_with(|| Client::new(address));
                    match open.send(&request).read() {
                        Some(seen) if seen.status == 200 => drop(good.fetch_add(1, SeqCst)),
                        Some(seen) => failures.push(format!("{} {}", seen.status, seen.text())),
                        None => {
                            failures.push("no answer".to_owned());
                            client = None;
                        }
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                failures
            })
        };
        let threads = (0..4).map(thread).collect();
        Self { going, good, threads }
    }

    /// Waits until so many more requests have been answered well.
    pub fn more(&self, count: usize) {
        let until = self.good.load(SeqCst) + count;
        eventually("requests are answered", || self.good.load(SeqCst) >= until);
    }

    /// What did not go well.
    pub fn stop(self) -> Vec<String> {
        self.going.store(false, SeqCst);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn pods_come_drain_and_go_and_no_request_is_lost(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("rollout");
    namespace.service("app", &[("http", 80, 8080)]);
    let gibbon = Gibbon::of(&namespace, &[]);
    namespace.apply(&balancer("app", "www.site.com", ""));
    let mut running = vec![pod(&namespace, "app-0", "app"), pod(&namespace, "app-1", "app")];
    eventually("both are members", || gibbon.members("app", "usable") == 2);
    let load = Load::start(gibbon.address, "www.site.com");
    load.more(50);
    // A rolling update, pod by pod, as a Deployment does it.
    for number in 2..6 {
        running.push(pod(&namespace, &format!("app-{number}"), "app"));
        eventually("it is a member", || gibbon.members("app", "usable") == 3);
        load.more(50);
        let (old, mut member) = running.remove(0);
        old.terminate();
        eventually("it drains", || gibbon.members("app", "draining") == 1);
        load.more(50);
        member.stop();
        old.remove();
        eventually("it is gone", || {
            gibbon.members("app", "usable") == 2 && gibbon.members("app", "draining") == 0
        });
        load.more(50);
    }
    // One dies without a word: requests go elsewhere before the cluster knows of it.
    running[0].1.stop();
    load.more(100);
    running[0].0.ready(false);
    eventually("one is left", || gibbon.members("app", "usable") == 1);
    load.more(50);
    assert_eq!(load.stop(), Vec::<String>::new());
}

fn a_restarted_pod_of_a_new_address_keeps_its_sessions(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("restart");
    namespace.service("app", &[("http", 80, 8080)]);
    let gibbon = Gibbon::of(&namespace, &[]);
    let sticky = "    routeFrom: PodName\n  sticky: {cookie: JSESSIONID, separator: .}\n";
    namespace.apply(&balancer("app", "www.site.com", sticky));
    let (zero, _zero) = pod(&namespace, "app-0", "app");
    let (_one, _member) = pod(&namespace, "app-1", "app");
    eventually("both are members", || gibbon.members("app", "usable") == 2);
    let mine = || gibbon.ask("www.site.com", "/", "Cookie: JSESSIONID=1.app-0\r\n").text();
    assert_eq!(mine(), "app-0");
    let before = zero.address;
    zero.remove();
    eventually("it is gone", || {
        gibbon.members("app", "usable") == 1 && gibbon.members("app", "draining") == 0
    });
    assert_eq!(mine(), "app-1", "another serves its session meanwhile");
    let (zero, _zero) = pod(&namespace, "app-0", "app");
    assert_ne!(zero.address, before);
    eventually("it is back", || mine() == "app-0");
}

fn a_terminating_pod_keeps_its_sessions_and_is_the_last_resort(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("drain");
    namespace.service("app", &[("http", 80, 8080)]);
    let gibbon = Gibbon::of(&namespace, &[]);
    let sticky = "    routeFrom: PodName\n  sticky: {cookie: id, separator: '!'}\n";
    namespace.apply(&balancer("app", "www.site.com", sticky));
    let (zero, _zero) = pod(&namespace, "app-0", "app");
    let (one, mut member) = pod(&namespace, "app-1", "app");
    eventually("both are members", || gibbon.members("app", "usable") == 2);
    zero.terminate();
    eventually("it drains", || gibbon.members("app", "draining") == 1);
    until(&namespace, "app", "ResolvedRefs", "True", "ResolvedRefs");
    let count = || {
        control_plane.get(&namespace.path("gibbon.dev/v1alpha1/balancers/app"))["status"]["ready"]
            .clone()
    };
    eventually("the status counts it out", || count() == "1/2");
    for _ in 0..10 {
        assert_eq!(gibbon.get("www.site.com", "/").text(), "app-1");
        assert_eq!(gibbon.ask("www.site.com", "/", "Cookie: id=x!app-0\r\n").text(), "app-0");
    }
    // The only one that is ready goes: better one that ends than none.
    member.stop();
    one.remove();
    eventually("it is the last resort", || gibbon.members("app", "draining") == 0);
    assert_eq!(gibbon.get("www.site.com", "/").text(), "app-0");
}

fn a_slice_without_pods_and_a_headless_service_have_members(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("kinds");
    let gibbon = Gibbon::of(&namespace, &[]);
    let (zero, _zero) = pod(&namespace, "app-0", "headless");
    let headless = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"},
        "spec": {"clusterIP": "None", "selector": {"app": "headless"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    control_plane.create(&namespace.path("services"), &headless);
    let bare = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "bare"}, "spec": {"ports": [{"port": 80}]},
    });
    control_plane.create(&namespace.path("services"), &bare);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "bare-1", "labels": {"kubernetes.io/service-name": "bare"}},
        "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": [zero.address.to_string()]}],
    });
    control_plane.create(&namespace.path("discovery.k8s.io/v1/endpointslices"), &slice);
    for (name, service) in
        [("headless", "{name: headless, port: http}"), ("bare", "{name: bare, port: 80}")]
    {
        let host = format!("{name}.site.com");
        namespace.apply(&balancer(name, &host, "").replace("{name: app, port: http}", service));
        eventually(name, || gibbon.get(&host, "/").text() == "app-0");
    }
}

fn a_member_may_have_an_address_of_ipv6(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("ipv6");
    let gibbon = Gibbon::of(&namespace, &[]);
    let address = "2001:db8::6".parse::<std::net::Ipv6Addr>().unwrap();
    let _member = Member::at((address, 8080).into(), |_| ok("six"));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    control_plane.create(&namespace.path("services"), &service);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv6",
        "metadata": {"name": "app-6", "labels": {"kubernetes.io/service-name": "app"}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address.to_string()]}],
    });
    control_plane.create(&namespace.path("discovery.k8s.io/v1/endpointslices"), &slice);
    namespace.apply(&balancer("app", "www.site.com", ""));
    eventually("it is served", || gibbon.get("www.site.com", "/").text() == "six");
}

fn a_pod_is_named_by_its_port_name_and_its_hostname(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("ports");
    let gibbon = Gibbon::of(&namespace, &[]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        "spec": {"clusterIP": "None", "selector": {"app": "app"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
    });
    control_plane.create(&namespace.path("services"), &service);
    // Each pod has another number behind the name, and a hostname as a StatefulSet gives it.
    let pod = |name: &str, port: u16| {
        namespace.pod_from(json!({
            "metadata": {"name": name, "labels": {"app": "app"}},
            "spec": {
                "hostname": format!("host-{name}"), "subdomain": "app",
                "containers": [{"name": "app", "image": "none", "ports": [{"name": "web", "containerPort": port}]}],
            },
        }))
    };
    let (zero, one) = (pod("zero", 8081), pod("one", 8082));
    let _members = [zero.serve(8081, |_| ok("zero")), one.serve(8082, |_| ok("one"))];
    let sticky = "    routeFrom: Hostname\n  sticky: {cookie: id}\n";
    namespace.apply(&balancer("app", "www.site.com", sticky));
    eventually("both are members", || gibbon.members("app", "usable") == 2);
    for name in ["zero", "one"] {
        let seen = gibbon.ask("www.site.com", "/", &format!("Cookie: id=host-{name}\r\n"));
        assert_eq!(seen.text(), name);
    }
}

fn of_two_gibbons_one_writes_and_the_other_takes_over(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("leader");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    let mut one = Gibbon::of(&namespace, &["--identity", "one"]);
    eventually("the first leads", || one.metric("gibbon_leader") == Some(1.0));
    let two = Gibbon::of(&namespace, &["--identity", "two"]);
    namespace.apply(&balancer("app", "www.site.com", ""));
    until(&namespace, "app", "Programmed", "True", "Programmed");
    eventually("both serve", || {
        [&one, &two].iter().all(|gibbon| gibbon.get("www.site.com", "/").text() == "app-0")
    });
    let written = |gibbon: &Gibbon| gibbon.metric("gibbon_status_writes_total{result=\"written\"}");
    assert_eq!((two.metric("gibbon_leader"), written(&two)), (Some(0.0), None));
    let lease = namespace.path("coordination.k8s.io/v1/leases/gibbon");
    let holder = || control_plane.get(&lease)["spec"]["holderIdentity"].clone();
    assert_eq!(holder(), "one");
    one.signal("-TERM");
    assert_eq!(one.exit(), Some(0));
    eventually("the second leads", || holder() == "two");
    namespace.apply(&balancer("later", "later.site.com", ""));
    until(&namespace, "later", "Programmed", "True", "Programmed");
    // It hears of what it has written after the others may read it.
    eventually("the second has written", || written(&two) > Some(0.0));
    // One that dies without giving the lease back is waited out.
    drop(two);
    let three = Gibbon::of(&namespace, &["--identity", "three"]);
    eventually("the third leads", || three.metric("gibbon_leader") == Some(1.0));
    assert_eq!(holder(), "three");
}

fn where_clients_reach_gibbon_is_in_the_status(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("publish");
    namespace.service("app", &[("http", 80, 8080)]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "gibbon"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    });
    control_plane.create(&namespace.path("services"), &service);
    let to = format!("{}/gibbon", namespace.name);
    let gibbon = Gibbon::of(&namespace, &["--publish-service", &to]);
    namespace.apply(&balancer("app", "www.site.com", ""));
    until(&namespace, "app", "Programmed", "True", "Programmed");
    let addresses = || {
        control_plane.get(&namespace.path("gibbon.dev/v1alpha1/balancers/app"))["status"]["addresses"].clone()
    };
    assert_eq!(addresses(), json!([]));
    let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}, {"hostname": "lb.example.org"}]}}});
    control_plane.merge(&namespace.path("services/gibbon/status"), &ingress);
    let expected = json!([{"ip": "198.51.100.7"}, {"hostname": "lb.example.org"}]);
    eventually("the addresses are there", || addresses() == expected);
    drop(gibbon);
    let _gibbon =
        Gibbon::of(&namespace, &["--publish-address", "203.0.113.200,ingress.example.org"]);
    let expected = json!([{"ip": "203.0.113.200"}, {"hostname": "ingress.example.org"}]);
    eventually("the given ones are", || addresses() == expected);
}

fn shutting_down_under_load_loses_no_request(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("shutdown");
    namespace.service("app", &[("http", 80, 8080)]);
    let pod = namespace.pod("app-0", "app");
    let wait = Duration::from_millis(20);
    let _member = pod.serve(8080, move |_| Act::After(wait, Box::new(ok("x"))));
    let mut gibbon = Gibbon::of(&namespace, &["--shutdown-delay", "1s"]);
    namespace.apply(&balancer("app", "www.site.com", ""));
    eventually("it is served", || gibbon.members("app", "usable") == 1);
    let load = Load::start(gibbon.address, "www.site.com");
    load.more(20);
    gibbon.signal("-TERM");
    eventually("it is not ready", || gibbon.page("/readyz").is_some_and(|s| s.status == 503));
    // A load balancer that has noticed sends nothing more.
    load.more(20);
    assert_eq!(load.stop(), Vec::<String>::new());
    assert_eq!(gibbon.exit(), Some(0));
}

fn an_api_server_that_is_away_changes_nothing_of_what_is_served(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("away");
    namespace.service("app", &[("http", 80, 8080)]);
    let _zero = pod(&namespace, "app-0", "app");
    let (one, mut member) = pod(&namespace, "app-1", "app");
    let gibbon = Gibbon::of(&namespace, &[]);
    namespace.apply(&balancer("app", "www.site.com", ""));
    eventually("both are members", || gibbon.members("app", "usable") == 2);
    let load = Load::start(gibbon.address, "www.site.com");
    load.more(50);
    let heard = || gibbon.metric("gibbon_cluster_contact_timestamp_seconds").unwrap();
    control_plane.stop_api();
    let last = heard();
    load.more(50);
    // Members that fail are replaced as always.
    member.stop();
    load.more(50);
    let verbose = || gibbon.page("/readyz?verbose").unwrap();
    eventually("it says so", || {
        verbose().text().contains("the API server has not been heard of for")
    });
    assert_eq!((verbose().status, gibbon.get("www.site.com", "/").status), (200, 200));
    // It is told once a second, in full seconds, and may have been heard again before its end.
    assert!(heard() <= last + 4.0, "{} {last}", heard());
    load.more(50);
    control_plane.start_api();
    one.remove();
    eventually("it hears again", || gibbon.members("app", "usable") == 1 && heard() > last);
    eventually("and says so", || !verbose().text().contains("cluster:"));
    namespace.apply(&balancer("later", "later.site.com", ""));
    until(&namespace, "later", "Programmed", "True", "Programmed");
    assert_eq!(gibbon.get("later.site.com", "/").text(), "app-0");
    assert_eq!(load.stop(), Vec::<String>::new());
}

fn an_api_server_that_is_away_at_the_start_is_waited_for(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("late");
    namespace.service("app", &[("http", 80, 8080)]);
    let _pod = pod(&namespace, "app-0", "app");
    namespace.apply(&balancer("app", "www.site.com", ""));
    eventually("it is an endpoint", || namespace.endpoints("app").len() == 1);
    control_plane.stop_api();
    let own = ["--namespaces", &namespace.name, "--lease-namespace", &namespace.name];
    let gibbon = Gibbon::start(&control_plane.kubeconfig, &own);
    eventually("it says so", || {
        let page = gibbon.page("/readyz?verbose").unwrap();
        page.status == 503 && page.text().contains("the API server was not heard of yet")
    });
    assert!(gibbon.log().contains("cannot be watched now; trying again"), "{}", gibbon.log());
    assert_eq!(gibbon.get("www.site.com", "/").status, 503);
    control_plane.start_api();
    eventually("it is ready", || gibbon.page("/readyz").is_some_and(|seen| seen.status == 200));
    assert_eq!(gibbon.get("www.site.com", "/").text(), "app-0");
}
