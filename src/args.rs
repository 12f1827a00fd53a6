//! Every flag and environment variable; nothing else reads the environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::proxy::log::Format;
use crate::proxy::trace::NewTraces;
use crate::table::access::parse_network;

/// Sends each request to the member that answers fastest, and each session to the member that
/// began it.
#[derive(Debug, Parser)]
#[command(name = "gibbon", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the Balancers of a cluster or in a directory, and follow their changes
    Serve(Box<Serve>),
    /// Show a whole site at work: two application servers, two static servers, Gibbon in front
    Demo(Demo),
    /// Say what is wrong with Balancers in files; exit status 1 if anything is
    Check(Check),
    /// Tell where a request goes and why: one that is described, or one that was served
    Explain(Explain),
    /// Print the definition of Balancer for `kubectl apply`
    Crd,
    /// Translate another proxy's configuration into Balancers
    Import(Import),
    /// Ask a page by HTTP and print it; exit status 1 unless it answers 2xx
    Healthz(Healthz),
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogFormat {
    /// Not at all.
    Off,
    /// One line of text a request.
    Text,
    /// One JSON object a request.
    Json,
}

impl AccessLogFormat {
    /// The format of the lines, if there are any.
    #[must_use]
    pub const fn format(self) -> Option<Format> {
        match self {
            Self::Off => None,
            Self::Text => Some(Format::Text),
            Self::Json => Some(Format::Json),
        }
    }
}

/// What becomes of requests without a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Traceparent {
    /// They have none.
    Pass,
    /// They get one that says that they are recorded.
    Sampled,
    /// They get one that says that they are not.
    Unsampled,
}

impl Traceparent {
    /// Which requests get one.
    #[must_use]
    pub const fn new_traces(self) -> NewTraces {
        match self {
            Self::Pass => NewTraces::None,
            Self::Sampled => NewTraces::Sampled,
            Self::Unsampled => NewTraces::Unsampled,
        }
    }
}

