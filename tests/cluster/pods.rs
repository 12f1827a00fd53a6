//! Namespaces with pods that no kubelet runs: objects with an address and a readiness, which are enough
//! for the real controllers. Their addresses can be bound, so a test answers for them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, NODE, eventually};
use crate::support::{Act, Member, Received};

/// A namespace of a test. It stays until the control plane ends.
pub struct Namespace<'c> {
    pub control_plane: &'c ControlPlane,
    pub name: String,
}

/// A pod that seems to run.
pub struct Pod<'c> {
    control_plane: &'c ControlPlane,
    path: String,
    pub name: String,
    pub address: Ipv4Addr,
}

impl<'c> Namespace<'c> {
    pub fn create(control_plane: &'c ControlPlane, name: String) -> Self {
        control_plane.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}));
        let namespace = Self { control_plane, name };
        // No pod is admitted before.
        let account = namespace.path("serviceaccounts/default");
        eventually("the default ServiceAccount", || control_plane.find(&account).is_some());
        namespace
    }

    /// The path of a resource in the API: `pods`, `pods/app-1/status`,
    /// `gibbon.dev/v1alpha1/balancers/app`.
    pub fn path(&self, resource: &str) -> String {
        let name = &self.name;
        match resource.split('/').collect::<Vec<_>>().as_slice() {
            // What is in the core group has no group before its version, and no version here.
            [group, version, rest @ ..]
                if version.starts_with("v1") || version.starts_with("v2") =>
            {
                format!("/apis/{group}/{version}/namespaces/{name}/{}", rest.join("/"))
            }
            _ => format!("/api/v1/namespaces/{name}/{resource}"),
        }
    }

    /// `kubectl apply` of what must be accepted.
    pub fn apply(&self, yaml: &str) {
        self.control_plane.apply(&self.name, yaml).unwrap();
    }

    /// A Service for the pods with `app: NAME`; ports are names, their own and the target's number.
    pub fn service(&self, name: &str, ports: &[(&str, u16, u16)]) {
        let ports: Vec<_> = ports
            .iter()
            .map(|(name, port, target)| json!({"name": name, "port": port, "targetPort": target}))
            .collect();
        let spec = json!({"selector": {"app": name}, "ports": ports});
        let service = json!({"metadata": {"name": name}, "spec": spec});
        self.control_plane.create(&self.path("services"), &service);
    }

    /// A ready pod with `app: APP`.
    pub fn pod(&self, name: &str, app: &str) -> Pod<'c> {
        self.pod_from(json!({"metadata": {"name": name, "labels": {"app": app}}}))
    }

    /// A ready pod out of a manifest; a node and a container are added.
    pub fn pod_from(&self, mut manifest: Value) -> Pod<'c> {
        let spec = &mut manifest["spec"];
        spec["nodeName"] = NODE.into();
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "app", "image": "none"}]);
        }
        let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        self.control_plane.create(&self.path("pods"), &manifest);
        self.ready_pod(&name)
    }

    fn ready_pod(&self, name: &str) -> Pod<'c> {
        let path = self.path(&format!("pods/{name}"));
        let control_plane = self.control_plane;
        let pod = Pod { control_plane, path, name: name.to_owned(), address: address() };
        pod.ready(true);
        pod
    }

    /// Waits until a controller has made so many pods with `app: APP` that do not run yet, and does
    /// what a scheduler and a kubelet would do with them.
    pub fn run_pods(&self, app: &str, count: usize) -> Vec<Pod<'c>> {
        let mut names = Vec::new();
        eventually("the controller makes pods", || {
            let list = self.path(&format!("pods?labelSelector=app%3D{app}"));
            let list = self.control_plane.get(&list);
            let pods = list["items"].as_array().into_iter().flatten();
            let new = pods.filter(|pod| pod["spec"]["nodeName"].is_null());
            names = new.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
            names.len() == count
        });
        let run = |name: &String| {
            let target = json!({"kind": "Node", "name": NODE});
            let binding = json!({"metadata": {"name": name}, "target": target});
            self.control_plane.create(&self.path(&format!("pods/{name}/binding")), &binding);
            self.ready_pod(name)
        };
        names.iter().map(run).collect()
    }

    /// The endpoints of a Service, out of all its slices.
    pub fn endpoints(&self, service: &str) -> Vec<Value> {
        let slices = self.path("discovery.k8s.io/v1/endpointslices");
        let query = format!("{slices}?labelSelector=kubernetes.io/service-name%3D{service}");
        let list = self.control_plane.get(&query);
        let slices = list["items"].as_array().into_iter().flatten();
        let endpoints = slices.filter_map(|slice| slice["endpoints"].as_array());
        endpoints.flatten().cloned().collect()
    }
}

impl Pod<'_> {
    /// Says whether it is ready.
    pub fn ready(&self, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [{"type": "Ready", "status": ready}],
        });
        self.control_plane.merge(&format!("{}/status", self.path), &json!({"status": status}));
    }

    /// Begins its end: it is terminating until it is removed, and serves as long as it is ready.
    pub fn terminate(&self) {
        self.control_plane.delete(&format!("{}?gracePeriodSeconds=600", self.path));
    }

    /// Ends it at once.
    pub fn remove(&self) {
        self.control_plane.delete(&format!("{}?gracePeriodSeconds=0", self.path));
    }

    /// Answers for it on a port.
    pub fn serve(
        &self,
        port: u16,
        script: impl FnMut(&Received) -> Act + Send + 'static,
    ) -> Member {
        Member::at(SocketAddr::from((self.address, port)), script)
    }
}

/// One that nobody else has.
pub fn address() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(9);
    let taken = LAST.try_update(SeqCst, SeqCst, |last| (last < 254).then_some(last + 1));
    Ipv4Addr::new(203, 0, 113, taken.expect("a free address") + 1)
}
