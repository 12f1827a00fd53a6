//! Which of several Gibbons writes: the one that holds a Lease. The way of client-go's leader
//! election: who holds the Lease renews it; another takes it when it has seen no renewal for as long
//! as the Lease lasts, by its own clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::watch::{Contact, explain};

/// How long a Lease is good without being renewed.
const LASTS: Duration = Duration::from_secs(15);
/// How long its holder goes on writing without a renewal.
const TRUSTED: Duration = Duration::from_secs(10);
/// How often it is looked at, and renewed.
const LOOK: Duration = Duration::from_secs(2);
/// How long the API server may take for it.
const ANSWER: Duration = Duration::from_secs(5);

/// A Lease that is wanted.
#[derive(Debug)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    leader: watch::Sender<bool>,
    contact: Contact,
    gauge: IntGauge,
    /// The last version seen of another's Lease, and when it was new.
    seen: Option<(Option<String>, Instant)>,
    renewed: Option<Instant>,
}

/// What to do with a Lease as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Renew,
    Take,
    Wait,
}

impl Election {
    /// For the Lease of this name, as this identity; tells through `leader` and `gauge` whether it
    /// is held.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: String,
        identity: String,
        leader: watch::Sender<bool>,
        contact: Contact,
        gauge: IntGauge,
    ) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, name, identity, leader, contact, gauge, seen: None, renewed: None }
    }

    /// Holds the Lease whenever it can, until `ending`; then gives it back.
    pub async fn run(mut self, mut ending: watch::Receiver<bool>) {
        let mut warned = false;
        loop {
            match timeout(ANSWER, self.look()).await {
                Ok(Ok(holds)) => {
                    self.contact.heard();
                    warned = false;
                    self.set_leader(holds);
                }
                // Another was quicker: look again.
                Ok(Err(Error::Api(status))) if status.code == 409 => {
                    self.contact.heard();
                    self.set_leader(false);
                }
                failed => {
                    // One that knows nobody here any more, or refuses, tells nothing of the cluster.
                    if let Ok(Err(Error::Api(status))) = &failed
                        && !matches!(status.code, 401 | 403)
                    {
                        self.contact.heard();
                    }
                    let error = match failed {
                        Ok(Err(error)) => explain(&error),
                        _ => "no answer in time".to_owned(),
                    };
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(lease = self.name, error, "the lease cannot be held now");
                    }
                    if self.renewed.is_none_or(|renewed| renewed.elapsed() > TRUSTED) {
                        self.set_leader(false);
                    }
                }
            }
            tokio::select! {
                _ = ending.wait_for(|ending| *ending) => break,
                () = sleep(LOOK) => {}
            }
        }
        if *self.leader.borrow() {
            self.set_leader(false);
            match timeout(ANSWER, self.give_back()).await {
                Ok(Ok(())) => tracing::info!(lease = self.name, "lease given back"),
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given back"),
                Err(_) => tracing::warn!("the lease could not be given back in time"),
            }
        }
    }

    fn set_leader(&self, leads: bool) {
        self.gauge.set(i64::from(leads));
        let news = self.leader.send_if_modified(|now| std::mem::replace(now, leads) != leads);
        match (news, leads) {
            (true, true) => tracing::info!(lease = self.name, "leading: writes statuses"),
            (true, false) => tracing::info!(lease = self.name, "not leading any more"),
            (false, _) => {}
        }
    }

    async fn look(&mut self) -> Result<bool, Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            self.leases.create(&PostParams::default(), &lease).await?;
            self.renewed = Some(Instant::now());
            return Ok(true);
        };
        match self.step(&lease, Instant::now()) {
            Step::Wait => Ok(false),
            Step::Renew | Step::Take => {
                let begun = Instant::now();
                let spec = Some(self.spec(lease.spec.as_ref()));
                // The version goes along: of two who write at once, one is told to look again.
                let lease = Lease { spec, ..lease };
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
                self.renewed = Some(begun);
                self.seen = None;
                Ok(true)
            }
        }
    }

    fn step(&mut self, lease: &Lease, now: Instant) -> Step {
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder == self.identity {
            return Step::Renew;
        }
        if holder.is_empty() {
            return Step::Take;
        }
        let version = &lease.metadata.resource_version;
        let since = match &self.seen {
            Some((seen, since)) if seen == version => *since,
            _ => {
                self.seen = Some((version.clone(), now));
                now
            }
        };
        let lasts = spec.and_then(|spec| spec.lease_duration_seconds);
        let lasts = lasts.and_then(|s| u64::try_from(s).ok()).map_or(LASTS, Duration::from_secs);
        if now.saturating_duration_since(since) > lasts { Step::Take } else { Step::Wait }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let held = before.filter(|b| b.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
            acquire_time: held.and_then(|held| held.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(held.is_none() && before.is_some())),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&self) -> Result<(), Error> {
        let mut lease = self.leases.get(&self.name).await?;
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_ref() == Some(&self.identity)
        {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn election() -> Election {
        let config = kube::Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        let gauge = IntGauge::new("x", "x").unwrap();
        Election::new(
            Client::try_from(config).unwrap(),
            "site",
            "gibbon".into(),
            "me".into(),
            watch::channel(false).0,
            Contact::new(gauge.clone()),
            gauge,
        )
    }

    fn lease(holder: Option<&str>, version: &str) -> Lease {
        let spec =
            json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 4});
        let lease = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        serde_json::from_value(lease).unwrap()
    }

    #[tokio::test]
    async fn anothers_lease_is_taken_when_it_was_not_renewed_for_as_long_as_it_lasts() {
        let mut election = election();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(election.step(&lease(Some("other"), "1"), now), Step::Wait);
        assert_eq!(election.step(&lease(Some("other"), "1"), after(14)), Step::Wait);
        // A renewal: it counts from when it is seen.
        assert_eq!(election.step(&lease(Some("other"), "2"), after(14)), Step::Wait);
        assert_eq!(election.step(&lease(Some("other"), "2"), after(29)), Step::Wait);
        assert_eq!(election.step(&lease(Some("other"), "2"), after(30)), Step::Take);
    }

    #[tokio::test]
    async fn ones_own_is_renewed_and_one_without_a_holder_taken() {
        let mut election = election();
        let now = Instant::now();
        assert_eq!(election.step(&lease(Some("me"), "1"), now), Step::Renew);
        assert_eq!(election.step(&lease(None, "1"), now), Step::Take);
        assert_eq!(election.step(&lease(Some(""), "1"), now), Step::Take);
        let transitions =
            |holder| election.spec(lease(holder, "1").spec.as_ref()).lease_transitions;
        assert_eq!((transitions(Some("me")), transitions(Some("other"))), (Some(4), Some(5)));
    }
}
