//! What is done: accept, serve, drain.
//!
//! One acceptor hands each connection to the least loaded of several workers. A worker is a thread
//! with a single-threaded runtime and its own connections to members, so that a request never
//! crosses threads.

pub mod announce;
pub mod attempts;
pub mod body;
pub mod checks;
pub mod error;
pub mod explain;
pub mod fields;
pub mod forward;
pub mod grpc;
pub mod handshakes;
pub mod headers;
pub mod identity;
pub mod io;
pub mod log;
pub mod tls;
pub mod trace;
pub mod tunnel;
pub mod upstream;
pub mod visit;
pub mod waiting;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use hyper::body::Body as _;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::explain::kept::Kept;
use crate::metrics::Metrics;
use crate::table::Table;
use crate::table::access::Networks;
use crate::table::upstream::ClientConfigs;
use error::Error;
use forward::Connection;
use handshakes::Handshakes;
use headers::Peer;
use io::{Activity, Client, ClientStream, Patience};
use log::{AccessLog, Begun, Served};
use trace::NewTraces;
use upstream::Pool;

/// How often idle connections to members are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the acceptor rests when it can get no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(50);
/// How long it keeps quiet about that after it has said so.
const WARN_AGAIN: Duration = Duration::from_secs(10);
/// How long a new connection may take to say something when everything is about to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The listen queue is empty when nothing comes out of it for this long; and it is left alone after
/// this time, however fast it fills.
const QUEUE_EMPTY: Duration = Duration::from_millis(5);
const QUEUE_LAST: Duration = Duration::from_millis(100);
/// Bytes read ahead on a client's connection.
const BUFFER: usize = 64 * 1024;
/// How many fields hyper reads of a head if it is not told; for any other number, even a smaller
/// one, it allocates for each head.
const HYPER_MAX_HEADERS: usize = 100;
/// HTTP/2 streams that one client connection may have open.
const MAX_STREAMS: u32 = 128;
/// What a client may send ahead of the member on one stream of HTTP/2; and on all, so that a member
/// that takes nothing does not hold up the uploads to others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 8 * STREAM_WINDOW;
/// Bytes of an HTTP/2 stream that wait to be written, besides what was read of a member at once.
const SEND_BUFFER: usize = 64 * 1024;

/// What the proxy does the same for all rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Peers whose X-Forwarded-* fields are believed.
    pub trusted: Networks,
    /// Peers that say by the PROXY protocol who the client is, on each connection.
    pub announcing: Networks,
    /// Client connections that may be open at once.
    pub max_connections: usize,
    /// TLS handshakes, and headers of the PROXY protocol, that may be under way at once on a listener.
    pub max_handshakes: usize,
    /// Bytes of a request's head.
    pub max_head: usize,
    /// Fields of a request's head.
    pub max_headers: usize,
    /// How long clients may take.
    pub patience: Patience,
    /// How long a client may be silent within a request's body.
    pub body_timeout: Duration,
    /// The port at which clients reach TLS; what redirects name, unless it is 443.
    pub public_https_port: u16,
    /// Worker threads; 0 is one for each core that the process may use.
    pub workers: usize,
    /// Which requests without a `traceparent` get one.
    pub new_traces: NewTraces,
    /// One request of so many is drawn to be explained; 0: none.
    pub explain_sample: u32,
    /// Requests that are kept to be explained, of those drawn and of those that failed.
    pub explain_keep: usize,
}

impl Default for Settings {
    /// What `gibbon serve` does without flags.
    fn default() -> Self {
        Self {
            trusted: Networks::default(),
            announcing: Networks::default(),
            max_connections: 20_000,
            max_handshakes: 2_000,
            max_head: 64 * 1024,
            max_headers: HYPER_MAX_HEADERS,
            patience: Patience {
                head: Duration::from_secs(10),
                idle: Duration::from_secs(75),
                write: Duration::from_secs(60),
            },
            body_timeout: Duration::from_secs(60),
            public_https_port: 443,
            workers: 0,
            new_traces: NewTraces::None,
            explain_sample: 1000,
            explain_keep: 256,
        }
    }
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// What was decided.
    pub table: Arc<ArcSwap<Table>>,
    /// What the proxy does the same for all rules.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// How TLS is spoken with members whose rules ask for nothing.
    pub system: ClientConfigs,
    /// The requests that can be explained.
    pub kept: Arc<Kept>,
    /// When it all began.
    pub began: Instant,
}

