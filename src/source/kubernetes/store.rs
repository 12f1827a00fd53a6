//! What the API server has told so far, trimmed to what matters, and what has changed of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};

use super::object::Object;
use crate::api::{Balancer, BalancerStatus, HostClaim};
use crate::source::balancer::{self, Place, Problem};
use crate::source::endpoints::{self, Resolution, Service, Slice};
use crate::source::policy::Policy;
use crate::table::owners::Claim;
use crate::table::path::HostPattern;
use crate::table::{Lookup, Rule, RuleId, ServicePort};

/// Namespace and name of an object.
pub type Key = (Arc<str>, Arc<str>);

/// A change of one kind of object.
#[derive(Debug)]
pub enum Update<T> {
    /// These are all there are, in one namespace or in all.
    All(Option<String>, Vec<T>),
    /// This is new, or has changed.
    One(T),
    /// This is gone.
    Gone(T),
}

/// What a watch tells.
#[derive(Debug)]
pub enum Change {
    /// Of Balancers.
    Balancers(Update<Box<Object>>),
    /// Of Services.
    Services(Update<(Key, Service)>),
    /// Of `EndpointSlices`.
    Slices(Update<(Key, SliceOf)>),
    /// Of Secrets: their versions.
    Secrets(Update<(Key, String)>),
}

/// A slice, and the name of its Service, if it has one.
pub type SliceOf = (Option<Arc<str>>, Slice);

/// A Service by its key.
#[must_use]
pub fn service(object: core::Service) -> (Key, Service) {
    (key(&object), object.into())
}

/// A slice by its key.
#[must_use]
pub fn slice(object: discovery::EndpointSlice) -> (Key, SliceOf) {
    let service = endpoints::service_of(&object).map(Into::into);
    (key(&object), (service, object.into()))
}

/// A Secret's version by its key.
#[must_use]
pub fn secret(object: PartialObjectMeta<core::Secret>) -> (Key, String) {
    (key(&object), object.metadata.resource_version.unwrap_or_default())
}

fn key(object: &impl Resource) -> Key {
    let meta = object.meta();
    let part = |part: &Option<String>| part.as_deref().unwrap_or_default().into();
    (part(&meta.namespace), part(&meta.name))
}

/// Why a Balancer is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no Balancer that this version knows.
    Unreadable(String),
    /// It was read, and this is wrong with it.
    Problems(Vec<Problem>),
}

/// A Balancer of this Gibbon's class.
#[derive(Clone, Debug)]
pub struct Held {
    /// Tells it from another of the same name.
    pub uid: String,
    /// The version of its spec.
    pub generation: i64,
    /// When it was made, in seconds since 1970.
    pub created: Option<i64>,
    /// The hosts that it asks for; those that are no hosts are left out.
    pub hosts: Vec<HostPattern>,
    /// Its version, whatever has changed of it.
    pub version: String,
    /// Claims of its status that it was seen to give up, whether or not it asks for the host again:
    /// another may have claimed it meanwhile.
    pub given_up: Vec<HostClaim>,
    /// What can be served, or why nothing is.
    pub outcome: Result<Arc<Rule>, Refusal>,
    /// Its status as it was last seen.
    pub status: BalancerStatus,
}

impl Held {
    fn read(object: Object, policy: &Policy) -> Self {
        let Object { meta, hosts, spec, status, .. } = object;
        let (uid, version) = (meta.uid.clone(), meta.resource_version.clone());
        let (generation, created) = (meta.generation, meta.creation_timestamp.as_ref());
        let (generation, created) =
            (generation.unwrap_or_default(), created.map(|t| t.0.as_second()));
        let outcome = match spec {
            Ok(spec) => {
                let balancer = Balancer { metadata: meta, spec, status: None };
                let rule = balancer::rule(&balancer, Place::Cluster(policy));
                rule.map(Arc::new).map_err(Refusal::Problems)
            }
            Err(why) => Err(Refusal::Unreadable(why)),
        };
        let mut held = Self {
            uid: uid.unwrap_or_default(),
            generation,
            created,
            version: version.unwrap_or_default(),
            hosts: match &outcome {
                Ok(rule) if !hosts.is_empty() => rule.hosts.clone(),
                _ => hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).collect(),
            },
            given_up: Vec::new(),
            outcome,
            status,
        };
        held.give_up();
        held
    }

    /// Notes which of its claims it does not ask for now, and forgets those that are not written any
    /// more.
    fn give_up(&mut self) {
        let claims = &self.status.hosts;
        self.given_up.retain(|claim| claims.contains(claim));
        for claim in claims {
            let asks = self.hosts.iter().any(|host| host.to_string() == claim.host);
            if !asks && !self.given_up.contains(claim) {
                self.given_up.push(claim.clone());
            }
        }
    }

    fn claims<'h>(&'h self, id: &'h RuleId) -> impl Iterator<Item = Claim> + 'h {
        self.hosts.iter().map(|host| {
            let name = host.to_string();
            let claim = self.status.hosts.iter().find(|claim| claim.host == name);
            Claim {
                host: host.clone(),
                at: claim.map(|claim| claim.claimed_at.0.as_microsecond()),
                given_up: claim.is_some_and(|claim| self.given_up.contains(claim)),
                created: self.created,
                by: id.clone(),
            }
        })
    }
}

