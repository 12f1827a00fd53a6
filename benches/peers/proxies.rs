//! Real proxies as processes: what each is called, and its ordinary configuration with all that it has
//! for bad members.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use port::free;

#[path = "../../tests/support/port.rs"]
mod port;

/// A proxy and its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    NginxLeastConn,
    NginxRandomTwo,
    HaproxyLeastConn,
    HaproxyRandomTwo,
    ApacheByBusyness,
    Gibbon,
}

/// All of them, in the order of the table.
pub const PEERS: [Peer; 6] = [
    Peer::NginxLeastConn,
    Peer::NginxRandomTwo,
    Peer::HaproxyLeastConn,
    Peer::HaproxyRandomTwo,
    Peer::ApacheByBusyness,
    Peer::Gibbon,
];

impl Peer {
    /// Its heading.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NginxLeastConn => "nginx `least_conn`",
            Self::NginxRandomTwo => "nginx `random two`",
            Self::HaproxyLeastConn => "HAProxy `leastconn`",
            Self::HaproxyRandomTwo => "HAProxy `random(2)`",
            Self::ApacheByBusyness => "Apache `bybusyness`",
            Self::Gibbon => "Gibbon",
        }
    }

    /// Starts it before these members.
    pub fn start(self, members: &[SocketAddr], folder: &Path) -> Result<Running> {
        let address = free();
        let mut command = match self {
            Self::NginxLeastConn => nginx("least_conn", address, members, folder)?,
            Self::NginxRandomTwo => nginx("random two least_conn", address, members, folder)?,
            Self::HaproxyLeastConn => haproxy("leastconn", address, members, folder)?,
            Self::HaproxyRandomTwo => haproxy("random(2)", address, members, folder)?,
            Self::ApacheByBusyness => apache(address, members, folder)?,
            Self::Gibbon => gibbon(address, members, folder)?,
        };
        let log = fs::File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut running = Running { child, address };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
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
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Installs what is not there, and tells what there is.
pub fn versions() -> Result<Vec<String>> {
    let programs =
        [("nginx", "nginx", "-v"), ("haproxy", "haproxy", "-v"), ("apache2", "apache2", "-v")];
    let missing: Vec<_> =
        programs.iter().filter(|(_, program, _)| find(program).is_none()).map(|p| p.0).collect();
    if !missing.is_empty() {
        eprintln!("installing {}", missing.join(", "));
        let install = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
            anyhow::Ok(apt.status().context("apt-get")?.success())
        };
        let mut packages = vec!["install", "-qy", "--no-install-recommends"];
        packages.extend(&missing);
        if !(install(&["update", "-q"])? && install(&packages)?) {
            bail!("{} cannot be installed: install them by hand", missing.join(", "));
        }
    }
    programs
        .iter()
        .map(|(_, program, flag)| {
            let output =
                Command::new(find(program).context("it was installed")?).arg(flag).output()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
            let version = text.split([' ', '/', '-']).find(is_number).unwrap_or_default();
            Ok(format!("{program} {}", version.trim()))
        })
        .collect()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|place| place.join(program)).find(|file| file.is_file())
}

fn command(program: &str) -> Result<Command> {
    Ok(Command::new(find(program).with_context(|| format!("{program} is not there"))?))
}

/// One line a member.
fn each(members: &[SocketAddr], line: impl Fn(usize, &SocketAddr) -> String) -> String {
    members.iter().enumerate().fold(String::new(), |mut text, (number, member)| {
        let _ = writeln!(text, "{}", line(number, member));
        text
    })
}

fn nginx(
    rule: &str,
    address: SocketAddr,
    members: &[SocketAddr],
    folder: &Path,
) -> Result<Command> {
    let servers = each(members, |_, member| format!("server {member};"));
    let (at, file) = (folder.display(), folder.join("nginx.conf"));
    let text = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log stderr error;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
         upstream app {{ zone app 64k; {rule};\n{servers}keepalive 64; }}\n\
         server {{ listen {address}; keepalive_requests 1000000;\n\
         location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    );
    fs::write(&file, text)?;
    let mut nginx = command("nginx")?;
    nginx.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(file);
    Ok(nginx)
}

fn haproxy(
    rule: &str,
    address: SocketAddr,
    members: &[SocketAddr],
    folder: &Path,
) -> Result<Command> {
    let servers = each(members, |number, member| format!("  server m{number} {member}"));
    let text = format!(
        "global\n  nbthread 1\n  maxconn 8192\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  \
         option redispatch 1\n  retries 3\n\
         frontend in\n  bind {address}\n  default_backend app\n\
         backend app\n  balance {rule}\n  http-reuse always\n  \
         default-server check inter 2s observe layer7 error-limit 10 on-error mark-down\n{servers}"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut haproxy = command("haproxy")?;
    haproxy.arg("-db").arg("-f").arg(file);
    Ok(haproxy)
}

fn apache(address: SocketAddr, members: &[SocketAddr], folder: &Path) -> Result<Command> {
    const MODULES: [&str; 7] = [
        "mpm_event",
        "authz_core",
        "slotmem_shm",
        "proxy",
        "proxy_http",
        "proxy_balancer",
        "lbmethod_bybusyness",
    ];
    let balancers = each(members, |_, member| {
        format!("BalancerMember http://{member} keepalive=On retry=10 connectiontimeout=2")
    });
    let mut text = String::new();
    for module in MODULES {
        let _ =
            writeln!(text, "LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so");
    }
    let at = folder.display();
    let _ = write!(
        text,
        "ServerRoot {at}\nPidFile {at}/pid\nListen {address}\nServerName localhost\nErrorLog {at}/error\n\
         DefaultRuntimeDir {at}\nUser www-data\nGroup www-data\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60\nThreadsPerChild 64\n\
         <Proxy balancer://app>\n{balancers}ProxySet lbmethod=bybusyness\n</Proxy>\n\
         ProxyPass / balancer://app/\n"
    );
    let file = folder.join("apache.conf");
    fs::write(&file, text)?;
    let mut apache = command("apache2")?;
    apache.args(["-D", "FOREGROUND", "-f"]).arg(file);
    Ok(apache)
}

fn gibbon(address: SocketAddr, members: &[SocketAddr], folder: &Path) -> Result<Command> {
    let entries =
        each(members, |number, member| format!("  - {{name: m{number}, url: 'http://{member}/'}}"));
    let rules = folder.join("rules");
    fs::create_dir_all(&rules)?;
    let text = format!(
        "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata: {{name: app, namespace: site}}\n\
         spec:\n  members:\n{entries}"
    );
    fs::write(rules.join("app.yaml"), text)?;
    let mut gibbon = Command::new(env!("CARGO_BIN_EXE_gibbon"));
    gibbon.args(["serve", "--workers", "1", "--access-log", "off"]);
    gibbon.args(["--listen", &address.to_string(), "--admin", "127.0.0.1:0"]);
    gibbon.arg("--files").arg(rules);
    Ok(gibbon)
}
