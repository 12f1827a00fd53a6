//! Certificates of hosts: which one a client gets, by the server name that it asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

use super::RuleId;
use super::path::{self, HostPattern};

/// The name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a rule asks of TLS with clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate for its hosts, if it brings one.
    pub secret: Option<SecretId>,
    /// Whether requests without TLS are sent to it.
    pub redirect: bool,
    /// `Strict-Transport-Security` of its answers over TLS.
    pub hsts: Option<HeaderValue>,
}

/// A certificate with its chain and key, ready to be used.
pub struct Certificate {
    /// The Secret that it comes from.
    pub secret: SecretId,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// What handshakes need.
    pub config: Arc<rustls::ServerConfig>,
}

impl fmt::Debug for Certificate {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, until {})", self.secret, self.not_after)
    }
}

/// The certificate of each host.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    exact: HashMap<Box<str>, Arc<Certificate>>,
    wildcards: HashMap<Box<str>, Arc<Certificate>>,
    default: Option<Arc<Certificate>>,
}

impl Certificates {
    /// None but this, for hosts without one of their own.
    #[must_use]
    pub fn with_default(default: Option<Arc<Certificate>>) -> Self {
        Self { default, ..Self::default() }
    }

    /// Gives a host a certificate, unless it has one. Returns the Secret of another that it keeps.
    pub fn claim(&mut self, host: &HostPattern, new: &Arc<Certificate>) -> Option<SecretId> {
        let kept = match host {
            HostPattern::Exact(name) => {
                self.exact.entry(name.clone()).or_insert_with(|| Arc::clone(new))
            }
            HostPattern::Wildcard(suffix) => {
                self.wildcards.entry(suffix.clone()).or_insert_with(|| Arc::clone(new))
            }
            // There is no server name that says so.
            HostPattern::Any => return None,
        };
        (kept.secret != new.secret).then(|| kept.secret.clone())
    }

    /// The certificate for a server name (lower case): exact, by wildcard, or the default.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Certificate>> {
        let wild = || path::wildcard_suffixes(name).find_map(|suffix| self.wildcards.get(suffix));
        self.exact.get(name).or_else(wild).or(self.default.as_ref())
    }

    /// The certificate for clients that name no server.
    #[must_use]
    pub const fn for_no_name(&self) -> Option<&Arc<Certificate>> {
        self.default.as_ref()
    }

    /// All hosts that have a certificate of their own.
    pub fn hosts(&self) -> impl Iterator<Item = (String, &Arc<Certificate>)> {
        let exact = self.exact.iter().map(|(name, certificate)| (name.to_string(), certificate));
        let wild = self.wildcards.iter();
        exact.chain(wild.map(|(suffix, certificate)| (format!("*{suffix}"), certificate)))
    }
}

/// A rule brings another certificate for a host than the one that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConflict {
    /// The rule.
    pub rule: RuleId,
    /// The host.
    pub host: String,
    /// The Secret that is used.
    pub used: SecretId,
}

#[cfg(test)]
mod tests {
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;

    use super::*;

    #[derive(Debug)]
    struct None;

    impl ResolvesServerCert for None {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Option::None
        }
    }

    fn certificate(name: &str) -> Arc<Certificate> {
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let secret = SecretId { namespace: "site".into(), name: name.into() };
        let config = Arc::new(config.with_cert_resolver(Arc::new(None)));
        Arc::new(Certificate { secret, not_after: 0, config })
    }

    fn found(certificates: &Certificates, name: &str) -> String {
        certificates.find(name).map_or_else(String::new, |found| found.secret.to_string())
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_the_default_comes_last() {
        let mut certificates = Certificates::with_default(Some(certificate("default")));
        for (host, name) in [("www.site.com", "www"), ("*.site.com", "wild"), ("*", "any")] {
            let host =
                if host == "*" { HostPattern::Any } else { HostPattern::parse(host).unwrap() };
            assert_eq!(certificates.claim(&host, &certificate(name)), Option::None);
        }
        for (name, expected) in [
            ("www.site.com", "site/www"),
            ("a.site.com", "site/wild"),
            ("a.b.site.com", "site/wild"),
            ("site.com", "site/default"),
        ] {
            assert_eq!(found(&certificates, name), expected);
        }
        assert_eq!(found(&Certificates::default(), "www.site.com"), "");
        assert_eq!(certificates.hosts().count(), 2);
    }

    #[test]
    fn of_two_claims_the_first_counts_and_the_same_secret_twice_is_none() {
        let mut certificates = Certificates::default();
        let host = HostPattern::parse("www.site.com").unwrap();
        assert_eq!(certificates.claim(&host, &certificate("one")), Option::None);
        assert_eq!(certificates.claim(&host, &certificate("one")), Option::None);
        let kept = certificates.claim(&host, &certificate("two"));
        assert_eq!(kept.map(|kept| kept.to_string()).as_deref(), Some("site/one"));
        assert_eq!(found(&certificates, "www.site.com"), "site/one");
    }
}