/// A Balancer that has left the class, with what was written of it while it was there.
#[derive(Clone, Debug)]
pub struct Left {
    /// Tells it from another of the same name.
    pub uid: String,
    /// Its version.
    pub version: String,
    /// Its status.
    pub status: BalancerStatus,
}

/// What has changed since it was last asked.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that may have changed")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Rules came, went or changed.
    pub rules: bool,
    /// Claims of hosts did.
    pub claims: bool,
    /// A status was seen.
    pub statuses: bool,
    /// Services whose ports or endpoints changed.
    pub services: BTreeSet<Key>,
    /// Secrets came, went or changed.
    pub secrets: bool,
}

impl Dirty {
    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// All that is known of the cluster.
#[derive(Debug, Default)]
pub struct Store {
    class: Option<String>,
    /// The field manager of the class.
    manager: String,
    policy: Policy,
    balancers: BTreeMap<RuleId, Held>,
    left: BTreeMap<RuleId, Left>,
    services: Lookup<Key, Service>,
    /// Those of a Service by their names; it has one most often.
    slices: Lookup<Key, Vec<(Arc<str>, Slice)>>,
    /// The Service of each slice.
    owners: Lookup<Key, Arc<str>>,
    /// The version of each Secret.
    secrets: Lookup<Key, String>,
    dirty: Dirty,
}

impl Store {
    /// An empty one, for Balancers of a class.
    #[must_use]
    pub fn new(class: Option<String>, policy: Policy) -> Self {
        let manager = manager(class.as_deref());
        Self { class, manager, policy, ..Self::default() }
    }

    /// Balancers of other classes that have something of this one's in their status.
    #[must_use]
    pub const fn left(&self) -> &BTreeMap<RuleId, Left> {
        &self.left
    }

    /// All Balancers of the class.
    #[must_use]
    pub const fn balancers(&self) -> &BTreeMap<RuleId, Held> {
        &self.balancers
    }

    /// A Service.
    #[must_use]
    pub fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    /// The slices of a Service.
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = &Slice> {
        self.slices.get(service).into_iter().flatten().map(|(_, slice)| slice)
    }

    /// What is behind a port of a Service.
    #[must_use]
    pub fn resolve(&self, port: &ServicePort) -> Resolution {
        let key = (Arc::clone(&port.namespace), Arc::clone(&port.name));
        endpoints::resolve(self.service(&key), self.slices_of(&key), &port.port)
    }

    /// All claims of hosts.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        self.balancers.iter().flat_map(|(id, held)| held.claims(id)).collect()
    }

    /// What has changed since the last call.
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// Takes a change over.
    pub fn take(&mut self, change: Change) {
        match change {
            Change::Balancers(update) => self.balancers_changed(update),
            Change::Services(update) => self.services_changed(update),
            Change::Slices(update) => self.slices_changed(update),
            Change::Secrets(update) => self.secrets_changed(update),
        }
    }

    /// The version of a Secret, if it is there.
    #[must_use]
    pub fn secret(&self, key: &Key) -> Option<&String> {
        self.secrets.get(key)
    }

    fn secrets_changed(&mut self, update: Update<(Key, String)>) {
        self.dirty.secrets = true;
        match update {
            Update::All(scope, all) => {
                self.secrets.retain(|key, _| !in_scope(&key.0, scope.as_ref()));
                self.secrets.extend(all);
            }
            Update::One((key, version)) => drop(self.secrets.insert(key, version)),
            Update::Gone((key, _)) => drop(self.secrets.remove(&key)),
        }
    }

