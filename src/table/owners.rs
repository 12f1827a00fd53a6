//! Which namespace a host belongs to: the one that claimed it first.

use std::sync::Arc;

use super::path::HostPattern;
use super::{Lookup, RuleId};

/// One object's claim of a host, whether or not the object is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The host. That of any host is nobody's, and is not claimed.
    pub host: HostPattern,
    /// When it was claimed, in microseconds since 1970, if that was ever written down.
    pub at: Option<i64>,
    /// Whether the object was seen not to ask for the host since then.
    pub given_up: bool,
    /// When the object was made, in seconds since 1970.
    pub created: Option<i64>,
    /// The object.
    pub by: RuleId,
}

impl Claim {
    /// A claim that was written down goes before all others, one that was kept before one that was
    /// given up meanwhile, the earlier before the later; else the older object, then the name.
    fn rank(&self) -> (bool, bool, i64, bool, i64, &RuleId) {
        let (at, created) = (self.at.unwrap_or_default(), self.created.unwrap_or_default());
        (self.at.is_none(), self.given_up, at, self.created.is_none(), created, &self.by)
    }
}

/// The owner of each claimed host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(Lookup<HostPattern, Arc<str>>);

impl Owners {
    /// Decides all claims.
    #[must_use]
    pub fn of<'c>(claims: impl IntoIterator<Item = &'c Claim>) -> Self {
        let mut first: Lookup<&HostPattern, &Claim> = Lookup::default();
        for claim in claims.into_iter().filter(|claim| claim.host != HostPattern::Any) {
            let holder = first.entry(&claim.host).or_insert(claim);
            if claim.rank() < holder.rank() {
                *holder = claim;
            }
        }
        let owner =
            |(host, claim): (&HostPattern, &Claim)| (host.clone(), Arc::clone(&claim.by.namespace));
        Self(first.into_iter().map(owner).collect())
    }

    /// All hosts that belong to somebody.
    pub fn iter(&self) -> impl Iterator<Item = (&HostPattern, &Arc<str>)> {
        self.0.iter()
    }

    /// The namespace that a host belongs to; a wildcard's owner does not own the names below it.
    #[must_use]
    pub fn owner(&self, host: &HostPattern) -> Option<&Arc<str>> {
        self.0.get(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(by: &str, at: Option<i64>, created: Option<i64>) -> Claim {
        let (namespace, name) = by.split_once('/').unwrap();
        let by = RuleId { namespace: namespace.into(), name: name.into() };
        Claim {
            host: HostPattern::parse("www.site.com").unwrap(),
            at,
            given_up: false,
            created,
            by,
        }
    }

    fn owner(claims: &[Claim]) -> String {
        let owners = Owners::of(claims);
        owners.owner(&claims[0].host).map_or_else(String::new, ToString::to_string)
    }

    #[test]
    fn the_first_claim_wins_and_not_the_older_object() {
        let young = claim("young/a", Some(5), Some(900));
        let old_edited = claim("old/b", Some(6), Some(1));
        assert_eq!(owner(&[old_edited.clone(), young.clone()]), "young");
        assert_eq!(owner(&[young, old_edited]), "young");
    }

    #[test]
    fn a_claim_that_was_given_up_loses_to_one_that_was_kept() {
        let kept = claim("a/a", Some(9), Some(2));
        let given_up = Claim { given_up: true, ..claim("b/b", Some(1), Some(1)) };
        assert_eq!(owner(&[given_up.clone(), kept]), "a");
        assert_eq!(owner(&[given_up, claim("a/a", None, Some(0))]), "b");
    }

    #[test]
    fn a_claim_that_was_never_written_down_loses_to_every_one_that_was() {
        let written = claim("a/a", Some(5_000_000), Some(2));
        let edited = claim("b/b", None, Some(1));
        assert_eq!(owner(&[edited, written]), "a");
    }

    #[test]
    fn among_those_not_written_down_the_older_object_then_the_name_wins() {
        assert_eq!(owner(&[claim("b/b", None, Some(1)), claim("a/a", None, Some(2))]), "b");
        assert_eq!(owner(&[claim("b/b", None, Some(1)), claim("a/a", None, Some(1))]), "a");
        assert_eq!(owner(&[claim("b/b", None, Some(1)), claim("a/a", None, None)]), "b");
    }

    #[test]
    fn any_host_is_nobodys() {
        let any = Claim { host: HostPattern::Any, ..claim("a/a", None, None) };
        assert_eq!(Owners::of([&any]), Owners::default());
    }
}
