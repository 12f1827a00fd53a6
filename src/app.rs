//! Wires source → table → proxy; readiness; the order of shutdown.

use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use hyper_rustls::ConfigBuilderExt;
use kube::Client;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::admin::Admin;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::proxy::log::AccessLog;
use crate::proxy::{Listener, Proxy, Settings, Shared};
use crate::source::Publisher;
use crate::source::files::{Directory, yaml_files};
use crate::source::kubernetes::{Cluster, Options};
use crate::source::names::Resolver;
use crate::table::Table;
use crate::table::tls::SecretId;
use crate::table::upstream::Handshakes;

/// How long the API server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the end waits for the lease to be given back.
const GIVE_BACK: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Where Balancers come from.
#[derive(Debug)]
pub enum Source {
    /// The YAML files of a directory.
    Files(PathBuf),
    /// A cluster.
    Cluster(Box<Options>),
}

/// Everything that makes a Gibbon.
#[derive(Debug)]
pub struct Config {
    /// Where the Balancers are.
    pub source: Source,
    /// Addresses to serve clients on; port 0 takes any.
    pub listen: Vec<SocketAddr>,
    /// Addresses to serve clients on with TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// The Secret of the certificate for hosts that have none.
    pub default_certificate: Option<SecretId>,
    /// Address of the admin pages.
    pub admin: SocketAddr,
    /// Whether `/table` is shown to others than this machine.
    pub open_table: bool,
    /// What the proxy does the same for all rules.
    pub settings: Settings,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// How members that want TLS are spoken to; the system's roots if not given.
    pub tls: Option<rustls::ClientConfig>,
    /// Finds members' addresses.
    pub resolver: Resolver,
    /// How long requests under way may take when it ends.
    pub shutdown_grace: Duration,
}

/// A Gibbon that runs.
#[derive(Debug)]
pub struct App {
    /// The addresses that clients reach: those without TLS first.
    pub addresses: Vec<SocketAddr>,
    /// The address of the admin pages.
    pub admin: SocketAddr,
    /// What is being served.
    pub table: Arc<ArcSwap<Table>>,
    /// Whether it is ready.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    proxy: Proxy,
    source: JoinHandle<anyhow::Result<()>>,
    ending: watch::Sender<bool>,
    pages: JoinHandle<()>,
    grace: Duration,
}

/// Starts a Gibbon; it serves when this returns, and is ready when its first table is in use.
///
/// # Errors
/// When an address cannot be bound, or the system's certificates cannot be read.
pub async fn build(config: Config) -> anyhow::Result<App> {
    // Nothing is opened before it is known that there is something to serve from.
    let mut source = config.source;
    let client = match &mut source {
        Source::Files(files) => yaml_files(files).context("--files").map(|_| None)?,
        Source::Cluster(options) => {
            let (client, api_server) = client().await?;
            // What leads to the API server is not for members, even where its Service is not seen.
            options.own.extend(api_server);
            Some(client)
        }
    };
    let table = Arc::new(ArcSwap::from_pointee(Table::default()));
    let metrics = Metrics::new(&table)?;
    let health = Arc::new(Health::default());
    let admin = TcpListener::bind(config.admin)
        .await
        .with_context(|| format!("--admin {} cannot be bound", config.admin))?;
    let plain = config.listen.iter().map(|address| (*address, false));
    let secured = config.listen_tls.iter().map(|address| (*address, true));
    let listeners = plain.chain(secured).map(|(address, tls)| bind(address, tls));
    let listeners = listeners.collect::<anyhow::Result<Vec<_>>>()?;
    let shared = Arc::new(Shared {
        table: Arc::clone(&table),
        settings: config.settings,
        metrics: Arc::clone(&metrics),
        access_log: config.access_log,
        system: Handshakes::new(&config.tls.map_or_else(system_roots, Ok)?),
        began: Instant::now(),
    });
    let proxy = Proxy::start(listeners, &shared)?;
    let publisher = Publisher::new(Arc::clone(&table), Arc::clone(&metrics));
    let (ending, ends) = watch::channel(false);
    let (resolver, known) = (config.resolver, (Arc::clone(&health), Arc::clone(&metrics)));
    let source = match (source, client) {
        (Source::Cluster(options), Some(client)) => {
            let cluster =
                Cluster::new(client, *options, resolver, publisher, known.0, known.1, ends);
            tokio::spawn(cluster.run())
        }
        (Source::Files(files), _) => {
            let default = config.default_certificate;
            tokio::spawn(
                Directory::new(files, resolver, publisher, known.0, known.1, default).run(),
            )
        }
        (Source::Cluster(_), None) => anyhow::bail!("there is no cluster"),
    };
    let pages = Admin {
        table: Arc::clone(&table),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        open_table: config.open_table,
    };
    Ok(App {
        addresses: proxy.addresses().to_vec(),
        admin: admin.local_addr()?,
        table,
        health,
        metrics,
        proxy,
        source,
        ending,
        pages: tokio::spawn(pages.serve(admin)),
        grace: config.shutdown_grace,
    })
}

impl App {
    /// Serves until `stop` is ready, then ends in order: not ready, the delay that `stop` gives in
    /// which load balancers notice, then no new connections and an end to what is under way.
    ///
    /// # Errors
    /// When the source of rules cannot work.
    pub async fn run(mut self, stop: impl Future<Output = Duration>) -> anyhow::Result<()> {
        let delay = tokio::select! {
            delay = stop => delay,
            ended = &mut self.source => {
                self.proxy.drain(Duration::ZERO).await;
                return ended.context("the source of rules broke")?;
            }
        };
        self.health.set_ending();
        // Another may lead from now on.
        self.ending.send_replace(true);
        tracing::info!(seconds = delay.as_secs_f64(), "shutting down: not ready any more");
        tokio::time::sleep(delay).await;
        let cut = self.proxy.drain(self.grace).await;
        // Whoever still has something to give back has heard of the end above.
        let _given_back = timeout(GIVE_BACK, self.ending.closed()).await;
        self.source.abort();
        self.pages.abort();
        if cut > 0 {
            tracing::warn!(connections = cut, "the grace period is over: connections were cut");
        }
        Ok(())
    }
}

/// Reaches the cluster of the pod's service account, or of KUBECONFIG. Returns the address of its API
/// server too, if it is given as one.
async fn client() -> anyhow::Result<(Client, Option<IpAddr>)> {
    let no_cluster =
        "no cluster is known: give --files DIR to serve files, or set KUBECONFIG to a file";
    let mut config = kube::Config::infer().await.context(no_cluster)?;
    config.connect_timeout = Some(CONNECT);
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']);
    let api_server = host.parse().ok();
    let client = Client::try_from(config);
    let client = client.context("the API server's address or the credentials cannot be used")?;
    Ok((client, api_server))
}

fn bind(address: SocketAddr, tls: bool) -> anyhow::Result<Listener> {
    let listen = || -> std::io::Result<StdListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let flag = if tls { "--listen-tls" } else { "--listen" };
    let socket = listen().with_context(|| format!("{flag} {address} cannot be bound"))?;
    Ok(Listener { socket, tls })
}

/// TLS to members, verified against the system's roots.
fn system_roots() -> anyhow::Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder().with_native_roots();
    Ok(builder.context("the system's certificates cannot be read")?.with_no_client_auth())
}
