//! The control plane itself, and what a test asks of it.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

use crate::api::{Api, PORT};
use crate::isolation::Inside;
use crate::pods::Namespace;
use crate::support::Client;

/// Of the API server for those who do not use loopback: pods, Services.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const CLUSTER_IPS: &str = "198.18.0.0/16";
const FIRST_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Those that watch over nodes and running pods are left out: there is no kubelet, and they would
/// remove what only seems to run.
const CONTROLLERS: &str = "endpointslice-controller,endpointslice-mirroring-controller,\
    endpoints-controller,namespace-controller,serviceaccount-controller,\
    serviceaccount-token-controller,root-ca-certificate-publisher-controller,\
    deployment-controller,replicaset-controller,statefulset-controller,\
    garbage-collector-controller,\
    disruption-controller,clusterrole-aggregation-controller";

/// The node that every pod is on.
pub const NODE: &str = "node";

/// How long a process may take to become ready; a busy machine needs a multiple of the usual 3 s.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long something may take to come true.
const LIMIT: Duration = Duration::from_secs(30);
const LOG_LINES: usize = 20;

/// A running control plane with Gibbon's definitions and one node.
pub struct ControlPlane {
    /// For the administrator.
    pub kubeconfig: PathBuf,
    tools: PathBuf,
    state: PathBuf,
    api: Api,
    ca: String,
    server: Mutex<Option<Process>>,
    number: AtomicUsize,
}

struct Process {
    child: Child,
    log: PathBuf,
}

impl ControlPlane {
    /// Starts it, and waits until it is ready.
    pub fn start(inside: &Inside) -> Result<Self> {
        let state = inside.state.clone();
        let (api, ca) = certify(&state)?;
        let control_plane = Self {
            kubeconfig: state.join("admin.kubeconfig"),
            tools: inside.tools.clone(),
            state,
            api,
            ca,
            server: Mutex::default(),
            number: AtomicUsize::new(0),
        };
        control_plane.begin()?;
        Ok(control_plane)
    }

    fn begin(&self) -> Result<()> {
        let client = "http://127.0.0.1:2379";
        let peer = "http://127.0.0.1:2380";
        let mut etcd = self.spawn(
            "etcd",
            &[
                format!("--data-dir={}", self.state.join("etcd").display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                "--log-level=warn".into(),
                "--unsafe-no-fsync".into(),
            ],
        )?;
        etcd.becomes_ready("etcd", || {
            let listening = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 2379)).is_ok();
            listening && {
                let mut client = Client::new((Ipv4Addr::LOCALHOST, 2379).into());
                client.send("GET /health HTTP/1.1\r\nHost: etcd\r\n\r\n");
                client.read().is_some_and(|health| health.status == 200)
            }
        })?;
        self.try_start_api()?;
        let mut manager = self.spawn(
            "kube-controller-manager",
            &[
                format!("--kubeconfig={}", self.kubeconfig.display()),
                format!("--root-ca-file={}", self.state.join("ca.pem").display()),
                format!(
                    "--service-account-private-key-file={}",
                    self.state.join("accounts.key").display()
                ),
                format!("--controllers={CONTROLLERS}"),
                "--bind-address=127.0.0.1".into(),
                "--leader-elect=false".into(),
                "--kube-api-qps=500".into(),
                "--kube-api-burst=1000".into(),
            ],
        )?;
        self.create("/api/v1/nodes", &json!({"metadata": {"name": NODE}}));
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        let applied = self.kubectl(&["apply", "-f", &crds.to_string_lossy()]);
        if !applied.status.success() {
            bail!("kubectl apply -f crds: {}", String::from_utf8_lossy(&applied.stderr));
        }
        manager.becomes_ready("kube-controller-manager", || {
            let account = "/api/v1/namespaces/default/serviceaccounts/default";
            let definition =
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/balancers.gibbon.dev";
            self.find(account).is_some()
                && self.find(definition).is_some_and(|found| condition(&found, "Established"))
        })
    }

    fn spawn(&self, name: &str, flags: &[String]) -> Result<Process> {
        let log = self.state.join("logs").join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(self.tools.join(name))
            .args(flags)
            .current_dir(&self.state)
            .env("HOME", &self.state)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} in {}", self.tools.display()))?;
        Ok(Process { child, log })
    }

    /// Takes the API server away, without a word to its clients.
    pub fn stop_api(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            server.child.kill().unwrap();
            server.child.wait().unwrap();
        }
    }

    /// Brings it back, and returns when it is ready. Does nothing while it runs.
    pub fn start_api(&self) {
        self.try_start_api().unwrap();
    }

    fn try_start_api(&self) -> Result<()> {
        let mut server = self.server.lock().unwrap();
        if server.is_some() {
            return Ok(());
        }
        let file = |name: &str| self.state.join(name).display().to_string();
        let mut process = self.spawn(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379".into(),
                "--bind-address=0.0.0.0".into(),
                format!("--advertise-address={ADDRESS}"),
                format!("--secure-port={PORT}"),
                format!("--tls-cert-file={}", file("server.pem")),
                format!("--tls-private-key-file={}", file("server.key")),
                format!("--client-ca-file={}", file("ca.pem")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", file("accounts.pub")),
                format!("--service-account-signing-key-file={}", file("accounts.key")),
                "--authorization-mode=RBAC".into(),
                format!("--service-cluster-ip-range={CLUSTER_IPS}"),
                "--profiling=false".into(),
            ],
        )?;
        let ready = || matches!(self.ask("GET", "/readyz", &Value::Null), Ok((200, _)));
        process.becomes_ready("kube-apiserver", ready)?;
        *server = Some(process);
        Ok(())
    }

    /// Runs kubectl as an administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).output().unwrap()
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.tools.join("kubectl"));
        command.args(arguments).stdin(Stdio::null());
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.state);
        command
    }

    /// `kubectl apply`; what it prints if it fails.
    ///
    /// # Errors
    /// When an object is refused.
    pub fn apply(&self, namespace: &str, yaml: &str) -> Result<(), String> {
        let mut child = self
            .kubectl_command(&["apply", "-n", namespace, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(complaint) }
    }

    /// The helm program, with the administrator's rights.
    pub fn helm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.tools.join("helm"));
        command.args(arguments).stdin(Stdio::null());
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.state).output().unwrap()
    }

    /// Any request to the API server, as an administrator. A PATCH is a server-side apply if its query
    /// has a `fieldManager`, else a merge.
    ///
    /// # Errors
    /// When there is no complete answer.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, Value)> {
        self.api.ask(method, path, body)
    }

    /// What is at a path of the API; nothing if it does not exist or the server does not answer.
    pub fn find(&self, path: &str) -> Option<Value> {
        match self.ask("GET", path, &Value::Null) {
            Ok((200, value)) => Some(value),
            _ => None,
        }
    }

    /// What is at a path of the API.
    pub fn get(&self, path: &str) -> Value {
        self.must("GET", path, &Value::Null)
    }

    /// Creates an object in a collection.
    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.must("POST", path, object)
    }

    /// Merges a change into an object.
    pub fn merge(&self, path: &str, change: &Value) -> Value {
        self.must("PATCH", path, change)
    }

    /// Deletes an object.
    pub fn delete(&self, path: &str) {
        self.must("DELETE", path, &Value::Null);
    }

    /// A request that must succeed.
    pub fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        match self.ask(method, path, body) {
            Ok((200..=299, value)) => value,
            other => panic!("{method} {path}: {other:?}"),
        }
    }

    /// A new namespace whose name begins like this.
    pub fn namespace(&self, prefix: &str) -> Namespace<'_> {
        let name = format!("{prefix}-{}", self.number.fetch_add(1, SeqCst));
        Namespace::create(self, name)
    }

    /// A kubeconfig with the rights of a service account, for an hour.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token(namespace, account);
        let file = self.state.join(format!("{namespace}-{account}.kubeconfig"));
        std::fs::write(&file, kubeconfig(&self.ca, &json!({"token": token}))).unwrap();
        file
    }

    /// Puts a service account where a pod has it; returns the environment that a pod has besides.
    /// There is one place only.
    pub fn as_in_a_pod(&self, namespace: &str, account: &str) -> [(&'static str, String); 3] {
        let directory = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("token"), self.token(namespace, account)).unwrap();
        std::fs::write(directory.join("namespace"), namespace).unwrap();
        std::fs::copy(self.state.join("ca.pem"), directory.join("ca.crt")).unwrap();
        [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", crate::api::PORT.to_string()),
            ("HOME", "/nowhere".to_owned()),
        ]
    }

    /// A token of a service account, for an hour.
    pub fn token(&self, namespace: &str, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.create(&path, &json!({"spec": {"expirationSeconds": 3600}}));
        answer["status"]["token"].as_str().unwrap().to_owned()
    }
}

