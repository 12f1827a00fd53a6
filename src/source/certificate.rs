//! Secrets → certificates and authorities of clients, or what is wrong with them. No message of this
//! module holds anything of a key.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, ParsedCertificate, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache,
    VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::trust::{self, Trusts};
use crate::table::Rule;
use crate::table::path::HostPattern;
use crate::table::tls::{Certificate, ClientCa, SecretId, Verification};
use crate::table::upstream::{ClientConfigs, Trust};

/// The key of a Secret under which its certificate and the chain are.
pub const CERTIFICATE: &str = "tls.crt";
/// The key of a Secret under which its private key is.
pub const KEY: &str = "tls.key";
/// The key of a Secret under which authorities are.
pub const CA: &str = "ca.crt";
/// What is wrong with a Secret that is not there.
pub const MISSING: &str = "it does not exist";
/// Protocols that clients may choose, the better first.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];
/// Sessions that are kept for clients with certificates, for those who cannot keep a ticket.
const SESSIONS: usize = 256;

/// The part of a Secret that matters. Its `Debug` shows nothing of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The certificate and its chain.
    pub certificate: Option<Vec<u8>>,
    /// The private key.
    pub key: Option<Vec<u8>>,
    /// Certificates of authorities.
    pub ca: Option<Vec<u8>>,
}

impl Content {
    /// What belongs to a certificate.
    #[must_use]
    pub fn without_ca(&self) -> Self {
        Self { ca: None, ..self.clone() }
    }

    /// The authorities.
    #[must_use]
    pub fn only_ca(&self) -> Self {
        Self { ca: self.ca.clone(), ..Self::default() }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(…)")
    }
}

/// What is known of a Secret.
#[derive(Clone, Copy, Debug)]
pub enum Found<'c> {
    /// This is in it.
    Content(&'c Content),
    /// There is none.
    Nothing,
    /// There is one, and what is in it will be heard later.
    Later,
}

/// A Secret that a rule names: the last good thing that was made of it, and what is wrong with it now.
#[derive(Debug)]
struct Kept<T> {
    content: Option<Content>,
    good: Option<Arc<T>>,
    problem: Option<String>,
    /// When the certificate becomes valid, if it was not when it was read.
    begins: Option<i64>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { content: None, good: None, problem: Some(MISSING.to_owned()), begins: None }
    }
}

impl<T> Kept<T> {
    /// What is wrong with the new content, or is still to be heard of it, leaves the last good thing
    /// in use. `part` is what matters of it.
    fn take(
        &mut self,
        found: Found<'_>,
        part: impl FnOnce(&Content) -> Content,
        read: impl FnOnce(&Content) -> Result<T, String>,
        now: i64,
    ) {
        let content = match found {
            Found::Content(content) => Some(part(content)),
            Found::Nothing => None,
            Found::Later => return,
        };
        let has_begun = self.begins.is_some_and(|begin| begin <= now);
        if self.content == content && !has_begun {
            return;
        }
        self.begins = content.as_ref().and_then(|content| begins(content, now));
        match content.as_ref().map(read) {
            None => self.problem = Some(MISSING.to_owned()),
            Some(Err(problem)) => self.problem = Some(problem),
            Some(Ok(good)) => {
                self.good = Some(Arc::new(good));
                self.problem = None;
            }
        }
        self.content = content;
    }
}

/// The Secrets that rules name.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// For certificates.
    pub certificates: BTreeSet<SecretId>,
    /// For authorities of clients.
    pub client_cas: BTreeSet<SecretId>,
    /// For TLS with members.
    pub trusts: HashSet<Trust>,
}

impl Named {
    /// By these rules.
    pub fn by<'r>(rules: impl IntoIterator<Item = &'r Arc<Rule>>) -> Self {
        let mut named = Self::default();
        for rule in rules {
            named.certificates.extend(rule.tls.as_ref().and_then(|tls| tls.secret.clone()));
            named.client_cas.extend(rule.clients().map(|clients| clients.ca.clone()));
            let trust = &rule.upstream_tls.trust;
            if !trust.is_default() && !named.trusts.contains(trust) {
                named.trusts.insert(trust.clone());
            }
        }
        named
    }

    /// Without those that hang on Secrets which are not among these.
    #[must_use]
    pub fn among(mut self, has: impl Fn(&SecretId) -> bool) -> Self {
        self.certificates.retain(&has);
        self.client_cas.retain(&has);
        self.trusts.retain(|trust| trust::named_by(trust).all(&has));
        self
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeSet<&SecretId> {
        let of_trusts = self.trusts.iter().flat_map(trust::named_by);
        self.certificates.iter().chain(&self.client_cas).chain(of_trusts).collect()
    }
}

