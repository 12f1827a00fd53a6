//! Writes statuses, as the leader only, and nothing where nothing changed. What fails here is tried
//! again and never touches what is being served.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Error};
use prometheus::IntCounterVec;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::CONDITIONS;
use crate::api::{Balancer, BalancerStatus, MemberCounts};
use crate::source::kubernetes::watch::explain;
use crate::table::RuleId;

/// Statuses written at once.
const AT_ONCE: usize = 8;
/// Statuses written before it is looked again what is wanted.
const BATCH: usize = 200;
/// How long a write may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long before one that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often one object's counts are written, where nothing else has changed.
const COUNTS: Duration = Duration::from_secs(5);
/// How long a status that was written may take to be seen.
const ECHO: Duration = Duration::from_secs(10);
/// The most that an Event's note may hold.
const NOTE: usize = 1000;

/// The status that a Balancer should have, where it is another than the one that was seen.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose.
    pub id: RuleId,
    /// Tells it from another of the same name.
    pub uid: String,
    /// The version of it that this is thought of.
    pub version: String,
    /// Its status as it was seen; none for one that cannot be read.
    pub seen: Option<BalancerStatus>,
    /// The status that it should have.
    pub status: BalancerStatus,
}

impl Wanted {
    /// Whether what was written is to be taken back, and what others have written stays.
    fn withdraws(&self) -> bool {
        self.status == BalancerStatus::default()
    }
}

#[derive(Debug)]
struct Written {
    uid: String,
    status: BalancerStatus,
    at: Instant,
}

/// Writes statuses.
pub struct Writer {
    scribe: Scribe,
    count: IntCounterVec,
    written: HashMap<RuleId, Written>,
    /// Those that were not written, and are not tried again yet.
    held: HashMap<RuleId, Hold>,
    /// It was said that none can be written.
    warned: bool,
}

/// Why a status waits.
#[derive(Debug)]
struct Hold {
    /// Only this version of the Balancer waits, which is outdated; if none, any does.
    version: Option<String>,
    until: Instant,
}

/// What to do about a status now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Write,
    At(Instant),
}

impl Writer {
    /// One that writes as this field manager, and counts by `result`.
    #[must_use]
    pub fn new(client: Client, manager: String, identity: String, count: IntCounterVec) -> Self {
        let reporter = Reporter { controller: manager.clone(), instance: Some(identity) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            scribe: Scribe { client, manager, recorder },
            count,
            written: HashMap::new(),
            held: HashMap::new(),
            warned: false,
        }
    }

    /// Writes what is wanted, whenever it leads, for ever.
    pub async fn run(
        mut self,
        mut wanted: watch::Receiver<Arc<Vec<Wanted>>>,
        mut leader: watch::Receiver<bool>,
    ) {
        loop {
            if !*leader.borrow_and_update() {
                // What was thought of before it leads again is of another time.
                wanted.mark_unchanged();
                if leader.wait_for(|leads| *leads).await.is_err() || wanted.changed().await.is_err()
                {
                    return;
                }
            }
            let all = Arc::clone(&wanted.borrow_and_update());
            let due = self.write_all(&all).await;
            let later = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                changed = leader.changed() => if changed.is_err() { return },
                () = sleep_until(later) => {}
            }
        }
    }

    /// Returns when there is more to do, if nothing changes until then.
    async fn write_all(&mut self, all: &[Wanted]) -> Option<Instant> {
        let now = Instant::now();
        self.held.retain(|_, hold| hold.until > now);
        let mut due: Option<Instant> = None;
        let mut jobs = Vec::new();
        for wanted in all {
            match self.step(wanted, now) {
                Step::Nothing => {}
                Step::Write if jobs.len() == BATCH => due = Some(now),
                Step::Write => jobs.push(self.scribe.clone().write(wanted.clone())),
                Step::At(at) => due = Some(due.map_or(at, |due| due.min(at))),
            }
        }
        let results: Vec<_> = stream::iter(jobs).buffer_unordered(AT_ONCE).collect().await;
        for (wanted, result) in results {
            let label = match result {
                Ok(true) => "written",
                Ok(false) => "outdated",
                Err(_) => "failed",
            };
            self.count.with_label_values(&[label]).inc();
            match result {
                // It has changed or gone: what becomes of that is thought over when it is seen.
                Ok(false) => {
                    let hold = Hold { version: Some(wanted.version), until: Instant::now() + ECHO };
                    self.held.insert(wanted.id, hold);
                }
                Ok(true) => {
                    self.warned = false;
                    let Wanted { id, uid, status, .. } = wanted;
                    self.written.insert(id, Written { uid, status, at: Instant::now() });
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(balancer = %wanted.id, error, "statuses cannot be written now");
                    }
                    tracing::debug!(balancer = %wanted.id, error, "a status could not be written");
                    let until = Instant::now() + RETRY;
                    self.held.insert(wanted.id, Hold { version: None, until });
                    due = Some(due.map_or(until, |due| due.min(until)));
                }
            }
        }
        if self.written.len() > 2 * all.len() + 16 {
            let all: HashSet<_> = all.iter().map(|wanted| &wanted.id).collect();
            self.written.retain(|id, written| all.contains(id) || written.at.elapsed() < ECHO);
        }
        due
    }

    fn step(&self, wanted: &Wanted, now: Instant) -> Step {
        if wanted.seen.as_ref().is_some_and(|seen| is_alike(seen, &wanted.status)) {
            return Step::Nothing;
        }
        if let Some(Hold { version, until }) = self.held.get(&wanted.id)
            && version.as_ref().is_none_or(|version| *version == wanted.version)
        {
            return Step::At(*until);
        }
        let written = self.written.get(&wanted.id).filter(|w| w.uid == wanted.uid);
        let Some(written) = written else { return Step::Write };
        let echo = written.at + ECHO;
        if is_alike(&written.status, &wanted.status) {
            // It was written, and is not seen yet; or somebody has changed it since.
            return match wanted.seen {
                Some(_) if now >= echo => Step::Write,
                Some(_) => Step::At(echo),
                None => Step::Nothing,
            };
        }
        let counts_only =
            is_alike(&without_counts(&written.status), &without_counts(&wanted.status));
        let next = written.at + COUNTS;
        if counts_only && now < next { Step::At(next) } else { Step::Write }
    }
}