impl Shared {
    /// Full seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn log(&self, line: Begun, served: &Served<'_>) {
        if let Some(log) = &self.access_log
            && !log.end(line, served)
        {
            self.metrics.log_dropped.inc();
        }
    }
}

/// A worker thread's own things.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Idle connections to members.
    pub pool: Rc<Pool>,
    /// Randomness.
    pub rng: RefCell<fastrand::Rng>,
    /// Connections are to end when they have done what is under way.
    draining: Cell<bool>,
    /// Wakes them then.
    drained: Notify,
}

impl Worker {
    /// Whether the next request is drawn to be explained.
    fn draws(&self) -> bool {
        let of = self.shared.settings.explain_sample;
        of > 0 && self.rng.borrow_mut().u32(0..of) == 0
    }
}

/// How far the shutdown has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is served.
    #[default]
    Serving,
    /// Nothing new is accepted; connections end after what is under way.
    Draining,
    /// Everything ends.
    Ended,
}

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: StdListener,
    /// Whether clients speak TLS on it.
    pub tls: bool,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    addresses: Vec<SocketAddr>,
    phase: watch::Sender<Phase>,
    open: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Starts the workers and the acceptor on these sockets.
    ///
    /// # Errors
    /// When a socket cannot be used or a thread cannot be started.
    pub fn start(listeners: Vec<Listener>, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let addresses = listeners
            .iter()
            .map(|listener| listener.socket.local_addr())
            .collect::<Result<_, _>>()?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let open = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        let mut lanes = Vec::new();
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = match shared.settings.workers {
            0 => cores(),
            workers => workers,
        };
        for number in 0..workers {
            let (sender, sockets) = unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            lanes.push(Lane { sockets: sender, load });
            let (shared, phases) = (Arc::clone(shared), phases.clone());
            let work = move || work(shared, sockets, phases);
            threads.push(thread(&format!("worker-{number}"), work)?);
        }
        let acceptor = Acceptor {
            lanes,
            open: Arc::clone(&open),
            limit: shared.settings.max_connections,
            max_handshakes: shared.settings.max_handshakes,
            metrics: Arc::clone(&shared.metrics),
            warned: Cell::new(None),
        };
        for listener in &listeners {
            listener.socket.set_nonblocking(true)?;
        }
        let (checking, ends) = (Arc::clone(shared), phases.clone());
        threads.push(thread("checks", move || checks::follow(checking, ends))?);
        threads.push(thread("acceptor", move || acceptor.run(listeners, phases))?);
        Ok(Self { addresses, phase, open, threads })
    }

    /// The addresses that clients reach.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts nothing more, lets what is under way finish within `grace`, then ends everything.
    /// Returns how many connections had to be cut off.
    pub async fn drain(self, grace: Duration) -> usize {
        self.phase.send_replace(Phase::Draining);
        let until = tokio::time::Instant::now() + grace;
        while self.open.load(Relaxed) > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.open.load(Relaxed);
        self.phase.send_replace(Phase::Ended);
        let threads = self.threads;
        // A worker that panicked has said so; the others still end in order.
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
        left
    }
}

/// Runs a future on a thread of its own with a single-threaded runtime.
fn thread<F: Future<Output = ()> + 'static>(
    name: &str,
    future: impl FnOnce() -> F + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = || -> std::io::Result<LocalRuntime> {
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
    };
    std::thread::Builder::new().name(name.into()).spawn(move || match runtime() {
        Ok(runtime) => runtime.block_on(future()),
        Err(error) => tracing::error!(%error, "no runtime for a thread"),
    })
}

