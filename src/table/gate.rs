//! What becomes of a request before any member is asked, and whether a second may be.

use std::net::IpAddr;

use http::{Method, StatusCode};

use super::tls::ClientPolicy;
use super::{Redirect, Rule};

/// Where certificates are proven; without TLS, for that is how they begin (RFC 8555, section 8.3).
pub const ACME: &str = "/.well-known/acme-challenge/";

/// What a rule does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate<'r> {
    /// A member is to answer.
    Open,
    /// The client is shut out.
    Forbidden,
    /// The client is sent to the same by TLS.
    ToHttps,
    /// The client is sent elsewhere.
    Redirect(&'r Redirect),
    /// The request is refused, whoever asks.
    Refused(StatusCode),
}

impl Rule {
    /// What becomes of a request of this client for a path that the rule serves, in the spelling of
    /// [`RequestPath::plain`](super::path::RequestPath::plain).
    #[must_use]
    pub fn gate(&self, client: IpAddr, https: bool, plain: &str) -> Gate<'_> {
        if !self.access.permits(client) {
            return Gate::Forbidden;
        }
        let insists = self.tls.as_ref().is_some_and(|tls| tls.redirect);
        if insists && !https && !plain.starts_with(ACME) {
            return Gate::ToHttps;
        }
        match (&self.redirect, self.refuse) {
            (Some(redirect), _) => Gate::Redirect(redirect),
            (None, Some(status)) => Gate::Refused(status),
            (None, None) => Gate::Open,
        }
    }

    /// Whether it serves a client that has shown a certificate, or none, by TLS or without, for a path
    /// as in [`gate`](Self::gate). A rule whose authorities are not those of the host serves nobody; one
    /// that names none does as the host does, but that certificates are proven without TLS.
    #[must_use]
    pub fn may_enter(
        &self,
        policy: Option<&ClientPolicy>,
        shown: bool,
        tls: bool,
        plain: &str,
    ) -> bool {
        match (self.clients(), policy) {
            (Some(clients), Some(policy)) if policy.secret == clients.ca => {
                shown || !clients.required
            }
            (Some(_), _) => false,
            (None, Some(policy)) => {
                let proves = !tls && plain.starts_with(ACME);
                shown || !policy.required || proves
            }
            (None, None) => true,
        }
    }
}

/// Whether a request may be sent again when it is not known whether a member has served it: the
/// idempotent methods of RFC 9110, and what only reads in `WebDAV` (RFC 3253, 4918, 5323).
///
/// Not MOVE and the like: they are registered as idempotent, but the second answer is a failure.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent() || matches!(method.as_str(), "PROPFIND" | "REPORT" | "SEARCH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_done_twice_is_sent_twice() {
        let is = |method: &str| is_idempotent(&method.parse().unwrap());
        let twice =
            ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PROPFIND", "REPORT", "SEARCH"];
        assert!(twice.into_iter().all(is));
        assert!(!["POST", "PATCH", "CONNECT", "MOVE", "LOCK", "get"].into_iter().any(is));
    }
}
