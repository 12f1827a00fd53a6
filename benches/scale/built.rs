//! In memory, on one core: the objects of a cluster become a table, and requests look into it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use arc_swap::ArcSwap;
use gibbon::metrics::Metrics;
use gibbon::source::endpoints::Resolution;
use gibbon::source::kubernetes::object::Object;
use gibbon::source::kubernetes::store::{self, Change, Key, SliceOf, Store, Update};
use gibbon::source::policy::Policy;
use gibbon::source::{Publisher, endpoints, files};
use gibbon::table::owners::Owners;
use gibbon::table::path::{RequestPath, host_of};
use gibbon::table::{Endpoints, Found, Rule, ServicePort, Table, Target};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Tables are built so often; the median counts.
const TIMES: usize = 15;
/// Requests that are looked up, one after the other; and how often all of them.
const REQUESTS: usize = 20_000;
const PASSES: usize = 15;

/// Objects as the API server's answers are read.
pub struct Objects {
    balancers: Vec<Object>,
    services: Vec<(Key, endpoints::Service)>,
    slices: Vec<(Key, SliceOf)>,
}

impl Objects {
    pub fn read(balancers: &[Value], services: &[Value], slices: &[Value]) -> Result<Self> {
        let mut balancers: Vec<Object> = read(balancers)?;
        for (at, object) in balancers.iter_mut().enumerate() {
            object.meta.uid = Some(at.to_string());
            object.meta.generation = Some(1);
        }
        Ok(Self {
            balancers,
            services: read(services)?.into_iter().map(store::service).collect(),
            slices: read(slices)?.into_iter().map(store::slice).collect(),
        })
    }
}

fn read<T: DeserializeOwned>(objects: &[Value]) -> Result<Vec<T>> {
    objects.iter().map(|object| Ok(T::deserialize(object)?)).collect()
}

/// How long it took.
pub struct Built {
    /// Objects to checked rules with compiled expressions.
    pub rules: Duration,
    /// Slices to the addresses behind the rules.
    pub addresses: Duration,
    /// All that to the table in use.
    pub table: Duration,
    /// One slice that changed to the next table, the first one after the rules have.
    pub first_change: Duration,
    /// Another one.
    pub change: Duration,
}

