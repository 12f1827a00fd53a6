//! The schema's texts, lists and CEL rules: what `kubectl apply` refuses, and with which message.
//!
//! `maxLength` and `maxItems` bound the costs; no rule needs more than Kubernetes 1.30 offers.

use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::Duration;
use super::scalar::DURATION;

/// A CEL expression that must hold, and what is said otherwise.
pub(crate) type Rule<'a> = (&'a str, &'a str);

const RULES: &str = "x-kubernetes-validations";

pub(crate) const HOST: Rule<'static> = (
    "self.matches('^([*][.])?[0-9A-Za-z]([-0-9A-Za-z]{0,61}[0-9A-Za-z])?\
     ([.][0-9A-Za-z]([-0-9A-Za-z]{0,61}[0-9A-Za-z])?)*$')",
    "must be a host name such as www.site.com, or a wildcard such as *.site.com, without scheme, \
     port and path",
);
pub(crate) const AUTHORITY: Rule<'static> = (
    "self.matches('^[0-9A-Za-z]([-.0-9A-Za-z]*[0-9A-Za-z])?(:[1-9][0-9]{0,4})?$')",
    "must be a host such as www.site.com, with a port if it has one",
);
pub(crate) const HOSTS_ONCE: Rule<'static> = (
    "self.all(h, self.exists_one(g, g.lowerAscii() == h.lowerAscii()))",
    "must have each host once",
);
pub(crate) const CLASS_NAME: Rule<'static> = (
    "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
    "must be of small letters, digits, - and ., and begin and end with a letter or digit",
);
pub(crate) const OBJECT_NAME: Rule<'static> = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "must be the name of an object: small letters, digits, - and .",
);
pub(crate) const SERVER_NAME: Rule<'static> = (
    "isIP(self) || self.matches('^[0-9A-Za-z]([-0-9A-Za-z]{0,61}[0-9A-Za-z])?\
     ([.][0-9A-Za-z]([-0-9A-Za-z]{0,61}[0-9A-Za-z])?)*$')",
    "must be a host name such as app.internal, or an address",
);
pub(crate) const DOMAIN: Rule<'static> = (
    "self.matches('^[.]?[0-9A-Za-z]([-.0-9A-Za-z]*[0-9A-Za-z])?$')",
    "must be a domain such as www.site.com",
);

pub(crate) const ROOTED: Rule<'static> =
    ("self.startsWith('/')", "must begin with /, such as /static/");
pub(crate) const ONE_SLASH: Rule<'static> = ("!self.contains('//')", "must not contain //");
pub(crate) const NO_DOTS: Rule<'static> =
    ("!self.matches('/([.]|%2[eE]){1,2}(/|$)')", "must not contain the segments . and ..");
pub(crate) const PATH_CHARACTERS: Rule<'static> = (
    r"!self.matches(r'[^!-~]|[?#*;\\]')",
    r"must not contain spaces, ?, #, *, ;, \ and what is not ASCII: percent-encode it",
);
pub(crate) const ESCAPES: Rule<'static> = (
    "!self.matches('%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)')",
    "must have two hexadecimal digits after each %",
);

pub(crate) const STATUS_RANGE: Rule<'static> = (
    "self.matches('^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$')",
    "must be a status such as 204, or a range of them such as 200-299",
);
pub(crate) const ERROR_RANGE: Rule<'static> = (
    "self.matches('^[45][0-9][0-9](-[45][0-9][0-9])?$')",
    "must be a status from 400 to 599 such as 404, or a range of them such as 500-599",
);
pub(crate) const STATUS_ORDER: Rule<'static> = (
    "self.size() != 7 || self.substring(0, 3) <= self.substring(4, 7)",
    "must have the smaller status first",
);
pub(crate) const NO_FRAGMENT: Rule<'static> =
    ("!self.contains('#')", "must not contain a fragment");

