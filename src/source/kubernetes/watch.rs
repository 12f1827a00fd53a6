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
/// A trouble without another error for so long is over: the time between two tries, and for an answer.
const LASTING: Duration = Duration::from_secs(15);
/// How long a watch without rights is waited for. An API server that begins refuses everybody.
const SHUT_OUT: Duration = Duration::from_secs(15);

/// When the API server was last heard of. Clones are the same.
#[derive(Clone, Debug)]
pub struct Contact {
    began: Instant,
    /// Milliseconds after `began`, plus one; 0 is never.
    at: Arc<AtomicU64>,
    gauge: IntGauge,
}

impl Contact {
    /// It was not heard of yet; the gauge gets seconds since 1970.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self { began: Instant::now(), at: Arc::default(), gauge }
    }

    /// It has said something.
    pub fn heard(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        if self.at.swap(millis + 1, Relaxed) == 0 {
            self.tell(Duration::ZERO);
        }
    }

    /// For how long it has been silent; none if it was never heard.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        let millis = self.at.load(Relaxed).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(millis)))
    }

    /// Tells by the gauge how old is what is known.
    pub fn tell(&self, age: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let then = now.saturating_sub(age).as_secs();
        self.gauge.set(i64::try_from(then).unwrap_or(i64::MAX));
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

/// A watch, as far as it is known how it fares.
#[derive(Debug)]
pub struct Watched {
    /// What it follows.
    pub name: String,
    /// The namespace in which it does; all if none.
    pub scope: Option<String>,
    /// It has told all there is, once.
    pub heard: bool,
    /// Others do not wait for it: it is never heard, for want of rights.
    pub excused: bool,
    trouble: Option<Trouble>,
}

/// Errors of a watch, one after the other.
#[derive(Debug)]
struct Trouble {
    error: String,
    forbidden: bool,
    since: Instant,
    at: Instant,
}

impl Watched {
    /// One that was not heard of yet.
    #[must_use]
    pub const fn new(name: String, scope: Option<String>) -> Self {
        Self { name, scope, heard: false, excused: false, trouble: None }
    }

    /// It has told something; true if it was in trouble before.
    pub fn told(&mut self, is_all: bool) -> bool {
        self.heard |= is_all;
        self.excused &= !is_all;
        self.trouble.take().is_some()
    }

    /// It cannot go on; true if that is news.
    pub fn failed(&mut self, error: String, forbidden: bool, now: Instant) -> bool {
        let since = self.trouble(now).map_or(now, |trouble| trouble.since);
        let trouble = Trouble { error, forbidden, since, at: now };
        let before = self.trouble.replace(trouble);
        before.is_none_or(|before| self.trouble.as_ref().is_some_and(|t| t.error != before.error))
    }

    /// Its trouble, while it lasts: a watch that is well again says so only when something changes.
    fn trouble(&self, now: Instant) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|t| now.saturating_duration_since(t.at) < LASTING)
    }

    /// What is wrong with it now.
    #[must_use]
    pub fn error(&self, now: Instant) -> Option<&str> {
        self.trouble(now).map(|trouble| trouble.error.as_str())
    }

    /// How old is what it has told, if that is not news.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let trouble = self.trouble(now).filter(|_| !self.excused)?;
        Some(now.saturating_duration_since(trouble.since))
    }

    /// Whether it has had no right for so long that it is not only the API server's beginning.
    #[must_use]
    pub fn is_shut_out(&self, now: Instant) -> bool {
        let shut = |t: &Trouble| t.forbidden && now.saturating_duration_since(t.since) >= SHUT_OUT;
        !self.heard && self.trouble(now).is_some_and(shut)
    }
}

/// Which of the watches nobody has to wait for: those that are shut out, once all is heard of some
/// namespace. One closed namespace must not keep the others waiting, nor may an API server that knows
/// no rights yet make an empty table of all.
pub fn excuse(watches: &mut [Watched], now: Instant) {
    let is_known = watches
        .iter()
        .any(|of| watches.iter().filter(|watch| watch.scope == of.scope).all(|watch| watch.heard));
    for watch in watches.iter_mut().filter(|watch| is_known && watch.is_shut_out(now)) {
        watch.excused = true;
    }
}

/// One thing that a watch tells.
#[derive(Debug)]
pub enum Told {
    /// A change of the cluster.
    Change(Change),
    /// It cannot go on now, perhaps for want of rights, and tries again.
    Trouble {
        /// Why.
        error: String,
        /// Whether it has no right to.
        forbidden: bool,
    },
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
                let told =
                    Told::Trouble { error: explain(&error), forbidden: is_forbidden(&error) };
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

/// What the API server says, or else the error with its causes, which kube's own text leaves out.
#[must_use]
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let said = causes.clone().find_map(|cause| match cause.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status.message.clone()),
        _ => None,
    });
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        return said;
    }
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

    const SECOND: Duration = Duration::from_secs(1);

    fn watched(scope: &str) -> Watched {
        Watched::new(format!("services in {scope}"), Some(scope.to_owned()))
    }

    #[test]
    fn a_watch_is_as_old_as_the_first_of_its_errors() {
        let now = Instant::now();
        let mut watch = watched("shop");
        assert!(watch.failed("away".into(), false, now));
        assert!(!watch.failed("away".into(), false, now + 5 * SECOND));
        assert!(watch.failed("forbidden".into(), true, now + 10 * SECOND));
        assert_eq!(watch.age(now + 12 * SECOND), Some(12 * SECOND));
        assert_eq!(watch.error(now + 12 * SECOND), Some("forbidden"));
        // Well again, or at least without errors.
        assert_eq!(watch.age(now + 30 * SECOND), None);
        assert!(watch.failed("away".into(), false, now + 40 * SECOND));
        assert_eq!(watch.age(now + 41 * SECOND), Some(SECOND));
        assert!(watch.told(false) && watch.age(now + 41 * SECOND).is_none());
    }

    #[test]
    fn who_is_shut_out_is_excused_once_all_of_a_namespace_is_known() {
        let now = Instant::now();
        let later = now + SHUT_OUT;
        let mut watches = [watched("shop"), watched("blog"), watched("blog")];
        let fail = |watches: &mut [Watched], at| {
            for watch in watches.iter_mut().filter(|watch| !watch.heard) {
                watch.failed("forbidden".into(), true, at);
            }
        };
        fail(&mut watches, now);
        fail(&mut watches, now + 10 * SECOND);
        fail(&mut watches, later);
        excuse(&mut watches, later);
        assert!(watches.iter().all(|watch| !watch.excused), "nothing is known");
        watches[1].told(true);
        excuse(&mut watches, later);
        assert!(watches.iter().all(|watch| !watch.excused), "no namespace is");
        watches[2].told(true);
        excuse(&mut watches, now + 5 * SECOND);
        assert!(!watches[0].excused, "too early");
        excuse(&mut watches, later);
        assert!(watches[0].excused && !watches[1].excused);
        assert_eq!(watches[0].age(later), None);
        watches[0].told(true);
        assert!(!watches[0].excused);
    }

    #[test]
    fn silence_is_counted_from_the_last_that_was_heard() {
        let contact = Contact::new(IntGauge::new("contact", "x").unwrap());
        assert_eq!(contact.silence(), None);
        contact.heard();
        assert!(contact.silence().unwrap() < Duration::from_secs(60));
        let first = contact.gauge.get();
        assert!(first > 1_700_000_000, "it is told at once");
        contact.tell(Duration::from_secs(10));
        assert!(contact.gauge.get() < first);
    }
}