/// What a cluster's source does when all is known, and when a slice changes.
pub fn build(objects: &Objects, changed: [&Value; 2]) -> Result<Built> {
    let [mut rules, mut addresses, mut table, mut first, mut change] = [const { Vec::new() }; 5];
    let slice = |changed: &Value| -> Result<_> {
        Ok(store::slice(serde_json::from_value(changed.clone())?))
    };
    for _ in 0..TIMES {
        let balancers = objects.balancers.iter().cloned().map(Box::new).collect();
        let services = objects.services.clone();
        let (slices, [one, other]) =
            (objects.slices.clone(), [slice(changed[0])?, slice(changed[1])?]);
        let mut source = Source::new()?;
        let began = Instant::now();
        source.store.take(Change::Services(Update::All(None, services)));
        source.store.take(Change::Slices(Update::All(None, slices)));
        source.store.take(Change::Balancers(Update::All(None, balancers)));
        rules.push(began.elapsed());
        let began = Instant::now();
        source.find_addresses();
        addresses.push(began.elapsed());
        let began = Instant::now();
        source.decide();
        table.push(began.elapsed());
        let count = source.table.load().routes.len();
        ensure!(count == objects.balancers.len(), "only {count} are served");
        let began = Instant::now();
        source.change(one);
        first.push(began.elapsed());
        let began = Instant::now();
        source.change(other);
        change.push(began.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[TIMES / 2]
    };
    Ok(Built {
        rules: median(rules),
        addresses: median(addresses),
        table: median(table),
        first_change: median(first),
        change: median(change),
    })
}

/// The parts of the cluster's source that are not waiting.
struct Source {
    store: Store,
    rules: Vec<Arc<Rule>>,
    endpoints: Endpoints,
    /// The ports of each Service that rules name.
    ports: HashMap<Key, Vec<ServicePort>>,
    owners: Option<Arc<Owners>>,
    publisher: Publisher,
    table: Arc<ArcSwap<Table>>,
}

impl Source {
    fn new() -> Result<Self> {
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let metrics = Metrics::new(&table)?;
        Ok(Self {
            store: Store::new(None, Policy::default()),
            rules: Vec::new(),
            endpoints: Endpoints::default(),
            ports: HashMap::new(),
            owners: None,
            publisher: Publisher::new(Arc::clone(&table), metrics),
            table,
        })
    }

    fn find_addresses(&mut self) {
        let held = self.store.balancers().values();
        self.rules = held.filter_map(|held| held.outcome.clone().ok()).collect();
        let entries = self.rules.iter().flat_map(|rule| &rule.entries);
        let ports = entries.filter_map(|entry| match &entry.target {
            Target::Service(port) => Some(port.clone()),
            Target::Url(_) => None,
        });
        for port in ports.collect::<Vec<_>>() {
            let key = (Arc::clone(&port.namespace), Arc::clone(&port.name));
            self.ports.entry(key).or_default().push(port.clone());
            self.resolve(port);
        }
    }

    fn decide(&mut self) {
        self.owners = Some(Arc::new(Owners::of(&self.store.claims())));
        self.store.take_dirty();
        self.publish();
    }

    fn resolve(&mut self, port: ServicePort) {
        if let Resolution::Endpoints(backends, _) = self.store.resolve(&port) {
            self.endpoints.services.insert(port, backends);
        }
    }

    fn change(&mut self, slice: (Key, SliceOf)) {
        self.store.take(Change::Slices(Update::One(slice)));
        let mut changed = Vec::new();
        for service in self.store.take_dirty().services {
            for port in self.ports.get(&service).cloned().unwrap_or_default() {
                self.resolve(port.clone());
                changed.push(port);
            }
        }
        self.publisher.follow(&changed, &self.endpoints);
    }

    fn publish(&mut self) {
        self.publisher.publish(&self.rules, &self.endpoints, self.owners.as_ref());
    }
}

/// So many hosts, each with so many paths.
pub struct Site {
    pub hosts: usize,
    pub paths: usize,
    pub wildcards: bool,
}

/// What is looked into.
pub const SITES: [Site; 6] = [
    Site { hosts: 1, paths: 1, wildcards: false },
    Site { hosts: 100, paths: 1, wildcards: false },
    Site { hosts: 10_000, paths: 1, wildcards: false },
    Site { hosts: 10_000, paths: 1, wildcards: true },
    Site { hosts: 1, paths: 10_000, wildcards: false },
    Site { hosts: 100, paths: 100, wildcards: false },
];

impl Site {
    fn path(at: usize) -> String {
        if at == 0 { "/".to_owned() } else { format!("/shop/part-{at}/") }
    }

    fn table(&self) -> Result<Table> {
        let mut yaml = String::new();
        let wild = if self.wildcards { "*." } else { "" };
        for (host, path) in (0..self.hosts).flat_map(|h| (0..self.paths).map(move |p| (h, p))) {
            let _ = write!(
                yaml,
                "---\napiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {{name: app-{host}-{path}}}\n\
                 spec: {{hosts: ['{wild}app-{host}.example.org'], path: '{}', \
                 members: [{{url: 'http://203.0.113.9/'}}]}}\n",
                Self::path(path)
            );
        }
        let reading = files::read(&yaml);
        ensure!(reading.faults.is_empty(), "{}", reading.faults[0]);
        let none = Endpoints::default();
        Ok(Table::build(&reading.rules, &none, None, &Table::default(), Instant::now()))
    }

    /// Medians of the time of one lookup, and of what comes before it: the Host is read, and the path
    /// resolved. Requests are for all hosts and paths in no order; that their bytes are at hand costs
    /// too, and does not count.
    pub fn lookup(&self) -> Result<Lookup> {
        let table = self.table()?;
        let mut random = fastrand::Rng::with_seed(1);
        let wild = if self.wildcards { "www." } else { "" };
        let request = |_| {
            let (host, path) = (random.usize(0..self.hosts), random.usize(0..self.paths));
            (format!("{wild}app-{host}.example.org"), format!("{}item/17", Self::path(path)))
        };
        let requests: Vec<(String, String)> = (0..REQUESTS).map(request).collect();
        let nothing = |_: &str, _: &str| Ok(true);
        let read = |host: &str, path: &str| -> Result<bool> {
            black_box((self::host(host)?, self::path(path)?));
            Ok(true)
        };
        let find = |host: &str, path: &str| -> Result<bool> {
            let (host, path) = (self::host(host)?, self::path(path)?);
            Ok(matches!(black_box(table.find(&host, &path)), Found::Route(_)))
        };
        let (mut reading, mut finding) = (Vec::new(), Vec::new());
        for _ in 0..PASSES {
            let bare = pass(&requests, nothing)?;
            let read = pass(&requests, read)?;
            let found = pass(&requests, find)?;
            reading.push(read - bare);
            finding.push(found - read);
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[PASSES / 2]
        };
        Ok(Lookup { reading: median(reading), finding: median(finding) })
    }
}

/// Nanoseconds.
pub struct Lookup {
    pub reading: f64,
    pub finding: f64,
}

fn host(host: &str) -> Result<Cow<'_, str>> {
    host_of(host).map_err(|error| anyhow!("{error:?}"))
}

fn path(path: &str) -> Result<RequestPath<'_>> {
    RequestPath::resolve(path).map_err(|error| anyhow!("{error:?}"))
}

/// Nanoseconds for one request.
fn pass(requests: &[(String, String)], look: impl Fn(&str, &str) -> Result<bool>) -> Result<f64> {
    let (mut host, mut path) = (String::new(), String::new());
    let began = Instant::now();
    for request in requests {
        host.clone_from(&request.0);
        path.clone_from(&request.1);
        ensure!(look(black_box(&host), black_box(&path))?, "{host}{path} was not found");
    }
    Ok(began.elapsed().as_secs_f64() * 1e9 / requests.len() as f64)
}
