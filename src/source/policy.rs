//! What the operator allows those who write Balancers in a cluster.

use std::collections::BTreeSet;

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
    pub fn of(names: &[String]) -> Self {
        if names.iter().any(|name| name == "*") {
            return Self::All;
        }
        Self::Some(names.iter().cloned().collect())
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

impl Policy {
    /// Which addresses may not be members, for people.
    pub const BARRED: &str = "loopback, link-local and multicast addresses, Gibbon's own, the API \
        server's, and those of --deny-members (the chart's denyMembers)";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(names: &[&str]) -> Namespaces {
        Namespaces::of(&names.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn none_is_nobody_and_a_star_is_everybody() {
        assert!(!namespaces(&[]).contain("a"));
        assert!(namespaces(&["a", "b"]).contain("b") && !namespaces(&["a", "b"]).contain("c"));
        assert!(namespaces(&["a", "*"]).contain("c"));
    }
}
