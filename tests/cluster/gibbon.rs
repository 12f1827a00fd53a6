//! The program itself, as a process that follows the control plane.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::control_plane::eventually;
use crate::pods::Namespace;
use crate::support::port::free;
use crate::support::{Client, Seen};

/// A running Gibbon. It ends with the value, and its log is shown if a test fails meanwhile.
pub struct Gibbon {
    child: Child,
    /// Where it serves clients.
    pub address: SocketAddr,
    /// Where its admin pages are.
    pub admin: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Gibbon {
    /// Follows one namespace, as its administrator; ready when this returns.
    pub fn of(namespace: &Namespace, flags: &[&str]) -> Self {
        let own = ["--namespaces", &namespace.name, "--lease-namespace", &namespace.name];
        let flags: Vec<_> = own.iter().chain(flags).copied().collect();
        Self::ready(&namespace.control_plane.kubeconfig, &flags)
    }

    /// With the rights of a kubeconfig; ready when this returns.
    pub fn ready(kubeconfig: &Path, flags: &[&str]) -> Self {
        let gibbon = Self::start(kubeconfig, flags);
        eventually("Gibbon is ready", || gibbon.page("/readyz").is_some_and(|s| s.status == 200));
        gibbon
    }

    /// Ready or not.
    pub fn start(kubeconfig: &Path, flags: &[&str]) -> Self {
        Self::start_with(&[("KUBECONFIG", kubeconfig.to_str().unwrap().to_owned())], flags)
    }

    /// Ready or not, with this environment.
    pub fn start_with(environment: &[(&'static str, String)], flags: &[&str]) -> Self {
        let [address, admin] = [free(), free()];
        let mut child = Command::new(env!("CARGO_BIN_EXE_gibbon"))
            .env_remove("KUBECONFIG")
            .envs(environment.iter().cloned())
            .args(["serve", "--workers", "1"])
            .args(["--listen", &address.to_string(), "--admin", &admin.to_string()])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (lines, copy) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                *copy.lock().unwrap() += &(line + "\n");
            }
        });
        let gibbon = Self { child, address, admin, log };
        eventually("Gibbon listens", || gibbon.page("/livez").is_some());
        gibbon
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// An admin page, if it answers.
    pub fn page(&self, path: &str) -> Option<Seen> {
        std::net::TcpStream::connect(self.admin).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Client::new(self.admin).send(request).read()
    }

    /// The first value of a metric whose line begins so.
    pub fn metric(&self, line: &str) -> Option<f64> {
        let page = self.page("/metrics")?.text();
        let found = page.lines().find(|l| l.starts_with(line))?;
        found.rsplit(' ').next()?.parse().ok()
    }

    /// What is being served.
    pub fn table(&self) -> Value {
        serde_json::from_str(&self.page("/table").unwrap().text()).unwrap()
    }

    /// How many members a Balancer has in a condition such as `usable`.
    pub fn members(&self, balancer: &str, condition: &str) -> usize {
        let table = self.table();
        let balancers = table["balancers"].as_array().unwrap();
        let Some(found) = balancers.iter().find(|b| b["name"] == balancer) else { return 0 };
        let members = found["members"].as_array().unwrap();
        members.iter().filter(|member| member["condition"] == condition).count()
    }

    /// Asks with more headers than the Host, on a connection of its own.
    pub fn ask(&self, host: &str, path: &str, headers: &str) -> Seen {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
        Client::new(self.address).send(request).read().expect("an answer")
    }

    /// Asks for a page of a host.
    pub fn get(&self, host: &str, path: &str) -> Seen {
        self.ask(host, path, "")
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Its exit code, when it has ended.
    pub fn exit(&mut self) -> Option<i32> {
        eventually("Gibbon ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Gibbon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- Gibbon's log:\n{}---", self.log());
        }
    }
}
