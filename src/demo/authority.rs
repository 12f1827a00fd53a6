//! A throw-away authority: it lives as long as the demo, and its key is written nowhere.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// How long it is good for, at most; clocks may differ by one of it.
const DAY: Duration = Duration::from_secs(24 * 3600);
const DAYS: u32 = 30;

fn limit(params: &mut CertificateParams) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    params.not_before = date_time_ymd(1970, 1, 1) + now - DAY;
    params.not_after = params.not_before + DAY * DAYS;
}

/// Its certificate, in PEM, and a Secret with one for these hosts, in YAML.
///
/// # Errors
/// When keys cannot be made.
pub fn make(name: &str, hosts: &[&str]) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Gibbon demo, not to be trusted elsewhere");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    limit(&mut params);
    let own_key = KeyPair::generate()?;
    let own = params.self_signed(&own_key)?;
    let key = KeyPair::generate()?;
    let hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut of_hosts = CertificateParams::new(hosts)?;
    of_hosts.distinguished_name.push(DnType::CommonName, "Gibbon demo");
    limit(&mut of_hosts);
    let certificate = of_hosts.signed_by(&key, &Issuer::new(params, own_key))?;
    let indent = |pem: String| format!("    {}\n", pem.trim_end().replace('\n', "\n    "));
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: site}}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indent(certificate.pem()),
        indent(key.serialize_pem())
    );
    Ok((own.pem(), secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::certificate;
    use crate::source::document;

    #[test]
    fn the_secret_is_one_that_gibbon_reads() {
        let (authority, secret) = make("demo", &["www.site.com", "localhost"]).unwrap();
        assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!authority.contains("PRIVATE"));
        let parsed = document::read(&secret);
        let (id, content) = &parsed.secrets[0];
        let now = jiff::Timestamp::now().as_second();
        let read = certificate::read(id.clone(), content, now).unwrap();
        assert_eq!(read.secret.to_string(), "site/demo");
    }
}
