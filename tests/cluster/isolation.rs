//! Namespaces for the network, mounts and processes: nothing gets out, several copies do not meet, and
//! nothing stays behind when the tests end or are killed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

/// The folder with the programs; set in the copy of this program that runs inside.
const TOOLS: &str = "GIBBON_CLUSTER_TOOLS";
/// Where that copy leaves the logs if a test fails.
const LOGS: &str = "GIBBON_CLUSTER_LOGS";

/// `unshare`'s flags, for root and for others.
const ROOT: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const USER: &[&str] = &["--user", "--map-root-user"];

const NEEDED: &str = "The cluster tests need namespaces of their own: run them as root with \
    CAP_SYS_ADMIN, or where unprivileged user namespaces are allowed \
    (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
    kernel.apparmor_restrict_unprivileged_userns).";

/// Addresses for the API server and for pods: TEST-NET-3. On the loopback device all of them can be
/// bound, and a kernel needs no driver for it.
const ADDRESSES: &str = "203.0.113.1/24";
/// One of IPv6 (RFC 3849).
const ADDRESS_6: &str = "2001:db8::6/128";

/// The congestion control of the network namespace.
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// What is known inside.
pub struct Inside {
    /// etcd, kube-apiserver, kube-controller-manager, kubectl, helm.
    pub tools: PathBuf,
    /// Ends with the namespaces.
    pub state: PathBuf,
    kept_logs: PathBuf,
}

/// Runs this program again, inside, and returns its exit code. Builds the control plane if it is not
/// there.
pub fn enter() -> ExitCode {
    exit_code(control_plane().and_then(|tools| run_inside(&tools)))
}

/// Like `enter`, for those that need no control plane.
pub fn enter_alone() -> ExitCode {
    exit_code(run_inside(""))
}

fn exit_code(ran: Result<ExitCode>) -> ExitCode {
    ran.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn control_plane() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane");
    let built = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(built.status.success(), "tests/control-plane has failed");
    Ok(String::from_utf8(built.stdout)?)
}

fn run_inside(tools: &str) -> Result<ExitCode> {
    let logs = temporary().join(format!("cluster-logs-{}", std::process::id()));
    let flags = [ROOT.to_vec(), [ROOT, USER].concat()];
    let flags = flags.iter().find(|flags| allowed(flags)).context(NEEDED)?;
    let mut inner = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(TOOLS, tools.trim())
        .env(LOGS, logs)
        // Never written to. It ends with this process, however that ends.
        .stdin(Stdio::piped())
        .spawn()?;
    let _open = inner.stdin.take();
    let code = inner.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn allowed(flags: &[&str]) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(flags).arg("true").stdin(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn temporary() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

impl Inside {
    /// Nothing, unless this process runs inside.
    pub fn from_environment() -> Option<Self> {
        let tools = std::env::var_os(TOOLS)?.into();
        let kept_logs = std::env::var_os(LOGS)?.into();
        Some(Self { tools, state: temporary().join("cluster"), kept_logs })
    }

    /// Sets the network up, and a file system for the state that ends with the namespaces.
    pub fn prepare(&self) -> Result<()> {
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            // The first process of its namespace: all others end with it.
            std::process::exit(1);
        });
        std::fs::create_dir_all(&self.state)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs"])
            .arg(&self.state))?;
        // For what a pod finds below /var/run/secrets.
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]))?;
        std::fs::create_dir(self.logs())?;
        run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        run(Command::new("ip").args(["address", "add", ADDRESSES, "dev", "lo"]))?;
        run(Command::new("ip").args(["-6", "address", "add", ADDRESS_6, "dev", "lo", "nodad"]))
    }

    /// A log for each process.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Copies the logs to where they can be read afterwards.
    pub fn keep_logs(&self) {
        let copied = Command::new("cp").arg("-r").arg(self.logs()).arg(&self.kept_logs).status();
        if copied.is_ok_and(|status| status.success()) {
            eprintln!("The control plane's logs are in {}", self.kept_logs.display());
        }
    }
}

/// Has TCP send what it can at once: a host's BBR paces even what stays on the machine. For this
/// program's own network only: call it inside.
pub fn without_pacing() -> Result<()> {
    std::fs::write(CONGESTION, "reno").context(CONGESTION)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
