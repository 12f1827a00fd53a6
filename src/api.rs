//! The `Balancer` resource as its users write it: types and schema, no behaviour.
//!
//! What the schema and its CEL rules refuse, the translation in `source` refuses too: files have
//! no API server.

mod scalar;
pub(crate) mod schema;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use scalar::{Bytes, Duration, Malformed, Port};

/// What a user asks for: requests for some hosts and a path go to members, or are redirected.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gibbon.dev",
    version = "v1alpha1",
    kind = "Balancer",
    namespaced,
    shortname = "bal",
    category = "gibbon",
    status = "BalancerStatus",
    derive = "PartialEq",
    doc = "Sends the requests for some hosts and a path to the member that answers fastest, \
           and each session to the member that began it.",
    printcolumn = r#"{"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"}"#,
    printcolumn = r#"{"name": "Path", "type": "string", "jsonPath": ".spec.path"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.ready"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string",
        "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::absent_instead_of_null)]
#[x_kube(
    validation = Rule::new(
        "has(self.redirect) || has(self.refuse) || (has(self.members) && self.members.size() > 0)"
    )
        .message("must have at least one member, unless spec.redirect or spec.refuse answers instead")
        .field_path(".members"),
    validation = Rule::new("!has(self.redirect) || !has(self.members) || self.members.size() == 0")
        .message("must not be beside spec.members: a Balancer redirects or forwards, not both")
        .field_path(".redirect"),
    validation = Rule::new(
        "!has(self.refuse) \
         || (!has(self.redirect) && (!has(self.members) || self.members.size() == 0))"
    )
        .message("must not be beside spec.members or spec.redirect: a Balancer does one of the three")
        .field_path(".refuse"),
)]
pub struct BalancerSpec {
    /// Which Gibbon of the cluster serves this Balancer: the one that runs with this `--class`.
    /// Small letters, digits, `-` and `.`, at most 63 characters. Default: none, the Gibbon that
    /// runs without a class. Files know no classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::class_name")]
    pub class_name: Option<String>,

    /// The hosts that are served: exact names such as `www.site.com`, or wildcards such as
    /// `*.site.com`, which match one or more labels. An exact name goes before a wildcard. Case and
    /// port do not matter. None: any host. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::hosts")]
    pub hosts: Vec<String>,

    /// The beginning of the paths that are served, in whole segments: `/shop` matches `/shop` and
    /// `/shop/cart`, not `/shopping`. A `/` at the end counts: `/static/` does not match `/static`.
    /// The longest path wins. A path that is another Balancer's for a member that takes `%2F` for `/`
    /// gets 404. Default: `/`, every path.
    #[serde(default = "root")]
    #[schemars(schema_with = "schema::path")]
    pub path: String,

    /// `Prefix`: `path` is the beginning of the paths. `Exact`: it is the whole path, and goes before
    /// every prefix; members get the path of their URL as it stands. Default: `Prefix`.
    #[serde(default, skip_serializing_if = "PathType::is_prefix")]
    pub path_type: PathType,

    /// Who answers the requests: URLs, or Services with all their ready endpoints. At most 512,
    /// with 16,384 addresses in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(
        // Each name is compared with each: more of them exceed what one rule may cost when it runs.
        // The translation compares them all.
        validation = Rule::new(
            "self.size() > 256 \
             || self.all(m, !has(m.name) || self.exists_one(n, has(n.name) && n.name == m.name))"
        )
        .message("must have unique names"),
        validation = Rule::new("self.all(m, has(m.share)) || !self.exists(m, has(m.share))")
            .message("must all have a share, or none of them"),
        validation = Rule::new(
            "!self.exists(m, has(m.share)) || self.exists(m, has(m.share) && m.share > 0)"
        )
        .message("must have at least one share above 0"),
    )]
    pub members: Vec<Member>,

    /// Answers every request with a redirect; there are no members then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,

    /// Answers every request with an error; there are no members then. So a part of the paths that
    /// another Balancer serves is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse: Option<Refuse>,

    /// Where the requests of a session name the member that began it. None: every request is
    /// balanced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,

    /// How a member is chosen for a request without a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<Balancing>,

    /// What happens when a member fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,

    /// Asks each member regularly whether it is well. One that is not gets no requests, as long as
    /// another can take them. Default: none, requests find out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,

    /// How long members may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,

    /// What a request may bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,

    /// Whether members see the client's `Host`, or their own. Default: their own for a `url`, the
    /// client's for a `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_host: Option<bool>,

    /// How the addresses that members give for themselves, in `Location`, `Content-Location`,
    /// `Refresh` and `Set-Cookie`, become the ones that clients know. Default: reversed for every
    /// member, without more rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse: Option<Reverse>,

    /// Changes to the headers of requests and responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,

    /// What clients get with an error; of several for a status, the first. At most 16. Default: a line
    /// of text, and what members answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub error_pages: Vec<ErrorPage>,

    /// Which clients are served, by address; the others get 403. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,

    /// TLS with members: those of `https` URLs, and those whose `protocol` or Service's `appProtocol`
    /// says so. Default: verified against the system's authorities.
    #[serde(default, rename = "upstreamTLS", skip_serializing_if = "Option::is_none")]
    pub upstream_tls: Option<UpstreamTls>,

    /// TLS with clients. None: requests come with or without it, if another Balancer of the host
    /// brings a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// What `path` is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    /// The beginning of the paths that are served.
    #[default]
    Prefix,
    /// The only path that is served.
    Exact,
}