/// `gibbon serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Directory with YAML files of Balancers; without it, the cluster of the pod's service account
    /// or of KUBECONFIG is followed
    #[arg(long, env = "GIBBON_FILES", value_name = "DIR")]
    pub files: Option<PathBuf>,
    /// Address to serve clients on; may be given several times
    #[arg(
        long,
        env = "GIBBON_LISTEN",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "0.0.0.0:8080"
    )]
    pub listen: Vec<SocketAddr>,
    /// Address to serve clients on with TLS; may be given several times; none: no TLS
    #[arg(long, env = "GIBBON_LISTEN_TLS", value_name = "ADDR", value_delimiter = ',')]
    pub listen_tls: Vec<SocketAddr>,
    /// Secret with the certificate for hosts that have none of their own; without it, their clients
    /// get a TLS alert
    #[arg(long, env = "GIBBON_DEFAULT_CERTIFICATE", value_name = "NAMESPACE/NAME", value_parser = parse_service)]
    pub default_certificate: Option<(String, String)>,
    /// Port at which clients reach TLS, for redirects to it
    #[arg(long, env = "GIBBON_PUBLIC_HTTPS_PORT", value_name = "PORT", default_value_t = 443)]
    pub public_https_port: u16,
    /// Address of the admin pages: /metrics, /livez, /readyz, /table, /explain
    #[arg(long, env = "GIBBON_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
    /// Show /table to others than this machine too
    #[arg(long, env = "GIBBON_ADMIN_TABLE")]
    pub admin_table: bool,
    /// Show /explain to others than this machine too
    #[arg(long, env = "GIBBON_ADMIN_EXPLAIN")]
    pub admin_explain: bool,
    /// Network whose X-Forwarded-* fields are believed; may be given several times
    #[arg(long, env = "GIBBON_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxies: Vec<IpNet>,
    /// Network whose connections begin with a header of the PROXY protocol (version 1 or 2) that
    /// says who the client is; may be given several times
    #[arg(long, env = "GIBBON_PROXY_PROTOCOL", value_name = "CIDR", value_delimiter = ',', value_parser = parse_network)]
    pub proxy_protocol: Vec<IpNet>,
    /// What is logged: error, warn, info, debug, trace, or a list such as `info,gibbon=debug`
    #[arg(long, env = "GIBBON_LOG", default_value = "info", value_name = "LEVEL")]
    pub log: String,
    /// How the log is written
    #[arg(long, env = "GIBBON_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// How requests are logged, to standard output
    #[arg(long, env = "GIBBON_ACCESS_LOG", value_name = "FORMAT", default_value = "off")]
    pub access_log: AccessLogFormat,
    /// Whether requests without a W3C traceparent get one: `pass`, no; `sampled` or `unsampled`, one
    /// that says so. What comes in is always passed on
    #[arg(long, env = "GIBBON_TRACEPARENT", value_name = "MODE", default_value = "pass")]
    pub traceparent: Traceparent,
    /// One request of so many is drawn to be explained on /explain, besides those that fail; 0: none
    #[arg(long, env = "GIBBON_EXPLAIN_SAMPLE", value_name = "N", default_value_t = 1000)]
    pub explain_sample: u32,
    /// Requests that are kept for /explain: so many that were drawn, and so many that failed; 0: none
    #[arg(long, env = "GIBBON_EXPLAIN_KEEP", value_name = "N", default_value_t = 256, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=10_000))]
    pub explain_keep: usize,
    /// Worker threads; 0 is one for each core that the process may use
    #[arg(long, env = "GIBBON_WORKERS", value_name = "N", default_value_t = 0, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=1024))]
    pub workers: usize,
    /// Client connections open at once; one more is closed
    #[arg(long, env = "GIBBON_MAX_CONNECTIONS", value_name = "N", default_value_t = 20_000)]
    pub max_connections: usize,
    /// TLS handshakes, and headers of the PROXY protocol, under way at once on a listener; one more
    /// ends the oldest of the network that has the most
    #[arg(long, env = "GIBBON_MAX_HANDSHAKES", value_name = "N", default_value_t = 2_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_handshakes: usize,
    /// Bytes of a request's head, the request line included
    #[arg(long, env = "GIBBON_MAX_HEAD", value_name = "BYTES", default_value_t = 65_536, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(8192..=1_048_576))]
    pub max_head: usize,
    /// Fields of a request's head
    #[arg(long, env = "GIBBON_MAX_HEADERS", value_name = "N", default_value_t = 100)]
    pub max_headers: usize,
    /// How long a client may take for a request's head
    #[arg(long, env = "GIBBON_HEAD_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub head_timeout: Duration,
    /// How long a client's connection may be idle
    #[arg(long, env = "GIBBON_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = parse_duration)]
    pub idle_timeout: Duration,
    /// How long a client may be silent within a body, or take to accept what is sent to it
    #[arg(long, env = "GIBBON_BODY_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub body_timeout: Duration,
    /// After SIGTERM: how long to go on accepting while /readyz says no
    #[arg(long, env = "GIBBON_SHUTDOWN_DELAY", value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub shutdown_delay: Duration,
    /// After that: how long requests under way may take
    #[arg(long, env = "GIBBON_SHUTDOWN_GRACE", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub shutdown_grace: Duration,
    /// Use this address for a member's name and port, as curl's --connect-to does; may be given
    /// several times
    #[arg(long, env = "GIBBON_CONNECT_TO", value_name = "NAME:PORT:ADDR:PORT", value_delimiter = ',', value_parser = parse_connect_to)]
    pub connect_to: Vec<ConnectTo>,
    /// What concerns clusters only.
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What `gibbon serve` does in a cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "In a cluster")]
pub struct Cluster {
    /// Namespace to serve Balancers of; may be given several times; none: all
    #[arg(long, env = "GIBBON_NAMESPACES", value_name = "NAMESPACE", value_delimiter = ',', value_parser = parse_namespace, conflicts_with = "files")]
    pub namespaces: Vec<String>,
    /// Serve the Balancers with this className; none: those without one
    #[arg(long, env = "GIBBON_CLASS", value_name = "NAME", value_parser = parse_class, conflicts_with = "files")]
    pub class: Option<String>,
    /// Let several namespaces serve one host, instead of the one that claimed it first
    #[arg(long, env = "GIBBON_SHARE_HOSTS", conflicts_with = "files")]
    pub share_hosts: bool,
    /// Namespace whose Balancers may have no hosts, and so any; may be given several times; `*`: all
    #[arg(long, env = "GIBBON_ANY_HOST", value_name = "NAMESPACE", value_delimiter = ',', value_parser = parse_namespace_or_all, conflicts_with = "files")]
    pub any_host: Vec<String>,
    /// Namespace whose Balancers may have members by `url` and by `ExternalName` Services, and so reach
    /// what Gibbon reaches; may be given several times; `*`: all
    #[arg(long, env = "GIBBON_URL_MEMBERS", value_name = "NAMESPACE", value_delimiter = ',', value_parser = parse_namespace_or_all, conflicts_with = "files")]
    pub url_members: Vec<String>,
    /// Network that no member may be in, besides loopback, link-local and multicast addresses,
    /// Gibbon's own and the API server's; may be given several times
    #[arg(long, env = "GIBBON_DENY_MEMBERS", value_name = "CIDR", value_delimiter = ',', value_parser = parse_network, default_value = "fd00:ec2::254,100.100.100.200", conflicts_with = "files")]
    pub deny_members: Vec<IpNet>,
    /// Address of Gibbon itself that no member may have; may be given several times
    #[arg(
        long,
        env = "GIBBON_OWN_ADDRESSES",
        value_name = "ADDR",
        value_delimiter = ',',
        conflicts_with = "files"
    )]
    pub own_addresses: Vec<IpAddr>,
    /// The Service by which clients reach Gibbon, for `status.addresses`
    #[arg(long, env = "GIBBON_PUBLISH_SERVICE", value_name = "NAMESPACE/NAME", value_parser = parse_service, conflicts_with_all = ["files", "publish_address"])]
    pub publish_service: Option<(String, String)>,
    /// An address or name by which clients reach Gibbon, for `status.addresses`; may be given several
    /// times
    #[arg(
        long,
        env = "GIBBON_PUBLISH_ADDRESS",
        value_name = "ADDR",
        value_delimiter = ',',
        conflicts_with = "files"
    )]
    pub publish_address: Vec<String>,
    /// Namespace of the lease that says which Gibbon writes statuses; by default the pod's own
    #[arg(long, env = "GIBBON_LEASE_NAMESPACE", value_name = "NAMESPACE", value_parser = parse_namespace, conflicts_with = "files")]
    pub lease_namespace: Option<String>,
    /// Name of that lease: Gibbons that serve the same Balancers share one; by default `gibbon`, or
    /// `gibbon-` with the class
    #[arg(long, env = "GIBBON_LEASE_NAME", value_name = "NAME", value_parser = parse_class, conflicts_with = "files")]
    pub lease_name: Option<String>,
    /// What this Gibbon is called in the lease and in Events; by default its host and process
    #[arg(long, env = "GIBBON_IDENTITY", value_name = "NAME", conflicts_with = "files")]
    pub identity: Option<String>,
}

