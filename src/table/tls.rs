//! Certificates of hosts: which one a client gets, by the server name that it asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ResolvesServerCert, StoresServerSessions};

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
    /// Whose certificates clients must or may have, if it says so.
    pub clients: Option<Clients>,
    /// Whether requests without TLS are sent to it.
    pub redirect: bool,
    /// `Strict-Transport-Security` of its answers over TLS.
    pub hsts: Option<HeaderValue>,
}

/// Which certificates a rule wants of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// The Secret of the authorities that they must come from.
    pub ca: SecretId,
    /// Whether a client without one is refused.
    pub required: bool,
}

/// A certificate with its chain and key, ready to be used.
pub struct Certificate {
    /// The Secret that it comes from.
    pub secret: SecretId,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// What handshakes need that ask clients for nothing.
    pub config: Arc<ServerConfig>,
    /// The chain and the key.
    pub resolver: Arc<dyn ResolvesServerCert>,
}

impl fmt::Debug for Certificate {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, until {})", self.secret, self.not_after)
    }
}

/// How clients are verified in a handshake. Sessions are taken up again only where they began:
/// another verification, or none, has not seen the same of the client.
#[derive(Clone)]
pub struct Verification {
    /// Says whose certificates are good.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Its sessions.
    pub sessions: Arc<dyn StoresServerSessions>,
    /// Its tickets.
    pub tickets: Option<Arc<dyn ProducesTickets>>,
}

/// The authorities of a Secret, ready to verify clients by them.
pub struct ClientCa {
    /// The Secret that they come from.
    pub secret: SecretId,
    /// When the last of them ends, in seconds since 1970.
    pub not_after: i64,
    /// Where a client without a certificate is refused.
    pub strict: Verification,
    /// Where it is not.
    pub lenient: Verification,
}

impl fmt::Debug for ClientCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCa({}, until {})", self.secret, self.not_after)
    }
}

impl ClientCa {
    /// What handshakes with this certificate need that ask clients for theirs; `strict` refuses those
    /// without one.
    #[must_use]
    pub fn config(&self, certificate: &Certificate, strict: bool) -> ServerConfig {
        let Verification { verifier, sessions, tickets } =
            if strict { &self.strict } else { &self.lenient };
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(Arc::clone(verifier))
            .with_cert_resolver(Arc::clone(&certificate.resolver));
        config.alpn_protocols.clone_from(&certificate.config.alpn_protocols);
        config.session_storage = Arc::clone(sessions);
        if let Some(tickets) = tickets {
            config.ticketer = Arc::clone(tickets);
        }
        config
    }

    /// Whether a client's certificate with its chain is good now.
    #[must_use]
    pub fn accepts(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let verifier = &self.strict.verifier;
        chain
            .split_first()
            .is_some_and(|(own, rest)| verifier.verify_client_cert(own, rest, now).is_ok())
    }
}

/// How the clients of a host are verified.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    /// The Secret of the authorities.
    pub secret: SecretId,
    /// Whether the rules of the host that do not say so are for clients with a certificate only.
    pub required: bool,
    /// Whether all rules of the host are, so that a handshake without one can be refused.
    pub strict: bool,
    /// The authorities; while there are none, nobody is served.
    pub ca: Option<Arc<ClientCa>>,
}

/// How the clients of each host are verified; a host that has rules and none of them asks is not
/// asked for by its wildcard either.
#[derive(Clone, Debug, Default)]
pub struct ClientPolicies {
    exact: HashMap<Box<str>, Option<ClientPolicy>>,
    wildcards: HashMap<Box<str>, Option<ClientPolicy>>,
    any: Option<ClientPolicy>,
}