impl PathType {
    /// Whether it is the default.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        *self == Self::Prefix
    }
}

/// What has become of a Balancer; written by Gibbon.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::observed)]
pub struct BalancerStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Accepted`: the Balancer can be served, and no other has its hosts and path. `ResolvedRefs`:
    /// all its members were found. `Programmed`: it is being served.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// The usable members and all members, such as `3/4`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub ready: String,

    /// How many addresses its members have.
    #[serde(default)]
    pub members: MemberCounts,

    /// Since when each host has been claimed. A host belongs to the namespace that claimed it
    /// first.
    #[serde(default)]
    #[schemars(schema_with = "schema::host_claims")]
    pub hosts: Vec<HostClaim>,

    /// Where clients reach Gibbon.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub addresses: Vec<Address>,
}

/// How many addresses the members of a Balancer have.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCounts {
    /// Those that get requests.
    #[serde(default)]
    pub ready: u32,
    /// All.
    #[serde(default)]
    pub total: u32,
}

/// A host that a Balancer has claimed.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostClaim {
    /// The host, as in `spec.hosts`, in lower case.
    #[schemars(length(max = 254))]
    pub host: String,
    /// Since when.
    #[schemars(schema_with = "schema::time")]
    pub claimed_at: MicroTime,
}

/// An address at which clients reach Gibbon: one of the two.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// An IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub ip: Option<String>,
    /// A name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hostname: Option<String>,
}

/// One entry of `spec.members`: one URL, or all endpoints of a Service.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.service)")
        .message("must have either url or service"),
    validation = Rule::new("!has(self.path) || !has(self.url)")
        .message("must not be beside url: write the path into the URL")
        .field_path(".path"),
    validation = Rule::new("!has(self.routeFrom) || !has(self.url)")
        .message("must not be beside url: a URL has no pods, give its route itself")
        .field_path(".routeFrom"),
    validation = Rule::new("!has(self.route) || !has(self.routeFrom)")
        .message("must not be beside routeFrom: a member has one route")
        .field_path(".route"),
    validation = Rule::new(
        "!has(self.protocol) || !has(self.url) \
         || self.url.lowerAscii().startsWith('https:') == (self.protocol in ['HTTPS', 'HTTPS1', 'H2'])"
    )
        .message(schema::PROTOCOL_OF_URL)
        .field_path(".protocol"),
    validation = Rule::new("!has(self.failoverRoute) || !has(self.route) \
        || self.failoverRoute != self.route")
        .message("must be the route of another member, not its own")
        .field_path(".failoverRoute"),
)]
pub struct Member {
    /// The name in metrics, logs and status. Unique in the Balancer, at most 63 characters.
    /// Default: the URL's host, or the Service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::member_name")]
    pub name: Option<String>,

    /// An absolute `http` or `https` URL, such as `http://app1.site.com:8080/media/`. Its path
    /// takes the place of `spec.path`. Every address of its host is a member. No user, query or
    /// fragment; at most 2048 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::member_url")]
    pub url: Option<String>,

    /// A Service of the Balancer's namespace; each of its ready endpoints is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,

    /// The path at the Service's endpoints that takes the place of `spec.path`, such as `/media/`.
    /// Only with `service`. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub path: Option<String>,

    /// What is spoken with this member. `HTTP1`: HTTP/1.1. `H2C`: HTTP/2, as gRPC needs it.
    /// `HTTPS`: TLS, and HTTP/2 where the member agrees to it, else HTTP/1.1. `HTTPS1`: TLS and
    /// HTTP/1.1. `H2`: TLS and HTTP/2. The last three go with an `https` URL, the others with an
    /// `http` one. Default: `HTTPS` for an `https` URL, what the `appProtocol` of the Service's port
    /// says (`http`, `https`, `grpc`, `kubernetes.io/h2c`, `kubernetes.io/ws`, `kubernetes.io/wss`),
    /// else `HTTP1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,

    /// What sessions of this member carry as their route, such as `app1`. Default: none, so no
    /// session names this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::route")]
    pub route: Option<String>,

    /// Takes the route of each endpoint from its pod: `PodName` or `Hostname`. Only with `service`,
    /// instead of `route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_from: Option<RouteFrom>,

    /// The capacity of each address, from 1 to 10000: one of weight 2 gets twice the requests of
    /// one of weight 1 at equal latency. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weight: u16,

    /// The part of the requests that this entry gets, from 0 to 10000, as a proportion of the sum
    /// of all shares, whatever the latencies: 95 and 5 for a canary. All members have a share, or
    /// none. Default: none, so addresses compete by latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000))]
    pub share: Option<u16>,

    /// How many requests each address has from one Gibbon at once at most, from 1 to 65535, without
    /// tunnels (`WebSocket`). What comes beyond waits for `balancing.queueFor`. Default: without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub max_in_flight: Option<u16>,

    /// `Active`: gets requests. `Standby`: only while no active member of its tier is usable, and for
    /// its own sessions. `Spare`: in place of an active member of its tier that is not usable, one
    /// for each, and for its own sessions. `Draining`: keeps its sessions, gets no new ones.
    /// `Disabled`: gets nothing. Default: `Active`.
    #[serde(default)]
    pub state: State,

    /// Members of a tier get requests only while no member of a lower tier is usable, spares and
    /// standbys included. From 0 to 99. Default: 0, the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(max = 99))]
    pub tier: u8,

    /// The `route` of another member to which the sessions of this one go while it is not usable or
    /// `Disabled`; if that one is not usable either, to its `failoverRoute`. Default: none, so to any
    /// member, unless `sticky.failover` is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::route")]
    pub failover_route: Option<String>,
}

