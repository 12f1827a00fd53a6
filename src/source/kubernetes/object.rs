//! A Balancer as the API server tells it, read part by part: what is wrong with one part spoils no
//! other.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::api::{Balancer, BalancerSpec, BalancerStatus};

/// A Balancer of any class, and perhaps of another version than this.
#[derive(Clone, Debug)]
pub struct Object {
    /// Without what others have noted on it, which may be more than all the rest.
    pub meta: ObjectMeta,
    /// Whose it is.
    pub class: Option<String>,
    /// The hosts that it asks for.
    pub hosts: Vec<String>,
    /// The whole of it, or why it cannot be read.
    pub spec: Result<BalancerSpec, String>,
    /// What was written of it; nothing if that cannot be read.
    pub status: BalancerStatus,
    /// Who has written something of its status that is still there.
    pub writers: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw { metadata: mut meta, spec, status } = Raw::deserialize(deserializer)?;
        let managed = meta.managed_fields.take().unwrap_or_default().into_iter();
        let of_status = managed.filter(|fields| fields.subresource.as_deref() == Some("status"));
        let writers = of_status.filter_map(|fields| fields.manager).collect();
        (meta.annotations, meta.labels) = (None, None);
        let class = spec["className"].as_str().map(str::to_owned);
        let hosts = spec["hosts"].as_array().into_iter().flatten();
        let hosts = hosts.filter_map(|host| Some(host.as_str()?.to_owned())).collect();
        let spec = serde_path_to_error::deserialize(spec).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
            format!("{field}: {}", error.into_inner())
        });
        let status = BalancerStatus::deserialize(status).unwrap_or_default();
        Ok(Self { meta, class, hosts, spec, status, writers })
    }
}

impl Resource for Object {
    type DynamicType = ();
    type Scope = <Balancer as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Balancer::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Balancer::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Balancer::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Balancer::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: &Value, status: &Value) -> Object {
        let object = json!({
            "metadata": {
                "name": "app", "labels": {"a": "b"},
                "managedFields": [
                    {"manager": "kubectl", "operation": "Apply"},
                    {"manager": "gibbon", "operation": "Apply", "subresource": "status"},
                ],
            },
            "spec": spec, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_spec_of_a_later_version_says_whose_it_is_and_which_hosts_it_wants() {
        let spec = json!({
            "className": "inner", "hosts": ["www.site.com", 5],
            "members": [{"url": "http://app/"}, {"url": "http://app/", "state": "Warming"}],
        });
        let object = read(&spec, &json!({"ready": "1/1"}));
        assert_eq!(object.class.as_deref(), Some("inner"));
        assert_eq!(object.hosts, ["www.site.com"]);
        let error = object.spec.unwrap_err();
        assert!(error.starts_with("spec.hosts[1]: "), "{error}");
        assert_eq!(
            (object.status.ready.as_str(), &*object.writers),
            ("1/1", &["gibbon".into()][..])
        );
        let spec = json!({"members": [{"url": "http://app/", "state": "Warming"}]});
        let error = read(&spec, &Value::Null).spec.unwrap_err();
        assert!(error.starts_with("spec.members[0].state: "), "{error}");
        assert!(read(&Value::Null, &Value::Null).spec.unwrap_err().starts_with("spec: "));
    }

    #[test]
    fn a_status_that_cannot_be_read_leaves_the_spec_as_it_is() {
        let spec = json!({"members": [{"url": "http://app/"}]});
        let claims = json!({"hosts": [{"host": "a", "claimedAt": "yesterday"}], "ready": "1/1"});
        let object = read(&spec, &claims);
        assert!(object.spec.is_ok());
        assert_eq!(object.status, BalancerStatus::default());
    }
}