impl Process {
    /// Waits until it is; fails with the end of its log.
    fn becomes_ready(&mut self, name: &str, ready: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = std::fs::read(&self.log).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<_> = log.lines().rev().take(LOG_LINES).collect();
                let last: Vec<_> = lines.into_iter().rev().collect();
                let what = ended.map_or("is not ready in time".into(), |s| format!("ended: {s}"));
                bail!("{name} {what}; its log ends so:\n{}", last.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Writes the certificates and keys into a directory, and the administrator's kubeconfig.
fn certify(directory: &Path) -> Result<(Api, String)> {
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text);
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "gibbon-tests");
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut server = CertificateParams::new(names.map(String::from))?;
    let addresses = [Ipv4Addr::LOCALHOST, ADDRESS, FIRST_CLUSTER_IP];
    server.subject_alt_names.extend(addresses.map(|ip| SanType::IpAddress(IpAddr::V4(ip))));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;

    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.distinguished_name.push(DnType::CommonName, "admin");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let admin_key = KeyPair::generate()?;
    let admin_certificate = admin.signed_by(&admin_key, &issuer)?;

    let accounts = KeyPair::generate()?;
    write("ca.pem", &ca_certificate.pem())?;
    write("server.pem", &server.signed_by(&server_key, &issuer)?.pem())?;
    write("server.key", &server_key.serialize_pem())?;
    write("accounts.key", &accounts.serialize_pem())?;
    write("accounts.pub", &accounts.public_key_pem())?;
    write("admin.pem", &admin_certificate.pem())?;
    write("admin.key", &admin_key.serialize_pem())?;
    let ca = directory.join("ca.pem").display().to_string();
    let user = json!({
        "client-certificate": directory.join("admin.pem"),
        "client-key": directory.join("admin.key"),
    });
    write("admin.kubeconfig", &kubeconfig(&ca, &user))?;
    let own = admin_certificate.der().clone();
    Ok((Api::new(ca_certificate.der().clone(), own, &admin_key.serialize_der()), ca))
}

/// JSON, which is YAML.
fn kubeconfig(ca: &str, user: &Value) -> String {
    let cluster =
        json!({"server": format!("https://127.0.0.1:{PORT}"), "certificate-authority": ca});
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": user}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "current-context": "tests",
    });
    config.to_string()
}

/// Whether an object has a condition of this type that is true.
pub fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Waits for what comes true by itself.
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !probe() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