/// What is spoken with a member.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1.
    #[serde(rename = "HTTP1")]
    Http1,
    /// HTTP/2 without TLS.
    #[serde(rename = "H2C")]
    H2c,
    /// TLS, and HTTP/2 or HTTP/1.1 as the member likes.
    #[serde(rename = "HTTPS")]
    Https,
    /// TLS and HTTP/1.1.
    #[serde(rename = "HTTPS1")]
    Https1,
    /// TLS and HTTP/2.
    H2,
}

/// A port of a Service.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The name of a Service in the Balancer's namespace.
    #[schemars(schema_with = "schema::service_name")]
    pub name: String,

    /// The number of the Service's port, such as `80`, or its name, such as `http`. Not the port of
    /// the pods.
    pub port: Port,
}

/// What an endpoint's route is taken from.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteFrom {
    /// The name of the endpoint's pod.
    PodName,
    /// The hostname of the endpoint, as a `StatefulSet` sets it.
    Hostname,
}

/// Whether a member gets requests.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Gets requests.
    #[default]
    Active,
    /// Gets requests while no active member is usable, and those of its own sessions.
    Standby,
    /// Gets requests in place of an active member that is not usable, and those of its own sessions.
    Spare,
    /// Gets the requests of its own sessions only.
    Draining,
    /// Gets nothing.
    Disabled,
}

/// An answer that sends the client elsewhere.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.keepPath || !self.to.matches('[?#]')")
        .message("must not have a query or a fragment while keepPath is true")
        .field_path(".to"),
)]
pub struct Redirect {
    /// An absolute `http` or `https` URL such as `https://www.site.com/`, or a path such as `/new/`
    /// on the host of the request.
    #[schemars(schema_with = "schema::redirect_to")]
    pub to: String,

    /// The status: 301, 302, 303, 307 or 308. Default: 308, permanent, with the method kept.
    #[serde(default = "permanent")]
    #[schemars(schema_with = "schema::redirect_status")]
    pub status: u16,

    /// Appends the rest of the request's path, and its query, to `to`. Default: true.
    #[serde(default = "yes")]
    pub keep_path: bool,
}

