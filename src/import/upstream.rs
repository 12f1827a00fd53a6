//! TLS with members: `SSLProxyVerify` and its kin → `spec.upstreamTLS`.

use super::read::Directive;
use super::report::{Id, Report, Verdict};
use crate::api;

/// What a server, a virtual host or a `<Proxy>` says of TLS with members.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// `SSLProxyVerify`, and whether members' certificates are verified.
    verify: Option<(Id, bool)>,
    /// The file with the authorities, as the shell takes it.
    authorities: Option<(Id, String)>,
    /// The file with Gibbon's own certificate and its key.
    certificate: Option<(Id, String)>,
    /// `SSLProxyCheckPeerName` and those like it, with whether they are on.
    checks: Vec<(Id, bool)>,
    /// `SSLProxyEngine`.
    engines: Vec<Id>,
}

/// What a Secret holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// Those who vouch for members.
    Authorities,
    /// Gibbon's own certificate.
    Certificate,
}

/// Names the Secret that is to be made of a file.
pub type Secrets<'s> = dyn FnMut(Secret, &str) -> String + 's;

const NOT_ASKED: &str = "no member is asked by TLS";
const UNVERIFIED: &str = "Gibbon verifies the member by the system's authorities, and Apache does not \
     without SSLProxyVerify: if its certificate is not from one of them, name its own by \
     `upstreamTLS.caSecret`";

impl Upstream {
    /// Takes a directive in; false if it is about something else.
    pub fn add(&mut self, directive: &Directive) -> bool {
        let id = directive.id;
        let first = directive.arg(0).unwrap_or_default();
        match directive.name.as_str() {
            "sslproxyverify" => self.verify = Some((id, is_verified(first))),
            "sslproxycacertificatefile" => self.authorities = Some((id, first.to_owned())),
            "sslproxycacertificatepath" => self.authorities = Some((id, all_of(first))),
            "sslproxymachinecertificatefile" => self.certificate = Some((id, first.to_owned())),
            "sslproxycheckpeername" | "sslproxycheckpeercn" | "sslproxycheckpeerexpire" => {
                self.checks.push((id, first.eq_ignore_ascii_case("on")));
            }
            "sslproxyengine" => self.engines.push(id),
            _ => return false,
        }
        true
    }

    /// What stands here, and where it does not, what stands there.
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            verify: self.verify.or(outer.verify),
            authorities: self.authorities.clone().or_else(|| outer.authorities.clone()),
            certificate: self.certificate.clone().or_else(|| outer.certificate.clone()),
            checks: outer.checks.iter().chain(&self.checks).copied().collect(),
            engines: outer.engines.iter().chain(&self.engines).copied().collect(),
        }
    }

    /// What becomes of it for these members, of which there is one at least.
    pub fn spec(
        &self,
        members: &[Id],
        name: &mut Secrets<'_>,
        report: &mut Report,
    ) -> Option<api::UpstreamTls> {
        let mut tls = api::UpstreamTls::default();
        // Who looks neither at the authority nor at the name takes anybody.
        let unchecked = self.checks.iter().any(|(_, on)| !on);
        tls.insecure_skip_verify = self.verify.map_or(unchecked, |(_, verified)| !verified);
        self.said(&tls, members, report);
        if let Some((id, file)) = &self.authorities {
            if tls.insecure_skip_verify {
                report.say(*id, Verdict::Converted, "members are not verified");
            } else {
                let name = name(Secret::Authorities, file);
                report.say(
                    *id,
                    Verdict::Approximated,
                    authorities("upstreamTLS.caSecret", &name, file),
                );
                tls.ca_secret = Some(name);
            }
        }
        if let Some((id, file)) = &self.certificate {
            let name = name(Secret::Certificate, file);
            let note = format!(
                "`upstreamTLS.certificateSecret`; make it: kubectl create secret tls {name} \
                 --cert={file} --key={file}"
            );
            report.say(*id, Verdict::Approximated, note);
            tls.certificate_secret = Some(name);
        }
        Some(tls).filter(|tls| *tls != api::UpstreamTls::default())
    }

    /// Says what verifying becomes.
    fn said(&self, tls: &api::UpstreamTls, members: &[Id], report: &mut Report) {
        let anybody = "`upstreamTLS.insecureSkipVerify`: anybody is taken for the member";
        if let Some((id, verified)) = self.verify {
            let note = if verified { "" } else { anybody };
            let verdict = if verified { Verdict::Converted } else { Verdict::Approximated };
            report.say(id, verdict, note);
        }
        let unverified = self.verify.is_none() && self.authorities.is_none();
        if unverified && !tls.insecure_skip_verify {
            for id in members {
                report.say(*id, Verdict::Approximated, UNVERIFIED);
            }
        }
        for (id, on) in &self.checks {
            let (verdict, note) = match (on, tls.insecure_skip_verify) {
                (true, false) => (Verdict::Converted, ""),
                (false, true) => (Verdict::Converted, anybody),
                (true, true) => (Verdict::Approximated, anybody),
                (false, false) => (
                    Verdict::Approximated,
                    "name and dates are looked at: `upstreamTLS.serverName` says another name",
                ),
            };
            report.say(*id, verdict, note);
        }
        for id in &self.engines {
            report.say(*id, Verdict::Converted, "a member by https is asked by TLS");
        }
    }

    /// Says of what nothing has been said that it makes no difference.
    pub fn close(&self, report: &mut Report) {
        let files = [&self.authorities, &self.certificate].into_iter().flatten().map(|(id, _)| *id);
        let flags = self.verify.iter().chain(&self.checks).map(|(id, _)| *id);
        for id in files.chain(flags).chain(self.engines.iter().copied()) {
            if !report.is_said(id) {
                report.say(id, Verdict::Converted, NOT_ASKED);
            }
        }
    }
}

/// How the Secret of a file of authorities is made.
pub fn authorities(field: &str, secret: &str, file: &str) -> String {
    format!("`{field}`; make it: kubectl create secret generic {secret} --from-file=ca.crt={file}")
}

/// All files of a directory as one, for the shell.
pub fn all_of(directory: &str) -> String {
    format!("<(cat {}/*)", directory.trim_end_matches('/'))
}

fn is_verified(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "none" | "optional_no_ca")
}
