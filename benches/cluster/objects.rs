//! The objects of a large cluster at its API server, made so that no controller has anything to do.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::control_plane::ControlPlane;
use crate::made::{self, NAMESPACES, host, name, namespace};

/// Requests under way at once.
const AT_ONCE: usize = 32;
/// Objects in one answer of a list, as Gibbon asks for them.
const PAGE: usize = 500;
/// What members listen on.
pub const MEMBER_PORT: u16 = 8080;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
pub const BALANCERS: &str = "/apis/gibbon.dev/v1alpha1/balancers";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// A cluster's objects.
pub struct Objects {
    client: Client,
    kubeconfig: PathBuf,
    runtime: Runtime,
    count: usize,
    endpoints: usize,
}

impl Objects {
    pub fn new(control_plane: &ControlPlane, count: usize, endpoints: usize) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let kubeconfig = control_plane.kubeconfig.clone();
        let client = runtime.block_on(client(&kubeconfig))?;
        Ok(Self { client, kubeconfig, runtime, count, endpoints })
    }

    /// Creates all of them.
    pub fn create(&self) -> Result<()> {
        let namespaces = (0..NAMESPACES).map(|at| {
            ("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": namespace(at)}}))
        });
        self.post(namespaces)?;
        let all = (0..self.count).flat_map(|at| {
            [
                (format!("/api/v1/namespaces/{}/services", namespace(at)), made::service(at)),
                (slices(at), made::slice(at, 0, self.endpoints, MEMBER_PORT)),
                (balancers(at), made::balancer(at, &name(at), &host(at))),
            ]
        });
        self.post(all)
    }

    fn post(&self, objects: impl Iterator<Item = (String, Value)>) -> Result<()> {
        let requests = objects.map(|(path, object)| self.ask("POST", path, object));
        let done = stream::iter(requests).buffer_unordered(AT_ONCE);
        self.runtime.block_on(done.try_for_each(|_| async { Ok(()) }))
    }

    async fn ask(&self, method: &'static str, path: String, body: Value) -> Result<Value> {
        let kind =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        let request = Request::builder().method(method).uri(&path).header("content-type", kind);
        let answer = self.client.request::<Value>(request.body(body)?).await;
        answer.with_context(|| format!("{method} {path}"))
    }

    /// Replaces all endpoints of a Service by those of another set; returns the version written.
    pub fn change(&self, at: usize, set: usize) -> Result<String> {
        let path = format!("{}/{}", slices(at), name(at));
        let change = json!({"endpoints": made::addresses(at, set, self.endpoints)});
        let written = self.runtime.block_on(self.ask("PATCH", path, change))?;
        Ok(written["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
    }

    /// Creates another Balancer, for the Service of one that is there.
    pub fn create_balancer(&self, at: usize, host: &str) -> Result<()> {
        let object = made::balancer(at, host, host);
        self.runtime.block_on(self.ask("POST", balancers(at), object)).map(drop)
    }

    /// Reads what Gibbon reads at its start, and does nothing with it.
    pub fn list(&self) -> Result<(Duration, u64)> {
        let began = Instant::now();
        let lists = ["/api/v1/services", SLICES, BALANCERS].map(|path| self.pages(path));
        let sizes = self.runtime.block_on(futures_util::future::try_join_all(lists))?;
        Ok((began.elapsed(), sizes.into_iter().sum()))
    }

    async fn pages(&self, path: &str) -> Result<u64> {
        let (mut size, mut next) = (0, String::new());
        loop {
            let uri = format!("{path}?limit={PAGE}&continue={next}");
            let text = self.client.request_text(Request::get(uri).body(Vec::new())?).await?;
            size += text.len() as u64;
            // Without a parser, whose time is not the API server's.
            let Some((_, rest)) = text.split_once(r#""continue":""#) else { return Ok(size) };
            rest.split('"').next().unwrap_or_default().clone_into(&mut next);
            if next.is_empty() {
                return Ok(size);
            }
        }
    }

    /// Lets somebody else hold the lease for an hour.
    pub fn hold_lease(&self) -> Result<()> {
        let spec = json!({"holderIdentity": "bench", "leaseDurationSeconds": 3600});
        self.runtime.block_on(async {
            let path = format!("{LEASES}/gibbon");
            let gone = self.ask("DELETE", path, Value::Null).await;
            let lease = json!({"metadata": {"name": "gibbon"}, "spec": spec});
            self.ask("POST", LEASES.to_owned(), lease).await.with_context(|| format!("{gone:?}"))
        })?;
        Ok(())
    }

    /// Gives the lease back.
    pub fn give_lease(&self) -> Result<()> {
        let path = format!("{LEASES}/gibbon");
        self.runtime.block_on(self.ask("DELETE", path, Value::Null)).map(drop)
    }

    /// Counts the Balancers that get a status from now on.
    pub fn statuses(&self) -> Result<Statuses> {
        let list = self.runtime.block_on(self.ask("GET", first_of(BALANCERS), Value::Null))?;
        let left = list["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
        let wanted = usize::try_from(left)? + 1;
        let statuses = Statuses { seen: Arc::default(), count: Arc::default(), wanted };
        let (seen, count) = (Arc::clone(&statuses.seen), Arc::clone(&statuses.count));
        let mut names = HashSet::new();
        self.watch(BALANCERS, move |object| {
            let metadata = &object["metadata"];
            if object["status"]["observedGeneration"].is_null()
                || !names.insert(format!("{}/{}", metadata["namespace"], metadata["name"]))
            {
                return;
            }
            let mut seen = seen.lock().unwrap();
            let first = seen.map_or_else(Instant::now, |(first, _)| first);
            *seen = Some((first, Instant::now()));
            count.store(names.len(), SeqCst);
        })?;
        Ok(statuses)
    }

    /// Calls with each object that is new or changes from now on, in a thread of its own.
    pub fn watch(&self, path: &str, mut heard: impl FnMut(&Value) + Send + 'static) -> Result<()> {
        let list = self.runtime.block_on(self.ask("GET", first_of(path), Value::Null))?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let uri = format!("{path}?watch=1&resourceVersion={version}");
        let kubeconfig = self.kubeconfig.clone();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = client(&kubeconfig).await.unwrap();
                let request = Request::get(uri).body(Vec::new()).unwrap();
                let events = client.request_events::<Value>(request).await.unwrap();
                let mut events = std::pin::pin!(events);
                while let Some(Ok(event)) = events.next().await {
                    if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                        heard(&object);
                    }
                }
            });
        });
        Ok(())
    }
}

fn slices(at: usize) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", namespace(at))
}

fn balancers(at: usize) -> String {
    format!("/apis/gibbon.dev/v1alpha1/namespaces/{}/balancers", namespace(at))
}

/// A list of one object, for what is said of all.
fn first_of(path: &str) -> String {
    format!("{path}?limit=1")
}

/// Balancers that got a status: the first, the last, and whether that is all.
pub struct Statuses {
    seen: Arc<Mutex<Option<(Instant, Instant)>>>,
    count: Arc<AtomicUsize>,
    wanted: usize,
}

impl Statuses {
    /// Waits for the first.
    pub fn first(&self, limit: Duration) -> Result<Instant> {
        let end = Instant::now() + limit;
        loop {
            if let Some((first, _)) = *self.seen.lock().unwrap() {
                return Ok(first);
            }
            ensure!(Instant::now() < end, "no status was written");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn are_all(&self) -> bool {
        self.count() >= self.wanted
    }

    /// How many there are so far.
    pub fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// When the last was seen; only after the first.
    pub fn last(&self) -> Instant {
        self.seen.lock().unwrap().expect("a status").1
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
