//! Every metric: names, labels, the collector that walks the live table at each scrape.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::table::balance;
use crate::table::load::{Admission, Failure};
use crate::table::tally::{RuleTally, Session};
use crate::table::{Member, Route, State, Table};

/// What is counted outside the table, and the registry that is scraped.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    refused: IntCounterVec,
    tunnels: IntGauge,
    /// TLS handshakes with clients, by version and result.
    pub handshakes: IntCounterVec,
    /// Headers of the PROXY protocol, by result.
    pub proxy_headers: IntCounterVec,
    protocols: IntCounterVec,
    /// Client connections accepted.
    pub connections: IntCounter,
    /// Client connections open.
    pub connections_open: IntGauge,
    /// Client connections closed at once, because there were too many.
    pub connections_refused: IntCounter,
    /// Access log lines dropped, because they could not be written fast enough.
    pub log_dropped: IntCounter,
    /// Sources by whether their last version is in use.
    pub source_invalid: IntGaugeVec,
    /// Tables put in use.
    pub tables: IntCounter,
    table_time: IntGauge,
}

/// What is counted of a cluster. Clones are the same.
#[derive(Clone, Debug)]
pub struct OfCluster {
    /// When the API server was last heard of, in seconds since 1970.
    pub contact: IntGauge,
    /// Whether this Gibbon holds the lease.
    pub leads: IntGauge,
    /// Statuses, by result: `written`, `outdated` (changed before it was), `failed`.
    pub statuses: IntCounterVec,
    /// Balancers that are not served because something is wrong with them.
    pub refused: IntGauge,
}

