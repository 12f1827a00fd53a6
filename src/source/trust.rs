//! `spec.upstreamTLS` and its Secrets → what handshakes with members need, or what is wrong. No
//! message of this module holds anything of a key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::certificate::{self, Content, Found, MISSING};
use crate::table::tls::SecretId;
use crate::table::upstream::{ClientConfigs, Trust};

/// What `insecureSkipVerify` means, wherever it is told.
pub const ANYBODY: &str = "spec.upstreamTLS.insecureSkipVerify: nobody verifies who the members are: \
                           whoever is in between can read and change what is sent to them";

const AUTHORITIES_FIELD: &str = "spec.upstreamTLS.caSecret";
const CERTIFICATE_FIELD: &str = "spec.upstreamTLS.certificateSecret";

/// A trust that a rule asks for: the last good of it, and what is wrong with it now.
#[derive(Debug, Default)]
struct Kept {
    /// What was read last: of the authorities and of the certificate.
    contents: Option<[Option<Content>; 2]>,
    configs: Option<Arc<ClientConfigs>>,
    problems: Vec<String>,
    /// When the first of what is in use ends, and what is said then.
    ends: Option<(i64, String)>,
    /// When the certificate becomes valid, if it was not when it was read.
    begins: Option<i64>,
}

/// What the rules ask of TLS with members; what nobody asks for is let go.
#[derive(Debug, Default)]
pub struct Trusts(HashMap<Trust, Kept>);

/// The Secrets that a trust is of.
fn secrets(trust: &Trust) -> [Option<&SecretId>; 2] {
    [trust.authorities.as_ref(), trust.certificate.as_ref()]
}

/// The Secrets that a trust names.
pub fn named_by(trust: &Trust) -> impl Iterator<Item = &SecretId> {
    secrets(trust).into_iter().flatten()
}

impl Trusts {
    /// These are asked for from now on; `find` knows what is in Secrets. What is wrong with one, or
    /// is still to be heard of it, leaves the last good one in use.
    pub fn keep<'c>(
        &mut self,
        asked: &HashSet<Trust>,
        find: impl Fn(&SecretId) -> Found<'c>,
        now: i64,
    ) {
        self.0.retain(|trust, _| asked.contains(trust));
        for trust in asked {
            self.0.entry(trust.clone()).or_default().update(trust, &find, now);
        }
    }

    /// Those that can be used.
    #[must_use]
    pub fn configs(&self) -> HashMap<Trust, Arc<ClientConfigs>> {
        let usable = |(trust, kept): (&Trust, &Kept)| {
            Some((trust.clone(), Arc::clone(kept.configs.as_ref()?)))
        };
        self.0.iter().filter_map(usable).collect()
    }

    /// When what is said of them changes by itself.
    pub fn turns(&self) -> impl Iterator<Item = i64> {
        let ends = |kept: &Kept| kept.ends.as_ref().map(|(at, _)| *at);
        self.0.values().flat_map(move |kept| [kept.begins, ends(kept)]).flatten()
    }

    /// What is wrong with a trust, by field.
    #[must_use]
    pub fn problems(&self, trust: &Trust, now: i64) -> Vec<String> {
        let Some(kept) = self.0.get(trust) else { return Vec::new() };
        let ended = kept.ends.iter().filter(|(at, _)| *at <= now).map(|(_, said)| said.clone());
        if kept.problems.is_empty() { ended.collect() } else { kept.problems.clone() }
    }
}

impl Kept {
    fn update<'c>(&mut self, trust: &Trust, find: &impl Fn(&SecretId) -> Found<'c>, now: i64) {
        let found = secrets(trust).map(|id| id.map(find));
        if found.iter().flatten().any(|found| matches!(found, Found::Later)) {
            if self.contents.is_none() {
                self.problems =
                    vec!["spec.upstreamTLS: its Secrets are still to be heard of".into()];
            }
            return;
        }
        let known = |found: Option<Found<'c>>, of: fn(&Content) -> Content| match found {
            Some(Found::Content(content)) => Some(of(content)),
            Some(Found::Nothing | Found::Later) | None => None,
        };
        let [authorities, certificate] = found;
        let contents =
            [known(authorities, Content::only_ca), known(certificate, Content::without_ca)];
        let has_begun = self.begins.is_some_and(|begin| begin <= now);
        if self.contents.as_ref() == Some(&contents) && !has_begun {
            return;
        }
        let certificate = contents[1].as_ref();
        self.begins = certificate.and_then(|content| certificate::begins(content, now));
        match read(trust, &contents, now) {
            Ok((config, ends)) => {
                self.configs = Some(Arc::new(ClientConfigs::new(&config)));
                (self.ends, self.problems) = (ends, Vec::new());
            }
            Err(problems) => self.problems = problems,
        }
        self.contents = Some(contents);
    }
}

type Ends = Option<(i64, String)>;