    fn balancers_changed(&mut self, update: Update<Box<Object>>) {
        match update {
            Update::All(scope, all) => {
                let ids: HashSet<_> = all.iter().map(|object| id(object)).collect();
                let known = self.balancers.keys().chain(self.left.keys());
                let gone = known
                    .filter(|id| in_scope(&id.namespace, scope.as_ref()) && !ids.contains(*id));
                for id in gone.cloned().collect::<Vec<_>>() {
                    self.remove(&id);
                }
                for object in all {
                    self.upsert(*object);
                }
            }
            Update::One(object) => self.upsert(*object),
            Update::Gone(object) => self.remove(&id(&object)),
        }
    }

    fn upsert(&mut self, object: Object) {
        let id = id(&object);
        if object.class != self.class {
            return self.leave(id, object);
        }
        let meta = &object.meta;
        let same = |held: &&mut Held| {
            Some(&held.uid) == meta.uid.as_ref()
                && Some(held.generation) == meta.generation
                && matches!(held.outcome, Err(Refusal::Unreadable(_))) == object.spec.is_err()
        };
        let known = self.balancers.get_mut(&id);
        let is_known = known.is_some();
        // Where only the status has changed, the rule stays the very same.
        if let Some(held) = known.filter(|held| same(held)) {
            held.version = meta.resource_version.clone().unwrap_or_default();
            let before = std::mem::replace(&mut held.status, object.status);
            held.give_up();
            self.dirty.claims |= held.status.hosts != before.hosts;
            self.dirty.statuses = true;
            return;
        }
        let before = is_known.then(|| self.balancers.remove(&id)).flatten();
        let before = before.map(|held| (held.uid, held.given_up));
        let left = self.left.remove(&id).map(|left| (left.uid, left.status.hosts));
        let mut held = Held::read(object, &self.policy);
        if let Some((_, given_up)) = before.or(left).filter(|(uid, _)| *uid == held.uid) {
            held.given_up.extend(given_up);
            held.give_up();
        }
        self.balancers.insert(id, held);
        self.rules_changed();
    }

    /// It is of another class. What was written of it here is to be taken back: else its claims would
    /// be as old as ever when it returns.
    fn leave(&mut self, id: RuleId, object: Object) {
        self.remove(&id);
        if object.writers.contains(&self.manager) {
            let Object { meta, status, .. } = object;
            let (uid, version) = (meta.uid, meta.resource_version);
            let (uid, version) = (uid.unwrap_or_default(), version.unwrap_or_default());
            self.left.insert(id, Left { uid, version, status });
            self.dirty.statuses = true;
        }
    }

    fn remove(&mut self, id: &RuleId) {
        self.left.remove(id);
        if self.balancers.remove(id).is_some() {
            self.rules_changed();
        }
    }

    const fn rules_changed(&mut self) {
        (self.dirty.rules, self.dirty.claims, self.dirty.statuses) = (true, true, true);
    }

    fn services_changed(&mut self, update: Update<(Key, Service)>) {
        match update {
            Update::All(scope, all) => {
                let keys: HashSet<_> = all.iter().map(|(key, _)| key.clone()).collect();
                let gone = self.services.keys();
                let gone = gone.filter(|k| in_scope(&k.0, scope.as_ref()) && !keys.contains(*k));
                for key in gone.cloned().collect::<Vec<_>>() {
                    self.set_service(key, None);
                }
                for (key, service) in all {
                    self.set_service(key, Some(service));
                }
            }
            Update::One((key, service)) => self.set_service(key, Some(service)),
            Update::Gone((key, _)) => self.set_service(key, None),
        }
    }

    fn set_service(&mut self, key: Key, service: Option<Service>) {
        if self.services.get(&key) == service.as_ref() {
            return;
        }
        match service {
            Some(service) => drop(self.services.insert(key.clone(), service)),
            None => drop(self.services.remove(&key)),
        }
        self.dirty.services.insert(key);
    }

    fn slices_changed(&mut self, update: Update<(Key, SliceOf)>) {
        match update {
            Update::All(scope, all) => {
                let keys: HashSet<_> = all.iter().map(|(key, _)| key.clone()).collect();
                let gone = self.owners.keys();
                let gone = gone.filter(|k| in_scope(&k.0, scope.as_ref()) && !keys.contains(*k));
                for key in gone.cloned().collect::<Vec<_>>() {
                    self.set_slice(&key, None);
                }
                for (key, slice) in all {
                    self.set_slice(&key, Some(slice));
                }
            }
            Update::One((key, slice)) => self.set_slice(&key, Some(slice)),
            Update::Gone((key, _)) => self.set_slice(&key, None),
        }
    }