pub(crate) const HTTP_URL: Rule<'static> = (
    "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
    "must be an absolute http or https URL, such as http://app1.site.com:8080/",
);
pub(crate) const URL_OR_PATH: Rule<'static> = (
    "self.startsWith('/') ? !self.startsWith('//') : isURL(self) \
     && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
    "must be an absolute http or https URL, or a path that begins with one /",
);
/// CEL's URLs hide the user, the query and the fragment, so the text is searched.
pub(crate) const NO_USER: Rule<'static> =
    ("!self.contains('@')", "must not contain a user, nor an @ elsewhere: write %40");
pub(crate) const NO_QUERY: Rule<'static> =
    ("!self.matches('[?#]')", "must not contain a query or a fragment");
pub(crate) const URL_CHARACTERS: Rule<'static> = (
    r"!self.matches(r'[^!-~]|\\')",
    r"must not contain spaces, \ and what is not ASCII: percent-encode it",
);

pub(crate) const MEMBER_NAME: Rule<'static> = (
    "self.matches('^[0-9A-Za-z]([-._0-9A-Za-z]*[0-9A-Za-z])?$')",
    "must be of letters, digits, -, . and _, and begin and end with a letter or digit",
);
pub(crate) const SERVICE_NAME: Rule<'static> = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "must be the name of a Service: small letters, digits and -",
);
pub(crate) const PRINTABLE: Rule<'static> =
    ("self.matches('^[!-~]+$')", "must be printable ASCII without spaces, at least one character");
pub(crate) const COOKIE_NAME: Rule<'static> =
    (TOKEN, "must be the name of a cookie, such as JSESSIONID");
pub(crate) const PARAMETER_NAME: Rule<'static> = (
    "self.matches('^[-._~0-9A-Za-z]+$')",
    "must be the name of a parameter: letters, digits, -, ., _ and ~",
);
/// A comparison, for `|| true` would swallow the error of what does not compile.
pub(crate) const COMPILES: Rule<'static> =
    ("''.matches(self) in [true, false]", "must be a regular expression in RE2 syntax");
pub(crate) const HAS_GROUP: Rule<'static> = (
    r"self.matches(r'(^|[^\\])(\\\\)*[(]([?]P?<|[^?])')",
    "must have a group that is the route, such as !(.*)$",
);

pub(crate) const HEADER_NAME: Rule<'static> =
    (TOKEN, "must be the name of a header, such as X-Site");
pub(crate) const HEADER_IS_FREE: Rule<'static> = (
    "!(self.lowerAscii() in ['connection', 'content-length', 'host', 'keep-alive', \
     'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailer', \
     'transfer-encoding', 'upgrade'])",
    "must not be Host (see preserveHost), nor a header of the connection or the framing",
);
pub(crate) const HEADER_VALUE: Rule<'static> = (
    r"self.matches(r'^[^\x00-\x08\x0a-\x1f\x7f]*$')",
    "must not contain line breaks and other control characters",
);
const TOKEN: &str = r#"self.matches("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")"#;

/// Not `isCIDR`: Kubernetes 1.30 has it only for what is already stored.
pub(crate) const NETWORK: Rule<'static> = (
    "self.matches('^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])([.]|/|$)){4}') \
     && self.matches('^([0-9]+[.]){3}[0-9]+(/(3[0-2]|[12]?[0-9]))?$') \
     || self.matches('^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?$')",
    "must be an address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32",
);

/// A text of at most `max` characters that keeps these rules.
pub(super) fn text(max: u32, rules: &[Rule]) -> Schema {
    let mut text = json_schema!({"type": "string", "maxLength": max});
    for rule in rules {
        require(&mut text, *rule);
    }
    text
}

/// A list of at most `max` items.
fn list(max: u32, items: &Schema) -> Schema {
    json_schema!({"type": "array", "maxItems": max, "items": items})
}

/// Adds a rule to a schema.
fn require(schema: &mut Schema, (rule, message): Rule) {
    let rules = schema.ensure_object().entry(RULES).or_insert_with(|| json!([]));
    if let Value::Array(rules) = rules {
        rules.push(json!({"rule": rule, "message": message}));
    }
}

