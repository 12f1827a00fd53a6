//! A tree read as a type: every fault has the line and the path of its field.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::Fault;
use super::tree::{Entry, Node, Value, item_path, key_path};

/// The type that the tree holds. Keys that are unknown or repeated are faults and left out; the
/// first value that is not what the type wants is a fault too, and then there is no result.
pub(super) fn read<T: DeserializeOwned>(root: &Node, faults: &mut Vec<Fault>) -> Option<T> {
    let found = RefCell::new(Vec::new());
    let reader = Reader { node: root, path: String::new(), faults: &found };
    let result = T::deserialize(reader).map_err(|error| error.at("", root.line));
    faults.append(&mut found.into_inner());
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            faults.push(error.0);
            None
        }
    }
}

/// A fault that has no place yet as long as its line is 0.
#[derive(Debug)]
struct Error(Fault);

struct Reader<'t> {
    node: &'t Node,
    path: String,
    faults: &'t RefCell<Vec<Fault>>,
}

struct Items<'t> {
    items: std::iter::Enumerate<std::slice::Iter<'t, Node>>,
    parent: Reader<'t>,
}

struct Fields<'t> {
    entries: std::slice::Iter<'t, Entry>,
    /// All keys that there may be; none for maps with keys of the user's own.
    known: Option<&'static [&'static str]>,
    seen: BTreeSet<&'t str>,
    next: Option<&'t Entry>,
    parent: Reader<'t>,
}

impl Error {
    fn at(mut self, field: &str, line: usize) -> Self {
        if self.0.line == 0 {
            field.clone_into(&mut self.0.field);
            self.0.line = line;
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Fault::new(0, "", message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = plain(&expected.to_string());
        let scalar =
            matches!(found, Unexpected::Bool(_) | Unexpected::Signed(_) | Unexpected::Float(_));
        let advice = if scalar && expected == "a text" { ": put it in quotes" } else { "" };
        Self::custom(format!("expected {expected}, found {}{advice}", shown(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

/// What Rust expects, in the words of somebody who writes YAML.
fn plain(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "i64" => "a whole number",
        "a string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other,
    }
    .to_owned()
}

/// What was found, in the words of [`Value`].
fn shown(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => Value::Bool(value).to_string(),
        Unexpected::Signed(value) => Value::Int(value).to_string(),
        Unexpected::Unsigned(value) => Value::Unsigned(value).to_string(),
        Unexpected::Float(value) => Value::Float(value).to_string(),
        Unexpected::Str(value) => Value::Text(value.to_owned()).to_string(),
        Unexpected::Seq => Value::List(Vec::new()).to_string(),
        Unexpected::Map => Value::Map(Vec::new()).to_string(),
        other => other.to_string(),
    }
}

impl<'t> Reader<'t> {
    fn child(&self, node: &'t Node, path: String) -> Self {
        Self { node, path, faults: self.faults }
    }

    fn fields(self, entries: &'t [Entry], known: Option<&'static [&'static str]>) -> Fields<'t> {
        let (entries, seen) = (entries.iter(), BTreeSet::new());
        Fields { entries, known, seen, next: None, parent: self }
    }

    fn unlike(&self, expected: &str) -> Error {
        de::Error::custom(format!("expected {expected}, found {}", self.node.value))
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor
                .visit_unit()
                .map_err(|_: Error| de::Error::custom("has no value: give it one or leave it out")),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(items) => {
                visitor.visit_seq(Items { items: items.iter().enumerate(), parent: self })
            }
            Value::Map(entries) => visitor.visit_map(self.fields(entries, None)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(self.fields(entries, Some(known))),
            _ => Err(self.unlike(&format!("a map with {}", listed(known)))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(text) if variants.contains(&text.as_str()) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            _ => Err(self.unlike(&format!("one of {}", listed(variants)))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.items.next() else {
            return Ok(None);
        };
        let path = item_path(&self.parent.path, index);
        let reader = self.parent.child(item, path.clone());
        seed.deserialize(reader).map(Some).map_err(|error| error.at(&path, item.line))
    }
}

impl<'t> Fields<'t> {
    /// Whether the visitor gets this entry; if not, a fault says why.
    fn admit(&mut self, entry: &'t Entry) -> bool {
        let message = match self.known {
            Some(known) if !known.contains(&entry.key.as_str()) => unknown(&entry.key, known),
            _ if !self.seen.insert(&entry.key) => "is there twice".to_owned(),
            _ => return true,
        };
        let field = key_path(&self.parent.path, &entry.key);
        self.parent.faults.borrow_mut().push(Fault::new(entry.line, field, message));
        false
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while let Some(entry) = self.entries.next() {
            if self.admit(entry) {
                self.next = Some(entry);
                let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
                return seed.deserialize(key).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let entry = self.next.take().ok_or_else(|| de::Error::custom("a value without a key"))?;
        let path = key_path(&self.parent.path, &entry.key);
        let reader = self.parent.child(&entry.node, path.clone());
        seed.deserialize(reader).map_err(|error| error.at(&path, entry.line))
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(meant) => format!("unknown field: did you mean `{meant}`?"),
        None => format!("unknown field: expected one of {}", listed(known)),
    }
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// The name that somebody most likely meant: one letter in three may differ, case does not count.
fn nearest<'n>(key: &str, known: &[&'n str]) -> Option<&'n str> {
    let (distance, name) = known
        .iter()
        .map(|name| (distance(key, name), *name))
        .min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= key.chars().count().max(3)).then_some(name)
}

/// How many letters are inserted, removed, replaced or swapped with their neighbour (Levenshtein's
/// distance with transpositions, the "optimal string alignment").
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replaced = above[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_what_was_meant_unless_it_is_far() {
        let known = ["hosts", "path", "members", "preserveHost"];
        assert_eq!(nearest("host", &known), Some("hosts"));
        assert_eq!(nearest("ptah", &known), Some("path"));
        assert_eq!(nearest("preservehost", &known), Some("preserveHost"));
        assert_eq!(nearest("color", &known), None);
        assert_eq!(nearest("", &[]), None);
    }

    #[test]
    fn a_swap_of_neighbours_counts_once() {
        assert_eq!(distance("port", "prot"), 1);
        assert_eq!(distance("weight", "wieght"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("state", "status"), 2);
    }
}