    fn set_slice(&mut self, key: &Key, slice: Option<SliceOf>) {
        let (namespace, name) = key;
        let (service, slice) = match slice {
            Some((Some(service), slice)) => (Some(service), Some(slice)),
            _ => (None, None),
        };
        let owner = self.owners.get(key).cloned();
        if let Some(before) = owner.filter(|before| service.as_ref() != Some(before)) {
            let of = (Arc::clone(namespace), before);
            if let Some(slices) = self.slices.get_mut(&of) {
                slices.retain(|(own, _)| own != name);
                if slices.is_empty() {
                    self.slices.remove(&of);
                }
            }
            self.owners.remove(key);
            self.dirty.services.insert(of);
        }
        if let (Some(service), Some(slice)) = (service, slice) {
            let of = (Arc::clone(namespace), Arc::clone(&service));
            let slices = self.slices.entry(of.clone()).or_default();
            match slices.binary_search_by(|(own, _)| own.cmp(name)) {
                Ok(at) if slices[at].1 == slice => return,
                Ok(at) => slices[at].1 = slice,
                Err(at) => {
                    slices.reserve_exact(1);
                    slices.insert(at, (Arc::clone(name), slice));
                }
            }
            self.owners.insert(key.clone(), service);
            self.dirty.services.insert(of);
        }
    }
}

/// The name of a class's field manager.
#[must_use]
pub fn manager(class: Option<&str>) -> String {
    class.map_or_else(|| "gibbon".to_owned(), |class| format!("gibbon-{class}"))
}

fn in_scope(namespace: &str, scope: Option<&String>) -> bool {
    scope.is_none_or(|scope| scope == namespace)
}

