//! `gibbon demo`: the article's site in one command, with members and visitors of its own, and
//! Gibbon in front.

mod authority;
mod live;
mod members;
mod picture;
mod screen;
mod tips;
mod traffic;

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::app::{self, App, Config, Source};
use crate::args::Demo;
use crate::proxy::Settings;
use crate::source::names::{Answer, Resolver};
use crate::table::Table;
use crate::table::tls::SecretId;
use members::Members;
use picture::{History, Picture};
use screen::{Pressed, Screen};
use tips::Tip;
use traffic::Visits;

/// The article's Balancers.
const BALANCERS: &str = include_str!("../../examples/site/balancers.yaml");
/// The name of the Secret with the demo's own certificate.
const CERTIFICATE: &str = "demo";
/// Between two pictures on a screen, and between two lines.
const REDRAW: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(1);
/// What is under way may take this long at the end.
const GRACE: Duration = Duration::from_secs(1);
/// How long the members' addresses hold; they do not change.
const TTL: Duration = Duration::from_secs(30);

/// Runs the demo until somebody ends it, or its time is over.
///
/// # Errors
/// When an address is in use, or the terminal cannot be used.
pub async fn run(args: Demo) -> anyhow::Result<()> {
    let members = Members::start().context("the members cannot be started")?;
    let files = Files::write(args.tls.is_some()).context("the Balancers cannot be written")?;
    let app = app::build(config(&args, &members, &files)).await.map_err(explain)?;
    let mut show = Show::new(&app, members, &files, args.tls.is_some());
    let health = Arc::clone(&app.health);
    let mut shown = Ok(());
    let stop = async {
        shown = tokio::select! {
            ended = ended(args.r#for) => ended,
            shown = show.run(&args, || health.is_ready()) => shown,
        };
        Duration::ZERO
    };
    app.run(stop).await?;
    // Whoever closed the pipe has seen enough.
    or_closed(shown.and_then(|()| say(&show.picture().summary(show.began.elapsed()))))
}

/// Ready at a signal, or when the time is over.
async fn ended(limit: Option<Duration>) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let over = async {
        match limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
        () = over => {}
    }
    Ok(())
}

fn or_closed(written: anyhow::Result<()>) -> anyhow::Result<()> {
    let closed = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
    written.or_else(|error| match error.downcast_ref() {
        Some(cause) if closed(cause) => Ok(()),
        _ => Err(error),
    })
}

/// Says what to do about an address that is in use.
fn explain(error: anyhow::Error) -> anyhow::Error {
    match error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(ErrorKind::AddrInUse) => {
            error.context("another program uses this address; choose another with the flag")
        }
        _ => error,
    }
}

fn config(args: &Demo, members: &Members, files: &Files) -> Config {
    let resolver = Resolver::default();
    for member in &members.all {
        resolver.fix(&member.host(), 80, Answer::Addresses(vec![member.address], TTL));
    }
    // No member wants TLS, so a machine without certificates will do.
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Config {
        source: Source::Files(files.0.clone()),
        listen: vec![args.listen],
        listen_tls: args.tls.into_iter().collect(),
        default_certificate: args
            .tls
            .map(|_| SecretId { namespace: "site".into(), name: CERTIFICATE.into() }),
        admin: args.admin,
        open_table: false,
        open_explain: false,
        settings: Settings::default(),
        access_log: None,
        tls: Some(tls),
        resolver,
        shutdown_grace: GRACE,
    }
}

/// What is shown, and what can be touched.
#[derive(Debug)]
struct Show {
    members: Members,
    table: Arc<ArcSwap<Table>>,
    visits: Arc<Visits>,
    history: History,
    tips: Vec<Tip>,
    public: std::net::SocketAddr,
    began: Instant,
}

impl Show {
    fn new(app: &App, members: Members, files: &Files, tls: bool) -> Self {
        let public = app.addresses[0];
        let mut tips = tips::tips(public, app.admin, &files.balancers());
        if let Some(secure) = app.addresses.get(1).filter(|_| tls) {
            tips.insert(0, tips::by_tls(*secure, &files.authority()));
        }
        Self {
            members,
            table: Arc::clone(&app.table),
            visits: Arc::default(),
            history: History::default(),
            tips,
            public: tips::reach(public),
            began: Instant::now(),
        }
    }

    /// Sends visitors as soon as the site is up, and shows what happens.
    async fn run(&mut self, args: &Demo, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        while !ready() {
            sleep(Duration::from_millis(5)).await;
        }
        let _traffic = traffic::start(self.public, args.rate, &self.visits)?;
        if io::stdout().is_terminal() && io::stdin().is_terminal() && !args.lines {
            self.screen().await
        } else {
            self.lines().await
        }
    }

    fn picture(&self) -> Picture {
        Picture::take(&self.members.all, &self.table.load(), &self.visits)
    }

    fn rated(&mut self) -> Picture {
        let mut picture = self.picture();
        self.history.rate(&mut picture, Instant::now());
        picture
    }

    async fn screen(&mut self) -> anyhow::Result<()> {
        let mut screen = Screen::open().context("the terminal cannot be used; try --lines")?;
        let mut ticks = interval(REDRAW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                pressed = screen.key(&self.members.all) => if pressed == Pressed::Quit {
                    return Ok(());
                },
            }
            let picture = self.rated();
            screen.draw(&picture, &self.tips)?;
        }
    }

    async fn lines(&mut self) -> anyhow::Result<()> {
        for tip in &self.tips {
            say(&format!("# {}\n{}", tip.says, tip.command))?;
        }
        let mut ticks = interval(LINE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.rated();
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let line = self.rated().compact(self.began.elapsed());
            say(&line)?;
        }
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// A directory of the demo's own, removed when it is dropped.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn write(tls: bool) -> anyhow::Result<Self> {
        let name = format!("gibbon-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let files = Self(path);
        fs::write(files.balancers(), BALANCERS)?;
        if tls {
            let (authority, secret) = authority::make(CERTIFICATE, &["www.site.com", "localhost"])?;
            fs::write(files.authority(), authority)?;
            fs::write(files.0.join("certificate.yaml"), secret)?;
        }
        Ok(files)
    }

    /// What a client has to trust.
    fn authority(&self) -> PathBuf {
        self.0.join("authority.pem")
    }

    fn balancers(&self) -> PathBuf {
        self.0.join("balancers.yaml")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "cannot be removed");
        }
    }
}

/// A thread with a runtime of its own, so that it does not disturb what is measured. Dropping it
/// ends it.
#[derive(Debug)]
struct Thread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn start<F: Future<Output = ()>>(
        name: &str,
        future: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Self> {
        let runtime =
            || Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let (stop, stopped) = oneshot::channel();
        let run = move || match runtime() {
            Ok(runtime) => runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = future() => {}
                }
            }),
            Err(error) => tracing::error!(%error, "a thread of the demo cannot run"),
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        // If it panicked, it has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_names_the_flag_to_change() {
        let error = io::Error::from(ErrorKind::AddrInUse);
        let error = anyhow::Error::from(error).context("--admin 127.0.0.1:9090 cannot be bound");
        let text = format!("{:#}", explain(error));
        assert!(text.starts_with("another program uses this address; choose another"), "{text}");
        assert!(text.contains("--admin 127.0.0.1:9090"), "{text}");
    }

    #[test]
    fn the_directory_goes_with_the_demo() {
        let files = Files::write(false).unwrap();
        let path = files.0.clone();
        assert!(path.join("balancers.yaml").is_file());
        drop(files);
        assert!(!path.exists());
    }
}