/// Writes one status.
#[derive(Clone)]
struct Scribe {
    client: Client,
    manager: String,
    recorder: Recorder,
}

impl Scribe {
    /// False if it was not written, because it has changed meanwhile.
    async fn write(self, wanted: Wanted) -> (Wanted, Result<bool, String>) {
        let (namespace, name) = (&wanted.id.namespace, &wanted.id.name);
        let balancers: Api<Balancer> = Api::namespaced(self.client.clone(), namespace);
        let mut object = json!({
            "apiVersion": "gibbon.dev/v1alpha1",
            "kind": "Balancer",
            // What has changed meanwhile is thought over again before anything is written of it.
            "metadata": {"name": **name, "uid": wanted.uid, "resourceVersion": wanted.version},
            "status": if wanted.withdraws() { json!({}) } else { json!(wanted.status) },
        });
        let apply = PatchParams::apply(&self.manager).force();
        let (params, patch) = if wanted.seen.is_some() {
            (apply, Patch::Apply(object))
        } else {
            // What its status holds is not known: only what is known here is changed.
            let merge =
                PatchParams { field_manager: Some(self.manager.clone()), ..PatchParams::default() };
            let only = json!({"conditions": object["status"]["conditions"]});
            object["status"] = only;
            (merge, Patch::<Value>::Merge(object))
        };
        let result = match timeout(ANSWER, patch_status(&balancers, name, &params, &patch)).await {
            Ok(Ok(())) => {
                self.tell(&wanted).await;
                Ok(true)
            }
            Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(false),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        };
        (wanted, result)
    }

    /// Tells of the transitions by Events.
    async fn tell(&self, wanted: &Wanted) {
        let reference = ObjectReference {
            api_version: Some("gibbon.dev/v1alpha1".into()),
            kind: Some("Balancer".into()),
            name: Some(wanted.id.name.to_string()),
            namespace: Some(wanted.id.namespace.to_string()),
            uid: Some(wanted.uid.clone()),
            ..ObjectReference::default()
        };
        for event in transitions(wanted) {
            if let Ok(Err(error)) = timeout(ANSWER, self.recorder.publish(&event, &reference)).await
            {
                tracing::debug!(balancer = %wanted.id, %error, "an event could not be written");
            }
        }
    }
}

async fn patch_status(
    balancers: &Api<Balancer>,
    name: &str,
    params: &PatchParams,
    patch: &Patch<Value>,
) -> Result<(), Error> {
    // Read back as what it is, so that an object that does not parse is no failure.
    let request = kube::core::Request::new(balancers.resource_url());
    let request = request.patch_subresource("status", name, params, patch);
    let request = request.map_err(Error::BuildRequest)?;
    balancers.clone().into_client().request::<Value>(request).await.map(drop)
}

