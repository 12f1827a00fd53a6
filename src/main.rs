//! Parse arguments, start logs, run, exit code.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use gibbon::app::Source;
use gibbon::args::{Cli, Cluster, Command, ImportFrom, LogFormat, Serve};
use gibbon::proxy::Settings;
use gibbon::proxy::io::Patience;
use gibbon::proxy::log::AccessLog;
use gibbon::source::kubernetes::{Options, Publish};
use gibbon::source::names::{Answer, Resolver};
use gibbon::source::policy::{Namespaces, Policy};
use gibbon::table::access::Networks;
use gibbon::table::tls::SecretId;
use gibbon::{api, app, check, demo, dry_run, healthz, import};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Requests allocate much of the same sizes, and give it back at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end waits for the last lines of the access log to be read.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(std::io::stderr(), "gibbon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(serve) => {
            start_log(&serve.log, serve.log_format)?;
            block_on(self::serve(*serve))?;
        }
        Command::Demo(demo) => block_on(demo::run(demo))?,
        Command::Check(check) => {
            let faults = check::run(&check.files, &mut std::io::stdout().lock())?;
            return Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Explain(explain) => {
            let told = block_on(dry_run::run(&explain))?;
            std::io::stdout().write_all(&told)?;
        }
        Command::Healthz(healthz) => {
            let answer = block_on(healthz::ask(&healthz.url))?;
            std::io::stdout().write_all(&answer.text)?;
            return Ok(if answer.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Import(import) => {
            let ImportFrom::Apache(apache) = import.from;
            return if apache.replay.is_empty() {
                import::run::apache(&apache)
            } else {
                block_on(import::run::replay(&apache))
            };
        }
        Command::Crd => std::io::stdout().write_all(api::crd_yaml().as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(future)
}

fn start_log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    // What fails there is told with its reason by who has asked; `kube_client=debug` shows it again.
    let filter = EnvFilter::try_new(format!("kube_client=off,kube_runtime=error,{filter}"))
        .with_context(|| {
            format!(
                "--log {filter}: give a level (error, warn, info, debug, trace) or a list of them"
            )
        })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Each request needs two sockets, and the usual soft limit is 1,024.
fn raise_file_limit(connections: usize) {
    let wanted = 2 * connections as u64;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "fewer files may be open than --max-connections may need: raise `ulimit -Hn`"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

async fn serve(serve: Serve) -> anyhow::Result<()> {
    raise_file_limit(serve.max_connections);
    let resolver = Resolver::system().context("the system's name servers cannot be found out")?;
    for to in &serve.connect_to {
        let answer = Answer::Addresses(vec![to.address], Duration::from_secs(30));
        resolver.fix(&to.name, to.port, answer);
    }
    let log = serve.access_log.format();
    let log = log.map(|format| AccessLog::start(format, std::io::stdout())).transpose()?;
    let (access_log, writer) = log.unzip();
    let default = serve.default_certificate.as_ref().map(|(namespace, name)| SecretId {
        namespace: namespace.as_str().into(),
        name: name.as_str().into(),
    });
    let app = app::build(app::Config {
        settings: settings(&serve),
        source: source(serve.files, serve.cluster, !serve.listen_tls.is_empty(), default.clone()),
        listen: serve.listen,
        listen_tls: serve.listen_tls,
        default_certificate: serve
            .default_certificate
            .map(|(namespace, name)| SecretId { namespace: namespace.into(), name: name.into() }),
        admin: serve.admin,
        open_table: serve.admin_table,
        open_explain: serve.admin_explain,
        access_log,
        tls: None,
        resolver,
        shutdown_grace: serve.shutdown_grace,
    })
    .await?;
    for address in &app.addresses {
        tracing::info!(%address, "serving clients");
    }
    tracing::info!(address = %app.admin, "serving admin pages");
    let ran = app.run(stop(serve.shutdown_delay)).await;
    if let Some(writer) = writer {
        // The last lines are written when the last worker has ended, if anybody reads them.
        let until = tokio::time::Instant::now() + LAST_LINES;
        while !writer.is_finished() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    ran?;
    tracing::info!("ended");
    Ok(())
}

fn source(
    files: Option<PathBuf>,
    cluster: Cluster,
    tls: bool,
    default: Option<SecretId>,
) -> Source {
    if let Some(files) = files {
        return Source::Files(files);
    }
    let publish = match cluster.publish_service {
        Some((namespace, name)) => Publish::Service((namespace.into(), name.into())),
        None if cluster.publish_address.is_empty() => Publish::Nothing,
        None => Publish::Addresses(cluster.publish_address),
    };
    Source::Cluster(Box::new(Options {
        namespaces: cluster.namespaces,
        class: cluster.class,
        policy: Policy {
            any_host: Namespaces::of(&cluster.any_host),
            url_members: Namespaces::of(&cluster.url_members),
            share_hosts: cluster.share_hosts,
        },
        deny: cluster.deny_members,
        own: cluster.own_addresses,
        publish,
        lease_namespace: cluster.lease_namespace,
        lease_name: cluster.lease_name,
        identity: cluster.identity.unwrap_or_else(identity),
        tls,
        default_certificate: default,
    }))
}

/// The name of the host, and the number of the process, for there may be several.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

fn settings(serve: &Serve) -> Settings {
    Settings {
        trusted: Networks::new(serve.trusted_proxies.clone()),
        announcing: Networks::new(serve.proxy_protocol.clone()),
        max_connections: serve.max_connections,
        max_handshakes: serve.max_handshakes,
        max_head: serve.max_head,
        max_headers: serve.max_headers,
        patience: Patience {
            head: serve.head_timeout,
            idle: serve.idle_timeout,
            write: serve.body_timeout,
        },
        body_timeout: serve.body_timeout,
        public_https_port: serve.public_https_port,
        workers: serve.workers,
        new_traces: serve.traceparent.new_traces(),
        explain_sample: serve.explain_sample,
        explain_keep: serve.explain_keep,
    }
}

/// Ready at the first SIGTERM or SIGINT, with the time to go on accepting: none on Ctrl-C, when
/// somebody waits. A second signal ends the process at once.
async fn stop(delay: Duration) -> Duration {
    let signals = signal(SignalKind::terminate())
        .and_then(|term| signal(SignalKind::interrupt()).map(|interrupt| (term, interrupt)));
    let (mut term, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be heard; only SIGKILL ends this process");
            return std::future::pending().await;
        }
    };
    let delay = tokio::select! {
        _ = term.recv() => delay,
        _ = interrupt.recv() => Duration::ZERO,
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: ending at once");
        std::process::exit(1);
    });
    delay
}