impl Metrics {
    /// Metrics of a process that serves from `table`.
    ///
    /// # Errors
    /// When two metrics have the same name.
    pub fn new(table: &Arc<ArcSwap<Table>>) -> prometheus::Result<Arc<Self>> {
        let counter = |name: &str, help: &str| IntCounter::with_opts(Opts::new(name, help));
        let gauge = |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help));
        let metrics = Self {
            registry: Registry::new(),
            refused: IntCounterVec::new(
                Opts::new(
                    "gibbon_refused_requests_total",
                    "Requests that Gibbon answered itself with an error",
                ),
                &["reason"],
            )?,
            tunnels: gauge("gibbon_tunnels_open", "Upgraded connections (WebSocket) open")?,
            handshakes: IntCounterVec::new(
                Opts::new("gibbon_tls_handshakes_total", "TLS handshakes with clients, by result"),
                &["version", "result"],
            )?,
            proxy_headers: IntCounterVec::new(
                Opts::new(
                    "gibbon_proxy_headers_total",
                    "Headers of the PROXY protocol that were waited for, by result",
                ),
                &["result"],
            )?,
            protocols: IntCounterVec::new(
                Opts::new(
                    "gibbon_connections_by_protocol_total",
                    "Client connections that said something, by protocol: http/1, h2; by tls: yes, no",
                ),
                &["protocol", "tls"],
            )?,
            connections: counter("gibbon_connections_total", "Client connections accepted")?,
            connections_open: gauge("gibbon_connections_open", "Client connections open")?,
            connections_refused: counter(
                "gibbon_connections_refused_total",
                "Client connections closed at once because --max-connections were open",
            )?,
            log_dropped: counter(
                "gibbon_access_log_dropped_total",
                "Access log lines dropped because they could not be written fast enough",
            )?,
            source_invalid: IntGaugeVec::new(
                Opts::new(
                    "gibbon_source_invalid",
                    "1 for each source (file) whose newest version has errors and is not in use",
                ),
                &["source"],
            )?,
            tables: counter("gibbon_tables_total", "Routing tables put in use")?,
            table_time: gauge(
                "gibbon_table_timestamp_seconds",
                "When the routing table in use was put in use, in seconds since 1970",
            )?,
        };
        metrics.register(table)?;
        Ok(Arc::new(metrics))
    }

    fn register(&self, table: &Arc<ArcSwap<Table>>) -> prometheus::Result<()> {
        let all: [Box<dyn Collector>; 13] = [
            Box::new(self.refused.clone()),
            Box::new(self.tunnels.clone()),
            Box::new(self.handshakes.clone()),
            Box::new(self.proxy_headers.clone()),
            Box::new(self.protocols.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.connections_open.clone()),
            Box::new(self.connections_refused.clone()),
            Box::new(self.log_dropped.clone()),
            Box::new(self.source_invalid.clone()),
            Box::new(self.tables.clone()),
            Box::new(self.table_time.clone()),
            Box::new(LiveTable { table: Arc::clone(table), desc: LiveTable::descriptions()? }),
        ];
        all.into_iter().try_for_each(|collector| self.registry.register(collector))
    }

    /// Adds what is counted of a cluster, where there is one.
    ///
    /// # Errors
    /// When it was added before.
    pub fn of_cluster(&self) -> prometheus::Result<OfCluster> {
        let of_cluster = OfCluster {
            contact: IntGauge::new(
                "gibbon_cluster_contact_timestamp_seconds",
                "When the API server was last heard of, in seconds since 1970",
            )?,
            leads: IntGauge::new(
                "gibbon_leader",
                "1 for the Gibbon that holds the lease and writes statuses",
            )?,
            statuses: IntCounterVec::new(
                Opts::new("gibbon_status_writes_total", "Statuses of Balancers written, by result"),
                &["result"],
            )?,
            refused: IntGauge::new(
                "gibbon_balancers_refused",
                "Balancers that are not served because something is wrong with them",
            )?,
        };
        self.registry.register(Box::new(of_cluster.contact.clone()))?;
        self.registry.register(Box::new(of_cluster.leads.clone()))?;
        self.registry.register(Box::new(of_cluster.statuses.clone()))?;
        self.registry.register(Box::new(of_cluster.refused.clone()))?;
        Ok(of_cluster)
    }

    /// A request got an error of Gibbon's own.
    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A client's connection speaks this.
    pub fn speaks(&self, http2: bool, tls: bool) {
        let (protocol, tls) = (if http2 { "h2" } else { "http/1" }, if tls { "yes" } else { "no" });
        self.protocols.with_label_values(&[protocol, tls]).inc();
    }

    /// A tunnel is open until the guard is dropped.
    #[must_use]
    pub fn tunnel(&self) -> Open {
        self.tunnels.inc();
        Open(self.tunnels.clone())
    }

    /// A new table is in use.
    pub fn table_swapped(&self) {
        self.tables.inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.table_time.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Counts as open until it is dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The metrics that live and die with the rules and members of the table.
#[derive(Debug)]
struct LiveTable {
    table: Arc<ArcSwap<Table>>,
    desc: Vec<Desc>,
}

/// Name, type and help of each of them.
const FAMILIES: [(&str, MetricType, &str); 22] = [
    (
        "gibbon_requests_total",
        MetricType::COUNTER,
        "Requests answered, by Balancer and status class",
    ),
    (
        "gibbon_request_duration_seconds",
        MetricType::HISTOGRAM,
        "Time from a request's head to the end of its response",
    ),
    ("gibbon_retries_total", MetricType::COUNTER, "Attempts after one that failed"),
    ("gibbon_retries_denied_total", MetricType::COUNTER, "Attempts that the retry budget forbade"),
    (
        "gibbon_sessions_total",
        MetricType::COUNTER,
        "How requests fared with the member that they named: new, hit, lost, failover, refused",
    ),
    (
        "gibbon_aborted_requests_total",
        MetricType::COUNTER,
        "Requests whose client went away before the end of the response",
    ),
    (
        "gibbon_leaked_addresses_total",
        MetricType::COUNTER,
        "Response fields that still named a member's own address after reversal",
    ),
    (
        "gibbon_members",
        MetricType::GAUGE,
        "Members by state: usable, failing, excluded, probing, draining, standby, spare, disabled, unresolved",
    ),
    ("gibbon_member_requests_total", MetricType::COUNTER, "Attempts at a member"),
    ("gibbon_member_failures_total", MetricType::COUNTER, "Failed attempts at a member, by reason"),
    (
        "gibbon_member_connections_total",
        MetricType::COUNTER,
        "Connections opened to a member, by protocol",
    ),
    ("gibbon_member_in_flight", MetricType::GAUGE, "Requests under way at a member"),
    (
        "gibbon_member_latency_seconds",
        MetricType::GAUGE,
        "Estimate of a member's time to its response head",
    ),
    (
        "gibbon_member_failure_rate",
        MetricType::GAUGE,
        "Share of a member's attempts that failed lately",
    ),
    (
        "gibbon_member_usable",
        MetricType::GAUGE,
        "1 if a member takes requests, 0 if it fails its health checks, is excluded, disabled or draining",
    ),
    (
        "gibbon_certificate_expiry_timestamp_seconds",
        MetricType::GAUGE,
        "When the certificate of a host ends, in seconds since 1970; host *: the default",
    ),
    (
        "gibbon_member_intended_requests_total",
        MetricType::COUNTER,
        "Attempts that were a member's part by its share, weight, speed, failures and slow start",
    ),
    (
        "gibbon_member_session_requests_total",
        MetricType::COUNTER,
        "Requests of sessions that belong to a member",
    ),
    (
        "gibbon_queued_requests_total",
        MetricType::COUNTER,
        "Requests that waited because all members had their maxInFlight",
    ),
    (
        "gibbon_requests_waiting",
        MetricType::GAUGE,
        "Requests that wait because all members have their maxInFlight",
    ),
    (
        "gibbon_member_health_checks_total",
        MetricType::COUNTER,
        "Health checks of a member, by result: passed, failed",
    ),
    (
        "gibbon_member_tunnels",
        MetricType::GAUGE,
        "Upgraded connections (WebSocket) open at a member",
    ),
];

impl LiveTable {
    fn descriptions() -> prometheus::Result<Vec<Desc>> {
        let describe = |(name, _, help): &(&str, MetricType, &str)| {
            Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), HashMap::new())
        };
        FAMILIES.iter().map(describe).collect()
    }
}