/// An error in place of members.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refuse {
    /// The status, from 400 to 599. Default: 404.
    #[serde(default = "not_found")]
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
}

/// Where a request names the member that began its session. The URL is read first, then `cookie`,
/// then the cookie of `issue`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.cookie) || has(self.parameter) || has(self.issue)")
        .message("must have cookie, parameter or issue: where a request names its session"),
    validation = Rule::new("!has(self.routeRegex) || !has(self.separator)")
        .message("must not be beside routeRegex: either finds the route in the session's value")
        .field_path(".separator"),
    validation = Rule::new("!has(self.issue) || !has(self.cookie) \
        || self.issue.name != self.cookie")
        .message("must differ from sticky.cookie, which is the application's own")
        .field_path(".issue.name"),
)]
pub struct Sticky {
    /// The name of the application's session cookie, such as `JSESSIONID`; case matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cookie_name")]
    pub cookie: Option<String>,

    /// The name of a session parameter in the URL, such as `jsessionid`: read from `;jsessionid=…`
    /// in the path and `?jsessionid=…` in the query; case matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::parameter_name")]
    pub parameter: Option<String>,

    /// Finds the route in the value of the cookie or parameter: the group `route`, else the first
    /// group, such as `!(.*)$`. RE2 syntax, not anchored, at most 512 characters. Without
    /// `routeRegex` and `separator` the whole value is the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::route_regex")]
    pub route_regex: Option<String>,

    /// Takes what follows the first such text in the value as the route: `.` for Tomcat's
    /// `A1B2.app1`. 1 to 8 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::separator")]
    pub separator: Option<String>,

    /// Sends a session whose member is unusable to another one; with false, it stays with its own,
    /// and gets 503 while that cannot be reached. Default: true.
    #[serde(default = "yes")]
    pub failover: bool,

    /// Gives clients a cookie that names their member, for applications that have no session cookie
    /// of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issue: Option<Issue>,
}

/// A cookie that Gibbon sets itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.sameSite != 'None' || self.secure")
        .message("must be true with sameSite None: browsers refuse the cookie otherwise")
        .field_path(".secure"),
)]
pub struct Issue {
    /// The name of the cookie, such as `member`; another than `sticky.cookie`.
    #[schemars(schema_with = "schema::cookie_name")]
    pub name: String,

    /// The path for which clients send the cookie. Default: the Balancer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cookie_path")]
    pub path: Option<String>,

    /// Whether requests that other sites cause carry the cookie: `Strict`, `Lax` or `None`.
    /// Default: `Lax`.
    #[serde(default)]
    pub same_site: SameSite,

    /// Lets clients send the cookie over TLS only. Default: false.
    #[serde(default)]
    pub secure: bool,

    /// Hides the cookie from scripts. Default: true.
    #[serde(default = "yes")]
    pub http_only: bool,

    /// How long clients keep the cookie, at least one second, such as `8h`. Default: until the
    /// browser closes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::max_age")]
    pub max_age: Option<Duration>,
}

/// A cookie's `SameSite`.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SameSite {
    /// Only with requests from the same site.
    Strict,
    /// Also when a link from another site is followed.
    #[default]
    Lax,
    /// With every request; needs `secure`.
    None,
}

/// How a member is chosen for a request without a session.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Balancing {
    /// `Latency`: the one that is expected to answer first. `LeastRequests`: the one with the
    /// fewest requests in flight. `RoundRobin`: one after the other. Each in proportion to
    /// `weight`. Default: `Latency`.
    pub method: Method,

    /// How long a new member takes to reach its full part of the requests; `0s`: none. Default:
    /// `10s`.
    pub slow_start: Duration,

    /// How long a request waits while all members that could serve it, or that of its session, have
    /// their `maxInFlight`; then it is answered 503 with `Retry-After`. At most 1024 wait. `0s`: none
    /// does. Default: `1s`.
    pub queue_for: Duration,
}

/// A way to choose a member.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// The best by latency estimate, failures, requests in flight and weight.
    #[default]
    Latency,
    /// The one with the fewest requests in flight for its weight.
    LeastRequests,
    /// One after the other, smoothly in proportion to the weights.
    RoundRobin,
}