/// `gibbon explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The request's URL, such as `http://www.site.com/cart`. Nothing is sent there
    #[arg(
        long,
        env = "GIBBON_EXPLAIN_URL",
        value_name = "URL",
        required_unless_present = "id",
        conflicts_with = "id"
    )]
    pub url: Option<String>,
    /// Its method
    #[arg(long, env = "GIBBON_EXPLAIN_METHOD", value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// A field of it, such as `Cookie: sessionid=x!app1`; may be given several times
    #[arg(long, short = 'H', env = "GIBBON_EXPLAIN_HEADER", value_name = "FIELD")]
    pub header: Vec<String>,
    /// The address of its client, if that matters
    #[arg(long, env = "GIBBON_EXPLAIN_CLIENT", value_name = "ADDR")]
    pub client: Option<IpAddr>,
    /// The admin address of a running Gibbon, which knows what its members are like
    #[arg(
        long,
        env = "GIBBON_EXPLAIN_ADMIN",
        value_name = "ADDR",
        required_unless_present = "files",
        conflicts_with = "files"
    )]
    pub admin: Option<SocketAddr>,
    /// Instead: the directory with YAML files of Balancers
    #[arg(long, env = "GIBBON_EXPLAIN_FILES", value_name = "DIR")]
    pub files: Option<PathBuf>,
    /// Instead of a URL: the X-Request-Id of a request that was served and is kept
    #[arg(long, env = "GIBBON_EXPLAIN_ID", value_name = "ID", requires = "admin")]
    pub id: Option<String>,
    /// How it is written
    #[arg(long, env = "GIBBON_EXPLAIN_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
}