/// An Event for each condition that became true or false, or has another reason.
fn transitions(wanted: &Wanted) -> Vec<Event> {
    let before = wanted.seen.as_ref().map_or(&[][..], |seen| &seen.conditions);
    let known = |type_: &str| before.iter().find(|condition| condition.type_ == type_);
    let conditions = wanted.status.conditions.iter().filter(|condition| {
        let news = match known(&condition.type_) {
            Some(before) => before.status != condition.status || before.reason != condition.reason,
            // What is well from the beginning is told once, not for each condition.
            None => condition.status == "False" || condition.type_ == "Programmed",
        };
        news && condition.status != "Unknown"
    });
    conditions
        .map(|condition| Event {
            type_: if condition.status == "True" { EventType::Normal } else { EventType::Warning },
            reason: condition.reason.clone(),
            note: Some(condition.message.chars().take(NOTE / 4).collect()),
            action: condition.type_.clone(),
            secondary: None,
        })
        .collect()
}

/// Whether two statuses say the same, whatever their times.
#[must_use]
pub fn is_alike(a: &BalancerStatus, b: &BalancerStatus) -> bool {
    let BalancerStatus { observed_generation, ready, members, hosts, addresses, .. } = a;
    (observed_generation, ready, members) == (&b.observed_generation, &b.ready, &b.members)
        && addresses == &b.addresses
        && conditions_are_alike(a, b)
        && hosts.iter().map(|claim| &claim.host).eq(b.hosts.iter().map(|claim| &claim.host))
}

/// The same of the conditions that are Gibbon's own.
#[must_use]
pub fn conditions_are_alike(a: &BalancerStatus, b: &BalancerStatus) -> bool {
    let said = |status: &'_ BalancerStatus, type_: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_);
        found.map(|found| {
            let Condition { status, reason, message, observed_generation, .. } = found.clone();
            (status, reason, message, observed_generation)
        })
    };
    CONDITIONS.iter().all(|type_| said(a, type_) == said(b, type_))
}