impl Collector for LiveTable {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let table = self.table.load();
        let mut families = Families::default();
        for route in &table.routes {
            families.rule(route);
            let now = Instant::now();
            balance::reckon(route, now);
            let means = route.means();
            for member in &route.members {
                families.member(route, member, means[member.group], now);
            }
        }
        for (host, certificate) in table.certificates.hosts() {
            families.gauge(15, &[("host", &host)], certificate.not_after as f64);
        }
        families.finish()
    }
}

/// The families as they are filled.
#[derive(Debug, Default)]
struct Families([Vec<Metric>; FAMILIES.len()]);

impl Families {
    fn rule(&mut self, route: &Route) {
        let id = &route.rule.id;
        let labels = [("namespace", &*id.namespace), ("balancer", &*id.name)];
        let with = |name, value| [labels[0], labels[1], (name, value)];
        let tally = &route.tally;
        for (class, label) in RuleTally::CLASSES.iter().enumerate() {
            self.count(0, &with("code", label), tally.class(class));
        }
        self.histogram(1, &labels, tally);
        self.count(2, &labels, tally.retries.get());
        self.count(3, &labels, tally.retries_denied.get());
        for session in Session::ALL {
            self.count(4, &with("result", session.label()), tally.sessions(session));
        }
        self.count(5, &labels, tally.aborted.get());
        self.count(6, &labels, tally.leaks.get());
        if route.room > 0 {
            self.count(18, &labels, tally.queued.get());
            self.gauge(19, &labels, route.queue.waiting() as f64);
        }
        for (state, count) in census(route) {
            self.gauge(7, &with("state", state), count as f64);
        }
    }

