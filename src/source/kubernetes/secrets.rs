//! Secrets that Balancers name: each is asked for when its version changes, and no other is.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::source::certificate::{CA, CERTIFICATE, Content, Found, KEY, Keeper, Named};
use crate::table::tls::SecretId;

/// How long the API server may take, and how long before one that failed is tried again.
const ANSWER: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// A Secret that was fetched.
#[derive(Debug)]
pub struct Fetched {
    id: SecretId,
    version: String,
    content: Content,
}

/// The Secrets that are named, and their certificates.
pub struct Secrets {
    client: Client,
    sender: UnboundedSender<Fetched>,
    fetched: UnboundedReceiver<Fetched>,
    /// The version of each that is here or on its way.
    versions: HashMap<SecretId, String>,
    contents: HashMap<SecretId, Content>,
    /// What was made of them.
    pub keeper: Keeper,
}

impl Secrets {
    /// None yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let (sender, fetched) = unbounded_channel();
        let (versions, contents) = (HashMap::new(), HashMap::new());
        let keeper = Keeper::default();
        Self { client, sender, fetched, versions, contents, keeper }
    }

    /// The next one that was fetched; never ends.
    pub async fn next(&mut self) -> Fetched {
        match self.fetched.recv().await {
            Some(fetched) => fetched,
            // Not while `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Takes one over. False if it is not wanted any more.
    pub fn take(&mut self, fetched: Fetched) -> bool {
        let Fetched { id, version, content } = fetched;
        let wanted = self.versions.get(&id).is_some_and(|wanted| *wanted == version);
        if wanted {
            self.contents.insert(id, content);
        }
        wanted
    }

    /// These are named from now on; `version` knows which there are.
    pub fn name(&mut self, named: &Named, version: impl Fn(&SecretId) -> Option<String>) {
        let all = named.all();
        self.versions.retain(|id, _| all.contains(id) && version(id).is_some());
        self.contents.retain(|id, _| self.versions.contains_key(id));
        for id in all {
            let Some(version) = version(id) else { continue };
            if self.versions.get(id) != Some(&version) {
                self.versions.insert(id.clone(), version.clone());
                let fetching = fetch(self.client.clone(), id.clone(), version, self.sender.clone());
                tokio::spawn(fetching);
            }
        }
        let find = |id: &SecretId| match (self.contents.get(id), self.versions.contains_key(id)) {
            (Some(content), _) => Found::Content(content),
            (None, true) => Found::Later,
            (None, false) => Found::Nothing,
        };
        let now = Timestamp::now().as_second();
        self.keeper.keep(named, find, now);
    }
}

async fn fetch(client: Client, id: SecretId, version: String, to: UnboundedSender<Fetched>) {
    let secrets: Api<Secret> = Api::namespaced(client, &id.namespace);
    while !to.is_closed() {
        match timeout(ANSWER, secrets.get_opt(&id.name)).await {
            Ok(Ok(Some(secret))) => {
                let mut data = secret.data.unwrap_or_default();
                let mut value = |key: &str| data.remove(key).map(|bytes| bytes.0);
                let (certificate, key) = (value(CERTIFICATE), value(KEY));
                let content = Content { certificate, key, ca: value(CA) };
                // Nobody listens any more at the end of the process.
                let _ = to.send(Fetched { id, version, content });
                return;
            }
            // It is gone again: the watch tells of it.
            Ok(Ok(None)) => return,
            Ok(Err(error)) => tracing::warn!(secret = %id, %error, "a Secret cannot be had now"),
            Err(_) => tracing::warn!(secret = %id, "a Secret cannot be had in time"),
        }
        sleep(RETRY).await;
    }
}