/// `gibbon healthz`.
#[derive(Debug, Args)]
pub struct Healthz {
    /// What to ask, such as `http://127.0.0.1:9090/readyz`
    #[arg(value_name = "URL")]
    pub url: http::Uri,
}

/// `gibbon demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Address to serve clients on
    #[arg(long, env = "GIBBON_DEMO_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address of the admin pages
    #[arg(long, env = "GIBBON_DEMO_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
    /// Serve with TLS too, on this address, with an authority of the demo's own
    #[arg(long, env = "GIBBON_DEMO_TLS", value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:8443")]
    pub tls: Option<SocketAddr>,
    /// Requests a second that the demo sends itself; 0 for none
    #[arg(long, env = "GIBBON_DEMO_RATE", value_name = "N", default_value_t = 50)]
    pub rate: u32,
    /// End after this time
    #[arg(long, env = "GIBBON_DEMO_FOR", value_name = "TIME", value_parser = parse_duration)]
    pub r#for: Option<Duration>,
    /// Print lines even in a terminal
    #[arg(long, env = "GIBBON_DEMO_LINES")]
    pub lines: bool,
}

/// `gibbon check`.
#[derive(Debug, Args)]
pub struct Check {
    /// YAML files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `gibbon import`.
#[derive(Debug, Args)]
pub struct Import {
    /// What to translate.
    #[command(subcommand)]
    pub from: ImportFrom,
}

/// Whose configuration is translated.
#[derive(Debug, Subcommand)]
pub enum ImportFrom {
    /// Of Apache httpd and Helicon Ape: Balancers to standard output, an account of every directive to
    /// standard error; or compare the old front with the new one
    Apache(ImportApache),
}

/// How an account is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// `gibbon import apache`.
#[derive(Debug, Args)]
pub struct ImportApache {
    /// Configuration files, such as httpd.conf or .htaccess; what they include is read too
    #[arg(required_unless_present = "replay", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write the account of every directive to this file instead of standard error
    #[arg(long, env = "GIBBON_IMPORT_REPORT", value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How the account is written
    #[arg(long, env = "GIBBON_IMPORT_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
    /// Exit status 2 if anything was dropped
    #[arg(long, env = "GIBBON_IMPORT_STRICT")]
    pub strict: bool,
    /// Put the Balancers into this namespace, and make members such as app.NAMESPACE.svc Services
    #[arg(long, env = "GIBBON_IMPORT_SERVICES", value_name = "NAMESPACE", value_parser = parse_namespace)]
    pub services: Option<String>,
    /// A variable, as by Define or httpd's -D; may be given several times
    #[arg(long, short = 'D', env = "GIBBON_IMPORT_DEFINE", value_name = "NAME[=VALUE]", value_delimiter = ',', value_parser = parse_define)]
    pub define: Vec<(String, String)>,
    /// Instead: send the same safe requests to the old front and to the new one, and print what differs;
    /// exit status 1 if anything does
    #[arg(long, env = "GIBBON_IMPORT_REPLAY", num_args = 2, value_names = ["URL_OLD", "URL_NEW"], value_delimiter = ',', requires = "requests", conflicts_with = "files")]
    pub replay: Vec<http::Uri>,
    /// What to send: an access log in combined format, or a HAR file
    #[arg(long, env = "GIBBON_IMPORT_REQUESTS", value_name = "FILE", requires = "replay")]
    pub requests: Option<PathBuf>,
}

/// An address in place of a member's name and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    /// The member's name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Where it really is.
    pub address: SocketAddr,
}

