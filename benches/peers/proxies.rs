//! Real proxies as processes: what each is called, and its ordinary configuration with all that it has
//! for bad members.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use install::find;
use port::free;

#[path = "install.rs"]
pub mod install;
#[path = "../../tests/support/port.rs"]
mod port;

/// The variable that names another build of Gibbon, to be compared too.
pub const BESIDE: &str = "GIBBON_BESIDE";
/// How long one may take to end when it is asked to.
const END: Duration = Duration::from_secs(5);

/// A proxy and its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    NginxLeastConn,
    NginxRandomTwo,
    /// With buffers for large answers.
    NginxLarge,
    HaproxyLeastConn,
    HaproxyRandomTwo,
    ApacheByBusyness,
    Pingora,
    Envoy,
    Caddy,
    Gibbon,
    /// Another build of it: the program that [`BESIDE`] names.
    GibbonBeside,
}

/// How one is set up beside what is ordinary.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'s> {
    /// Its worker threads.
    pub threads: usize,
    /// Clients speak TLS.
    pub tls: Option<&'s Certificate>,
    /// It writes a line a request into a file.
    pub logs: bool,
    /// Gibbon has the rules of a real site: static files, and an application with sessions.
    pub site: bool,
    /// Gibbon's program, if it is not this build's.
    pub program: Option<&'s Path>,
}

impl Setup<'_> {
    /// One thread, no TLS, no access log, one rule.
    pub const ORDINARY: Self =
        Self { threads: 1, tls: None, logs: false, site: false, program: None };
}

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both.
    pub both: PathBuf,
}

/// Where one serves, in front of whom, and where its files are.
struct Place<'p> {
    address: SocketAddr,
    /// Gibbon's admin pages.
    admin: SocketAddr,
    members: &'p [SocketAddr],
    folder: &'p Path,
    setup: Setup<'p>,
}