fn id(object: &Object) -> RuleId {
    RuleId {
        namespace: object.namespace().unwrap_or_default().into(),
        name: object.name_any().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, generation: i64, spec: &Value, status: &Value) -> Box<Object> {
        let object = json!({
            "apiVersion": "gibbon.dev/v1alpha1", "kind": "Balancer",
            "metadata": {
                "name": name, "namespace": "site", "uid": name, "generation": generation,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"manager": "gibbon", "subresource": "status"}],
            },
            "spec": spec, "status": status,
        });
        Box::new(serde_json::from_value(object).unwrap())
    }

    fn app_with(generation: i64, status: &Value) -> Box<Object> {
        let members = json!([{"service": {"name": "app", "port": 80}}]);
        let spec = json!({"hosts": ["www.site.com"], "members": members});
        object("app", generation, &spec, status)
    }

    fn app(generation: i64) -> Box<Object> {
        app_with(generation, &Value::Null)
    }

    fn store() -> Store {
        let mut store = Store::new(None, Policy::default());
        store.take(Change::Balancers(Update::All(None, vec![app(1)])));
        store.take(Change::Services(Update::All(None, vec![a_service("site", "app")])));
        store.take(Change::Slices(Update::All(
            None,
            vec![a_slice("app-1", Some("app"), "10.0.0.1")],
        )));
        store.take_dirty();
        store
    }

    fn a_service(namespace: &str, name: &str) -> (Key, Service) {
        let object = json!({
            "metadata": {"name": name, "namespace": namespace}, "spec": {"ports": [{"port": 80}]},
        });
        service(serde_json::from_value(object).unwrap())
    }

    fn a_slice(name: &str, of: Option<&str>, ip: &str) -> (Key, SliceOf) {
        let labels = of.map(|of| json!({"kubernetes.io/service-name": of}));
        let object = json!({
            "metadata": {"name": name, "namespace": "site", "labels": labels},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [ip]}],
        });
        slice(serde_json::from_value(object).unwrap())
    }

    fn rule(store: &Store) -> Arc<Rule> {
        Arc::clone(store.balancers.values().next().unwrap().outcome.as_ref().unwrap())
    }

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.into(), name.into())
    }

    fn addresses(store: &Store) -> Vec<String> {
        let port = crate::table::PortRef::Number(80);
        let port = ServicePort { namespace: "site".into(), name: "app".into(), port };
        match store.resolve(&port) {
            Resolution::Endpoints(backends, _) => {
                backends.endpoints().iter().map(|endpoint| endpoint.address.to_string()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_status_alone_leaves_the_rule_as_it_is() {
        let mut store = store();
        let before = rule(&store);
        let claims = json!({"conditions": [], "hosts": [
            {"host": "www.site.com", "claimedAt": "2026-02-01T00:00:00.5Z"},
        ]});
        store.take(Change::Balancers(Update::One(app_with(1, &claims))));
        assert!(Arc::ptr_eq(&before, &rule(&store)));
        let dirty = store.take_dirty();
        assert_eq!(dirty, Dirty { claims: true, statuses: true, ..Dirty::default() });
        assert_eq!(store.claims()[0].at, Some(1_769_904_000_500_000));
        store.take(Change::Balancers(Update::One(app(2))));
        assert!(!Arc::ptr_eq(&before, &rule(&store)));
        assert!(store.take_dirty().rules);
    }

    /// A Balancer of a class that asks for these hosts and has claimed `www.site.com`.
    fn claiming(generation: i64, class: &Value, hosts: &[&str], at: &str) -> Change {
        let spec = json!({"className": class, "hosts": hosts, "redirect": {"to": "/x"}});
        let status =
            json!({"conditions": [], "hosts": [{"host": "www.site.com", "claimedAt": at}]});
        Change::Balancers(Update::One(object("app", generation, &spec, &status)))
    }

    fn is_given_up(store: &Store) -> bool {
        let claims = store.claims();
        let claim = claims.iter().find(|c| c.host.to_string() == "www.site.com").unwrap();
        assert!(claim.at.is_some());
        claim.given_up
    }

    const EARLY: &str = "2026-02-01T00:00:00Z";
    const LATE: &str = "2026-03-01T00:00:00Z";

    #[test]
    fn a_claim_is_as_old_as_it_says_unless_it_was_seen_to_be_given_up() {
        let (www, both, other) = (&["www.site.com"], &["www.site.com", "b.org"], &["b.org"]);
        let mut store = store();
        let mut take = |generation, hosts: &[&str], at: &str| {
            store.take(claiming(generation, &Value::Null, hosts, at));
            store.claims().iter().any(|c| c.host.to_string() == "www.site.com")
                && is_given_up(&store)
        };
        // An edit that was not seen changes nothing, nor does one that keeps the host.
        assert!(!take(5, www, EARLY));
        assert!(!take(6, both, EARLY));
        // Given up and asked for again: it may have become another's.
        assert!(!take(7, other, EARLY));
        assert!(take(8, both, EARLY));
        assert!(take(9, both, EARLY));
        // It was claimed anew.
        assert!(!take(9, both, LATE));
    }

    #[test]
    fn who_leaves_the_class_gives_its_claims_up_and_its_status_is_taken_back() {
        let mut store = store();
        let inner = json!("inner");
        store.take(claiming(2, &Value::Null, &["www.site.com"], EARLY));
        assert!(!is_given_up(&store) && store.left().is_empty());
        store.take(claiming(3, &inner, &["www.site.com"], EARLY));
        assert!(store.balancers().is_empty());
        let left = store.left().values().next().unwrap();
        assert_eq!((left.uid.as_str(), left.status.hosts.len()), ("app", 1));
        store.take(claiming(4, &Value::Null, &["www.site.com"], EARLY));
        assert!(is_given_up(&store) && store.left().is_empty());
        // One that was elsewhere when this began, but has not always been.
        let mut later = Store::new(None, Policy::default());
        later.take(claiming(3, &inner, &["www.site.com"], EARLY));
        later.take(claiming(4, &Value::Null, &["www.site.com"], EARLY));
        assert!(is_given_up(&later));
        // Nothing of another class is written there.
        let mut third = Store::new(Some("third".into()), Policy::default());
        third.take(claiming(3, &inner, &["www.site.com"], EARLY));
        assert!(third.left().is_empty());
        store.take(claiming(5, &inner, &["www.site.com"], EARLY));
        store.take(Change::Balancers(Update::All(None, Vec::new())));
        assert!(store.left().is_empty());
    }

    #[test]
    fn a_balancer_of_another_class_is_not_held_and_one_that_leaves_the_class_goes() {
        let mut store = store();
        let other = |class: Value| {
            let redirect = json!({"to": "/x"});
            let spec = json!({"className": class, "hosts": ["a.org"], "redirect": redirect});
            Change::Balancers(Update::One(object("app", 7, &spec, &Value::Null)))
        };
        store.take(other(json!("inner")));
        assert!(store.balancers.is_empty() && store.take_dirty().rules);
        let mut inner = Store::new(Some("inner".into()), Policy::default());
        inner.take(Change::Balancers(Update::One(app(1))));
        assert!(inner.balancers.is_empty() && inner.take_dirty().is_empty());
        inner.take(other(json!("inner")));
        assert_eq!(inner.balancers.len(), 1);
    }

    #[test]
    fn an_object_that_does_not_parse_is_held_with_the_reason_and_harms_no_other() {
        let mut store = store();
        let spec = json!({"hosts": ["broken.org"], "members": "none"});
        let broken = object("broken", 1, &spec, &Value::Null);
        store.take(Change::Balancers(Update::One(broken)));
        assert_eq!(store.balancers.len(), 2);
        let refusal = store.balancers.values().find_map(|held| held.outcome.as_ref().err());
        assert!(
            matches!(refusal, Some(Refusal::Unreadable(why)) if why.starts_with("spec.members: ")),
            "{refusal:?}"
        );
        // Its hosts are still its own.
        assert!(store.claims().iter().any(|claim| claim.host.to_string() == "broken.org"));
        let inner = json!({"className": "inner", "members": "none"});
        store.take(Change::Balancers(Update::One(object("broken", 2, &inner, &Value::Null))));
        assert_eq!(store.balancers.len(), 1);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone_in_its_scope_only() {
        let mut store = store();
        store.take(Change::Services(Update::One(a_service("other", "app"))));
        store.take_dirty();
        store.take(Change::Services(Update::All(Some("site".into()), Vec::new())));
        assert!(store.service(&key("site", "app")).is_none());
        assert!(store.service(&key("other", "app")).is_some());
        assert_eq!(store.take_dirty().services, [key("site", "app")].into());
        store.take(Change::Balancers(Update::All(Some("other".into()), Vec::new())));
        assert_eq!(store.balancers.len(), 1);
        store.take(Change::Balancers(Update::All(None, Vec::new())));
        assert!(store.balancers.is_empty());
    }

    #[test]
    fn slices_come_move_and_go() {
        let mut store = store();
        assert_eq!(addresses(&store), ["10.0.0.1:8080"]);
        store.take(Change::Slices(Update::One(a_slice("app-2", Some("app"), "10.0.0.2"))));
        assert_eq!(addresses(&store), ["10.0.0.1:8080", "10.0.0.2:8080"]);
        store.take(Change::Slices(Update::One(a_slice("app-2", Some("other"), "10.0.0.2"))));
        assert_eq!(addresses(&store), ["10.0.0.1:8080"]);
        assert_eq!(store.take_dirty().services, [key("site", "app"), key("site", "other")].into());
        store.take(Change::Slices(Update::One(a_slice("app-1", None, "10.0.0.1"))));
        assert_eq!(addresses(&store), Vec::<String>::new());
        store.take(Change::Slices(Update::Gone(a_slice("app-2", Some("other"), "10.0.0.2"))));
        assert!(store.slices.is_empty() && store.owners.is_empty());
    }

    #[test]
    fn secrets_are_known_by_their_versions_only() {
        let told = |name: &str, version: &str| {
            let meta = json!({"metadata": {"name": name, "namespace": "site", "resourceVersion": version}});
            secret(serde_json::from_value(meta).unwrap())
        };
        let mut store = store();
        store.take(Change::Secrets(Update::All(None, vec![told("www", "1"), told("old", "1")])));
        assert!(store.take_dirty().secrets);
        store.take(Change::Secrets(Update::One(told("www", "2"))));
        assert_eq!(store.secret(&key("site", "www")).map(String::as_str), Some("2"));
        store.take(Change::Secrets(Update::All(Some("site".into()), vec![told("www", "3")])));
        assert_eq!(store.secret(&key("site", "old")), None);
        store.take(Change::Secrets(Update::Gone(told("www", "3"))));
        assert_eq!(store.secret(&key("site", "www")), None);
    }

    #[test]
    fn what_is_told_twice_changes_nothing() {
        let mut store = store();
        store.take(Change::Balancers(Update::All(None, vec![app(1)])));
        store.take(Change::Services(Update::One(a_service("site", "app"))));
        store.take(Change::Slices(Update::One(a_slice("app-1", Some("app"), "10.0.0.1"))));
        assert_eq!(store.take_dirty(), Dirty { statuses: true, ..Dirty::default() });
    }
}
