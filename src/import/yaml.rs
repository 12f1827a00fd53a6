//! Balancers as people would write them: what is the default is left out.

use serde_json::Value;

use crate::api;

/// Writes Balancers, each after a line that says where it is from.
pub fn write(balancers: &[(String, api::Balancer)]) -> String {
    let mut text = String::new();
    for (origin, balancer) in balancers {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str("# ");
        // YAML takes no others, not even in comments.
        text.extend(origin.chars().map(|c| if is_printable(c) { c } else { '\u{fffd}' }));
        text.push('\n');
        let mut value = serde_json::to_value(balancer).expect("a Balancer is plain data");
        trim(&mut value);
        let yaml = serde_saphyr::to_string(&value).expect("JSON is YAML");
        text.push_str(yaml.trim_end());
        text.push('\n');
    }
    text
}

fn is_printable(c: char) -> bool {
    !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
}

/// Takes out what the schema gives by itself.
fn trim(balancer: &mut Value) {
    let spec = &mut balancer["spec"];
    let members = spec.get_mut("members").and_then(Value::as_array_mut);
    for member in members.into_iter().flatten() {
        drop_if(member, "weight", &Value::from(1));
        drop_if(member, "state", &Value::from("Active"));
    }
    defaults(spec, "balancing", &api::Balancing::default());
    defaults(spec, "failover", &api::Failover::default());
    defaults(spec, "healthCheck", &api::HealthCheck::default());
    defaults(spec, "timeouts", &api::Timeouts::default());
    defaults(spec, "reverse", &api::Reverse::default());
    defaults(spec, "upstreamTLS", &api::UpstreamTls::default());
    if let Some(sticky) = spec.get_mut("sticky") {
        drop_if(sticky, "failover", &Value::from(true));
    }
    if let Some(issue) = spec.pointer_mut("/sticky/issue") {
        drop_if(issue, "sameSite", &Value::from("Lax"));
        drop_if(issue, "secure", &Value::from(false));
        drop_if(issue, "httpOnly", &Value::from(true));
    }
}

fn defaults(spec: &mut Value, name: &str, default: &impl serde::Serialize) {
    let default = serde_json::to_value(default).expect("defaults are plain data");
    let Some(part) = spec.get_mut(name) else { return };
    for (key, value) in default.as_object().into_iter().flatten() {
        drop_if(part, key, value);
    }
}

fn drop_if(object: &mut Value, key: &str, value: &Value) {
    if object.get(key) == Some(value)
        && let Some(object) = object.as_object_mut()
    {
        object.remove(key);
    }
}