/// What was made of the Secrets that are named; no others are held.
#[derive(Debug, Default)]
pub struct Keeper {
    certificates: HashMap<SecretId, Kept<Certificate>>,
    client_cas: HashMap<SecretId, Kept<ClientCa>>,
    trusts: Trusts,
    /// When the first of them becomes valid or ends, in seconds since 1970.
    turn: Option<i64>,
}

impl Keeper {
    /// These Secrets are named from now on; `find` knows what is in them.
    pub fn keep<'c>(&mut self, named: &Named, find: impl Fn(&SecretId) -> Found<'c>, now: i64) {
        self.certificates.retain(|id, _| named.certificates.contains(id));
        self.client_cas.retain(|id, _| named.client_cas.contains(id));
        for id in &named.certificates {
            let kept = self.certificates.entry(id.clone()).or_default();
            let read = |content: &Content| read(id.clone(), content, now);
            kept.take(find(id), Content::without_ca, read, now);
        }
        for id in &named.client_cas {
            let kept = self.client_cas.entry(id.clone()).or_default();
            let read = |content: &Content| read_ca(id.clone(), content, now);
            kept.take(find(id), Content::only_ca, read, now);
        }
        self.trusts.keep(&named.trusts, find, now);
        self.turn = self.turns().filter(|at| *at > now).min();
    }

    /// Whether they are to be kept anew though none has changed: one has become valid since, or has
    /// ended.
    #[must_use]
    pub fn is_due(&self, now: i64) -> bool {
        self.turn.is_some_and(|turn| turn <= now)
    }

    fn turns(&self) -> impl Iterator<Item = i64> {
        let certificates = self
            .certificates
            .values()
            .flat_map(|kept| [kept.begins, kept.good.as_ref().map(|good| good.not_after)]);
        let cas = self.client_cas.values().map(|kept| Some(kept.good.as_ref()?.not_after));
        certificates.chain(cas).flatten().chain(self.trusts.turns())
    }

    /// The certificates that can be used.
    #[must_use]
    pub fn certificates(&self) -> HashMap<SecretId, Arc<Certificate>> {
        usable(&self.certificates)
    }

    /// The authorities of clients that can be used.
    #[must_use]
    pub fn client_cas(&self) -> HashMap<SecretId, Arc<ClientCa>> {
        usable(&self.client_cas)
    }

    /// What TLS with members can be had.
    #[must_use]
    pub fn trusts(&self) -> HashMap<Trust, Arc<ClientConfigs>> {
        self.trusts.configs()
    }

    /// What is wrong with what is asked of TLS with members, by field.
    #[must_use]
    pub fn trust_problems(&self, trust: &Trust, now: i64) -> Vec<String> {
        self.trusts.problems(trust, now)
    }

    /// What is wrong with the Secrets that these rules name, by rule and field.
    #[must_use]
    pub fn complaints(&self, rules: &[Arc<Rule>], now: i64) -> Vec<String> {
        let of = |rule: &Arc<Rule>| {
            let certificate = || {
                let id = rule.tls.as_ref()?.secret.as_ref()?;
                let problem = self.problem(id, &rule.hosts, now)?;
                Some(format!("spec.tls.secretName: Secret {id}: {problem}"))
            };
            let clients = || {
                let id = &rule.clients()?.ca;
                let problem = self.client_ca_problem(id, now)?;
                Some(format!("spec.tls.clientCASecret: Secret {id}: {problem}"))
            };
            let members = self.trust_problems(&rule.upstream_tls.trust, now);
            let all = certificate().into_iter().chain(clients()).chain(members);
            all.map(|problem| format!("{}: {problem}", rule.id)).collect::<Vec<_>>()
        };
        rules.iter().flat_map(of).collect()
    }

    /// What is wrong with a Secret's certificate for these hosts.
    #[must_use]
    pub fn problem(&self, id: &SecretId, hosts: &[HostPattern], now: i64) -> Option<String> {
        let kept = self.certificates.get(id)?;
        let expired = || {
            let ended = kept.good.as_ref().is_some_and(|c| c.not_after <= now);
            ended.then(|| "its certificate has expired".to_owned())
        };
        let uncovered = || {
            let certificate = kept.content.as_ref()?.certificate.as_deref()?;
            let hosts = not_covered(certificate, hosts);
            (!hosts.is_empty()).then(|| format!("its certificate is not for {}", hosts.join(", ")))
        };
        kept.problem.clone().or_else(expired).or_else(uncovered)
    }

    /// What is wrong with a Secret's authorities of clients.
    #[must_use]
    pub fn client_ca_problem(&self, id: &SecretId, now: i64) -> Option<String> {
        let kept = self.client_cas.get(id)?;
        let expired = || {
            let ended = kept.good.as_ref().is_some_and(|ca| ca.not_after <= now);
            ended.then(|| format!("every certificate of its {CA} has expired"))
        };
        let unusable = |problem: &String| match kept.good {
            Some(_) => problem.clone(),
            None => format!("{problem}; its hosts are not served before there are authorities"),
        };
        kept.problem.as_ref().map(unusable).or_else(expired)
    }
}