/// What happens when a member fails.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Failover {
    /// How many members are tried for one request, from 1 to 16; 1: no other than the first.
    /// Default: 8.
    #[schemars(range(min = 1, max = 16))]
    pub attempts: u8,

    /// Response statuses from 400 to 599 that take a member out, such as 503. At most 16. Default:
    /// none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 400, max = 599)))]
    pub statuses: Vec<u16>,

    /// Statuses of gRPC from 1 to 16 that count as a member's failure, as a 5xx does elsewhere: in
    /// the trailers, or in a head without a body. At most 16. Default: 4 (deadline exceeded), 8
    /// (resource exhausted), 13 (internal) and 14 (unavailable).
    #[schemars(length(max = 16), inner(range(min = 1, max = 16)))]
    pub grpc_statuses: Vec<u8>,

    /// How long a member that failed is left out; this grows with each failure in a row, up to 12
    /// times as long. Default: `5s`.
    pub exclude_for: Duration,

    /// The part of the members, in percent, that may be left out at once for what they answer or
    /// for breaking off, from 0 to 100: what all of them do is not cured by fewer. Of two or more,
    /// one always may, and never the last. Members that cannot be connected to are left out in any
    /// case. Default: 50.
    #[schemars(range(max = 100))]
    pub excluded_share: u8,

    /// The part of the requests, in percent, that may be sent a second time to another member, from
    /// 0 to 100, so that an outage is not multiplied. Requests that never reached a member do not
    /// count. Default: 20.
    #[schemars(range(max = 100))]
    pub retry_share: u8,
}

/// How members are asked whether they are well.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'Tcp' || !has(self.path)")
        .message("must not be beside type Tcp, which only connects")
        .field_path(".path"),
    validation = Rule::new("self.type != 'Tcp' || !has(self.host)")
        .message("must not be beside type Tcp, which only connects")
        .field_path(".host"),
    validation = Rule::new("self.type != 'Tcp' || !has(self.statuses) || self.statuses.size() == 0")
        .message("must not be beside type Tcp, which only connects")
        .field_path(".statuses"),
)]
pub struct HealthCheck {
    /// `Http`: by a request, with TLS if the member's URL is `https`. `Tcp`: by a connection.
    /// Default: `Http`.
    #[serde(default, rename = "type")]
    pub kind: CheckKind,

    /// The path at each member, such as `/health`, with a query if need be. Default: the member's own
    /// path; with `OPTIONS`, `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::check_path")]
    pub path: Option<String>,

    /// `GET`, `HEAD` or `OPTIONS`. Default: `GET`.
    #[serde(default)]
    pub method: CheckMethod,

    /// The `Host` of the requests. Default: the member's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::authority")]
    pub host: Option<String>,

    /// Statuses and ranges of them that are good, such as `204` and `200-299`. At most 16. Default:
    /// `200-399`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::statuses")]
    pub statuses: Vec<String>,

    /// From one check of a member to the next, at least `50ms`. Default: `10s`.
    #[serde(default = "check_interval")]
    #[schemars(schema_with = "schema::check_interval")]
    pub interval: Duration,

    /// How long a check may take, at least `50ms`. Default: `5s`.
    #[serde(default = "check_timeout")]
    #[schemars(schema_with = "schema::check_interval")]
    pub timeout: Duration,

    /// How many checks in a row a member that is not well must pass, from 1 to 100. Default: 1.
    #[serde(default = "one_check")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u8,

    /// How many checks in a row a member must fail to count as not well, from 1 to 100. Default: 3.
    #[serde(default = "three_checks")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u8,

    /// A member that joins gets no requests before it has passed. An edit of the Balancer makes none
    /// new, and while none of those that could serve has passed, all are tried. Default: false.
    #[serde(default)]
    pub pass_first: bool,
}

/// A way to check a member.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// By a request.
    #[default]
    Http,
    /// By a connection.
    Tcp,
}

/// The method of a check.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckMethod {
    /// With a body, which is read.
    #[default]
    #[serde(rename = "GET")]
    Get,
    /// Without a body.
    #[serde(rename = "HEAD")]
    Head,
    /// Of the whole server, unless there is a path.
    #[serde(rename = "OPTIONS")]
    Options,
}

/// How long members may take. `0s`: without limit.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Timeouts {
    /// Until a member accepts a connection, TLS included. Default: `2s`.
    pub connect: Duration,

    /// How long a member may be silent: until the response's head, and between two parts of its
    /// body. Not for a body of server-sent events, which `idle` ends. Default: `60s`, and for gRPC
    /// without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Duration>,

    /// For the whole request, all attempts and the response's body included, unless that is of
    /// server-sent events. A call of gRPC has no more than its `grpc-timeout` either. Default:
    /// without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,

    /// How long an upgraded connection, such as a WebSocket, may be silent in both directions, and
    /// server-sent events in theirs. Default: `1h`.
    pub idle: Duration,
}

