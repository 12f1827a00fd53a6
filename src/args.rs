//! Every flag and environment variable; nothing else reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::proxy::log::Format;
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
    /// Serve the Balancers in a directory, and follow its changes
    Serve(Box<Serve>),
    /// Show a whole site at work: two application servers, two static servers, Gibbon in front
    Demo(Demo),
    /// Say what is wrong with Balancers in files; exit status 1 if anything is
    Check(Check),
    /// Print the definition of Balancer for `kubectl apply`
    Crd,
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

/// `gibbon serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Directory with YAML files of Balancers
    #[arg(long, env = "GIBBON_FILES", value_name = "DIR")]
    pub files: PathBuf,
    /// Address to serve clients on; may be given several times
    #[arg(
        long,
        env = "GIBBON_LISTEN",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "0.0.0.0:8080"
    )]
    pub listen: Vec<SocketAddr>,
    /// Address of the admin pages: /metrics, /livez, /readyz, /table
    #[arg(long, env = "GIBBON_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,
    /// Show /table to others than this machine too
    #[arg(long, env = "GIBBON_ADMIN_TABLE")]
    pub admin_table: bool,
    /// Network whose X-Forwarded-* fields are believed; may be given several times
    #[arg(long, env = "GIBBON_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxies: Vec<IpNet>,
    /// What is logged: error, warn, info, debug, trace, or a list such as `info,gibbon=debug`
    #[arg(long, env = "GIBBON_LOG", default_value = "info", value_name = "LEVEL")]
    pub log: String,
    /// How the log is written
    #[arg(long, env = "GIBBON_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// How requests are logged, to standard output
    #[arg(long, env = "GIBBON_ACCESS_LOG", value_name = "FORMAT", default_value = "off")]
    pub access_log: AccessLogFormat,
    /// Worker threads; 0 is one for each core that the process may use
    #[arg(long, env = "GIBBON_WORKERS", value_name = "N", default_value_t = 0, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=1024))]
    pub workers: usize,
    /// Client connections open at once; one more is closed
    #[arg(long, env = "GIBBON_MAX_CONNECTIONS", value_name = "N", default_value_t = 20_000)]
    pub max_connections: usize,
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
        let patience = settings.patience;
        assert_eq!((serve.head_timeout, serve.idle_timeout), (patience.head, patience.idle));
        assert_eq!(
            (serve.body_timeout, serve.body_timeout),
            (settings.body_timeout, patience.write)
        );
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments().filter(|a| a.get_long().is_some()) {
                let name = argument.get_id().as_str();
                assert!(argument.get_env().is_some() || name == "help", "{name}");
            }
        }
    }

    #[test]
    fn an_address_in_place_of_a_name_is_read() {
        let found = parse_connect_to("App1.site.com:80:[::1]:8081").unwrap();
        assert_eq!((found.name.as_str(), found.port), ("app1.site.com", 80));
        assert_eq!(found.address, "[::1]:8081".parse().unwrap());
        assert!(parse_connect_to("app1:80").unwrap_err().contains("127.0.0.1:8081"));
    }
}
