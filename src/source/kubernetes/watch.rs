//! Watches: each follows one kind of object in one namespace or in all, through every outage.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use prometheus::IntGauge;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;

use super::store::{Change, Update};

/// How long to wait before the next try, at first and at most: an API server that is back should
/// not be waited for.
const FIRST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(4);

/// When the API server was last heard of. Clones are the same.
#[derive(Clone, Debug)]
pub struct Contact {
    began: Instant,
    /// Milliseconds after `began`, plus one; 0 is never.
    at: Arc<AtomicU64>,
    gauge: IntGauge,
}

impl Contact {
    /// It was not heard of yet; the gauge gets the seconds since 1970 of each time that it is.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self { began: Instant::now(), at: Arc::default(), gauge }
    }

    /// It has said something.
    pub fn heard(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.at.store(millis + 1, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.gauge.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// For how long it has been silent; none if it was never heard.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        let millis = self.at.load(Relaxed).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(millis)))
    }
}

/// What watches tell, and where to.
#[derive(Clone, Debug)]
pub struct Ears {
    /// Changes, by the number of the watch.
    pub changes: UnboundedSender<(usize, Told)>,
    /// When the API server was last heard.
    pub contact: Contact,
}

/// One thing that a watch tells.
#[derive(Debug)]
pub enum Told {
    /// A change of the cluster.
    Change(Change),
    /// It cannot go on now, and tries again.
    Trouble(String),
    /// It has no right to, and tries again.
    Forbidden(String),
}

/// Follows the objects of one kind in a namespace, or in all, for ever.
pub async fn follow<K, T>(
    number: usize,
    (api, which): (Api<K>, watcher::Config),
    scope: Option<String>,
    ears: Ears,
    trim: fn(K) -> T,
    change: fn(Update<T>) -> Change,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send,
{
    let mut events = watcher(api, which).boxed();
    let mut patience = FIRST;
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let update = match event {
            // It is about to ask; nothing was heard yet.
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.push(trim(object));
                None
            }
            Ok(Event::InitDone) => Some(Update::All(scope.clone(), std::mem::take(&mut listed))),
            Ok(Event::Apply(object)) => Some(Update::One(trim(object))),
            Ok(Event::Delete(object)) => Some(Update::Gone(trim(object))),
            Err(error) => {
                let text = explain(&error);
                let forbidden = is_forbidden(&error);
                let told = if forbidden { Told::Forbidden(text) } else { Told::Trouble(text) };
                // Nobody listens any more at the end of the process.
                let _ = ears.changes.send((number, told));
                // Many Gibbons should not come back at the same moment.
                tokio::time::sleep(patience.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
                patience = (patience * 2).min(MOST);
                continue;
            }
        };
        ears.contact.heard();
        patience = FIRST;
        if let Some(update) = update
            && ears.changes.send((number, Told::Change(change(update)))).is_err()
        {
            return;
        }
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(cause) | WatchStartFailed(cause) | WatchFailed(cause)) = error else {
        return false;
    };
    matches!(cause, kube::Error::Api(status) if status.code == 403)
}

/// An error with its causes, which kube's own text leaves out.
fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = Vec::new();
    for cause in causes.map(ToString::to_string) {
        if !texts.last().is_some_and(|last| last.contains(&cause)) {
            texts.push(cause);
        }
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_that_was_heard() {
        let contact = Contact::new(IntGauge::new("contact", "x").unwrap());
        assert_eq!(contact.silence(), None);
        contact.heard();
        assert!(contact.gauge.get() > 1_700_000_000);
        assert!(contact.silence().unwrap() < Duration::from_secs(60));
    }
}