pub(super) fn hosts(_: &mut SchemaGenerator) -> Schema {
    let mut hosts = list(64, &text(253, &[HOST]));
    require(&mut hosts, HOSTS_ONCE);
    hosts
}

pub(super) fn check_path(_: &mut SchemaGenerator) -> Schema {
    text(1024, &[ROOTED, NO_FRAGMENT, URL_CHARACTERS, ESCAPES])
}

pub(super) fn statuses(_: &mut SchemaGenerator) -> Schema {
    list(16, &text(7, &[STATUS_RANGE, STATUS_ORDER]))
}

pub(super) fn error_statuses(_: &mut SchemaGenerator) -> Schema {
    let mut statuses = list(16, &text(7, &[ERROR_RANGE, STATUS_ORDER]));
    statuses.insert("minItems".to_owned(), 1.into());
    statuses
}

pub(super) fn check_interval(generator: &mut SchemaGenerator) -> Schema {
    let rule = format!("!self.matches('{DURATION}') || duration(self) >= duration('50ms')");
    let mut interval = Duration::json_schema(generator);
    require(&mut interval, (&rule, "must be at least 50ms"));
    interval
}

pub(super) fn authority(_: &mut SchemaGenerator) -> Schema {
    text(253, &[AUTHORITY])
}

pub(super) fn class_name(_: &mut SchemaGenerator) -> Schema {
    text(63, &[CLASS_NAME])
}

pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    text(1024, &[ROOTED, ONE_SLASH, NO_DOTS, PATH_CHARACTERS, ESCAPES])
}

pub(super) fn cookie_path(_: &mut SchemaGenerator) -> Schema {
    text(1024, &[ROOTED, PATH_CHARACTERS])
}

/// What a member's protocol must go with.
pub(crate) const PROTOCOL_OF_URL: &str =
    "must be HTTPS, HTTPS1 or H2 for an https URL, and HTTP1 or H2C for an http one";

pub(super) fn member_url(_: &mut SchemaGenerator) -> Schema {
    text(2048, &[HTTP_URL, NO_USER, NO_QUERY, URL_CHARACTERS, NO_DOTS])
}

pub(super) fn redirect_to(_: &mut SchemaGenerator) -> Schema {
    text(2048, &[URL_OR_PATH, NO_USER, URL_CHARACTERS])
}

pub(super) fn redirect_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "enum": [301, 302, 303, 307, 308]})
}

pub(super) fn member_name(_: &mut SchemaGenerator) -> Schema {
    text(63, &[MEMBER_NAME])
}

pub(super) fn service_name(_: &mut SchemaGenerator) -> Schema {
    text(63, &[SERVICE_NAME])
}

pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    text(253, &[OBJECT_NAME])
}

pub(super) fn server_name(_: &mut SchemaGenerator) -> Schema {
    text(253, &[SERVER_NAME])
}

pub(super) fn route(_: &mut SchemaGenerator) -> Schema {
    text(128, &[PRINTABLE])
}

pub(super) fn cookie_name(_: &mut SchemaGenerator) -> Schema {
    text(128, &[COOKIE_NAME])
}

pub(super) fn parameter_name(_: &mut SchemaGenerator) -> Schema {
    text(128, &[PARAMETER_NAME])
}

pub(super) fn route_regex(_: &mut SchemaGenerator) -> Schema {
    text(512, &[COMPILES, HAS_GROUP])
}

pub(super) fn separator(_: &mut SchemaGenerator) -> Schema {
    text(8, &[PRINTABLE])
}

pub(super) fn max_age(generator: &mut SchemaGenerator) -> Schema {
    let rule = format!("!self.matches('{DURATION}') || duration(self) >= duration('1s')");
    let mut max_age = Duration::json_schema(generator);
    require(&mut max_age, (&rule, "must be at least 1s"));
    max_age
}

pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 64})
}