fn usable<T>(kept: &HashMap<SecretId, Kept<T>>) -> HashMap<SecretId, Arc<T>> {
    let usable =
        |(id, kept): (&SecretId, &Kept<T>)| Some((id.clone(), Arc::clone(kept.good.as_ref()?)));
    kept.iter().filter_map(usable).collect()
}

/// Reads a Secret's certificate, chain and key; `now` is in seconds since 1970.
///
/// # Errors
/// What is wrong with it, and with which of its keys.
pub fn read(secret: SecretId, content: &Content, now: i64) -> Result<Certificate, String> {
    let (certified, not_after) = certified(content, now)?;
    let resolver = Arc::new(Only(Arc::new(certified)));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&resolver) as _);
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    if let Some(tickets) = tickets() {
        config.ticketer = tickets;
    }
    Ok(Certificate { secret, not_after, config: Arc::new(config), resolver })
}

/// A Secret's certificate, chain and key, and when the certificate ends.
///
/// # Errors
/// What is wrong with it, and with which of its keys.
pub fn certified(content: &Content, now: i64) -> Result<(CertifiedKey, i64), String> {
    let (certificate, key) = (content.certificate.as_deref(), content.key.as_deref());
    let certificate = certificate.ok_or_else(|| format!("it has no {CERTIFICATE}"))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("its {CERTIFICATE} is not PEM"))?;
    let own = chain.first().ok_or_else(|| format!("its {CERTIFICATE} has no certificate"))?;
    let (_, parsed) = X509Certificate::from_der(own)
        .map_err(|_| format!("the first certificate of its {CERTIFICATE} cannot be read"))?;
    let validity = parsed.validity();
    let not_after = validity.not_after.timestamp();
    if not_after <= now {
        return Err(format!("its certificate has expired: {}", validity.not_after));
    }
    if validity.not_before.timestamp() > now {
        return Err(format!("its certificate is not valid before {}", validity.not_before));
    }
    let key = key.ok_or_else(|| format!("it has no {KEY}"))?;
    if is_encrypted(key) {
        return Err(format!("its {KEY} is encrypted: one without a passphrase is needed"));
    }
    // What the parser says of a key might quote it.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| format!("its {KEY} is no private key in PEM"))?;
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!("its {KEY} is not that of its {CERTIFICATE}"),
        _ => format!("its {KEY} is of a kind that cannot be used; RSA, ECDSA and Ed25519 can"),
    })?;
    Ok((certified, not_after))
}

/// When a Secret's certificate becomes valid, if it is not now.
#[must_use]
pub fn begins(content: &Content, now: i64) -> Option<i64> {
    let own = CertificateDer::pem_slice_iter(content.certificate.as_deref()?).next()?.ok()?;
    let (_, parsed) = X509Certificate::from_der(&own).ok()?;
    Some(parsed.validity().not_before.timestamp()).filter(|begin| *begin > now)
}

/// Whether a key in PEM needs a passphrase (RFC 7468, section 11; RFC 1421, section 4.6.1.1).
fn is_encrypted(key: &[u8]) -> bool {
    let has = |word: &[u8]| key.windows(word.len()).any(|part| part == word);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// A Secret's authorities, and when the last of them ends.
///
/// # Errors
/// What is wrong with them.
pub fn authorities(content: &Content, now: i64) -> Result<(RootCertStore, i64), String> {
    let ca = content.ca.as_deref().ok_or_else(|| format!("it has no {CA}"))?;
    let mut roots = RootCertStore::empty();
    let mut not_after = i64::MIN;
    for (at, certificate) in CertificateDer::pem_slice_iter(ca).enumerate() {
        let certificate = certificate.map_err(|_| format!("its {CA} is not PEM"))?;
        let unreadable = || format!("certificate {} of its {CA} cannot be read", at + 1);
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| unreadable())?;
        not_after = not_after.max(parsed.validity().not_after.timestamp());
        roots.add(certificate.clone()).map_err(|_| unreadable())?;
    }
    if roots.is_empty() {
        return Err(format!("its {CA} has no certificate"));
    }
    if not_after <= now {
        return Err(format!("every certificate of its {CA} has expired"));
    }
    Ok((roots, not_after))
}