/// What a request may bring.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// The size of a request's body in bytes: a number such as `1048576`, or with one of the
    /// suffixes `k`, `M`, `G`, `Ki`, `Mi`, `Gi`, such as `10Mi`. A larger one gets 413. Default:
    /// without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<Bytes>,
}

/// How the addresses that members give for themselves become the ones that clients know.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Reverse {
    /// Reverses the URLs and the cookie domains and paths of every member. With false, only the
    /// rules below apply. Default: true.
    pub enabled: bool,

    /// The scheme that clients use: `Http` or `Https`. Default: that of the request, or what a
    /// trusted proxy says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,

    /// The host that clients use, with a port if they need one, such as `www.site.com:8443`. Default:
    /// the `Host` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::authority")]
    pub host: Option<String>,

    /// More URLs to reverse, such as `{from: "http://old.site.com/", to: "/"}`: compared as URLs,
    /// and what follows is kept. `from` is an absolute URL or a path, `to` likewise; a path stands
    /// for the host of the request. At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::locations")]
    pub locations: Vec<Mapping>,

    /// More cookie domains to replace, such as `{from: app1.site.com, to: www.site.com}`. At most
    /// 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::cookie_domains")]
    pub cookie_domains: Vec<Mapping>,

    /// More cookie paths to replace, such as `{from: /media/, to: /static/}`; what follows is kept.
    /// At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::cookie_paths")]
    pub cookie_paths: Vec<Mapping>,
}

/// The scheme of a site's URLs.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// One text that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// What members say.
    pub from: String,
    /// What clients see instead.
    pub to: String,
}

/// Changes to headers.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Headers {
    /// Changes to what members get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<HeaderEdit>,

    /// Changes to what clients get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<HeaderEdit>,
}

/// Changes to the headers of one direction: `remove` first, then `set`, then `add`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderEdit {
    /// Headers that get this value, whatever they had. At most 64, each name once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(
        "self.all(h, self.exists_one(g, g.name.lowerAscii() == h.name.lowerAscii()))"
    )
    .message("must have each name once: set replaces, add appends"))]
    pub set: Vec<Header>,

    /// Headers that get this value beside those that they had. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub add: Vec<Header>,

    /// Names of headers that are removed. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::header_names")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The name, such as `X-Site`; case does not matter. Not `Host`, and none that belongs to the
    /// connection or the framing.
    #[schemars(schema_with = "schema::header_name")]
    pub name: String,

    /// The value, at most 4096 characters, without line breaks.
    #[schemars(schema_with = "schema::header_value")]
    pub value: String,
}

/// What clients get with an error. Calls of gRPC are left alone.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.contentType) || has(self.body)")
        .message("must be beside body, which it is about")
        .field_path(".contentType"),
)]
pub struct ErrorPage {
    /// Statuses from 400 to 599, and ranges of them, such as `404` and `500-599`. From 1 to 16.
    #[schemars(schema_with = "schema::error_statuses")]
    pub statuses: Vec<String>,

    /// Whether answers of members with these statuses are replaced too. Of their headers only
    /// `WWW-Authenticate`, `Retry-After` and `Allow` are kept. Default: false, only errors of Gibbon
    /// itself are.
    #[serde(default)]
    pub override_members: bool,

    /// The body, at most 16384 characters. Default: a line of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub body: Option<String>,

    /// The type of the body. Only with `body`. Default: `text/html; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::header_value")]
    pub content_type: Option<String>,
}

/// TLS with clients.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.clientCertificate) || has(self.clientCASecret)")
        .message("must be beside clientCASecret, which says whose certificates are good")
        .field_path(".clientCertificate"),
)]
pub struct Tls {
    /// A Secret of type `kubernetes.io/tls` in the Balancer's namespace: the certificate with its
    /// chain (`tls.crt`) and the key (`tls.key`) for all of `hosts`. None: another Balancer of the
    /// hosts brings one, or Gibbon's default is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub secret_name: Option<String>,

    /// A Secret in the Balancer's namespace, `Opaque` or another, with the authorities in PEM
    /// (`ca.crt`) that certificates of clients must come from. The oldest Balancer of a host that
    /// names one decides for the host, and those that name none follow it. Members get the subject
    /// as `X-Client-Cert-Subject`, such as `CN=ann,O=Site`, which clients cannot set. While there are no authorities, nobody is served. None:
    /// clients are not asked.
    #[serde(default, rename = "clientCASecret", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub client_ca_secret: Option<String>,