fn parse_connect_to(text: &str) -> Result<ConnectTo, String> {
    let wrong = || format!("`{text}` should look like app1.site.com:80:127.0.0.1:8081");
    let (name, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (port, address) = rest.split_once(':').ok_or_else(wrong)?;
    Ok(ConnectTo {
        name: name.to_ascii_lowercase(),
        port: port.parse().map_err(|_| wrong())?,
        address: address.parse().map_err(|_| wrong())?,
    })
}

fn parse_define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(format!("`{text}` should look like NAME or NAME=VALUE"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_namespace(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = [text.bytes().next(), text.bytes().last()];
    let is_label = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && ends.iter().flatten().all(|byte| *byte != b'-');
    if is_label {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no namespace, such as shop"))
    }
}

fn parse_namespace_or_all(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { parse_namespace(text) }
}

fn parse_class(text: &str) -> Result<String, String> {
    if text.split('.').all(|label| parse_namespace(label).is_ok()) && text.len() <= 63 {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no class, such as public: small letters, digits, - and ."))
}

fn parse_service(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(_, name)| parse_namespace(name).is_ok());
    match parts {
        Some((namespace, name)) => Ok((parse_namespace(namespace)?, name.to_owned())),
        None => Err(format!("`{text}` should look like gibbon-system/gibbon")),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<crate::api::Duration>()
        .map(|duration| duration.get())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::proxy::Settings;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flags_defaults_are_those_of_the_settings() {
        let cli = Cli::try_parse_from(["gibbon", "serve", "--files", "."]).unwrap();
        let Command::Serve(serve) = cli.command else { panic!("not serve") };
        let settings = Settings::default();
        assert_eq!(
            (serve.max_connections, serve.max_head, serve.max_headers, serve.workers),
            (settings.max_connections, settings.max_head, settings.max_headers, settings.workers)
        );
        assert_eq!(
            (serve.max_handshakes, serve.public_https_port),
            (settings.max_handshakes, settings.public_https_port)
        );
        let patience = settings.patience;
        assert_eq!((serve.head_timeout, serve.idle_timeout), (patience.head, patience.idle));
        assert_eq!(
            (serve.body_timeout, serve.body_timeout),
            (settings.body_timeout, patience.write)
        );
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|a| a.get_long().is_some()) {
                let name = argument.get_id().as_str();
                assert!(argument.get_env().is_some() || name == "help", "{name}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn what_is_no_namespace_class_or_service_is_refused() {
        for text in ["", "A", "a.b", "-a", "a-", "*", "a/b"] {
            assert!(parse_namespace(text).unwrap_err().contains("such as shop"), "{text}");
        }
        assert_eq!(parse_namespace_or_all("*").as_deref(), Ok("*"));
        assert!(parse_class("a.b-1").is_ok() && parse_class("a..b").is_err());
        assert_eq!(parse_service("a/b"), Ok(("a".into(), "b".into())));
        for text in ["a", "a/", "/b", "a/b/c"] {
            assert!(parse_service(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_concerns_clusters_does_not_go_with_files() {
        let with = |flag: &str| Cli::try_parse_from(["gibbon", "serve", "--files", ".", flag, "a"]);
        assert!(with("--class").is_err() && with("--namespaces").is_err());
        assert!(with("--admin-table").is_err());
        assert!(Cli::try_parse_from(["gibbon", "serve"]).is_ok());
    }

    #[test]
    fn an_address_in_place_of_a_name_is_read() {
        let found = parse_connect_to("App1.site.com:80:[::1]:8081").unwrap();
        assert_eq!((found.name.as_str(), found.port), ("app1.site.com", 80));
        assert_eq!(found.address, "[::1]:8081".parse().unwrap());
        assert!(parse_connect_to("app1:80").unwrap_err().contains("127.0.0.1:8081"));
    }
}