/// Reads a Secret's authorities of clients; `now` is in seconds since 1970.
///
/// # Errors
/// What is wrong with them.
pub fn read_ca(secret: SecretId, content: &Content, now: i64) -> Result<ClientCa, String> {
    let (roots, not_after) = authorities(content, now)?;
    let roots = Arc::new(roots);
    let unusable = |error: VerifierBuilderError| format!("its {CA} cannot be used: {error}");
    let verification = |strict: bool| -> Result<_, String> {
        let builder = WebPkiClientVerifier::builder(Arc::clone(&roots));
        let builder = if strict { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(unusable)?;
        let sessions = ServerSessionMemoryCache::new(SESSIONS);
        Ok(Verification { verifier, sessions, tickets: aws_lc_rs::Ticketer::new().ok() })
    };
    let (strict, lenient) = (verification(true)?, verification(false)?);
    Ok(ClientCa { secret, not_after, strict, lenient })
}

/// Which of the hosts a certificate is not for.
#[must_use]
pub fn not_covered(certificate: &[u8], hosts: &[HostPattern]) -> Vec<String> {
    let own = CertificateDer::pem_slice_iter(certificate).next().and_then(Result::ok);
    let parsed = own.as_ref().and_then(|own| ParsedCertificate::try_from(own).ok());
    let covers = |host: &HostPattern| {
        let name = match host {
            HostPattern::Exact(name) => name.to_string(),
            // Any name below it; that of the first label alone, as certificates have it.
            HostPattern::Wildcard(suffix) => format!("any{suffix}"),
            HostPattern::Any => return true,
        };
        let name = ServerName::try_from(name).ok();
        parsed
            .as_ref()
            .zip(name)
            .is_some_and(|(cert, name)| verify_server_name(cert, &name).is_ok())
    };
    hosts.iter().filter(|host| !covers(host)).map(ToString::to_string).collect()
}

/// Tickets for resumption: one key for the process, which it changes itself every few hours.
fn tickets() -> Option<Arc<dyn ProducesTickets>> {
    static TICKETS: OnceLock<Option<Arc<dyn ProducesTickets>>> = OnceLock::new();
    TICKETS.get_or_init(|| aws_lc_rs::Ticketer::new().ok()).clone()
}

/// One certificate for everybody; which one was decided before.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
        date_time_ymd,
    };

    use super::*;

    /// 2026-06-01.
    const NOW: i64 = 1_780_272_000;

    fn id() -> SecretId {
        SecretId { namespace: "site".into(), name: "www".into() }
    }

    fn made(key: &KeyPair, names: &[&str], from: i32, to: i32) -> String {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params.self_signed(key).unwrap().pem()
    }

    fn tried(certificate: Option<&str>, key: Option<&str>) -> Result<Certificate, String> {
        let (certificate, key) = (certificate.map(Into::into), key.map(Into::into));
        read(id(), &Content { certificate, key, ca: None }, NOW)
    }

    #[test]
    fn rsa_ecdsa_and_ed25519_are_read() {
        for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519, &PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(kind).unwrap();
            let certificate = made(&key, &["www.site.com"], 2026, 2027);
            let read = tried(Some(&certificate), Some(&key.serialize_pem())).unwrap();
            assert_eq!(read.not_after, 1_798_761_600);
            assert_eq!(format!("{read:?}"), "Certificate(site/www, until 1798761600)");
        }
    }

    #[test]
    fn a_certificate_is_used_as_soon_as_it_is_valid_and_told_of_when_it_has_ended() {
        let key = KeyPair::generate().unwrap();
        let content = Content {
            certificate: Some(made(&key, &["www.site.com"], 2027, 2028).into()),
            key: Some(key.serialize_pem().into()),
            ca: None,
        };
        let named = Named { certificates: [id()].into(), ..Named::default() };
        let (begin, end) = (1_798_761_600, 1_830_297_600);
        let mut keeper = Keeper::default();
        let mut at = |now| {
            let was_due = keeper.is_due(now);
            keeper.keep(&named, |_| Found::Content(&content), now);
            assert!(!keeper.is_due(now));
            let problem = keeper.problem(&id(), &[], now).unwrap_or_default();
            (was_due, keeper.certificates().len(), problem)
        };
        let (due, used, problem) = at(NOW);
        assert_eq!((due, used), (false, 0));
        assert!(problem.contains("not valid before"), "{problem}");
        assert_eq!((at(begin - 1).0, at(begin)), (false, (true, 1, String::new())));
        assert_eq!(at(end - 1), (false, 1, String::new()));
        assert_eq!(at(end), (true, 1, "its certificate has expired".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let good = made(&key, &["www.site.com"], 2026, 2027);
        let own = key.serialize_pem();
        let torn = own.replace("-----END", "Z!-----END");
        for (certificate, key, said) in [
            (None, Some(own.as_str()), "it has no tls.crt"),
            (Some(good.as_str()), None, "it has no tls.key"),
            (Some(""), Some(&own), "its tls.crt has no certificate"),
            (
                Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
                Some(&own),
                "its tls.crt is not PEM",
            ),
            (
                Some("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"),
                Some(&own),
                "cannot be read",
            ),
            (Some(&good), Some("secret-bytes"), "its tls.key is no private key in PEM"),
            (Some(&good), Some(&torn), "its tls.key is no private key in PEM"),
            (Some(&good), Some(&other.serialize_pem()), "its tls.key is not that of its tls.crt"),
            (
                Some(&made(&other, &["a"], 2024, 2025)),
                Some(&other.serialize_pem()),
                "has expired: Jan  1",
            ),
            (
                Some(&made(&other, &["a"], 2027, 2028)),
                Some(&other.serialize_pem()),
                "not valid before Jan  1",
            ),
        ] {
            let error = tried(certificate, key).unwrap_err();
            assert!(error.contains(said), "{error} is not {said}");
            assert!(!error.contains("secret-bytes"), "{error}");
        }
    }

    #[test]
    fn the_last_good_certificate_stays_in_use() {
        let key = KeyPair::generate().unwrap();
        let content = |to: i32| Content {
            certificate: Some(made(&key, &["www.site.com"], 2024, to).into()),
            key: Some(key.serialize_pem().into()),
            ca: None,
        };
        let named = Named { certificates: BTreeSet::from([id()]), ..Named::default() };
        let mut keeper = Keeper::default();
        let hosts = [HostPattern::parse("www.site.com").unwrap()];
        keeper.keep(&named, |_| Found::Nothing, NOW);
        assert_eq!(keeper.problem(&id(), &hosts, NOW).as_deref(), Some("it does not exist"));
        assert!(keeper.certificates().is_empty());
        let good = content(2027);
        keeper.keep(&named, |_| Found::Content(&good), NOW);
        assert_eq!(keeper.problem(&id(), &hosts, NOW), None);
        let first = Arc::clone(&keeper.certificates()[&id()]);
        keeper.keep(&named, |_| Found::Content(&good), NOW);
        assert!(Arc::ptr_eq(&first, &keeper.certificates()[&id()]));
        for bad in [Some(content(2025)), Some(Content::default()), None] {
            keeper.keep(&named, |_| bad.as_ref().map_or(Found::Nothing, Found::Content), NOW);
            assert!(keeper.problem(&id(), &hosts, NOW).is_some());
            assert!(Arc::ptr_eq(&first, &keeper.certificates()[&id()]));
        }
        let newer = content(2028);
        keeper.keep(&named, |_| Found::Later, NOW);
        assert!(Arc::ptr_eq(&first, &keeper.certificates()[&id()]));
        keeper.keep(&named, |_| Found::Content(&newer), NOW);
        assert!(!Arc::ptr_eq(&first, &keeper.certificates()[&id()]));
        let later = 1_900_000_000;
        assert_eq!(
            keeper.problem(&id(), &hosts, later).as_deref(),
            Some("its certificate has expired")
        );
        let other = [HostPattern::parse("other.org").unwrap()];
        let uncovered = keeper.problem(&id(), &other, NOW);
        assert_eq!(uncovered.as_deref(), Some("its certificate is not for other.org"));
        keeper.keep(&Named::default(), |_| Found::Nothing, NOW);
        assert!(keeper.certificates().is_empty());
    }

    #[test]
    fn hosts_that_a_certificate_is_not_for_are_named() {
        let key = KeyPair::generate().unwrap();
        let certificate = made(&key, &["www.site.com", "*.shop.site.com"], 2026, 2027);
        let hosts =
            ["www.site.com", "*.shop.site.com", "a.shop.site.com", "site.com", "*.site.com"];
        let hosts: Vec<_> = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        assert_eq!(not_covered(certificate.as_bytes(), &hosts), ["site.com", "*.site.com"]);
    }
}
