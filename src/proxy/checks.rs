//! Asks members whether they are well, as their rules want it. One thread does it for all workers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http_body_util::{BodyExt, Limited};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::body::Upload;
use super::headers::Added;
use super::upstream::dial::{Dial, Made};
use super::upstream::message::Message;
use super::{Phase, Shared};
use crate::table::checks::{Checked, Question};
use crate::table::load::Failure;
use crate::table::upstream::ClientConfigs;
use crate::table::{Member, Route, Table};

/// How often it is looked whether there is another table.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of an answer's body that are read, so that the connection can be used again.
const MOST_BODY: usize = 64 * 1024;
/// What members may read who it is that asks.
const USER_AGENT: &str = "gibbon-health-check";

/// Checks what the table wants checked, until everything ends.
pub async fn follow(shared: Arc<Shared>, mut phases: watch::Receiver<Phase>) {
    let mut running: HashMap<*const Checked, Check> = HashMap::new();
    let mut seen: Option<Arc<Table>> = None;
    while *phases.borrow() < Phase::Ended {
        let table = shared.table.load_full();
        if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &table)) {
            let wanted: HashMap<_, _> =
                checks(&table).map(|checked| (Arc::as_ptr(checked), checked)).collect();
            running.retain(|key, _| wanted.contains_key(key));
            for (key, checked) in wanted {
                running.entry(key).or_insert_with(|| Check::begin(checked, &shared));
            }
            seen = Some(table);
        }
        // A sender that is gone ends it as well.
        if matches!(timeout(LOOK, phases.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

fn checks(table: &Table) -> impl Iterator<Item = &Arc<Checked>> {
    let checked = table.routes.iter().filter(|route| route.rule.health.is_some());
    let members = checked.flat_map(|route: &Arc<Route>| &route.members);
    members.filter_map(|member: &Member| member.checked.as_ref())
}

/// The checks of one member; they end with it.
struct Check {
    /// Keeps the address of its key from another.
    _checked: Arc<Checked>,
    task: JoinHandle<()>,
}

impl Check {
    fn begin(checked: &Arc<Checked>, shared: &Arc<Shared>) -> Self {
        let task = spawn_local(check(Arc::clone(checked), Arc::clone(shared)));
        Self { _checked: Arc::clone(checked), task }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn check(checked: Arc<Checked>, shared: Arc<Shared>) {
    let checkup = &checked.checkup;
    let interval = checkup.check.interval;
    let mut line = Line { checked: &checked, system: &shared.system, made: None };
    // Members of one table are not all asked at once, but for those that nobody may use before.
    if !checkup.check.pass_first {
        sleep(interval.mul_f64(fastrand::f64())).await;
    }
    let mut next = Instant::now();
    loop {
        let result = timeout(checkup.check.timeout, line.ask()).await;
        let result = result.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if result.is_err() {
            line.made = None;
        }
        let address = checkup.address;
        match (checked.record(result.is_ok()), &result) {
            (true, Ok(())) => tracing::info!(%address, "member passes its health check"),
            (true, Err(why)) => tracing::warn!(%address, why, "member fails its health check"),
            (false, Err(why)) => tracing::debug!(%address, why, "a health check failed"),
            (false, Ok(())) => {}
        }
        next = (next + interval).max(Instant::now());
        sleep_until(next).await;
    }
}

/// The way to a member, with the connection that was used last.
struct Line<'c> {
    checked: &'c Checked,
    system: &'c ClientConfigs,
    made: Option<Made>,
}

impl Line<'_> {
    /// One check.
    async fn ask(&mut self) -> Result<(), String> {
        let Some(question) = &self.checked.checkup.check.ask else {
            return self.dial()?.reach().await.map(drop).map_err(said);
        };
        let kept = self.made.take().filter(Made::is_ready);
        let reused = kept.is_some();
        let made = match kept {
            Some(made) => made,
            None => self.open().await?,
        };
        match self.exchange(made, question).await {
            // The member may close a connection that it does not use; that says nothing of it.
            Err(Broken::Connection(_)) if reused => {
                let made = self.open().await?;
                self.exchange(made, question).await.map_err(Broken::reason)
            }
            result => result.map_err(Broken::reason),
        }
    }

    async fn exchange(&mut self, made: Made, question: &Question) -> Result<(), Broken> {
        let checkup = &self.checked.checkup;
        let mut head = HeaderMap::new();
        head.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let target = checkup.uri(question).into_parts().path_and_query;
        let message = Message {
            method: &question.method,
            target: Cow::Owned(target.unwrap_or(PathAndQuery::from_static("/"))),
            head: &head,
            added: &Added::default(),
            host: question.host.as_ref().unwrap_or(&checkup.host),
            upgrade: None,
            upload: Upload::none(),
        };
        let broken = |failure| Broken::Connection(said(failure));
        let response = made.ask(&message, checkup).await.map_err(broken)?;
        let status = response.status();
        if !question.accepts(status.as_u16()) {
            return Err(Broken::Answer(format!("status {}", status.as_u16())));
        }
        let body = Limited::new(response.into_body(), MOST_BODY).collect().await;
        // The rest of a longer one is not worth the connection.
        if body.is_ok() {
            self.made = Some(made);
        }
        Ok(())
    }

    fn dial(&self) -> Result<Dial, String> {
        Dial::to_check(&self.checked.checkup, self.system).map_err(said)
    }

    async fn open(&self) -> Result<Made, String> {
        self.dial()?.connect(None).await.map_err(said)
    }
}

fn said(failure: Failure) -> String {
    failure.reason().replace('_', " ")
}

/// What went wrong with a check.
enum Broken {
    Connection(String),
    Answer(String),
}

impl Broken {
    fn reason(self) -> String {
        let (Self::Connection(why) | Self::Answer(why)) = self;
        why
    }
}