    fn member(&mut self, route: &Route, member: &Member, mean: f64, now: Instant) {
        let id = &route.rule.id;
        let address = member.address.to_string();
        let labels = [
            ("namespace", &*id.namespace),
            ("balancer", &*id.name),
            ("member", &*member.name),
            ("address", address.as_str()),
        ];
        let tally = &member.tally;
        self.count(8, &labels, tally.requests.get());
        for failure in Failure::ALL.into_iter().filter(|f| tally.failures(*f) > 0) {
            let [a, b, c, d] = labels;
            self.count(9, &[a, b, c, d, ("reason", failure.reason())], tally.failures(failure));
        }
        for (protocol, count) in tally.connections() {
            let [a, b, c, d] = labels;
            self.count(10, &[a, b, c, d, ("protocol", protocol)], count);
        }
        self.gauge(11, &labels, f64::from(member.load.in_flight()));
        self.gauge(21, &labels, f64::from(member.load.tunnels()));
        self.gauge(12, &labels, member.load.latency(mean, now));
        self.gauge(13, &labels, member.load.failure_rate(now));
        if let Some(checked) = &member.checked {
            let [a, b, c, d] = labels;
            for (result, count) in [("passed", &checked.passed), ("failed", &checked.failed)] {
                self.count(20, &[a, b, c, d, ("result", result)], count.get());
            }
        }
        let usable = condition(member, now) == "usable";
        self.gauge(14, &labels, f64::from(u8::from(usable)));
        self.counter(16, &labels, member.tally.ledger.part());
        if route.rule.sticky.is_some() {
            self.count(17, &labels, tally.sessions.get());
        }
    }

    fn count(&mut self, family: usize, labels: &[(&str, &str)], value: u64) {
        self.counter(family, labels, value as f64);
    }

    fn counter(&mut self, family: usize, labels: &[(&str, &str)], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = metric(labels);
        metric.set_counter(counter);
        self.0[family].push(metric);
    }

    fn gauge(&mut self, family: usize, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = metric(labels);
        metric.set_gauge(gauge);
        self.0[family].push(metric);
    }

    fn histogram(&mut self, family: usize, labels: &[(&str, &str)], tally: &RuleTally) {
        let mut histogram = Histogram::default();
        let bucket = |(bound, count): (f64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        histogram.set_bucket(tally.duration.cumulative().map(bucket).collect());
        histogram.set_sample_count(tally.duration.count());
        histogram.set_sample_sum(tally.duration.sum());
        let mut metric = metric(labels);
        metric.set_histogram(histogram);
        self.0[family].push(metric);
    }

    fn finish(self) -> Vec<MetricFamily> {
        let family = |(metrics, (name, kind, help)): (Vec<Metric>, (&str, MetricType, &str))| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        };
        let families = self.0.into_iter().zip(FAMILIES);
        families.filter(|(metrics, _)| !metrics.is_empty()).map(family).collect()
    }
}

fn metric(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = Metric::default();
    metric.set_label(labels.iter().map(pair).collect());
    metric
}

/// What a member is good for at this moment, as metrics and pages call it.
#[must_use]
pub fn condition(member: &Member, now: Instant) -> &'static str {
    match (member.state, member.load.admission(now)) {
        (State::Disabled, _) => State::Disabled.label(),
        _ if member.is_failing() => "failing",
        (_, Admission::Excluded(_)) => "excluded",
        (_, Admission::Probe(_)) => "probing",
        (State::Active, Admission::Usable) => "usable",
        (state, Admission::Usable) => state.label(),
    }
}

fn census(route: &Route) -> [(&'static str, usize); 9] {
    let now = Instant::now();
    let states = [
        "usable",
        "failing",
        "excluded",
        "probing",
        "draining",
        "standby",
        "spare",
        "disabled",
        "unresolved",
    ];
    let mut census = states.map(|state| (state, 0));
    census[8].1 = route.unresolved.len();
    for member in &route.members {
        let state = condition(member, now);
        census.iter_mut().filter(|(of, _)| *of == state).for_each(|(_, count)| *count += 1);
    }
    census
}
