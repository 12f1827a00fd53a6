//! TLS with clients: `SSLEngine` and its certificate → `spec.tls`; and what sends clients to it.

use super::read::Directive;
use super::redirect::is_everything;
use super::report::{Id, Report, Verdict};
use super::upstream::{all_of, authorities};

/// What a virtual host says of TLS.
#[derive(Clone, Debug, Default)]
pub struct Secure {
    engine: Option<(Id, bool)>,
    certificate: Option<(Id, String)>,
    key: Option<(Id, String)>,
    chain: Option<(Id, String)>,
    /// The file with the authorities of clients, as the shell takes it.
    authorities: Option<(Id, String)>,
    /// Whether clients are asked for certificates, where no location says otherwise.
    pub verify: Option<(Id, Verify)>,
    /// All requests without TLS are sent to TLS, whatever their host.
    pub redirect: Option<Id>,
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// No.
    Never,
    /// Those who have a good one.
    Maybe,
    /// Those who have any, good or not.
    Anyone,
    /// Others are refused.
    Always,
}

impl Verify {
    /// Reads `SSLVerifyClient`.
    pub fn read(how: &str) -> Self {
        match how.to_ascii_lowercase().as_str() {
            "none" => Self::Never,
            "optional" => Self::Maybe,
            "optional_no_ca" => Self::Anyone,
            _ => Self::Always,
        }
    }

    /// Says what becomes of it, in a location or not.
    pub fn say(self, id: Id, located: bool, secure: &Secure, report: &mut Report) {
        let known = secure.authorities().is_some();
        let (verdict, note) = match self {
            _ if !secure.is_on() => (Verdict::Converted, "SSLEngine is off"),
            Self::Never => (Verdict::Converted, ""),
            // Nobody is let in, which is said where that is done.
            Self::Always if !known => return,
            _ if !known => {
                (Verdict::Dropped, "clients are asked where SSLCACertificateFile says for whose")
            }
            Self::Anyone => (
                Verdict::Approximated,
                "`spec.tls.clientCertificate: Optional`: a certificate that is not good is refused",
            ),
            _ if located => (
                Verdict::Approximated,
                "`spec.tls.clientCertificate`: clients are asked when they connect, whatever the path",
            ),
            _ => (Verdict::Converted, "`spec.tls.clientCASecret`"),
        };
        report.say(id, verdict, note);
    }
}

impl Secure {
    /// Takes a directive in; false if it is about something else.
    pub fn add(&mut self, directive: &Directive) -> bool {
        let id = directive.id;
        let first = directive.arg(0).unwrap_or_default();
        let file = || Some((id, first.to_owned()));
        match directive.name.as_str() {
            "sslengine" => self.engine = Some((id, first.eq_ignore_ascii_case("on"))),
            "sslcertificatefile" => self.certificate = file(),
            "sslcertificatekeyfile" => self.key = file(),
            "sslcertificatechainfile" => self.chain = file(),
            "sslcacertificatefile" => self.authorities = file(),
            "sslcacertificatepath" => self.authorities = Some((id, all_of(first))),
            _ => return false,
        }
        true
    }

    /// Whether clients come with TLS.
    pub fn is_on(&self) -> bool {
        self.engine.is_some_and(|(_, on)| on)
    }

    /// What stands here, and where it does not, what stands there.
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            engine: self.engine.or(outer.engine),
            certificate: self.certificate.clone().or_else(|| outer.certificate.clone()),
            key: self.key.clone().or_else(|| outer.key.clone()),
            chain: self.chain.clone().or_else(|| outer.chain.clone()),
            authorities: self.authorities.clone().or_else(|| outer.authorities.clone()),
            verify: self.verify.or(outer.verify),
            redirect: self.redirect.or(outer.redirect),
        }
    }

    /// The file of the certificate.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_ref().filter(|_| self.is_on()).map(|(_, file)| file.as_str())
    }

    /// The file with the authorities of clients.
    pub fn authorities(&self) -> Option<&str> {
        self.authorities.as_ref().filter(|_| self.is_on()).map(|(_, file)| file.as_str())
    }

    /// Says what has become of the files, of which Secrets are to be made: one with the certificate,
    /// one with the authorities of clients.
    pub fn say(&self, secret: Option<&str>, clients: Option<&str>, report: &mut Report) {
        match (&self.authorities, clients) {
            (Some((id, file)), Some(clients)) => {
                let note = authorities("spec.tls.clientCASecret", clients, file);
                report.say(*id, Verdict::Approximated, note);
            }
            (Some((id, _)), None) => {
                report.say(*id, Verdict::Converted, "no client is asked for a certificate");
            }
            (None, _) => {}
        }
        if let Some((id, on)) = self.engine {
            report.say(id, Verdict::Converted, if on { "`spec.tls`" } else { "" });
        }
        let Some(secret) = secret else {
            for (id, _) in [&self.certificate, &self.key, &self.chain].into_iter().flatten() {
                report.say(*id, Verdict::Converted, "SSLEngine is off");
            }
            return;
        };
        let file = |part: &Option<(Id, String)>| {
            part.as_ref().map_or("FILE".to_owned(), |(_, file)| file.clone())
        };
        let (certificate, key) = (file(&self.certificate), file(&self.key));
        if let Some((id, _)) = self.certificate {
            let note = format!(
                "`spec.tls.secretName`; make it: kubectl create secret tls {secret} \
                 --cert={certificate} --key={key}"
            );
            report.say(id, Verdict::Approximated, note);
        }
        if let Some((id, _)) = self.key {
            report.say(id, Verdict::Approximated, format!("the key of Secret {secret}"));
        }
        if let Some((id, _)) = self.chain {
            let note = format!("append it to the certificate of Secret {secret}");
            report.say(id, Verdict::Approximated, note);
        }
    }
}

/// Whether a `RewriteCond` only says that the request came without TLS.
pub fn asks_for_plain(directive: &Directive) -> bool {
    let [tested, pattern, ..] = directive.args.as_slice() else { return false };
    let (negated, pattern) =
        pattern.strip_prefix('!').map_or((false, pattern.as_str()), |rest| (true, rest));
    let bare = pattern.trim_start_matches(['^', '=']).trim_end_matches('$').to_ascii_lowercase();
    let plain = match tested.to_ascii_lowercase().as_str() {
        "%{https}" => ["off", "on"],
        "%{server_port}" => ["80", "443"],
        "%{request_scheme}" | "%{http:x-forwarded-proto}" => ["http", "https"],
        // Gibbon leaves this out of what it redirects by itself.
        "%{request_uri}" => {
            return negated && bare.replace('\\', "").starts_with("/.well-known/acme-challenge");
        }
        _ => return false,
    };
    bare == plain[usize::from(negated)]
}

/// Whether a `RewriteRule` sends every request to the same URL by https.
pub fn sends_all(pattern: &str, target: &str) -> bool {
    let rest = ["%{HTTP_HOST}", "%{SERVER_NAME}"]
        .iter()
        .find_map(|host| target.strip_prefix("https://")?.strip_prefix(host));
    is_everything(pattern)
        && rest.is_some_and(|rest| {
            let rest = rest.strip_prefix(":443").unwrap_or(rest);
            matches!(rest, "%{REQUEST_URI}" | "/%{REQUEST_URI}" | "$1" | "/$1" | "$0" | "/$0")
        })
}
