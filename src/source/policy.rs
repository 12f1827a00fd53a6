//! What the operator allows those who write Balancers in a cluster.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Some namespaces, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// Every one.
    All,
    /// These.
    Some(BTreeSet<String>),
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Namespaces {
    /// Those that a flag names; `*` is all.
    #[must_use]
    pub fn of(names: &[Namespace]) -> Self {
        if names.iter().any(|name| name.0 == "*") {
            return Self::All;
        }
        Self::Some(names.iter().map(|name| name.0.clone()).collect())
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contain(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(namespace),
        }
    }
}

/// The name of a namespace, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(pub String);

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Namespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let label = !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if text == "*" || label {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{text}` is no namespace: give a name such as shop, or * for all"))
    }
}

/// What is allowed to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Namespaces whose Balancers may have no host, and so any.
    pub any_host: Namespaces,
    /// Namespaces whose Balancers may have members by URL.
    pub url_members: Namespaces,
    /// Whether several namespaces may serve one host.
    pub share_hosts: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(names: &[&str]) -> Namespaces {
        Namespaces::of(&names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn none_is_nobody_and_a_star_is_everybody() {
        assert!(!namespaces(&[]).contain("a"));
        assert!(namespaces(&["a", "b"]).contain("b") && !namespaces(&["a", "b"]).contain("c"));
        assert!(namespaces(&["a", "*"]).contain("c"));
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        for text in ["", "A", "a.b", "-a", "a-", "**"] {
            assert!(text.parse::<Namespace>().unwrap_err().contains("such as shop"), "{text}");
        }
    }
}