/// The way to one worker.
#[derive(Debug)]
struct Lane {
    sockets: UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
}

/// A connection on its way to a worker; counted until it is dropped.
#[derive(Debug)]
struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    from: Entrance,
    counted: Counted,
}

/// The listener that a connection came in by.
#[derive(Clone, Debug)]
struct Entrance {
    tls: bool,
    handshakes: Arc<Handshakes>,
}

/// An open connection, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    open: Arc<AtomicUsize>,
    load: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
        self.load.fetch_sub(1, Relaxed);
        self.metrics.connections_open.dec();
    }
}

/// Accepts connections, and hands each to the worker that has the fewest.
#[derive(Debug)]
struct Acceptor {
    lanes: Vec<Lane>,
    open: Arc<AtomicUsize>,
    limit: usize,
    max_handshakes: usize,
    metrics: Arc<Metrics>,
    warned: Cell<Option<Instant>>,
}

impl Acceptor {
    async fn run(self, listeners: Vec<Listener>, phases: watch::Receiver<Phase>) {
        let this = Rc::new(self);
        let tasks: Vec<_> = listeners
            .into_iter()
            .map(|listener| spawn_local(Rc::clone(&this).listen(listener, phases.clone())))
            .collect();
        for task in tasks {
            // A listener that panicked has said so; the others go on.
            let _ = task.await;
        }
    }

    async fn listen(self: Rc<Self>, listener: Listener, mut phases: watch::Receiver<Phase>) {
        let Listener { socket, tls } = listener;
        let entrance = Entrance { tls, handshakes: Handshakes::new(self.max_handshakes) };
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a listener cannot be used"),
        };
        loop {
            tokio::select! {
                biased;
                _ = phases.wait_for(|phase| *phase >= Phase::Draining) => break,
                accepted = listener.accept() => self.hand_over(accepted, &entrance).await,
            }
        }
        // What waits in the listen queue has been promised a connection: serve it too.
        let empty_queue = async {
            while let Ok(Ok(accepted)) = timeout(QUEUE_EMPTY, listener.accept()).await {
                self.hand_over(Ok(accepted), &entrance).await;
            }
        };
        let _ = timeout(QUEUE_LAST, empty_queue).await;
    }

    async fn hand_over(&self, accepted: std::io::Result<(TcpStream, SocketAddr)>, from: &Entrance) {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let last = self.warned.replace(Some(Instant::now()));
                if last.is_none_or(|last| last.elapsed() > WARN_AGAIN) {
                    tracing::warn!(%error, "connections cannot be accepted; is `ulimit -n` too low?");
                } else {
                    self.warned.set(last);
                }
                return tokio::time::sleep(OUT_OF_FILES).await;
            }
        };
        if self.open.load(Relaxed) >= self.limit {
            self.metrics.connections_refused.inc();
            tracing::debug!(%peer, limit = self.limit, "too many connections: one is closed");
            return;
        }
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.load.load(Relaxed)) else {
            return;
        };
        self.open.fetch_add(1, Relaxed);
        lane.load.fetch_add(1, Relaxed);
        self.metrics.connections.inc();
        self.metrics.connections_open.inc();
        let (open, load) = (Arc::clone(&self.open), Arc::clone(&lane.load));
        let counted = Counted { open, load, metrics: Arc::clone(&self.metrics) };
        match stream.into_std() {
            // A worker that is gone has dropped its receiver, and the connection with it.
            Ok(stream) => {
                let from = from.clone();
                drop(lane.sockets.send(Accepted { stream, peer, from, counted }));
            }
            Err(error) => tracing::debug!(%error, %peer, "a connection was lost"),
        }
    }
}