fn read(
    trust: &Trust,
    [authorities, certificate]: &[Option<Content>; 2],
    now: i64,
) -> Result<(ClientConfig, Ends), Vec<String>> {
    let (mut problems, mut ends) = (Vec::new(), Vec::new());
    let mut take = |field: &str, id: &SecretId, read: Result<i64, String>| match read {
        Ok(end) => ends.push((end, format!("{field}: Secret {id}: it has expired"))),
        Err(why) => problems.push(format!("{field}: Secret {id}: {why}")),
    };
    let mut roots = None;
    if let Some(id) = &trust.authorities {
        let read = authorities.as_ref().ok_or_else(|| MISSING.to_owned());
        let read = read.and_then(|content| certificate::authorities(content, now));
        take(
            AUTHORITIES_FIELD,
            id,
            read.map(|(read, end)| {
                roots = Some(read);
                end
            }),
        );
    }
    let mut own = None;
    if let Some(id) = &trust.certificate {
        let read = certificate.as_ref().ok_or_else(|| MISSING.to_owned());
        let read = read.and_then(|content| certificate::certified(content, now));
        take(
            CERTIFICATE_FIELD,
            id,
            read.map(|(certified, end)| {
                own = Some(certified);
                end
            }),
        );
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let builder = ClientConfig::builder();
    let builder = match roots {
        _ if trust.anybody => {
            let anybody = Arc::new(Anybody(aws_lc_rs::default_provider()));
            builder.dangerous().with_custom_certificate_verifier(anybody)
        }
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.with_native_roots().map_err(|error| {
            vec![format!("spec.upstreamTLS: the system's authorities: {error}")]
        })?,
    };
    let config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    Ok((config, ends.into_iter().min()))
}

/// Takes everybody for the member; that they have the key of what they show is still to be proven.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl Anybody {
    const fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.0.signature_verification_algorithms
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::source::certificate::Named;

    /// 2026-06-01.
    const NOW: i64 = 1_780_272_000;

    fn id(name: &str) -> SecretId {
        SecretId { namespace: "site".into(), name: name.into() }
    }

    fn pem(key: &KeyPair, to: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["app.internal".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(2024, 1, 1), date_time_ymd(to, 1, 1));
        params.self_signed(key).unwrap().pem().into()
    }

    fn authority(pem: &[u8]) -> Content {
        Content { ca: Some(pem.to_owned()), ..Content::default() }
    }

    /// What a rule names that asks for this.
    fn asked(trust: &Trust) -> HashSet<Trust> {
        let mut rule = crate::table::fixture::rule("app", "/");
        rule.upstream_tls.trust = trust.clone();
        Named::by([&Arc::new(rule)]).trusts
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_said_by_field_and_without_its_key() {
        let key = KeyPair::generate().unwrap();
        let good = pem(&key, 2027);
        let trust =
            Trust { authorities: Some(id("ca")), certificate: Some(id("own")), anybody: false };
        let own = |key: &str| Content {
            certificate: Some(good.clone()),
            key: Some(key.as_bytes().to_owned()),
            ca: None,
        };
        let ca = "spec.upstreamTLS.caSecret: Secret site/ca: ";
        let certificate = "spec.upstreamTLS.certificateSecret: Secret site/own: ";
        for (authorities, own, expected) in [
            (
                None,
                None,
                vec![format!("{ca}it does not exist"), format!("{certificate}it does not exist")],
            ),
            (
                Some(Content::default()),
                Some(own(&key.serialize_pem())),
                vec![format!("{ca}it has no ca.crt")],
            ),
            (
                Some(authority(b"")),
                Some(own(&key.serialize_pem())),
                vec![format!("{ca}its ca.crt has no certificate")],
            ),
            (
                Some(authority(&pem(&key, 2025))),
                Some(own(&key.serialize_pem())),
                vec![format!("{ca}every certificate of its ca.crt has expired")],
            ),
            (
                Some(authority(&good)),
                Some(own("confidential")),
                vec![format!("{certificate}its tls.key is no private key in PEM")],
            ),
        ] {
            let mut trusts = Trusts::default();
            let find = |secret: &SecretId| {
                let content = if *secret.name == *"ca" { &authorities } else { &own };
                content.as_ref().map_or(Found::Nothing, Found::Content)
            };
            trusts.keep(&asked(&trust), find, NOW);
            assert_eq!(trusts.problems(&trust, NOW), expected);
            assert!(trusts.configs().is_empty());
            let shown = format!("{trusts:?}");
            assert!(!shown.contains("confidential") && !shown.contains("PRIVATE"), "{shown}");
        }
    }

    #[test]
    fn the_last_good_trust_stays_and_is_the_very_same_while_nothing_changes() {
        let key = KeyPair::generate().unwrap();
        let trust = Trust { authorities: Some(id("ca")), ..Trust::default() };
        let asked = asked(&trust);
        let mut trusts = Trusts::default();
        let good = authority(&pem(&key, 2027));
        trusts.keep(&asked, |_| Found::Content(&good), NOW);
        let first = Arc::clone(&trusts.configs()[&trust]);
        for found in [Found::Content(&good), Found::Later, Found::Nothing] {
            trusts.keep(&asked, |_| found, NOW);
            assert!(Arc::ptr_eq(&first, &trusts.configs()[&trust]), "{found:?}");
            assert_eq!(trusts.problems(&trust, NOW).is_empty(), !matches!(found, Found::Nothing));
        }
        let newer = authority(&pem(&key, 2028));
        trusts.keep(&asked, |_| Found::Content(&newer), NOW);
        assert!(!Arc::ptr_eq(&first, &trusts.configs()[&trust]));
        assert_eq!(trusts.problems(&trust, NOW), Vec::<String>::new());
        let ended = trusts.problems(&trust, 1_900_000_000);
        assert_eq!(ended, ["spec.upstreamTLS.caSecret: Secret site/ca: it has expired"]);
        trusts.keep(&HashSet::new(), |_| Found::Nothing, NOW);
        assert!(trusts.configs().is_empty());
    }

    #[test]
    fn what_asks_for_nothing_is_not_kept_and_anybody_needs_no_secret() {
        let mut trusts = Trusts::default();
        trusts.keep(&asked(&Trust::default()), |_| Found::Nothing, NOW);
        assert!(trusts.configs().is_empty());
        let anybody = Trust { anybody: true, ..Trust::default() };
        trusts.keep(&asked(&anybody), |_| Found::Nothing, NOW);
        assert_eq!(trusts.configs().len(), 1);
    }
}