    /// `Required`: clients without a certificate are refused. `Optional`: they are served, without
    /// `X-Client-Cert-Subject`. A certificate that is not good is refused either way. Only with
    /// `clientCASecret`. Default: `Required`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,

    /// Sends requests without TLS to `https` with 308, but those for
    /// `/.well-known/acme-challenge/`. Default: true.
    #[serde(default = "yes")]
    pub redirect: bool,

    /// Tells browsers to come with TLS only (`Strict-Transport-Security`). None: nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
}

/// Whether clients need a certificate.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientCertificate {
    /// Those without one are refused.
    #[default]
    Required,
    /// Those without one are served too.
    Optional,
}

/// TLS with members.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.caSecret) || !has(self.insecureSkipVerify) \
        || !self.insecureSkipVerify")
        .message("must not be beside caSecret: either members are verified, or not")
        .field_path(".insecureSkipVerify"),
)]
pub struct UpstreamTls {
    /// A Secret in the Balancer's namespace whose `ca.crt` holds the authorities, in PEM, that
    /// members' certificates must come from. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub ca_secret: Option<String>,

    /// The name that members are asked for and that their certificates must be for: a host name or
    /// an address. Default: the host of the URL, or `NAME.NAMESPACE.svc` of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::server_name")]
    pub server_name: Option<String>,

    /// A Secret of type `kubernetes.io/tls` in the Balancer's namespace: the certificate that
    /// members see that ask for one. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub certificate_secret: Option<String>,

    /// Takes anybody for the member: whoever is in between can read and change what is sent.
    /// Default: false.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hsts {
    /// How long browsers remember it. Default: `8760h`, a year.
    #[serde(default = "year")]
    pub max_age: Duration,

    /// For all hosts below this one too. Default: false.
    #[serde(default)]
    pub include_subdomains: bool,

    /// Agrees to being listed in browsers. Default: false.
    #[serde(default)]
    pub preload: bool,
}

/// Which clients are served, by address. `deny` wins over `allow`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Only these are served: addresses and networks such as `192.0.2.0/24`. At most 256. None: all
    /// are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::networks")]
    pub allow: Vec<String>,

    /// These are not served: addresses and networks such as `2001:db8::/32`. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::networks")]
    pub deny: Vec<String>,
}

/// The `CustomResourceDefinition` as YAML, with the documentation of every field; equal for equal
/// versions.
///
/// # Panics
///
/// Never: a definition has no value that YAML cannot hold.
#[must_use]
pub fn crd_yaml() -> String {
    let mut yaml = serde_saphyr::to_string(&Balancer::crd()).expect("a definition is plain data");
    if !yaml.ends_with('\n') {
        yaml.push('\n');
    }
    yaml
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            method: Method::Latency,
            slow_start: Duration::from_secs(10),
            queue_for: Duration::from_secs(1),
        }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            attempts: 8,
            statuses: Vec::new(),
            grpc_statuses: vec![4, 8, 13, 14],
            exclude_for: Duration::from_secs(5),
            excluded_share: 50,
            retry_share: 20,
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            kind: CheckKind::Http,
            path: None,
            method: CheckMethod::Get,
            host: None,
            statuses: Vec::new(),
            interval: check_interval(),
            timeout: check_timeout(),
            success_threshold: one_check(),
            failure_threshold: three_checks(),
            pass_first: false,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            response: None,
            request: None,
            idle: Duration::from_secs(3600),
        }
    }
}

impl Default for Reverse {
    fn default() -> Self {
        Self {
            enabled: true,
            scheme: None,
            host: None,
            locations: Vec::new(),
            cookie_domains: Vec::new(),
            cookie_paths: Vec::new(),
        }
    }
}

fn root() -> String {
    "/".to_owned()
}

const fn one() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

const fn check_interval() -> Duration {
    Duration::from_secs(10)
}

const fn check_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn one_check() -> u8 {
    1
}

const fn three_checks() -> u8 {
    3
}

const fn permanent() -> u16 {
    308
}

const fn year() -> Duration {
    Duration::from_secs(365 * 24 * 3600)
}

