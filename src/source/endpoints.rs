//! Services and `EndpointSlices` → what is behind a port of a Service. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::table::upstream::Protocol;
use crate::table::{Backends, Endpoint, PortRef};

/// The label that says whose slice it is.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A port of a Service or a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Its number.
    pub number: u16,
    /// What it says is spoken at it, if that is known here.
    pub protocol: Option<Protocol>,
}

impl Port {
    fn new(name: Option<String>, number: i32, app_protocol: Option<&String>) -> Option<Self> {
        Some(Self {
            name: name.filter(|name| !name.is_empty()).map(Into::into),
            number: u16::try_from(number).ok()?,
            protocol: app_protocol.and_then(|protocol| Protocol::of_port(protocol)),
        })
    }
}

/// The part of a Service that matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its ports.
    pub ports: Vec<Port>,
    /// The name in DNS that it stands for, if it stands for one.
    pub external_name: Option<Arc<str>>,
    /// Whether IPv6 is its first family.
    pub prefers_ipv6: bool,
    /// Addresses that lead to it: of the cluster, external, of its load balancer.
    pub addresses: Vec<IpAddr>,
    /// Where clients reach it: addresses and names of its load balancer, else external ones.
    pub published: Vec<String>,
}

impl From<core::Service> for Service {
    fn from(service: core::Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let is_external = spec.type_.as_deref() == Some("ExternalName");
        let balancer = service.status.and_then(|status| status.load_balancer).unwrap_or_default();
        let ingress = balancer.ingress.unwrap_or_default();
        let external = spec.external_ips.unwrap_or_default();
        let cluster = spec.cluster_ips.or(spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
        let of_balancer = ingress.iter().filter_map(|at| at.ip.clone().or(at.hostname.clone()));
        let mut published: Vec<_> = of_balancer.collect();
        if published.is_empty() {
            published.clone_from(&external);
        }
        if published.is_empty() && matches!(spec.type_.as_deref(), None | Some("ClusterIP")) {
            published.extend(cluster.iter().filter(|ip| *ip != "None").cloned());
        }
        let ips = ingress.iter().filter_map(|at| at.ip.as_ref());
        let all = cluster.iter().chain(&external).chain(ips);
        Self {
            ports: spec
                .ports
                .unwrap_or_default()
                .into_iter()
                .filter(|port| is_tcp(port.protocol.as_ref()))
                .filter_map(|port| Port::new(port.name, port.port, port.app_protocol.as_ref()))
                .collect(),
            external_name: spec
                .external_name
                .filter(|_| is_external)
                .map(|name| name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase().into()),
            prefers_ipv6: spec
                .ip_families
                .is_some_and(|families| families.first().is_some_and(|first| first == "IPv6")),
            addresses: all.filter_map(|ip| ip.parse().ok()).collect(),
            published,
        }
    }
}

/// The part of an `EndpointSlice` that matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Its ports.
    ports: Vec<Port>,
    endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SliceEndpoint {
    addresses: Box<[IpAddr]>,
    ready: bool,
    serving: bool,
    terminating: bool,
    pod: Option<Arc<str>>,
    hostname: Option<Arc<str>>,
}

impl From<discovery::EndpointSlice> for Slice {
    fn from(slice: discovery::EndpointSlice) -> Self {
        let port = |port: discovery::EndpointPort| {
            Port::new(port.name, port.port?, port.app_protocol.as_ref())
        };
        let endpoint = |endpoint: discovery::Endpoint| {
            let conditions = endpoint.conditions.unwrap_or_default();
            // What is not said counts as ready.
            let ready = conditions.ready.unwrap_or(true);
            let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"));
            SliceEndpoint {
                addresses: endpoint.addresses.iter().filter_map(|ip| ip.parse().ok()).collect(),
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                pod: pod.and_then(|pod| pod.name).map(Into::into),
                hostname: endpoint.hostname.map(Into::into),
            }
        };
        Self {
            ports: slice
                .ports
                .into_iter()
                .flatten()
                .filter(|port| is_tcp(port.protocol.as_ref()))
                .filter_map(port)
                .collect(),
            endpoints: slice.endpoints.into_iter().flatten().map(endpoint).collect(),
        }
    }
}

/// HTTP is spoken over TCP only, and another protocol may have a port of the same number.
fn is_tcp(protocol: Option<&String>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// The name of the Service that a slice belongs to.
#[must_use]
pub fn service_of(slice: &discovery::EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_LABEL).map(String::as_str)
}

impl Slice {
    /// Whether a pod of this name is behind it at one of these addresses.
    #[must_use]
    pub fn has(&self, pod: &str, addresses: &[IpAddr]) -> bool {
        let is = |endpoint: &SliceEndpoint| {
            endpoint.pod.as_deref() == Some(pod)
                && endpoint.addresses.iter().any(|ip| addresses.contains(ip))
        };
        self.endpoints.iter().any(is)
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter()).copied()
    }
}

