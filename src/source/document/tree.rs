//! A YAML document as a tree that knows its lines.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Options, Spanned};

use super::Fault;

/// Far more than 512 members with every field have; what aliases repeat counts too.
const MAX_NODES: usize = 100_000;
const MAX_BYTES: usize = 8 << 20;

/// The longest text that a message shows, and the longest key: a line of a private key is longer.
const SHOWN: usize = 32;
const LONGEST_KEY: usize = 63;

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// A value as YAML's core schema types it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, its line, and what is under it. A key may be there twice.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

/// The tree of a text that is one document, with so many lines before it.
pub(super) fn parse(text: &str, lines_before: usize) -> Result<Node, Fault> {
    match serde_saphyr::from_str_with_options::<Node>(text, options()) {
        Ok(mut root) => {
            root.move_down(lines_before);
            Ok(root)
        }
        Err(error) => Err(fault(&error, lines_before)),
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_total_scalar_bytes: MAX_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        // Repeated keys are kept, so that each can be told with its place.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    }
}

fn fault(error: &serde_saphyr::Error, lines_before: usize) -> Fault {
    let line = error.location().map_or(1, |place| line(&place)).max(1);
    Fault::new(line + lines_before, "", DefaultMessageFormatter.format_message(error))
}

fn line(place: &serde_saphyr::Location) -> usize {
    usize::try_from(place.line()).unwrap_or(usize::MAX)
}

impl Node {
    /// What is under this key, if this is a map that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The line of each field below this one, by paths such as `spec.members[2].url`.
    pub(super) fn places(&self) -> BTreeMap<String, usize> {
        let mut places = BTreeMap::new();
        self.collect_places("", &mut places);
        places
    }

    fn collect_places(&self, path: &str, places: &mut BTreeMap<String, usize>) {
        for (path, line, node) in self.children(path) {
            node.collect_places(&path, places);
            places.entry(path).or_insert(line);
        }
    }

    fn children(&self, path: &str) -> Vec<(String, usize, &Node)> {
        match &self.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (item_path(path, index), item.line, item))
                .collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (key_path(path, &entry.key), entry.line, &entry.node))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn move_down(&mut self, lines: usize) {
        self.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_down(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.line += lines;
                entry.node.move_down(lines);
            }),
            _ => {}
        }
    }
}

/// The path of a key of the map at `path`.
pub(super) fn key_path(path: &str, key: &str) -> String {
    let key = if key.len() > LONGEST_KEY { "(a long key)" } else { key };
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The path of an item of the list at `path`.
pub(super) fn item_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "the number {value}"),
            Self::Unsigned(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value}"),
            // What is long, and should not be here at all, may be a key.
            Self::Text(value) if value.len() > SHOWN => f.write_str("a long text"),
            Self::Text(value) => write!(f, "the text {value:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: line(&spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Unsigned(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry::<Spanned<String>, Node>()? {
            entries.push(Entry { line: line(&key.referenced), key: key.value, node });
        }
        Ok(Value::Map(entries))
    }
}
