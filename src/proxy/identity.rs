//! Who a client is by its certificate: what it has shown in the handshake, held against what the host
//! of a request wants now.

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

use crate::table::tls::{ClientCa, ClientPolicy};

/// What a client was asked for in a handshake, and what it has shown.
#[derive(Debug)]
pub struct Identity {
    /// The authorities that it was verified by last.
    ca: RefCell<Arc<ClientCa>>,
    shown: Option<Shown>,
}

/// A certificate that was verified.
#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    subject: HeaderValue,
}

/// The connection cannot serve a host: another one can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere;

impl Identity {
    /// Of a client that these authorities have verified by this chain, or that has shown none. Nothing
    /// if the certificate has no subject that can be read.
    #[must_use]
    pub fn new(ca: Arc<ClientCa>, chain: Option<&[CertificateDer<'static>]>) -> Option<Self> {
        let shown = match chain {
            None | Some([]) => None,
            Some(chain) => Some(Shown { chain: chain.to_vec(), subject: subject(&chain[0])? }),
        };
        Some(Self { ca: RefCell::new(ca), shown })
    }

    /// The subject of the certificate for a host with this policy, if one was shown. Where the
    /// authorities have changed since, it is verified again.
    ///
    /// # Errors
    /// When the handshake has not asked for what the host wants.
    pub fn subject_for(&self, policy: &ClientPolicy) -> Result<Option<&HeaderValue>, Elsewhere> {
        let ca = policy.ca.as_ref().ok_or(Elsewhere)?;
        let mut verified_by = self.ca.borrow_mut();
        if verified_by.secret != policy.secret {
            return Err(Elsewhere);
        }
        if let Some(shown) = &self.shown
            && !Arc::ptr_eq(&verified_by, ca)
            && !ca.accepts(&shown.chain, UnixTime::now())
        {
            return Err(Elsewhere);
        }
        *verified_by = Arc::clone(ca);
        Ok(self.shown.as_ref().map(|shown| &shown.subject))
    }
}

/// The subject of a certificate as RFC 4514 writes it, all of it printable ASCII.
fn subject(certificate: &CertificateDer<'_>) -> Option<HeaderValue> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    HeaderValue::try_from(distinguished_name(certificate.subject())).ok()
}

fn distinguished_name(name: &X509Name<'_>) -> String {
    let relative: Vec<Vec<String>> =
        name.iter_rdn().map(|relative| relative.iter().map(attribute).collect()).collect();
    let relative = relative.iter().rev().map(|attributes| attributes.join("+"));
    relative.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    match (short_name(&oid), attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped(value)),
        // What has no text is its encoding, tag and length included.
        (name, _) => {
            let value = attribute.attr_value();
            let mut text = format!("{}=#", name.unwrap_or(&oid));
            for byte in x509_parser::asn1_rs::ToDer::to_der_vec(value).unwrap_or_default() {
                let _infallible = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

/// The names of RFC 4514, section 3, and those that OpenSSL has besides.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// A value in which nothing can be taken for another attribute (RFC 4514, section 2.4).
fn escaped(value: &str) -> String {
    let mut text = String::new();
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let special = match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => true,
            b'#' => at == 0,
            b' ' => at == 0 || at == last,
            _ => false,
        };
        if !(b' '..=b'~').contains(&byte) {
            let _infallible = write!(text, "\\{byte:02X}");
            continue;
        }
        text.push_str(if special { "\\" } else { "" });
        text.push(char::from(byte));
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn subject_of(attributes: &[(DnType, DnValue)]) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        subject(certificate.der()).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_subject_is_written_from_its_end_to_its_beginning() {
        let subject = subject_of(&[
            (DnType::CountryName, "DE".into()),
            (DnType::OrganizationName, "Site".into()),
            (DnType::CommonName, "ann".into()),
        ]);
        assert_eq!(subject, "CN=ann,O=Site,C=DE");
        assert_eq!(subject_of(&[]), "");
    }

    #[test]
    fn no_value_can_be_taken_for_another_attribute() {
        for (value, written) in [
            ("ann,O=Admins", "CN=ann\\,O=Admins"),
            ("ann+OU=x", "CN=ann\\+OU=x"),
            (" a\"b;c<d>e\\ ", "CN=\\ a\\\"b\\;c\\<d\\>e\\\\\\ "),
            ("#1", "CN=\\#1"),
            ("J\u{fc}rgen\r\nX-Admin: 1", "CN=J\\C3\\BCrgen\\0D\\0AX-Admin: 1"),
            ("a\0b", "CN=a\\00b"),
        ] {
            assert_eq!(subject_of(&[(DnType::CommonName, value.into())]), written);
        }
    }

    #[test]
    fn an_attribute_without_a_name_is_its_number_and_encoding() {
        let kind = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(subject_of(&[(kind, "ab".into())]), "1.2.3.4=#0c026162");
    }
}
