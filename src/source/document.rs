//! YAML texts as Balancers that know the lines of their fields.
//!
//! Strict, as the files of a person should be read: what is unknown, repeated or of another kind is
//! a fault. Whether the values make sense is for the translation to say.

mod tree;
mod typed;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::certificate::{self, Content};
use crate::api::{Balancer, BalancerSpec};
use crate::table::tls::SecretId;
use tree::{Node, Value};

const API_VERSION: &str = "gibbon.dev/v1alpha1";
const KIND: &str = "Balancer";
const SECRET: &str = "Secret";
const TLS: &str = "kubernetes.io/tls";
const OPAQUE: &str = "Opaque";
const NAMESPACE: &str = "default";

/// A Balancer and where its fields are.
#[derive(Clone, Debug)]
pub struct Document {
    /// The line where it begins, from 1.
    pub line: usize,
    /// The Balancer; it has a name and a namespace, unless there are faults.
    pub balancer: Balancer,
    /// What is wrong with its form; then it must not be used, but may be looked at for more.
    pub faults: Vec<Fault>,
    places: BTreeMap<String, usize>,
}

/// What is wrong with a text, and where. Written as `12: spec.path: what is wrong`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The field, such as `spec.members[2].url`; empty for the document as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// A Balancer with its type, which the tree has shown to be right.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    metadata: ObjectMeta,
    spec: BalancerSpec,
    /// What `kubectl get -o yaml` writes too.
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// A Secret with a certificate and its key, or with authorities.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Secret {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, rename = "type")]
    type_: Option<String>,
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    #[serde(default, rename = "immutable")]
    _immutable: IgnoredAny,
}

/// What a text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Its Balancers.
    pub documents: Vec<Document>,
    /// Its Secrets.
    pub secrets: Vec<(SecretId, Content)>,
    /// What is wrong with what was left out.
    pub faults: Vec<Fault>,
}

/// One document.
enum Part {
    Nothing,
    Balancer(Box<Document>),
    Secret(SecretId, Content),
}

/// The Balancers and Secrets of a text, and what is wrong with those that are left out. A document
/// with a fault does not stop the others.
#[must_use]
pub fn read(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (lines_before, part) in split(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        match read_one(part, lines_before) {
            Ok(Part::Nothing) => {}
            Ok(Part::Balancer(document)) => parsed.documents.push(*document),
            Ok(Part::Secret(id, content)) => parsed.secrets.push((id, content)),
            Err(found) => parsed.faults.extend(found),
        }
    }
    parsed
}

impl Document {
    /// The line of a field such as `spec.members[2].url`, or of its nearest parent that is there.
    #[must_use]
    pub fn line_of(&self, field: &str) -> usize {
        let mut field = field;
        loop {
            if let Some(line) = self.places.get(field) {
                return *line;
            }
            match field.rfind(['.', '[']) {
                Some(end) => field = &field[..end],
                None => return self.line,
            }
        }
    }
}

