//! As much of an API server as Gibbon asks for: lists by pages, watches, and a Lease that another
//! holds, so that nothing but serving is measured.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;

const BALANCERS: &str = "/apis/gibbon.dev/v1alpha1/balancers";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// The version of what is listed; each change has one more.
const FIRST: usize = 1000;

/// Runs until the process ends.
pub struct ApiServer {
    /// Where it listens.
    pub address: SocketAddr,
    cluster: Arc<Cluster>,
}

/// What it tells.
struct Cluster {
    lists: [(&'static str, Vec<Bytes>); 3],
    /// Lines of the watch of slices so far, and how many there are.
    changes: Mutex<Vec<Bytes>>,
    count: watch::Sender<usize>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl ApiServer {
    /// Tells of these objects.
    pub fn start(balancers: &[Value], services: &[Value], slices: &[Value]) -> Result<Self> {
        let lines =
            |objects: &[Value]| objects.iter().map(|o| Bytes::from(o.to_string())).collect();
        let cluster = Arc::new(Cluster {
            lists: [
                (BALANCERS, lines(balancers)),
                (SERVICES, lines(services)),
                (SLICES, lines(slices)),
            ],
            changes: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let serving = Arc::clone(&cluster);
        std::thread::spawn(move || runtime.block_on(accept(listener, serving)));
        Ok(Self { address, cluster })
    }

    /// Tells of a slice that has changed.
    pub fn change(&self, mut slice: Value) {
        let mut changes = self.cluster.changes.lock().expect("no panic");
        slice["metadata"]["resourceVersion"] = (FIRST + changes.len() + 1).to_string().into();
        slice["kind"] = "EndpointSlice".into();
        slice["apiVersion"] = "discovery.k8s.io/v1".into();
        changes.push(format!("{}\n", json!({"type": "MODIFIED", "object": slice})).into());
        self.cluster.count.send_replace(changes.len());
    }
}

async fn accept(listener: TcpListener, cluster: Arc<Cluster>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let cluster = Arc::clone(&cluster);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = cluster.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        let connection = connection.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { drop(connection.await) });
    }
}

impl Cluster {
    fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let query = form_urlencoded::parse(query.as_bytes());
        let asked = |name: &str| query.clone().find(|(key, _)| key == name).map(|(_, value)| value);
        let number = |name: &str| asked(name).and_then(|value| value.parse::<usize>().ok());
        if let Some((_, list)) = self.lists.iter().find(|(of, _)| *of == path) {
            if asked("watch").is_none() {
                let from = number("continue").unwrap_or_default();
                return whole(page(list, from, number("limit").unwrap_or(list.len())));
            }
            let from = number("resourceVersion").unwrap_or(FIRST) - FIRST;
            let lasts = Duration::from_secs(number("timeoutSeconds").unwrap_or(300) as u64);
            let told = if path == SLICES { self.told(from) } else { stream::pending().boxed() };
            let told = told.take_until(sleep(lasts)).map(|line| Ok(Frame::data(line)));
            return Response::new(StreamBody::new(told).boxed_unsync());
        }
        if path.contains("/leases/") {
            let spec = json!({"holderIdentity": "bench", "leaseDurationSeconds": 3600});
            let metadata = json!({"name": "gibbon", "resourceVersion": "1"});
            let kind = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": metadata, "spec": spec,
            });
            return whole(kind.to_string().into());
        }
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure",
            "reason": "NotFound", "code": 404, "message": path,
        });
        let mut answer = whole(status.to_string().into());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        answer
    }

    /// The changes from a version on, those to come included.
    fn told(self: &Arc<Self>, from: usize) -> BoxStream<'static, Bytes> {
        let (cluster, count) = (Arc::clone(self), self.count.subscribe());
        let next = move |(at, mut count): (usize, watch::Receiver<usize>)| {
            let cluster = Arc::clone(&cluster);
            async move {
                count.wait_for(|count| *count > at).await.ok()?;
                let line = cluster.changes.lock().ok()?.get(at).cloned()?;
                Some((line, (at + 1, count)))
            }
        };
        stream::unfold((from, count), next).boxed()
    }
}

fn whole(body: Bytes) -> Answer {
    let answer = Response::builder().header("content-type", "application/json");
    answer.body(Full::new(body).boxed_unsync()).expect("a header that is right")
}

fn page(list: &[Bytes], from: usize, limit: usize) -> Bytes {
    let to = (from + limit.max(1)).min(list.len());
    let next = if to < list.len() { to.to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": FIRST.to_string(), "continue": next});
    let mut text = format!(r#"{{"metadata":{metadata},"items":["#).into_bytes();
    for (at, object) in list[from..to].iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(object);
    }
    text.extend_from_slice(b"]}");
    text.into()
}