/// What a port of a Service turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Endpoints, and how many there are in all, usable or not.
    Endpoints(Arc<Backends>, usize),
    /// Another name for a name and a port in DNS, at which this is spoken.
    External(Arc<str>, u16, Option<Protocol>),
    /// There is no such Service.
    NoService,
    /// It has no such port, but these.
    NoPort(String),
}

/// Resolves a port of a Service.
#[must_use]
pub fn resolve<'s>(
    service: Option<&Service>,
    slices: impl IntoIterator<Item = &'s Slice>,
    port: &PortRef,
) -> Resolution {
    let Some(service) = service else { return Resolution::NoService };
    let wanted = service.ports.iter().find(|own| match port {
        PortRef::Number(wanted) => own.number == *wanted,
        PortRef::Name(wanted) => own.name.as_ref() == Some(wanted),
    });
    if let Some(name) = &service.external_name {
        // Such a Service need not list its ports.
        let number = match (wanted, port) {
            (Some(own), _) => own.number,
            (None, PortRef::Number(number)) => *number,
            (None, PortRef::Name(_)) => return Resolution::NoPort(listed(service)),
        };
        let protocol = wanted.and_then(|own| own.protocol);
        return Resolution::External(Arc::clone(name), number, protocol);
    }
    let Some(own) = wanted else {
        return Resolution::NoPort(listed(service));
    };
    let slices: Vec<_> = slices.into_iter().collect();
    // Who writes the slices of a Service without a selector may say it there.
    let ports = slices.iter().flat_map(|slice| &slice.ports);
    let theirs = || ports.filter(|port| port.name == own.name).find_map(|port| port.protocol);
    let protocol = own.protocol.or_else(theirs);
    let found = gather(slices, own.name.as_ref(), service.prefers_ipv6);
    let total = found.len();
    let endpoints = found.into_iter().filter(|(_, endpoint)| endpoint.ready || endpoint.serving);
    let endpoints = endpoints.map(|(address, endpoint)| Endpoint {
        address,
        pod: endpoint.pod.clone(),
        hostname: endpoint.hostname.clone(),
        draining: !endpoint.ready,
    });
    let port = Some(own.number);
    let backends = Backends::new(port, protocol, endpoints);
    Resolution::Endpoints(Arc::new(backends), total)
}

/// The ports of a Service, for people.
fn listed(service: &Service) -> String {
    let ports = service.ports.iter().map(|port| match &port.name {
        Some(name) => format!("{name} ({})", port.number),
        None => port.number.to_string(),
    });
    ports.collect::<Vec<_>>().join(", ")
}