/// A worker's life: serves the connections that it is handed until everything ends.
async fn work(
    shared: Arc<Shared>,
    mut sockets: UnboundedReceiver<Accepted>,
    phases: watch::Receiver<Phase>,
) {
    let worker = Rc::new(Worker {
        shared,
        pool: Rc::new(Pool::default()),
        rng: RefCell::new(fastrand::Rng::new()),
        draining: Cell::new(false),
        drained: Notify::new(),
    });
    spawn_local(drain_with(Rc::clone(&worker), phases.clone()));
    let pool = Rc::clone(&worker.pool);
    spawn_local(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            pool.sweep(Instant::now());
        }
    });
    let mut ended = phases.clone();
    loop {
        tokio::select! {
            biased;
            _ = ended.wait_for(|phase| *phase == Phase::Ended) => return,
            accepted = sockets.recv() => match accepted {
                Some(accepted) => {
                    spawn_local(connection(Rc::clone(&worker), accepted, phases.clone()));
                }
                // The acceptor has ended; the connections go on.
                None => break,
            },
        }
    }
    // If the sender is gone, so is the proxy.
    let _ = ended.wait_for(|phase| *phase == Phase::Ended).await;
}

/// Tells the worker's connections when they are to end.
async fn drain_with(worker: Rc<Worker>, mut phases: watch::Receiver<Phase>) {
    // If the sender is gone, so is the proxy.
    let _ = phases.wait_for(|phase| *phase >= Phase::Draining).await;
    worker.draining.set(true);
    worker.drained.notify_waiters();
}