impl Fault {
    fn new(line: usize, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { line, field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// The documents of a text, each with the number of lines before it. A line that begins with `---`
/// or `...` ends a document wherever it is, in quotes and blocks too: YAML need not be parsed.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let part = &text[start..at];
        let begins = is_marker(line, "---") && !is_prologue(part);
        if begins || is_marker(line, "...") {
            parts.push((first, part));
            (start, first) = if begins { (at, number) } else { (at + line.len(), number + 1) };
        }
        at += line.len();
    }
    parts.push((first, &text[start..]));
    parts
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Whether these are directives, such as `%YAML 1.2`, which belong to the document after them.
fn is_prologue(part: &str) -> bool {
    let directive = |line: &str| line.starts_with('%');
    part.lines().any(directive) && part.lines().all(|line| directive(line) || is_blank(line))
}

fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

fn read_one(text: &str, lines_before: usize) -> Result<Part, Vec<Fault>> {
    if text.lines().all(is_blank) {
        return Ok(Part::Nothing);
    }
    let root = tree::parse(text, lines_before).map_err(|fault| vec![fault])?;
    if matches!(root.value, Value::Null) {
        return Ok(Part::Nothing);
    }
    if root.entry("kind").is_some_and(|kind| is_text(&kind.node.value, SECRET)) {
        return read_secret(&root);
    }
    check_kind(&root)?;
    let places = root.places();
    let mut faults = Vec::new();
    let object: Object = typed::read(&root, &mut faults).ok_or_else(|| sorted(&faults))?;
    let mut balancer = Balancer { metadata: object.metadata, spec: object.spec, status: None };
    faults.extend(check_names(&balancer, &places, root.line));
    balancer.metadata.namespace.get_or_insert_with(|| NAMESPACE.to_owned());
    Ok(Part::Balancer(Box::new(Document {
        line: root.line,
        balancer,
        faults: sorted(&faults),
        places,
    })))
}

fn is_text(value: &Value, text: &str) -> bool {
    matches!(value, Value::Text(found) if found == text)
}

fn read_secret(root: &Node) -> Result<Part, Vec<Fault>> {
    let mut faults: Vec<_> = check_text(root, "apiVersion", "v1").into_iter().collect();
    let secret = typed::read::<Secret>(root, &mut faults).ok_or_else(|| sorted(&faults))?;
    let places = root.places();
    let line = |field: &str| places.get(field).copied().unwrap_or(root.line);
    let of_use = matches!(secret.type_.as_deref(), None | Some(TLS | OPAQUE))
        || secret.data.contains_key(certificate::CA)
        || secret.string_data.contains_key(certificate::CA);
    if !of_use {
        let message = format!(
            "expected `{TLS}` or `{OPAQUE}`: other Secrets are of no use here, but those with {}",
            certificate::CA
        );
        faults.push(Fault::new(line("type"), "type", message));
    }
    let name = secret.metadata.name.filter(|name| is_subdomain(name));
    let Some(name) = name.filter(|_| faults.is_empty()) else {
        if faults.is_empty() {
            let message = "missing, or no name that a Secret can have";
            faults.push(Fault::new(line("metadata.name"), "metadata.name", message));
        }
        return Err(sorted(&faults));
    };
    let namespace = secret.metadata.namespace.unwrap_or_else(|| NAMESPACE.to_owned());
    let value = |key: &str| {
        let text = secret.string_data.get(key).map(|text| text.as_bytes().to_vec());
        text.or_else(|| secret.data.get(key).map(|bytes| bytes.0.clone()))
    };
    let content = Content {
        certificate: value(certificate::CERTIFICATE),
        key: value(certificate::KEY),
        ca: value(certificate::CA),
    };
    Ok(Part::Secret(SecretId { namespace: namespace.into(), name: name.into() }, content))
}

fn sorted(faults: &[Fault]) -> Vec<Fault> {
    let mut faults = faults.to_vec();
    faults.sort_by_key(|fault| fault.line);
    faults
}

/// A document of another type has no other fault than that.
fn check_kind(root: &Node) -> Result<(), Vec<Fault>> {
    let Value::Map(_) = root.value else {
        let message = format!("expected a {KIND}, found {}", root.value);
        return Err(vec![Fault::new(root.line, "", message)]);
    };
    let faults: Vec<Fault> = [("apiVersion", API_VERSION), ("kind", KIND)]
        .into_iter()
        .filter_map(|(field, expected)| check_text(root, field, expected))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn check_text(root: &Node, field: &str, expected: &str) -> Option<Fault> {
    let Some(entry) = root.entry(field) else {
        let message = format!("missing: expected `{expected}`");
        return Some(Fault::new(root.line, field, message));
    };
    match &entry.node.value {
        Value::Text(text) if text == expected => None,
        found => {
            let message = format!("expected `{expected}`, found {found}");
            Some(Fault::new(entry.line, field, message))
        }
    }
}

fn check_names(balancer: &Balancer, places: &BTreeMap<String, usize>, root: usize) -> Vec<Fault> {
    let fault = |field: &str, message: &str| {
        let line = places.get(field).or_else(|| places.get("metadata")).unwrap_or(&root);
        Fault::new(*line, field, message)
    };
    let mut faults = Vec::new();
    match balancer.metadata.name.as_deref() {
        None => faults.push(fault("metadata.name", "missing: a Balancer has a name")),
        Some(name) if !is_subdomain(name) => faults.push(fault(
            "metadata.name",
            "must be of small letters, digits, - and ., each part between dots with a letter or \
             digit at both ends, at most 253 characters",
        )),
        Some(_) => {}
    }
    if balancer.metadata.namespace.as_deref().is_some_and(|name| !is_label(name)) {
        faults.push(fault(
            "metadata.namespace",
            "must be of small letters, digits and -, with a letter or digit at both ends, at most \
             63 characters",
        ));
    }
    faults
}

/// Whether Kubernetes takes this for an object's name: a DNS-1123 subdomain.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_part)
}

/// Whether Kubernetes takes this for a namespace's name: a DNS-1123 label.
fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_part(name)
}

fn is_part(part: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document of this name, with this after `spec:`.
    fn balancer(name: &str, spec: &str) -> String {
        let head = "apiVersion: gibbon.dev/v1alpha1\nkind: Balancer\nmetadata:\n  name: ";
        format!("{head}{name}\nspec:{spec}\n")
    }

    const MEMBER: &str = "\n  members:\n  - url: http://app1.site.com/";

    fn faults(text: &str) -> Vec<String> {
        let Parsed { documents, faults, .. } = read(text);
        let of_documents = documents.iter().flat_map(|document| &document.faults);
        of_documents.chain(&faults).map(ToString::to_string).collect()
    }

    fn names(text: &str) -> Vec<String> {
        let Parsed { documents, faults, .. } = read(text);
        assert_eq!(faults, []);
        documents.into_iter().filter_map(|document| document.balancer.metadata.name).collect()
    }

    #[test]
    fn secrets_are_read_beside_balancers_and_their_content_is_not_shown() {
        let secret = |more: &str| {
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: www}}\n{more}\n---\n{}",
                balancer("a", MEMBER)
            )
        };
        let data =
            "type: kubernetes.io/tls\ndata: {tls.crt: aGk=}\nstringData: {tls.key: 'confidential'}";
        let parsed = read(&secret(data));
        assert_eq!((parsed.documents.len(), parsed.faults.len()), (1, 0));
        let (id, content) = &parsed.secrets[0];
        assert_eq!(id.to_string(), "default/www");
        assert_eq!(content.certificate.as_deref(), Some(&b"hi"[..]));
        assert_eq!(content.key.as_deref(), Some(&b"confidential"[..]));
        assert!(!format!("{parsed:?}").contains("conf"));
        for ca in ["", "type: Opaque\n", "type: example.com/authorities\n"] {
            let parsed = read(&secret(&format!("{ca}stringData: {{ca.crt: authorities}}")));
            assert_eq!(parsed.secrets[0].1.ca.as_deref(), Some(&b"authorities"[..]), "{ca}");
        }
        for (more, said) in [
            (
                "type: kubernetes.io/basic-auth\ndata: {password: Y29uZg==}",
                "4: type: expected `kubernetes.io/tls` or `Opaque`",
            ),
            ("type: Opaque\ndata: {ca.crt: 'conf!'}", "5: data.ca.crt: "),
            ("type: kubernetes.io/tls\ndata: {tls.key: 'conf!'}", "5: data.tls.key: "),
            ("type: kubernetes.io/tls\ndatum: {}", "5: datum: unknown field"),
        ] {
            let parsed = read(&secret(more));
            let faults: Vec<_> = parsed.faults.iter().map(ToString::to_string).collect();
            assert!(faults.len() == 1 && faults[0].starts_with(said), "{faults:?}");
            assert!(!faults[0].contains("conf"), "{faults:?}");
            assert_eq!((parsed.documents.len(), parsed.secrets.len()), (1, 0));
        }
    }

    #[test]
    fn each_document_knows_the_lines_of_its_fields() {
        let text = format!("# two\n---\n{}---\n\n{}", balancer("a", MEMBER), balancer("b", MEMBER));
        let Parsed { documents, faults, .. } = read(&text);
        assert_eq!(faults, []);
        assert_eq!([documents[0].line, documents[1].line], [3, 12]);
        assert_eq!(documents[1].line_of("spec.members[0].url"), 18);
        assert_eq!(documents[1].line_of("metadata.name"), 15);
    }

    #[test]
    fn a_field_that_is_absent_is_where_its_parent_is() {
        let Parsed { documents, .. } = read(&balancer("a", MEMBER));
        assert_eq!(documents[0].line_of("spec.members[0].service.port"), 7);
        assert_eq!(documents[0].line_of("spec.members[3].url"), 6);
        assert_eq!(documents[0].line_of("spec.sticky"), 5);
        assert_eq!(documents[0].line_of(""), 1);
    }

    #[test]
    fn documents_without_content_are_skipped() {
        assert_eq!(names("").len(), 0);
        let text =
            format!("---\n---\n# nothing\n---\n~\n--- # here\n{}---\n", balancer("a", MEMBER));
        assert_eq!(names(&text), ["a"]);
    }

    #[test]
    fn directives_ends_of_documents_byte_order_marks_and_carriage_returns_are_read() {
        let document = balancer("a", MEMBER);
        assert_eq!(names(&format!("{document}...\n%YAML 1.2\n---\n{document}...\n")), ["a", "a"]);
        assert_eq!(
            names(&format!("\u{feff}{document}---\n{document}").replace('\n', "\r\n")),
            ["a", "a"]
        );
    }

    #[test]
    fn dashes_within_a_line_or_indented_begin_no_document() {
        let spec = format!(
            "{MEMBER}\n  headers:\n    request:\n      set:\n      - name: x\n        value: |\n\
             \x20         --- a\n          ---"
        );
        assert_eq!(names(&balancer("a", &spec)), ["a"]);
    }

    #[test]
    fn a_document_that_is_no_yaml_does_not_stop_the_others() {
        let (good, bad) = (balancer("a", MEMBER), balancer("b", " {path: ["));
        let Parsed { documents, faults, .. } = read(&format!("{good}---\n{bad}---\n{good}"));
        assert_eq!(documents.iter().map(|document| document.line).collect::<Vec<_>>(), [1, 15]);
        assert_eq!(faults.len(), 1);
        assert!((13..=14).contains(&faults[0].line), "{}", faults[0]);
    }

    #[test]
    fn an_unknown_field_is_a_fault_that_says_what_was_meant() {
        let spec =
            "\n  members:\n  - service: {name: a, port: 80, prot: 1}\n    wieght: 2\n  colour: red";
        assert_eq!(
            faults(&balancer("a", spec))[..2],
            [
                "7: spec.members[0].service.prot: unknown field: did you mean `port`?",
                "8: spec.members[0].wieght: unknown field: did you mean `weight`?",
            ]
        );
        let last = &faults(&balancer("a", spec))[2];
        assert!(
            last.starts_with("9: spec.colour: unknown field: expected one of `className`, "),
            "{last}"
        );
    }

    #[test]
    fn a_key_that_is_there_twice_is_a_fault_at_the_second() {
        let text = balancer("a", "\n  path: /a\n  redirect: {to: /b}\n  path: /c");
        assert_eq!(faults(&text), ["8: spec.path: is there twice"]);
        let text = balancer("a\n  labels: {x: a, x: b}", "\n  redirect: {to: /b}");
        assert_eq!(faults(&text), ["5: metadata.labels.x: is there twice"]);
        let text = format!("{}kind: Secret", balancer("a", MEMBER));
        assert_eq!(faults(&text), ["8: kind: is there twice"]);
    }

    #[test]
    fn another_kind_is_a_fault_and_nothing_else_is_said_of_it() {
        let found = faults("apiVersion: v1\nkind: ConfigMap\ndata: {}\n---\n- 1\n---\nkind: 5\n");
        assert_eq!(
            found,
            [
                "1: apiVersion: expected `gibbon.dev/v1alpha1`, found the text \"v1\"",
                "2: kind: expected `Balancer`, found the text \"ConfigMap\"",
                "5: expected a Balancer, found a list",
                "7: apiVersion: missing: expected `gibbon.dev/v1alpha1`",
                "7: kind: expected `Balancer`, found the number 5",
            ]
        );
    }

    #[test]
    fn a_value_of_another_type_is_a_fault_at_its_field() {
        for (spec, expected) in [
            (" x", "5: spec: expected a map with `className`, "),
            (" {hosts: a}", "5: spec.hosts: expected a list, found the text \"a\""),
            (
                " {hosts: [1]}",
                "5: spec.hosts[0]: expected a text, found the number 1: put it in quotes",
            ),
            (" {path:}", "5: spec.path: has no value: give it one or leave it out"),
            (
                " {preserveHost: 1}",
                "5: spec.preserveHost: expected true or false, found the number 1",
            ),
            (
                " {members: [{weight: 70000}]}",
                "5: spec.members[0].weight: expected a whole number from 0 to 65535",
            ),
            (
                " {members: [{state: active}]}",
                "5: spec.members[0].state: expected one of `Active`, `Standby`, ",
            ),
            (
                " {timeouts: {connect: 2}}",
                "5: spec.timeouts.connect: `2` is not a duration such as 500ms",
            ),
            (
                " {limits: {requestBody: 1MB}}",
                "5: spec.limits.requestBody: `1MB` is not a whole number of bytes",
            ),
            (" {redirect: {}}", "5: spec.redirect: missing field `to`"),
            (
                " {members: [{service: {name: a, port: '80'}}]}",
                "5: spec.members[0].service.port: `80` is not the name of a port",
            ),
        ] {
            let found = faults(&balancer("a", spec));
            assert!(found.len() == 1 && found[0].starts_with(expected), "{spec}: {found:?}");
        }
    }

    #[test]
    fn objects_as_kubectl_prints_them_are_read() {
        let metadata = "a\n  uid: u\n  generation: 2\n  annotations: {a/b: c}\n  \
            creationTimestamp: 2026-01-01T00:00:00Z\n  \
            managedFields: [{manager: m, fieldsV1: {f:spec: {}}}]";
        assert_eq!(names(&balancer(metadata, MEMBER)), ["a"]);
    }

    #[test]
    fn a_name_is_needed_and_a_namespace_is_not() {
        let Parsed { documents, .. } = read(&balancer("a.b-1", MEMBER));
        assert_eq!(documents[0].balancer.metadata.namespace.as_deref(), Some("default"));
        let nameless = balancer("a", MEMBER).replace("name: a", "labels: {}");
        assert_eq!(faults(&nameless), ["3: metadata.name: missing: a Balancer has a name"]);
        for name in ["A", "a_b", "-a", "a-", "a..b", "a.-b", &"a".repeat(254)] {
            assert!(
                faults(&balancer(name, MEMBER))[0].starts_with("4: metadata.name: must be"),
                "{name}"
            );
        }
        let dotted = balancer("a\n  namespace: a.b", MEMBER);
        assert!(faults(&dotted)[0].starts_with("5: metadata.namespace: must be of small letters"));
    }

    #[test]
    fn aliases_are_followed_and_a_bomb_of_them_is_a_fault() {
        let spec = "\n  sticky: {issue: &i {name: x}}\n  redirect: {<<: *i, to: /}";
        assert_eq!(
            faults(&balancer("a", spec)),
            ["7: spec.redirect.name: unknown field: expected one of `to`, `status`, `keepPath`"]
        );
        let levels = (1..9).map(|level| {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            format!("a{level}: &a{level} [{inner}]\n")
        });
        let bomb: String = std::iter::once("a0: &a0 x\n".to_owned()).chain(levels).collect();
        assert!(faults(&bomb)[0].contains("limit"), "{:?}", faults(&bomb));
        let deep = format!("a: {}", "[".repeat(10_000));
        assert_eq!(faults(&deep).len(), 1);
    }
}