const fn not_found() -> u16 {
    404
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
    use serde_json::{Value, json};

    use super::*;

    fn balancer(spec: &Value) -> Balancer {
        let object = json!({
            "apiVersion": "gibbon.dev/v1alpha1", "kind": "Balancer",
            "metadata": {"name": "app"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn schema() -> Value {
        part("spec")
    }

    fn part(name: &str) -> Value {
        let crd = serde_json::to_value(Balancer::crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][name].clone()
    }

    /// The paths of all properties below a schema for which this holds.
    fn properties(schema: &Value, at: &str, holds: &dyn Fn(&Value) -> bool) -> Vec<String> {
        let Some(object) = schema.as_object() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        if let Some(items) = object.get("items") {
            found.extend(properties(items, &format!("{at}[]"), holds));
        }
        for (name, property) in
            object.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let path = format!("{at}.{name}");
            if holds(property) {
                found.push(path.clone());
            }
            found.extend(properties(property, &path, holds));
        }
        found
    }

    #[test]
    fn one_member_is_enough_and_the_rest_has_defaults() {
        let spec = balancer(&json!({"members": [{"url": "http://app1.site.com/"}]})).spec;
        assert_eq!((spec.path.as_str(), spec.hosts.len()), ("/", 0));
        assert_eq!((spec.members[0].weight, spec.members[0].state), (1, State::Active));
        assert_eq!(Failover::default().exclude_for.get(), std::time::Duration::from_secs(5));
    }

    #[test]
    fn a_part_of_a_group_leaves_the_other_fields_at_their_defaults() {
        let spec =
            balancer(&json!({"timeouts": {"response": "5s"}, "sticky": {"cookie": "id"}})).spec;
        let expected = Timeouts { response: Some(Duration::from_secs(5)), ..Timeouts::default() };
        assert_eq!(spec.timeouts, Some(expected));
        assert!(spec.sticky.unwrap().failover);
    }

    #[test]
    fn fields_of_a_later_version_are_accepted() {
        let spec = balancer(&json!({"sticky": {"cookie": "id", "later": 1}, "later": {}})).spec;
        assert_eq!(spec.sticky.unwrap().cookie.as_deref(), Some("id"));
    }

    #[test]
    fn what_is_absent_is_not_written() {
        let spec = balancer(&json!({"redirect": {"to": "https://www.site.com/"}})).spec;
        let expected = json!({
            "path": "/",
            "redirect": {"to": "https://www.site.com/", "status": 308, "keepPath": true},
        });
        assert_eq!(serde_json::to_value(spec).unwrap(), expected);
    }

    #[test]
    fn every_field_has_a_description() {
        for name in ["spec", "status"] {
            let silent = properties(&part(name), name, &|property| {
                property["description"]
                    .as_str()
                    .is_none_or(|text| text.is_empty() || text.contains('\n'))
            });
            assert_eq!(silent, Vec::<String>::new());
        }
    }

    #[test]
    fn only_what_kube_makes_so_may_be_null() {
        let nullable = properties(&schema(), "spec", &|property| property["nullable"] == true);
        assert_eq!(nullable, ["spec.limits.requestBody"]);
    }

    #[test]
    fn every_text_and_list_is_bounded() {
        let unbounded =
            properties(&schema(), "spec", &|property| match property["type"].as_str() {
                Some("string") => property["maxLength"].is_null() && property["enum"].is_null(),
                Some("array") => {
                    let items = &property["items"];
                    let endless = items["type"] == "string" && items["maxLength"].is_null();
                    property["maxItems"].is_null() || endless
                }
                _ => false,
            });
        assert_eq!(unbounded, Vec::<String>::new());
    }

    #[test]
    fn the_schema_gives_the_defaults_of_the_types() {
        let schema = &schema()["properties"];
        let default =
            |group: &str, field: &str| schema[group]["properties"][field]["default"].clone();
        assert_eq!(schema["path"]["default"], "/");
        assert_eq!(schema["members"]["items"]["properties"]["weight"]["default"], 1);
        assert_eq!(default("timeouts", "connect"), "2s");
        assert_eq!(default("balancing", "method"), "Latency");
        assert_eq!(default("failover", "retryShare"), 20);
        assert_eq!(default("redirect", "status"), 308);
        assert_eq!(default("sticky", "failover"), true);
    }

    #[test]
    fn the_definition_is_read_back_from_its_yaml() {
        let yaml = crd_yaml();
        let read: apiextensions::CustomResourceDefinition = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, Balancer::crd());
        assert!(yaml.ends_with('\n') && yaml == crd_yaml());
    }
}