/// All endpoints of one family by address; of two that are the same, the more usable, else the first.
fn gather<'s>(
    slices: impl IntoIterator<Item = &'s Slice>,
    port: Option<&Arc<str>>,
    prefers_ipv6: bool,
) -> Vec<(SocketAddr, &'s SliceEndpoint)> {
    let mut found: Vec<(SocketAddr, &SliceEndpoint)> = Vec::new();
    for slice in slices {
        let own = slice.ports.iter().find(|own| own.name.as_ref() == port);
        let Some(Port { number, .. }) = own else { continue };
        found.reserve(slice.endpoints.len());
        for endpoint in &slice.endpoints {
            let at = |ip: &IpAddr| (SocketAddr::new(*ip, *number), endpoint);
            found.extend(endpoint.addresses.iter().map(at));
        }
    }
    let rank = |e: &SliceEndpoint| (e.ready, e.serving, !e.terminating);
    found.sort_by_key(|(address, _)| *address);
    found.dedup_by(|later, kept| {
        let is_same = later.0 == kept.0;
        if is_same && rank(kept.1) < rank(later.1) {
            kept.1 = later.1;
        }
        is_same
    });
    // A pod of both families is one member, not two. Its second family is for when nothing of the
    // first can be used.
    let is_preferred = |address: &SocketAddr| address.is_ipv6() == prefers_ipv6;
    let is_usable = |endpoint: &SliceEndpoint| endpoint.ready || endpoint.serving;
    let best = found.iter().max_by_key(|(at, e)| (is_usable(e), is_preferred(at)));
    if let Some(is_ipv6) = best.map(|(address, _)| address.is_ipv6()) {
        found.retain(|(address, _)| address.is_ipv6() == is_ipv6);
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Service {
        let service = json!({"metadata": {"name": "app"}, "spec": spec});
        serde_json::from_value::<core::Service>(service).unwrap().into()
    }

    fn slice(ports: &Value, endpoints: &Value) -> Slice {
        let slice = json!({
            "metadata": {"name": "app-1", "labels": {SERVICE_LABEL: "app"}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        });
        let slice: discovery::EndpointSlice = serde_json::from_value(slice).unwrap();
        assert_eq!(service_of(&slice), Some("app"));
        slice.into()
    }

    fn named(name: &str) -> PortRef {
        PortRef::Name(name.into())
    }

    /// `10.0.0.1:80`, and `~` behind one that is draining.
    fn shown(resolution: &Resolution) -> Vec<String> {
        let Resolution::Endpoints(backends, _) = resolution else { panic!("{resolution:?}") };
        let mark = |e: &Endpoint| if e.draining { "~" } else { "" };
        backends.endpoints().iter().map(|e| format!("{}{}", e.address, mark(e))).collect()
    }

    fn pod(ip: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        json!({
            "addresses": [ip],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "targetRef": {"kind": "Pod", "name": format!("pod-{ip}")},
        })
    }

    #[test]
    fn a_port_is_found_by_name_and_by_the_services_number_and_leads_to_the_pods_own() {
        let app = service(&json!({"ports": [
            {"name": "http", "port": 80, "targetPort": "web"},
            {"name": "admin", "port": 81, "targetPort": 9000},
        ]}));
        // A name with another number in each pod: the slices differ.
        let slices = [
            slice(
                &json!([{"name": "http", "port": 8080}]),
                &json!([pod("10.0.0.1", true, true, false)]),
            ),
            slice(
                &json!([{"name": "http", "port": 8081}, {"name": "admin", "port": 9000}]),
                &json!([pod("10.0.0.2", true, true, false)]),
            ),
        ];
        for port in [named("http"), PortRef::Number(80)] {
            let found = resolve(Some(&app), &slices, &port);
            assert_eq!(shown(&found), ["10.0.0.1:8080", "10.0.0.2:8081"]);
            let Resolution::Endpoints(backends, total) = found else { panic!("endpoints") };
            assert_eq!((backends.port, total), (Some(80), 2));
            assert_eq!(backends.endpoints()[0].pod.as_deref(), Some("pod-10.0.0.1"));
        }
        assert_eq!(shown(&resolve(Some(&app), &slices, &named("admin"))), ["10.0.0.2:9000"]);
        let missing = resolve(Some(&app), &slices, &PortRef::Number(8080));
        assert_eq!(missing, Resolution::NoPort("http (80), admin (81)".into()));
        assert_eq!(resolve(None, &slices, &named("http")), Resolution::NoService);
    }

    #[test]
    fn what_is_spoken_at_a_port_is_what_the_service_says_or_else_a_slice() {
        let said = |service_says: Value, slice_says: Value| {
            let mut ports = json!([{"name": "http", "port": 80}]);
            ports[0]["appProtocol"] = service_says;
            let app = service(&json!({"ports": ports}));
            let other =
                slice(&json!([{"name": "admin", "port": 81, "appProtocol": "https"}]), &json!([]));
            let mut ports = json!([{"name": "http", "port": 8080}]);
            ports[0]["appProtocol"] = slice_says;
            let slices = [other, slice(&ports, &json!([pod("10.0.0.1", true, true, false)]))];
            match resolve(Some(&app), &slices, &named("http")) {
                Resolution::Endpoints(backends, _) => backends.protocol,
                found => panic!("{found:?}"),
            }
        };
        assert_eq!(said(json!("kubernetes.io/h2c"), json!("https")), Some(Protocol::H2c));
        assert_eq!(said(json!(null), json!("https")), Some(Protocol::Https));
        assert_eq!(said(json!("mysql"), json!(null)), None);
        let spec = json!({"type": "ExternalName", "externalName": "db.example.org",
            "ports": [{"port": 443, "appProtocol": "https"}]});
        let found = resolve(Some(&service(&spec)), &[], &PortRef::Number(443));
        assert_eq!(
            found,
            Resolution::External("db.example.org".into(), 443, Some(Protocol::Https))
        );
    }

    #[test]
    fn a_port_of_another_protocol_is_not_meant() {
        let app = service(&json!({"ports": [
            {"name": "h3", "port": 80, "protocol": "UDP"},
            {"name": "http", "port": 80, "protocol": "TCP"},
        ]}));
        let ports = json!([
            {"name": "h3", "port": 9443, "protocol": "UDP"},
            {"name": "http", "port": 8443, "protocol": "TCP"},
        ]);
        let slices = [slice(&ports, &json!([pod("10.0.0.1", true, true, false)]))];
        assert_eq!(shown(&resolve(Some(&app), &slices, &PortRef::Number(80))), ["10.0.0.1:8443"]);
        let missing = resolve(Some(&app), &slices, &named("h3"));
        assert_eq!(missing, Resolution::NoPort("http (80)".into()));
    }

    #[test]
    fn a_single_port_without_a_name_is_found_by_its_number() {
        let app = service(&json!({"ports": [{"port": 80}]}));
        for ports in [json!([{"port": 8080}]), json!([{"name": "", "port": 8080}])] {
            let slices = [slice(&ports, &json!([{"addresses": ["10.0.0.1"]}]))];
            let found = resolve(Some(&app), &slices, &PortRef::Number(80));
            // Nothing is said of its state: it is ready.
            assert_eq!(shown(&found), ["10.0.0.1:8080"]);
        }
    }

    #[test]
    fn pods_that_end_keep_their_sessions_and_those_not_ready_get_nothing() {
        let app = service(&json!({"ports": [{"name": "http", "port": 80}]}));
        let ports = json!([{"name": "http", "port": 80}]);
        let endpoints = json!([
            pod("10.0.0.1", true, true, false),
            pod("10.0.0.2", false, true, true),
            pod("10.0.0.3", false, false, true),
            pod("10.0.0.4", false, false, false),
        ]);
        let found = resolve(Some(&app), &[slice(&ports, &endpoints)], &named("http"));
        assert_eq!(shown(&found), ["10.0.0.1:80", "10.0.0.2:80~"]);
        assert!(matches!(found, Resolution::Endpoints(_, 4)));
        // None is ready: whether those that still serve are needed, the rule decides.
        let endpoints =
            json!([pod("10.0.0.2", false, true, true), pod("10.0.0.3", false, false, true)]);
        let found = resolve(Some(&app), &[slice(&ports, &endpoints)], &named("http"));
        assert_eq!(shown(&found), ["10.0.0.2:80~"]);
    }

    #[test]
    fn an_address_in_two_slices_is_one_member_in_its_better_state() {
        let app = service(&json!({"ports": [{"name": "http", "port": 80}]}));
        let of = |ready| {
            let pods = json!([pod("10.0.0.1", ready, ready, !ready)]);
            slice(&json!([{"name": "http", "port": 80}]), &pods)
        };
        for slices in [[of(true), of(false)], [of(false), of(true)]] {
            assert_eq!(shown(&resolve(Some(&app), &slices, &named("http"))), ["10.0.0.1:80"]);
        }
    }

    #[test]
    fn a_dual_stack_service_has_each_pod_once_in_its_first_family() {
        let ports = json!([{"name": "http", "port": 80}]);
        let four = slice(&ports, &json!([pod("10.0.0.1", true, true, false)]));
        let six = slice(&ports, &json!([pod("2001:db8::1", true, true, false)]));
        let slices = [four.clone(), six];
        for (families, expected) in [
            (json!(["IPv4", "IPv6"]), "10.0.0.1:80"),
            (json!(["IPv6", "IPv4"]), "[2001:db8::1]:80"),
            (json!(null), "10.0.0.1:80"),
        ] {
            let app =
                service(&json!({"ipFamilies": families, "ports": [{"name": "http", "port": 80}]}));
            assert_eq!(shown(&resolve(Some(&app), &slices, &named("http"))), [expected]);
        }
        let six =
            service(&json!({"ipFamilies": ["IPv6"], "ports": [{"name": "http", "port": 80}]}));
        assert_eq!(shown(&resolve(Some(&six), [&four], &named("http"))), ["10.0.0.1:80"]);
    }

    #[test]
    fn the_second_family_serves_while_nothing_of_the_first_can() {
        let app = service(&json!({
            "ipFamilies": ["IPv4", "IPv6"], "ports": [{"name": "http", "port": 80}],
        }));
        let ports = json!([{"name": "http", "port": 80}]);
        let six = ["2001:db8::1", "2001:db8::2"].map(|ip| pod(ip, true, true, false));
        let six = slice(&ports, &json!(six));
        let found = |ready, serving| {
            let four = slice(&ports, &json!([pod("10.0.0.1", ready, serving, false)]));
            resolve(Some(&app), [&four, &six], &named("http"))
        };
        let unready = found(false, false);
        assert_eq!(shown(&unready), ["[2001:db8::1]:80", "[2001:db8::2]:80"]);
        assert!(matches!(unready, Resolution::Endpoints(_, 2)));
        assert_eq!(shown(&found(false, true)), ["10.0.0.1:80~"]);
        assert_eq!(shown(&found(true, true)), ["10.0.0.1:80"]);
        // Nothing of either: it is the first that is counted.
        let four = slice(&ports, &json!([pod("10.0.0.1", false, false, false)]));
        let six = ["2001:db8::1", "2001:db8::2"].map(|ip| pod(ip, false, false, false));
        let none = resolve(Some(&app), [&four, &slice(&ports, &json!(six))], &named("http"));
        assert!(matches!(none, Resolution::Endpoints(_, 1)));
    }

    #[test]
    fn an_external_name_is_a_name_and_the_services_port() {
        let spec = json!({"type": "ExternalName", "externalName": "DB.example.org.", "ports": [{"name": "http", "port": 8080}]});
        let external = service(&spec);
        let db = |port| Resolution::External("db.example.org".into(), port, None);
        assert_eq!(resolve(Some(&external), [], &named("http")), db(8080));
        assert_eq!(resolve(Some(&external), [], &PortRef::Number(81)), db(81));
        let unknown = resolve(Some(&external), [], &named("https"));
        assert_eq!(unknown, Resolution::NoPort("http (8080)".into()));
        // What is no ExternalName may still carry the field.
        let other = service(&json!({"externalName": "x", "ports": [{"port": 80}]}));
        assert_eq!(other.external_name, None);
    }

    #[test]
    fn where_clients_reach_a_service_depends_on_its_type() {
        let published = |type_: &str, ingress: Value| {
            let service = json!({
                "metadata": {"name": "gibbon"},
                "spec": {"type": type_, "clusterIPs": ["198.18.0.9"], "externalIPs": []},
                "status": {"loadBalancer": {"ingress": ingress}},
            });
            let service: Service = serde_json::from_value::<core::Service>(service).unwrap().into();
            assert!(service.addresses.contains(&"198.18.0.9".parse().unwrap()));
            service.published
        };
        let ingress = json!([{"ip": "203.0.113.7"}, {"hostname": "lb.example.org"}]);
        assert_eq!(published("LoadBalancer", ingress), ["203.0.113.7", "lb.example.org"]);
        assert_eq!(published("LoadBalancer", json!([])), Vec::<String>::new());
        assert_eq!(published("ClusterIP", json!([])), ["198.18.0.9"]);
        assert_eq!(published("NodePort", json!([])), Vec::<String>::new());
    }
}