/// The same for all kinds of objects: Kubernetes' own `metav1.Condition`.
pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let described = |mut schema: Schema, description: &str| {
        schema.insert("description".into(), description.into());
        schema
    };
    let condition = json_schema!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": described(text(316, &[]), "What is said."),
            "status": {
                "type": "string",
                "enum": ["True", "False", "Unknown"],
                "description": "Whether it is so.",
            },
            "reason": described(text(1024, &[]), "Why, in one word."),
            "message": described(text(32_768, &[]), "Why, for people."),
            "observedGeneration": {
                "type": "integer",
                "format": "int64",
                "description": "The generation of the spec that this is about.",
            },
            "lastTransitionTime": described(time(generator), "Since when it has been so."),
        },
    });
    keyed(list(8, &condition), "type")
}

pub(super) fn host_claims(generator: &mut SchemaGenerator) -> Schema {
    let claim = generator.subschema_for::<super::HostClaim>();
    // Whole or not at all: what another class has written must not stay beside it.
    let mut claims = list(64, &claim);
    claims.insert("x-kubernetes-list-type".into(), "atomic".into());
    claims
}

/// A list that several writers may write parts of.
fn keyed(mut list: Schema, key: &str) -> Schema {
    list.insert("x-kubernetes-list-type".into(), "map".into());
    list.insert("x-kubernetes-list-map-keys".into(), json!([key]));
    list
}

pub(super) fn locations(_: &mut SchemaGenerator) -> Schema {
    mappings(&text(2048, &[URL_OR_PATH, NO_USER, NO_QUERY, URL_CHARACTERS]))
}

pub(super) fn cookie_domains(_: &mut SchemaGenerator) -> Schema {
    mappings(&text(253, &[DOMAIN]))
}

pub(super) fn cookie_paths(generator: &mut SchemaGenerator) -> Schema {
    mappings(&cookie_path(generator))
}

fn mappings(side: &Schema) -> Schema {
    let described = |description: &str| {
        let mut side = side.clone();
        side.insert("description".into(), description.into());
        side
    };
    let (from, to) = (described("What members say."), described("What clients see instead."));
    let mapping = json_schema!({
        "type": "object", "properties": {"from": from, "to": to}, "required": ["from", "to"]
    });
    list(64, &mapping)
}

pub(super) fn header_name(_: &mut SchemaGenerator) -> Schema {
    text(128, &[HEADER_NAME, HEADER_IS_FREE])
}

pub(super) fn header_names(generator: &mut SchemaGenerator) -> Schema {
    list(64, &header_name(generator))
}

pub(super) fn header_value(_: &mut SchemaGenerator) -> Schema {
    text(4096, &[HEADER_VALUE])
}

pub(super) fn networks(_: &mut SchemaGenerator) -> Schema {
    list(256, &text(49, &[NETWORK]))
}

/// What is observed has no defaults: what is absent was not seen.
pub(super) fn observed(schema: &mut Schema) {
    fn without_default(schema: &mut Schema) {
        transform_subschemas(&mut without_default, schema);
        schema.remove("default");
    }
    absent_instead_of_null(schema);
    without_default(schema);
}

/// Makes optional fields absent rather than null, for `has()` is true of a null; joins the lines
/// of descriptions; removes formats that Kubernetes warns of.
pub(super) fn absent_instead_of_null(schema: &mut Schema) {
    transform_subschemas(&mut absent_instead_of_null, schema);
    let object = schema.ensure_object();
    if let Some(Value::Array(types)) = object.get_mut("type") {
        let only = types.swap_remove(0);
        object.insert("type".into(), only);
    }
    if let Some(Value::Array(mut variants)) = object.remove("anyOf")
        && let Value::Object(variant) = variants.swap_remove(0)
    {
        for (key, value) in variant {
            object.entry(key).or_insert(value);
        }
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    let unknown = |format: &Value| format.as_str().is_some_and(|name| name.starts_with("uint"));
    if object.get("format").is_some_and(unknown) {
        object.remove("format");
    }
}
