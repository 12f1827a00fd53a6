//! The objects of a large cluster as the API server tells them: Balancers, each with a Service of its
//! own without a selector, and its `EndpointSlice`.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// They are spread over so many.
pub const NAMESPACES: usize = 10;
/// The last number of the first address of each set; all of them are local.
const SETS: [u8; 2] = [10, 110];
/// Addresses of a set that differ.
const DISTINCT: usize = 100;

/// The host of a Balancer.
pub fn host(at: usize) -> String {
    format!("app-{at}.example.org")
}

/// The name of a Balancer, its Service and its slice.
pub fn name(at: usize) -> String {
    format!("app-{at}")
}

pub fn namespace(at: usize) -> String {
    format!("site-{}", at % NAMESPACES)
}

/// Which of the two sets of addresses an address belongs to.
pub fn set_of(address: Ipv4Addr) -> usize {
    usize::from(address.octets()[3] >= SETS[1])
}

/// Headless, so that no address has to be found for it.
pub fn service(at: usize) -> Value {
    let spec = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]});
    json!({"metadata": {"name": name(at), "namespace": namespace(at)}, "spec": spec})
}

/// With so many addresses of a set, which listen on this port.
pub fn slice(at: usize, set: usize, endpoints: usize, port: u16) -> Value {
    json!({
        "metadata": {
            "name": name(at),
            "namespace": namespace(at),
            "labels": {
                "kubernetes.io/service-name": name(at),
                "endpointslice.kubernetes.io/managed-by": "bench",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": addresses(at, set, endpoints),
    })
}

/// The endpoints of a slice.
pub fn addresses(at: usize, set: usize, endpoints: usize) -> Value {
    let endpoint = |number: usize| {
        // Any address will do for those that are never asked.
        let low = u8::try_from((at + number) % DISTINCT).unwrap_or_default();
        json!({
            "addresses": [Ipv4Addr::new(203, 0, 113, SETS[set] + low)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node",
            "targetRef": {
                "kind": "Pod",
                "namespace": namespace(at),
                "name": format!("{}-6d5f9c7b8d-{number}", name(at)),
            },
        })
    };
    (0..endpoints).map(endpoint).collect()
}

/// For the Service of this number.
pub fn balancer(at: usize, name: &str, host: &str) -> Value {
    let member =
        json!({"service": {"name": self::name(at), "port": "http"}, "routeFrom": "PodName"});
    let spec = json!({
        "hosts": [host],
        "members": [member],
        // The same in all of them, as a template would write it.
        "sticky": {"cookie": "JSESSIONID", "routeRegex": r"\.(?P<route>[a-z0-9-]+)$"},
    });
    json!({
        "apiVersion": "gibbon.dev/v1alpha1", "kind": "Balancer",
        "metadata": {"name": name, "namespace": namespace(at)}, "spec": spec,
    })
}