async fn connection(worker: Rc<Worker>, accepted: Accepted, phases: watch::Receiver<Phase>) {
    let Accepted { stream, peer, from, counted } = accepted;
    let settings = &worker.shared.settings;
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let _unimportant = stream.set_nodelay(true);
    let activity = Activity::new(settings.patience, Instant::now());
    let mut draining = phases.clone();
    let too_late = async {
        // If the sender is gone, so is the proxy.
        let _ = draining.wait_for(|phase| *phase >= Phase::Draining).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    // Apart, so that its room is free again when the connection has begun.
    let greet = Box::pin(async {
        let (stream, client) = announced(&worker, stream, peer, &from).await?;
        let (stream, seen) = if from.tls {
            let secured =
                tls::accept(stream, client.ip(), &worker.shared, &from.handshakes).await?;
            (ClientStream::Tls(secured.stream), Some(secured.seen))
        } else {
            (ClientStream::Plain(stream), None)
        };
        let greeting = Client::greet(stream, Arc::clone(&activity)).await.ok()?;
        Some((greeting, seen, client))
    });
    let greeting = tokio::select! {
        biased;
        greeting = greet => greeting,
        () = too_late => return,
    };
    let Some(((client, http2), seen, peer)) = greeting else {
        return;
    };
    worker.shared.metrics.speaks(http2, seen.is_some());
    let other = Peer::new(peer.ip(), &settings.trusted);
    let connection =
        Rc::new(Connection { peer: other, seen, activity: Arc::clone(&activity), counted });
    let result = if http2 {
        Box::pin(serve_http2(&worker, connection, client)).await
    } else {
        let mut client = client;
        loop {
            let connection = Rc::clone(&connection);
            let served = Box::pin(serve_http1(&worker, connection, client)).await;
            let resting = match served {
                Ok(Some(resting)) => resting,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let ends = async {
                let drained = worker.drained.notified();
                if !worker.draining.get() {
                    drained.await;
                }
            };
            match resting.woken(ends).await {
                Some(awake) => client = awake,
                None => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "client connection ended");
        if error.is_parse() {
            let too_large = error.is_parse_too_large();
            let refused = if too_large { Error::HeadTooLarge } else { Error::MALFORMED };
            worker.shared.metrics.refused(refused.reason());
        }
    }
}

/// Who the client is: the peer, or whom it announces where it is to do so. Nothing if it does not.
async fn announced(
    worker: &Worker,
    mut stream: TcpStream,
    peer: SocketAddr,
    from: &Entrance,
) -> Option<(TcpStream, SocketAddr)> {
    let settings = &worker.shared.settings;
    if !settings.announcing.contain(peer.ip()) {
        return Some((stream, peer));
    }
    let read = announce::read(&mut stream);
    let announced = from.handshakes.run(peer.ip(), settings.patience.head, read).await;
    let (label, client) = match announced {
        Ok(Ok(client)) => ("ok", Some(client.unwrap_or(peer))),
        Ok(Err(_)) => ("failed", None),
        Err(cut) => (cut.label(), None),
    };
    worker.shared.metrics.proxy_headers.with_label_values(&[label]).inc();
    if client.is_none() {
        tracing::debug!(%peer, result = label, "a connection without a PROXY header was closed");
    }
    client.map(|client| (stream, client))
}

/// How far a connection was driven.
enum Driven {
    Ended(hyper::Result<()>),
    Drains,
    Rests,
}

/// Drives a connection; told to drain, it ends after what is under way. Nothing is said of its end if
/// it rests before.
macro_rules! drive {
    ($connection:expr, $worker:ident, $rests:expr) => {{
        let mut connection = $connection;
        let mut drained = pin!($worker.drained.notified());
        // Its waker stays the same, so that it need not be asked each time.
        drained.as_mut().enable();
        let mut told = false;
        let done = std::future::poll_fn(|cx| {
            if !told {
                told = true;
                let _flag_says_it = drained.as_mut().poll(cx);
            }
            // The connection first: a request that has arrived is taken before its end is announced.
            match connection.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Driven::Ended(result)),
                Poll::Pending if $worker.draining.get() => Poll::Ready(Driven::Drains),
                Poll::Pending if $rests => Poll::Ready(Driven::Rests),
                Poll::Pending => Poll::Pending,
            }
        });
        match done.await {
            Driven::Ended(result) => Some(result),
            Driven::Rests => None,
            Driven::Drains => {
                connection.as_mut().graceful_shutdown();
                Some(connection.await)
            }
        }
    }};
}

/// Until the connection ends, or rests.
async fn serve_http1(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
    client: Client,
) -> hyper::Result<Option<Client>> {
    let settings = &worker.shared.settings;
    let activity = Arc::clone(&connection.activity);
    let service = service(worker, connection);
    let mut builder = http1::Builder::new();
    if settings.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    let mut served = builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(settings.max_head)
        .max_buf_size(BUFFER.max(settings.max_head))
        .writev(true)
        .serve_connection(client, service)
        .with_upgrades();
    if let Some(result) = drive!(Pin::new(&mut served), worker, activity.rests()) {
        return result.map(|()| None);
    }
    // It has read its last request to the end and written all of the answer.
    Ok(served.into_parts().map(|parts| parts.io.again(&parts.read_buf)))
}

async fn serve_http2(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
    client: Client,
) -> hyper::Result<()> {
    let head = u32::try_from(worker.shared.settings.max_head).unwrap_or(u32::MAX);
    let activity = Arc::clone(&connection.activity);
    let service = service(worker, connection);
    // Apart, as its room would be held until the answer's body has ended.
    let service = service_fn(move |request| Box::pin(service.call(request)));
    let served = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(head)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol()
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(client, service);
    let served = async move { drive!(pin!(served), worker, false) };
    tokio::select! {
        biased;
        result = served => result.unwrap_or(Ok(())),
        () = activity.flooded() => {
            worker.shared.metrics.refused("reset_flood");
            Ok(())
        }
    }
}

/// Serves the requests of a connection; none of them ever fails.
fn service(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
) -> impl Service<
    http::Request<hyper::body::Incoming>,
    Response = forward::Answer,
    Error = std::convert::Infallible,
    Future: 'static,
> + use<> {
    let worker = Rc::clone(worker);
    service_fn(move |request: http::Request<hyper::body::Incoming>| {
        // It is not idle from now on, whenever the answer is first asked for.
        let busy = connection.activity.request(!request.body().is_end_stream());
        forward::serve(Rc::clone(&worker), Rc::clone(&connection), busy, request).map(Ok)
    })
}

/// Spawns on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
