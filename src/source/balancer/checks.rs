//! The schema's rules on texts, for Balancers that no API server has seen: each pairs a rule of
//! [`crate::api::schema`], for its message, with the same in Rust.

use std::net::IpAddr;

use http::Uri;
use http::header::{HeaderName, HeaderValue};

use crate::api::schema::{self, Rule};
use crate::table::access::parse_network;
use crate::table::path::{self, HostPattern};
use crate::table::sticky::Extract;

/// A rule, and whether a text keeps it.
type Check = (Rule<'static>, fn(&str) -> bool);

/// How long a text may be, and the rules that it must keep.
#[derive(Clone, Copy, Debug)]
pub struct Text(usize, &'static [Check]);

const ROOTED: Check = (schema::ROOTED, |text| text.starts_with('/'));
const ONE_SLASH: Check = (schema::ONE_SLASH, |text| !text.contains("//"));
const NO_DOTS: Check =
    (schema::NO_DOTS, |text| !text.split('/').skip(1).any(|part| path::dots(part).is_some()));
const PATH_CHARACTERS: Check = (schema::PATH_CHARACTERS, |text| {
    is_printable(text) && !text.contains(['?', '#', '*', ';', '\\'])
});
const ESCAPES: Check = (schema::ESCAPES, has_whole_escapes);
const HTTP_URL: Check = (schema::HTTP_URL, is_url);
const URL_OR_PATH: Check = (schema::URL_OR_PATH, |text| {
    if text.starts_with('/') { !text.starts_with("//") } else { is_url(text) }
});
const NO_USER: Check = (schema::NO_USER, |text| !text.contains('@'));
const NO_QUERY: Check = (schema::NO_QUERY, |text| !text.contains(['?', '#']));
const URL_CHARACTERS: Check =
    (schema::URL_CHARACTERS, |text| is_printable(text) && !text.contains('\\'));
const PRINTABLE: Check = (schema::PRINTABLE, |text| !text.is_empty() && is_printable(text));
const NO_FRAGMENT: Check = (schema::NO_FRAGMENT, |text| !text.contains('#'));
const HAS_GROUP: Check =
    (schema::HAS_GROUP, |text| !matches!(Extract::regex(text), Ok(Extract::Regex(_, 0))));

/// `spec.hosts[]`.
pub const HOST: Text = Text(253, &[(schema::HOST, is_host)]);
/// `spec.className`.
pub const CLASS_NAME: Text = Text(63, &[(schema::CLASS_NAME, is_class)]);
/// `spec.path`, `spec.members[].path`.
pub const PATH: Text = Text(1024, &[ROOTED, ONE_SLASH, NO_DOTS, PATH_CHARACTERS, ESCAPES]);
/// `spec.healthCheck.path`.
pub const CHECK_PATH: Text = Text(1024, &[ROOTED, NO_FRAGMENT, URL_CHARACTERS, ESCAPES]);
/// `spec.healthCheck.statuses[]`.
pub const STATUS_RANGE: Text =
    Text(7, &[(schema::STATUS_RANGE, is_status_range), (schema::STATUS_ORDER, is_in_order)]);
/// `spec.errorPages[].statuses[]`.
pub const ERROR_RANGE: Text =
    Text(7, &[(schema::ERROR_RANGE, is_error_range), (schema::STATUS_ORDER, is_in_order)]);
/// Paths of cookies.
pub const COOKIE_PATH: Text = Text(1024, &[ROOTED, PATH_CHARACTERS]);
/// `spec.members[].url`.
pub const MEMBER_URL: Text = Text(2048, &[HTTP_URL, NO_USER, NO_QUERY, URL_CHARACTERS, NO_DOTS]);
/// `spec.redirect.to`.
pub const REDIRECT: Text = Text(2048, &[URL_OR_PATH, NO_USER, URL_CHARACTERS]);
/// Both sides of `spec.reverse.locations[]`.
pub const LOCATION: Text = Text(2048, &[URL_OR_PATH, NO_USER, NO_QUERY, URL_CHARACTERS]);
/// `spec.reverse.host`.
pub const AUTHORITY: Text = Text(253, &[(schema::AUTHORITY, is_authority)]);
/// Both sides of `spec.reverse.cookieDomains[]`.
pub const DOMAIN: Text = Text(253, &[(schema::DOMAIN, is_domain)]);
/// `spec.members[].name`.
pub const MEMBER_NAME: Text = Text(63, &[(schema::MEMBER_NAME, |text| has_ends(text, "-._"))]);
/// `spec.members[].service.name`.
pub const SERVICE_NAME: Text = Text(63, &[(schema::SERVICE_NAME, is_label)]);
/// Names of Secrets.
pub const OBJECT_NAME: Text = Text(253, &[(schema::OBJECT_NAME, is_object_name)]);
/// `spec.upstreamTLS.serverName`.
pub const SERVER_NAME: Text = Text(253, &[(schema::SERVER_NAME, is_server_name)]);
/// `spec.members[].route`.
pub const ROUTE: Text = Text(128, &[PRINTABLE]);
/// `spec.sticky.separator`.
pub const SEPARATOR: Text = Text(8, &[PRINTABLE]);
/// Names of cookies.
pub const COOKIE_NAME: Text = Text(128, &[(schema::COOKIE_NAME, is_token)]);
/// `spec.sticky.parameter`.
pub const PARAMETER_NAME: Text = Text(128, &[(schema::PARAMETER_NAME, is_parameter)]);
/// `spec.sticky.routeRegex`, besides that it compiles.
pub const REGEX: Text = Text(512, &[HAS_GROUP]);
/// Names of headers.
pub const HEADER_NAME: Text =
    Text(128, &[(schema::HEADER_NAME, is_token), (schema::HEADER_IS_FREE, is_free)]);
/// Values of headers.
pub const HEADER_VALUE: Text =
    Text(4096, &[(schema::HEADER_VALUE, |t| HeaderValue::from_str(t).is_ok())]);
/// `spec.access`.
pub const NETWORK: Text = Text(49, &[(schema::NETWORK, |text| parse_network(text).is_ok())]);

impl Text {
    /// What is wrong with a text.
    pub fn faults(self, text: &str) -> impl Iterator<Item = String> {
        let Self(most, checks) = self;
        let length = text.chars().count();
        let long =
            (length > most).then(|| format!("must have at most {most} characters, not {length}"));
        let broken = checks.iter().filter(move |(_, keeps)| !keeps(text));
        long.into_iter().chain(broken.map(|((_, message), _)| (*message).to_owned()))
    }
}

fn is_server_name(text: &str) -> bool {
    let is_name = || matches!(HostPattern::parse(text), Ok(HostPattern::Exact(_)));
    text.parse::<IpAddr>().is_ok() || is_name()
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn has_whole_escapes(text: &str) -> bool {
    let whole = |(at, _)| {
        text.as_bytes()
            .get(at + 1..at + 3)
            .is_some_and(|hex: &[u8]| hex.iter().all(u8::is_ascii_hexdigit))
    };
    text.match_indices('%').all(whole)
}

fn is_url(text: &str) -> bool {
    let web = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    // What only this rule's neighbours refuse is no fault of the URL's form.
    let plain = |c: char| if c.is_ascii_graphic() && c != '\\' { c } else { '-' };
    let text: String = text.chars().map(plain).collect();
    let uri = text.parse::<Uri>();
    has_whole_escapes(text.split('?').next().unwrap_or_default())
        && uri.is_ok_and(|uri| web(&uri) && uri.host().is_some_and(|h| !h.is_empty()))
}

fn is_host(text: &str) -> bool {
    HostPattern::parse(text).is_ok() && !text.ends_with('.') && !text.contains(['_', ':', '['])
}

fn is_status_range(text: &str) -> bool {
    let is_status = |text: &str| {
        text.len() == 3
            && matches!(text.as_bytes()[0], b'1'..=b'5')
            && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    is_status(from) && is_status(to)
}

fn is_error_range(text: &str) -> bool {
    is_status_range(text) && text.split('-').all(|status| status.starts_with(['4', '5']))
}

fn is_in_order(text: &str) -> bool {
    text.split_once('-').is_none_or(|(from, to)| from <= to)
}

fn is_authority(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, p)| (host, Some(p)));
    let is_port = |port: &str| {
        (1..=5).contains(&port.len())
            && !port.starts_with('0')
            && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    has_ends(host, "-.") && port.is_none_or(is_port)
}

fn is_domain(text: &str) -> bool {
    has_ends(text.strip_prefix('.').unwrap_or(text), "-.")
}

/// Letters, digits and these marks; no mark at either end.
fn has_ends(text: &str, marks: &str) -> bool {
    let mark = |c: char| marks.contains(c);
    let fits = |c: char| c.is_ascii_alphanumeric() || mark(c);
    !text.is_empty() && text.chars().all(fits) && !text.starts_with(mark) && !text.ends_with(mark)
}

fn is_object_name(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_class(text: &str) -> bool {
    has_ends(text, "-.") && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_label(text: &str) -> bool {
    has_ends(text, "-") && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A token of RFC 9110, which is what cookies and headers may be called.
fn is_token(text: &str) -> bool {
    !text.is_empty() && HeaderName::try_from(text).is_ok()
}

fn is_parameter(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn is_free(text: &str) -> bool {
    !crate::table::edit::is_of_the_connection(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    /// The checks that must say the same as the schema's rules, read by [`alternatives`].
    const READABLE: [Check; 21] = [
        ROOTED,
        ONE_SLASH,
        NO_DOTS,
        PATH_CHARACTERS,
        ESCAPES,
        NO_USER,
        NO_QUERY,
        URL_CHARACTERS,
        PRINTABLE,
        HOST.1[0],
        CLASS_NAME.1[0],
        OBJECT_NAME.1[0],
        DOMAIN.1[0],
        AUTHORITY.1[0],
        NO_FRAGMENT,
        STATUS_RANGE.1[0],
        MEMBER_NAME.1[0],
        SERVICE_NAME.1[0],
        COOKIE_NAME.1[0],
        PARAMETER_NAME.1[0],
        HEADER_VALUE.1[0],
    ];

    /// Patterns that must match, or must not.
    type Terms = Vec<(Regex, bool)>;

    /// A rule such as `self.startsWith('/') && !self.matches('[?#]') || self.contains('//')`.
    fn alternatives(rule: &str) -> Vec<Terms> {
        rule.split(" || ").map(|terms| terms.split(" && ").map(term).collect()).collect()
    }

    fn term(text: &str) -> (Regex, bool) {
        let call = text.trim().trim_start_matches('!');
        let (function, argument) = call.strip_suffix(')').unwrap().split_once('(').unwrap();
        let quoted = argument.trim_start_matches('r');
        let literal = &quoted[1..quoted.len() - 1];
        let pattern = match function {
            "self.matches" => literal.to_owned(),
            "self.contains" => regex::escape(literal),
            "self.startsWith" => format!("^{}", regex::escape(literal)),
            other => panic!("{other} in {text}"),
        };
        (Regex::new(&pattern).unwrap(), !text.trim().starts_with('!'))
    }

    fn keeps(rule: &[Terms], text: &str) -> bool {
        rule.iter().any(|terms| terms.iter().all(|(regex, is)| regex.is_match(text) == *is))
    }

    fn compare(checks: &[Check], texts: &[&str]) {
        for ((rule, message), check) in checks {
            let alternatives = alternatives(rule);
            for text in texts {
                assert_eq!(check(text), keeps(&alternatives, text), "{text:?} {message}");
            }
        }
    }

    #[test]
    fn hosts_are_those_of_the_schema() {
        let label = "a".repeat(63);
        let longer = format!("{label}a.org");
        let hosts = [&label, &longer, "127.0.0.1", "::1", "[::1]", "1.2.3.4.", "*.1", "*.", "a..b"];
        compare(HOST.1, &hosts);
    }

    #[test]
    fn networks_are_those_of_the_schema_but_for_groups_of_colons() {
        let addresses = ["1.2.3.4", "01.2.3.4", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.4 "];
        let four =
            ["1.2.3.4/0", "1.2.3.4/32", "1.2.3.4/33", "1.2.3.4/08", "1.2.3.4/+8", "1.2.3.4/"];
        let six = ["::", "::1/128", "::1/129", "::/0", "::/00", "::/008", "::ffff:1.2.3.4/96"];
        let neither = ["fe80::1%eth0", "[::1]", "1.2.3.4/8/8", "/8", "a", ""];
        for texts in [&addresses[..], &four, &six, &neither] {
            compare(NETWORK.1, texts);
        }
    }

    #[test]
    fn urls_have_whole_escapes_before_the_query() {
        for (url, is) in [
            ("https://www.site.com/?a=%zz", true),
            ("https://www.site.com/%zz?a=b", false),
            ("https://www.site.com/#%zz", false),
            ("HTTPS://www.site.com", true),
        ] {
            assert_eq!(is_url(url), is, "{url}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_text_keeps_the_same_rules_here_and_in_the_schema(
            texts in proptest::collection::vec(
                "([-._~/?#*;:@%&'\"\\\\`|^{}<>\\[\\] \t\nä\u{7f}]|%[0-9a-fA-F]{0,2}|/[.]{0,3}|\
                 [0-9a-zA-Z]){0,12}",
                200,
            ),
            names in proptest::collection::vec(
                "([*][.]|[.])?[0-9a-zA-Z]([-._0-9a-zA-Z~]{0,6}[0-9a-z])?[-._]?",
                200,
            ),
        ) {
            let texts: Vec<_> = texts.iter().chain(&names).map(String::as_str).collect();
            compare(&READABLE, &texts);
        }
    }
}