impl Peer {
    /// Its heading.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NginxLeastConn => "nginx `least_conn`",
            Self::NginxRandomTwo => "nginx `random two`",
            Self::NginxLarge => "nginx, `proxy_buffers 8 64k`",
            Self::HaproxyLeastConn => "HAProxy `leastconn`",
            Self::HaproxyRandomTwo => "HAProxy `random(2)`",
            Self::ApacheByBusyness => "Apache `bybusyness`",
            Self::Pingora => "Pingora",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
            Self::Gibbon => "Gibbon",
            Self::GibbonBeside => "Gibbon beside",
        }
    }

    const fn is_gibbon(self) -> bool {
        matches!(self, Self::Gibbon | Self::GibbonBeside)
    }

    /// Starts it before these members.
    pub fn start(self, members: &[SocketAddr], folder: &Path, setup: Setup<'_>) -> Result<Running> {
        let place = Place { address: free(), admin: free(), members, folder, setup };
        let mut command = match self {
            Self::NginxLeastConn => nginx("least_conn", "", &place)?,
            Self::NginxRandomTwo => nginx("random two least_conn", "", &place)?,
            Self::NginxLarge => nginx("least_conn", "proxy_buffers 8 64k;", &place)?,
            Self::HaproxyLeastConn => haproxy("leastconn", &place)?,
            Self::HaproxyRandomTwo => haproxy("random(2)", &place)?,
            Self::ApacheByBusyness => apache(&place)?,
            Self::Pingora => pingora(&place)?,
            Self::Envoy => envoy(&place)?,
            Self::Caddy => caddy(&place)?,
            Self::Gibbon => {
                let own = Path::new(env!("CARGO_BIN_EXE_gibbon"));
                gibbon(setup.program.unwrap_or(own), &place)?
            }
            Self::GibbonBeside => {
                let program = std::env::var_os(BESIDE).with_context(|| format!("no {BESIDE}"))?;
                gibbon(program.as_ref(), &place)?
            }
        };
        let log = fs::File::create(folder.join("log"))?;
        let output = fs::File::create(folder.join("access"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let child = command.spawn().map_err(|error| anyhow::anyhow!("{command:?}: {error}"))?;
        let mut running = Running { child, address: place.address };
        let began = Instant::now();
        while TcpStream::connect(place.address).is_err()
            || (self.is_gibbon() && !is_ready(place.admin))
        {
            let ended = running.child.try_wait()?;
            if ended.is_some() || began.elapsed() > Duration::from_secs(10) {
                bail!(
                    "{} did not start: {}",
                    self.label(),
                    fs::read_to_string(folder.join("log"))?
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }
}

/// A proxy that runs until this is dropped.
pub struct Running {
    child: Child,
    /// Where it serves.
    pub address: SocketAddr,
}

impl Running {
    /// The process that was started.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The masters of nginx and Apache end their workers when they are asked to, not when they are
        // killed.
        // (The shell's own kill: not every system has a program of that name.)
        let _ = Command::new("sh").arg("-c").arg(format!("kill {}", self.child.id())).status();
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < END {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gibbon listens before it knows its rules.
fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn command(program: &str) -> Result<Command> {
    Ok(Command::new(find(program)?))
}

/// One line a member.
fn each(members: &[SocketAddr], line: impl Fn(usize, &SocketAddr) -> String) -> String {
    members.iter().enumerate().fold(String::new(), |mut text, (number, member)| {
        let _ = writeln!(text, "{}", line(number, member));
        text
    })
}

fn nginx(rule: &str, more: &str, place: &Place<'_>) -> Result<Command> {
    let Place { address, members, folder, setup, .. } = place;
    let servers = each(members, |_, member| format!("server {member};"));
    let (at, file) = (folder.display(), folder.join("nginx.conf"));
    let (ssl, certificate) = match setup.tls {
        None => ("", String::new()),
        Some(Certificate { chain, key, .. }) => (
            " ssl",
            format!("ssl_certificate {}; ssl_certificate_key {};", chain.display(), key.display()),
        ),
    };
    let log = if setup.logs { format!("{at}/access.log combined") } else { "off".to_owned() };
    let text = format!(
        "daemon off; worker_processes {}; pid {at}/pid; error_log stderr error;\n\
         events {{ worker_connections 16384; }}\n\
         http {{ access_log {log}; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
         upstream app {{ zone app 64k; {rule};\n{servers}keepalive 64; }}\n\
         server {{ listen {address}{ssl}; {certificate} keepalive_requests 1000000; {more}\n\
         location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n",
        setup.threads
    );
    fs::write(&file, text)?;
    let mut nginx = command("nginx")?;
    nginx.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(file);
    Ok(nginx)
}

fn haproxy(rule: &str, place: &Place<'_>) -> Result<Command> {
    let servers = each(place.members, |number, member| format!("  server m{number} {member}"));
    let tls = place.setup.tls.map_or(String::new(), |c| format!(" ssl crt {}", c.both.display()));
    let text = format!(
        "global\n  nbthread {}\n  maxconn 8192\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  \
         option redispatch 1\n  retries 3\n\
         frontend in\n  bind {}{tls}\n  default_backend app\n\
         backend app\n  balance {rule}\n  http-reuse always\n  \
         default-server check inter 2s observe layer7 error-limit 10 on-error mark-down\n{servers}",
        place.setup.threads, place.address
    );
    let file = place.folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut haproxy = command("haproxy")?;
    haproxy.arg("-db").arg("-f").arg(file);
    Ok(haproxy)
}

fn apache(place: &Place<'_>) -> Result<Command> {
    const MODULES: [&str; 9] = [
        "mpm_event",
        "authz_core",
        "slotmem_shm",
        "socache_shmcb",
        "ssl",
        "proxy",
        "proxy_http",
        "proxy_balancer",
        "lbmethod_bybusyness",
    ];
    let balancers = each(place.members, |_, member| {
        format!("BalancerMember http://{member} keepalive=On retry=10 connectiontimeout=2")
    });
    let mut text = String::new();
    for module in MODULES {
        let _ =
            writeln!(text, "LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so");
    }
    let (at, address) = (place.folder.display(), place.address);
    if let Some(Certificate { chain, key, .. }) = place.setup.tls {
        let _ = writeln!(
            text,
            "SSLEngine on\nSSLCertificateFile {}\nSSLCertificateKeyFile {}\nSSLSessionCache none",
            chain.display(),
            key.display()
        );
    }
    let _ = write!(
        text,
        "ServerRoot {at}\nPidFile {at}/pid\nListen {address}\nServerName www.site.com\nErrorLog {at}/error\n\
         DefaultRuntimeDir {at}\nUser www-data\nGroup www-data\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60\n\
         ThreadsPerChild 64\nAsyncRequestWorkerFactor 100\n\
         <Proxy balancer://app>\n{balancers}ProxySet lbmethod=bybusyness\n</Proxy>\n\
         ProxyPass / balancer://app/\n"
    );
    let file = place.folder.join("apache.conf");
    fs::write(&file, text)?;
    let mut apache = command("apache2")?;
    apache.args(["-D", "FOREGROUND", "-f"]).arg(file);
    Ok(apache)
}

fn pingora(place: &Place<'_>) -> Result<Command> {
    if place.setup.tls.is_some() {
        bail!("it is built without TLS");
    }
    let mut pingora = command("pingora")?;
    pingora.arg(place.setup.threads.to_string()).arg(place.address.to_string());
    pingora.args(place.members.iter().map(ToString::to_string));
    Ok(pingora)
}

fn envoy(place: &Place<'_>) -> Result<Command> {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let address = |address: &SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    };
    let tls = place.setup.tls.map_or(String::new(), |Certificate { chain, key, .. }| {
        format!(
            "      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
             \"@type\": {TYPES}.transport_sockets.tls.v3.DownstreamTlsContext\n          \
             common_tls_context:\n            tls_certificates:\n            \
             - {{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}\n",
            chain.display(),
            key.display()
        )
    });
    let endpoints = each(place.members, |_, member| {
        format!("        - endpoint: {{address: {}}}", address(member))
    });
    let text = format!(
        "static_resources:\n  listeners:\n  - address: {}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": {TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: in\n          codec_type: HTTP1\n          use_remote_address: true\n          \
         generate_request_id: false\n          route_config:\n            virtual_hosts:\n            \
         - {{name: site, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}\n          \
         http_filters:\n          - name: envoy.filters.http.router\n            \
         typed_config: {{\"@type\": {TYPES}.filters.http.router.v3.Router}}\n{tls}  \
         clusters:\n  - name: app\n    connect_timeout: 2s\n    lb_policy: LEAST_REQUEST\n    load_assignment:\n      \
         cluster_name: app\n      endpoints:\n      - lb_endpoints:\n{endpoints}",
        address(&place.address)
    );
    let file = place.folder.join("envoy.yaml");
    fs::write(&file, text)?;
    let mut envoy = command("envoy")?;
    envoy.arg("-c").arg(file).args(["--concurrency", &place.setup.threads.to_string()]);
    envoy.args(["--log-level", "error", "--disable-hot-restart"]);
    Ok(envoy)
}

fn caddy(place: &Place<'_>) -> Result<Command> {
    let members = place.members.iter().map(|member| format!("http://{member}"));
    let members = members.collect::<Vec<_>>().join(" ");
    let (scheme, tls) = match place.setup.tls {
        None => ("http", String::new()),
        Some(c) => ("https", format!("tls {} {}", c.chain.display(), c.key.display())),
    };
    let (ip, port) = (place.address.ip(), place.address.port());
    let text = format!(
        "{{\n  admin off\n  auto_https off\n  persist_config off\n  servers {{\n    protocols h1\n  }}\n  \
         log {{\n    level ERROR\n  }}\n}}\n\
         {scheme}://:{port} {{\n  bind {ip}\n  {tls}\n  reverse_proxy {members} {{\n    lb_policy least_conn\n    \
         transport http {{\n      keepalive_idle_conns_per_host 64\n    }}\n  }}\n}}\n"
    );
    let file = place.folder.join("Caddyfile");
    fs::write(&file, text)?;
    let mut caddy = command("caddy")?;
    caddy.arg("run").arg("--adapter").arg("caddyfile").arg("--config").arg(file);
    caddy.env("GOMAXPROCS", place.setup.threads.to_string());
    caddy.env("HOME", place.folder);
    Ok(caddy)
}

fn gibbon(program: &Path, place: &Place<'_>) -> Result<Command> {
    let Place { address, admin, members, folder, setup } = place;
    let entries = each(members, |number, member| {
        format!("  - {{name: m{number}, url: 'http://{member}/', route: app{number}}}")
    });
    let rules = folder.join("rules");
    fs::create_dir_all(&rules)?;
    let kind = "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\n";
    let host = if setup.site { "  hosts: [www.site.com]\n" } else { "" };
    let mut text = format!(
        "{kind}metadata: {{name: app, namespace: site}}\nspec:\n{host}  members:\n{entries}"
    );
    if setup.site {
        text += "  sticky: {cookie: sessionid, routeRegex: '!(.*)$'}\n  \
                 reverse: {cookieDomains: [{from: app1.site.com, to: www.site.com}]}\n";
        if setup.tls.is_some() {
            text += "  tls: {secretName: certificate}\n";
        }
        let _ = write!(
            text,
            "---\n{kind}metadata: {{name: static, namespace: site}}\n\
             spec:\n{host}  path: /static/\n  members:\n{entries}"
        );
    }
    if let Some(Certificate { chain, key, .. }) = setup.tls {
        let pem = |file: &Path| -> Result<String> {
            Ok(fs::read_to_string(file)?.trim_end().replace('\n', "\n    "))
        };
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: certificate, namespace: site}}\n\
             type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            pem(chain)?,
            pem(key)?
        );
    }
    fs::write(rules.join("site.yaml"), text)?;
    let mut gibbon = Command::new(program);
    gibbon.args(["serve", "--workers", &setup.threads.to_string(), "--shutdown-delay", "0s"]);
    gibbon.args(["--admin", &admin.to_string()]);
    gibbon.args(["--access-log", if setup.logs { "text" } else { "off" }]);
    match setup.tls {
        None => gibbon.args(["--listen", &address.to_string()]),
        Some(_) => gibbon.args(["--listen", "127.0.0.1:0", "--listen-tls", &address.to_string()]),
    };
    gibbon.arg("--files").arg(rules);
    Ok(gibbon)
}