fn without_counts(status: &BalancerStatus) -> BalancerStatus {
    BalancerStatus { ready: String::new(), members: MemberCounts::default(), ..status.clone() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::{Address, HostClaim};

    fn status(accepted: &str, reason: &str, ready: &str, at: i64) -> BalancerStatus {
        let condition = |type_: &str, status: &str, reason: &str| Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::from_second(at).unwrap()),
        };
        let conditions = vec![
            condition("Accepted", accepted, reason),
            condition(
                "Programmed",
                accepted,
                if accepted == "True" { "Programmed" } else { "NotAccepted" },
            ),
        ];
        BalancerStatus { conditions, ready: ready.into(), ..BalancerStatus::default() }
    }

    fn wanted(seen: Option<BalancerStatus>, status: BalancerStatus) -> Wanted {
        let id = RuleId { namespace: "site".into(), name: "app".into() };
        Wanted { id, uid: "1".into(), version: "7".into(), seen, status }
    }

    fn writer(written: Option<(BalancerStatus, Instant)>) -> Writer {
        let client =
            Client::try_from(kube::Config::new(http::Uri::from_static("http://127.0.0.1:1")));
        let count = IntCounterVec::new(prometheus::Opts::new("x", "x"), &["result"]).unwrap();
        let mut writer = Writer::new(client.unwrap(), "gibbon".into(), "one".into(), count);
        if let Some((status, at)) = written {
            let id = wanted(None, status.clone()).id;
            writer.written.insert(id, Written { uid: "1".into(), status, at });
        }
        writer
    }

    #[tokio::test]
    async fn nothing_is_written_when_nothing_changed() {
        let now = Instant::now();
        let seen = status("True", "Accepted", "2/2", 100);
        let same = wanted(Some(seen.clone()), status("True", "Accepted", "2/2", 200));
        assert_eq!(writer(None).step(&same, now), Step::Nothing);
        let other = wanted(Some(seen), status("False", "Conflicted", "2/2", 200));
        assert_eq!(writer(None).step(&other, now), Step::Write);
        // Written and not seen yet.
        let written = writer(Some((other.status.clone(), now)));
        assert_eq!(written.step(&other, now), Step::At(now + ECHO));
        // Somebody else has changed it since.
        assert_eq!(written.step(&other, now + ECHO), Step::Write);
        let unreadable = wanted(None, other.status);
        assert_eq!(written.step(&unreadable, now + ECHO), Step::Nothing);
    }

    #[tokio::test]
    async fn counts_wait_and_conditions_do_not() {
        let now = Instant::now();
        let before = status("True", "Accepted", "2/2", 100);
        let writer = writer(Some((before.clone(), now)));
        let counts = wanted(Some(before.clone()), status("True", "Accepted", "1/2", 100));
        assert_eq!(writer.step(&counts, now), Step::At(now + COUNTS));
        assert_eq!(writer.step(&counts, now + COUNTS), Step::Write);
        let condition = wanted(Some(before), status("False", "Conflicted", "1/2", 100));
        assert_eq!(writer.step(&condition, now), Step::Write);
    }

    #[tokio::test]
    async fn many_that_fail_keep_no_others_from_being_tried_and_wait_themselves() {
        let mut writer = writer(None);
        let all: Vec<_> = (0..=2 * BATCH)
            .map(|number| {
                let mut wanted =
                    wanted(Some(BalancerStatus::default()), status("True", "Accepted", "2/2", 100));
                wanted.id.name = number.to_string().into();
                wanted
            })
            .collect();
        let failed = writer.count.with_label_values(&["failed"]);
        for tried in [BATCH, 2 * BATCH, 2 * BATCH + 1] {
            writer.write_all(&all).await;
            assert_eq!(failed.get(), tried as u64);
        }
        // Nobody is tried again before it is time.
        writer.held.values_mut().for_each(|hold| hold.until += RETRY);
        let due = writer.write_all(&all).await;
        assert!(failed.get() == 2 * BATCH as u64 + 1 && due > Some(Instant::now()));
    }

    #[tokio::test]
    async fn what_is_outdated_waits_for_a_newer_version() {
        let now = Instant::now();
        let mut writer = writer(None);
        let mut wanted =
            wanted(Some(BalancerStatus::default()), status("True", "Accepted", "2/2", 100));
        let until = now + ECHO;
        writer
            .held
            .insert(wanted.id.clone(), Hold { version: Some(wanted.version.clone()), until });
        assert_eq!(writer.step(&wanted, now), Step::At(until));
        wanted.version = "8".into();
        assert_eq!(writer.step(&wanted, now), Step::Write);
    }

    #[test]
    fn statuses_are_alike_whatever_their_times_and_nothing_else() {
        let claims = |host: &str, at| {
            let claimed_at = MicroTime(Timestamp::from_second(at).unwrap());
            vec![HostClaim { host: host.into(), claimed_at }]
        };
        let base = BalancerStatus {
            hosts: claims("www.site.com", 1),
            ..status("True", "Accepted", "2/2", 1)
        };
        let later = BalancerStatus {
            hosts: claims("www.site.com", 2),
            ..status("True", "Accepted", "2/2", 2)
        };
        assert!(is_alike(&base, &later));
        let changes: [fn(&mut BalancerStatus); 9] = [
            |status| status.observed_generation = Some(2),
            |status| status.conditions[0].message.push('x'),
            |status| status.conditions[0].observed_generation = None,
            |status| status.conditions[1].reason.push('x'),
            |status| drop(status.conditions.remove(0)),
            |status| status.ready = "1/2".into(),
            |status| status.members.total = 7,
            |status| status.hosts[0].host.push('x'),
            |status| status.addresses.push(Address { ip: None, hostname: None }),
        ];
        for change in changes {
            let mut other = later.clone();
            change(&mut other);
            assert!(!is_alike(&base, &other) && !is_alike(&other, &base), "{other:?}");
        }
        // What others write beside it is their own affair.
        let mut audited = later.clone();
        audited
            .conditions
            .insert(0, Condition { type_: "Audited".into(), ..later.conditions[0].clone() });
        assert!(is_alike(&base, &audited) && is_alike(&audited, &base));
    }

    #[test]
    fn events_are_told_of_transitions_only() {
        let told = |seen: Option<BalancerStatus>, status: BalancerStatus| {
            let events = transitions(&wanted(seen, status));
            events.iter().map(|event| event.reason.clone()).collect::<Vec<_>>()
        };
        let good = status("True", "Accepted", "2/2", 100);
        let bad = status("False", "Conflicted", "2/2", 100);
        assert_eq!(told(Some(BalancerStatus::default()), good.clone()), ["Programmed"]);
        assert_eq!(told(Some(good.clone()), good.clone()), Vec::<String>::new());
        assert_eq!(told(Some(good.clone()), bad.clone()), ["Conflicted", "NotAccepted"]);
        assert_eq!(told(Some(bad), good), ["Accepted", "Programmed"]);
    }
}