impl ClientPolicies {
    /// Takes down what a rule asks of the clients of a host. Returns the Secret of an earlier rule
    /// with other authorities, which stay.
    pub fn claim(
        &mut self,
        host: &HostPattern,
        clients: Option<&Clients>,
        find: impl Fn(&SecretId) -> Option<Arc<ClientCa>>,
    ) -> Option<SecretId> {
        let policy = match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(suffix) => self.wildcards.entry(suffix.clone()).or_default(),
            HostPattern::Any => &mut self.any,
        };
        let Clients { ca, required } = clients?;
        let policy = policy.get_or_insert_with(|| ClientPolicy {
            secret: ca.clone(),
            required: *required,
            strict: true,
            ca: find(ca),
        });
        if policy.secret != *ca {
            return Some(policy.secret.clone());
        }
        policy.strict &= required;
        None
    }

    /// How the clients of this host (lower case) are verified, if they are.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&ClientPolicy> {
        if self.exact.is_empty() && self.wildcards.is_empty() {
            return self.any.as_ref();
        }
        let wild = || path::wildcard_suffixes(name).find_map(|suffix| self.wildcards.get(suffix));
        match self.exact.get(name).or_else(wild) {
            Some(policy) => policy.as_ref(),
            None => self.any.as_ref(),
        }
    }

    /// How clients that name no server are verified, if they are.
    #[must_use]
    pub const fn for_no_name(&self) -> Option<&ClientPolicy> {
        self.any.as_ref()
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

    /// All hosts that have a certificate of their own; and `*`, all others, if there is a default.
    pub fn hosts(&self) -> impl Iterator<Item = (String, &Arc<Certificate>)> {
        let exact = self.exact.iter().map(|(name, certificate)| (name.to_string(), certificate));
        let wild = self.wildcards.iter();
        let wild = wild.map(|(suffix, certificate)| (format!("*{suffix}"), certificate));
        let others = self.default.iter().map(|certificate| ("*".to_owned(), certificate));
        exact.chain(wild).chain(others)
    }
}

/// A rule brings another certificate for a host, or other authorities for its clients, than the
/// ones that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConflict {
    /// The rule.
    pub rule: RuleId,
    /// The host.
    pub host: String,
    /// The Secret that is used.
    pub used: SecretId,
    /// Whether it is about the clients' authorities.
    pub of_clients: bool,
}

impl fmt::Display for CertificateConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, used, of_clients, .. } = self;
        if *of_clients {
            write!(
                f,
                "spec.tls.clientCASecret: clients of host {host} are verified by Secret {used}, \
                 which an older Balancer names; this one's are refused there"
            )
        } else {
            write!(
                f,
                "spec.tls.secretName: host {host} has the certificate of Secret {used}, which an \
                 older Balancer names"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::ClientHello;
    use rustls::sign::CertifiedKey;

    use super::*;

    #[derive(Debug)]
    struct None;

    impl ResolvesServerCert for None {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Option::None
        }
    }

    fn secret(name: &str) -> SecretId {
        SecretId { namespace: "site".into(), name: name.into() }
    }

    fn certificate(name: &str) -> Arc<Certificate> {
        let config = ServerConfig::builder().with_no_client_auth();
        let resolver = Arc::new(None);
        let config = Arc::new(config.with_cert_resolver(Arc::clone(&resolver) as _));
        Arc::new(Certificate { secret: secret(name), not_after: 0, config, resolver })
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
        let mut hosts: Vec<_> = certificates.hosts().map(|(host, _)| host).collect();
        hosts.sort();
        assert_eq!(hosts, ["*", "*.site.com", "www.site.com"]);
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

    fn claim(policies: &mut ClientPolicies, host: &str, ca: Option<(&str, bool)>) -> String {
        let host = if host == "*" { HostPattern::Any } else { HostPattern::parse(host).unwrap() };
        let clients = ca.map(|(name, required)| Clients { ca: secret(name), required });
        let kept = policies.claim(&host, clients.as_ref(), |_| Option::None);
        kept.map_or_else(String::new, |kept| kept.to_string())
    }

    #[test]
    fn a_host_wants_certificates_of_clients_unless_a_rule_of_it_does_without() {
        let mut policies = ClientPolicies::default();
        for (host, ca) in [
            ("*.site.com", Some(("ca", true))),
            ("open.site.com", Option::None),
            ("both.site.com", Some(("ca", true))),
            ("both.site.com", Some(("ca", false))),
            ("both.site.com", Some(("ca", true))),
            ("strict.site.com", Option::None),
            ("strict.site.com", Some(("ca", true))),
        ] {
            assert_eq!(claim(&mut policies, host, ca), "", "{host}");
        }
        let found = |name: &str| policies.find(name).map(|policy| (policy.required, policy.strict));
        assert_eq!(found("a.b.site.com"), Some((true, true)));
        assert_eq!(found("open.site.com"), Option::None);
        assert_eq!(found("both.site.com"), Some((true, false)));
        assert_eq!(found("strict.site.com"), Some((true, true)));
        assert_eq!(found("other.org"), Option::None);
        assert!(policies.for_no_name().is_none());
        assert_eq!(claim(&mut policies, "strict.site.com", Some(("other", false))), "site/ca");
        assert_eq!(claim(&mut policies, "*", Some(("any", true))), "");
        assert_eq!(policies.find("other.org").unwrap().secret, secret("any"));
        assert!(policies.find("open.site.com").is_none());
        assert!(policies.for_no_name().is_some());
    }
}
