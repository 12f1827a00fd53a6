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
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::admin::{Admin, Pages};
use crate::explain::kept::Kept;
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
use crate::table::upstream::ClientConfigs;

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
    /// Whether `/explain` is shown to others than this machine.
    pub open_explain: bool,
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
    pages: Pages,
    grace: Duration,
}

/// Starts a Gibbon; it serves when this returns, and is ready when its first table is in use.
///
/// # Errors
/// When an address cannot be bound, or the system's certificates cannot be read.
pub async fn build(config: Config) -> anyhow::Result<App> {
    // Nothing is opened before it is known that there is something to serve from.
    let origin = Origin::of(config.source).await?;
    let table = Arc::new(ArcSwap::from_pointee(Table::default()));
    let metrics = Metrics::new(&table)?;
    let health = Arc::new(Health::default());
    let admin = bind("--admin", config.admin)?;
    let plain = config.listen.iter().map(|address| (*address, false));
    let secured = config.listen_tls.iter().map(|address| (*address, true));
    let listeners = plain.chain(secured).map(|(address, tls)| listener(address, tls));
    let listeners = listeners.collect::<anyhow::Result<Vec<_>>>()?;
    let no_tls = config.listen_tls.is_empty() && config.settings.trusted.is_empty();
    let kept = Arc::new(Kept::new(config.settings.explain_keep));
    let shared = Arc::new(Shared {
        table: Arc::clone(&table),
        settings: config.settings,
        metrics: Arc::clone(&metrics),
        access_log: config.access_log,
        system: ClientConfigs::new(&config.tls.map_or_else(system_roots, Ok)?),
        kept: Arc::clone(&kept),
        began: Instant::now(),
    });
    let proxy = Proxy::start(listeners, &shared)?;
    let publisher = Publisher::new(Arc::clone(&table), Arc::clone(&metrics));
    let (ending, ends) = watch::channel(false);
    let (resolver, known) = (config.resolver, (Arc::clone(&health), Arc::clone(&metrics)));
    let source = match origin {
        Origin::Cluster(client, options) => {
            let cluster =
                Cluster::new(client, *options, resolver, publisher, known.0, known.1, ends);
            tokio::spawn(cluster.run())
        }
        Origin::Files(files) => {
            let default = config.default_certificate;
            let files = Directory::new(files, resolver, publisher, known.0, known.1, default);
            tokio::spawn(files.without_tls(no_tls).run())
        }
    };
    let pages = Admin {
        table: Arc::clone(&table),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        open_table: config.open_table,
        kept,
        open_explain: config.open_explain,
    };
    let pages = pages.start(admin).context("the admin pages cannot be served")?;
    Ok(App {
        addresses: proxy.addresses().to_vec(),
        admin: pages.address,
        table,
        health,
        metrics,
        proxy,
        source,
        ending,
        pages,
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
        drop(self.pages);
        if cut > 0 {
            tracing::warn!(connections = cut, "the grace period is over: connections were cut");
        }
        Ok(())
    }
}

/// A source that can be reached.
enum Origin {
    Files(PathBuf),
    Cluster(Client, Box<Options>),
}

impl Origin {
    async fn of(source: Source) -> anyhow::Result<Self> {
        match source {
            Source::Files(files) => {
                yaml_files(&files).context("--files")?;
                Ok(Self::Files(files))
            }
            Source::Cluster(mut options) => {
                let (client, api_server) = client().await?;
                // What leads to it is not for members, even where its Service is not seen.
                options.own.extend(api_server);
                Ok(Self::Cluster(client, options))
            }
        }
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

fn listener(address: SocketAddr, tls: bool) -> anyhow::Result<Listener> {
    let flag = if tls { "--listen-tls" } else { "--listen" };
    Ok(Listener { socket: bind(flag, address)?, tls })
}

/// Listens at the address that a flag gives.
fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<StdListener> {
    let listen = || -> std::io::Result<StdListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().with_context(|| format!("{flag} {address} cannot be bound"))
}

/// TLS to members, verified against the system's roots.
fn system_roots() -> anyhow::Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder().with_native_roots();
    Ok(builder.context("the system's certificates cannot be read")?.with_no_client_auth())
}
