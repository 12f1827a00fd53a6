//! Leaves out of an explanation what is nobody else's business: the values of cookies and of
//! parameters, credentials, and all fields that are not known to be harmless.

use std::borrow::Cow;

use http::header::{self, HeaderName, HeaderValue};

/// Stands for what is not shown.
pub const HIDDEN: &str = "***";

/// Bytes of a text that are shown.
const LONGEST: usize = 256;

/// Schemes of credentials, which are shown: those of IANA's registry and what else is common. Another
/// word may be part of a secret.
const SCHEMES: [&str; 18] = [
    "apikey",
    "aws4-hmac-sha256",
    "basic",
    "bearer",
    "concealed",
    "digest",
    "dpop",
    "gnap",
    "hoba",
    "mutual",
    "negotiate",
    "ntlm",
    "oauth",
    "privatetoken",
    "scram-sha-1",
    "scram-sha-256",
    "token",
    "vapid",
];

/// Fields whose values are shown.
const HARMLESS: [&str; 42] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "cdn-loop",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expect",
    "expires",
    "forwarded",
    "keep-alive",
    "max-forwards",
    "priority",
    "range",
    "retry-after",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-websocket-version",
    "server",
    "strict-transport-security",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// A field's value as it may be shown.
#[must_use]
pub fn field(name: &HeaderName, value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    match *name {
        header::COOKIE => shortened(&cookies(&text)),
        header::SET_COOKIE => shortened(&set_cookie(&text)),
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION => credentials(&text),
        header::LOCATION | header::CONTENT_LOCATION | header::ORIGIN | header::REFERER => {
            shortened(&url(&text))
        }
        header::HOST => authority(&text).into_owned(),
        header::REFRESH => shortened(&refresh(&text)),
        _ if matches!(name.as_str(), "destination" | "uri") => shortened(&url(&text)),
        _ if name == "x-forwarded-host" => authority(&text).into_owned(),
        _ if HARMLESS.binary_search(&name.as_str()).is_ok() => shortened(&text),
        _ => HIDDEN.to_owned(),
    }
}

/// Path and query without the values of parameters.
#[must_use]
pub fn target(text: &str) -> String {
    let text = text.split('#').next().unwrap_or_default();
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let segment = |segment: &str| {
        let (name, parameters) = segment.split_once(';')?;
        Some(format!("{name};{}", pairs(parameters, ";")))
    };
    let segments =
        path.split('/').map(|part| segment(part).map_or(Cow::Borrowed(part), Cow::Owned));
    let path = segments.collect::<Vec<_>>().join("/");
    shortened(&match query {
        Some(query) => format!("{path}?{}", pairs(query, "&")),
        None => path,
    })
}

/// The beginning of a text.
#[must_use]
pub fn shortened(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}...", &text[..end])
}

/// `name=value` several times: the names remain. Without a `=` it is all value.
fn pairs(text: &str, separator: &str) -> String {
    let masked = text.split(separator).map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None if pair.is_empty() => String::new(),
        None => HIDDEN.to_owned(),
    });
    masked.collect::<Vec<_>>().join(separator)
}

fn cookies(text: &str) -> String {
    let trimmed: Vec<_> = text.split(';').map(str::trim).collect();
    pairs(&trimmed.join(";"), ";").replace(';', "; ")
}

/// The name remains, and the attributes.
fn set_cookie(text: &str) -> String {
    let (cookie, attributes) = match text.split_once(';') {
        Some((cookie, attributes)) => (cookie, Some(attributes)),
        None => (text, None),
    };
    let cookie = pairs(cookie, ";");
    attributes.map_or_else(|| cookie.clone(), |attributes| format!("{cookie};{attributes}"))
}

/// The scheme remains, if it is a known one: `Bearer ***`.
fn credentials(text: &str) -> String {
    let is_scheme = |scheme: &str| SCHEMES.binary_search(&&*scheme.to_ascii_lowercase()).is_ok();
    match text.split_once(' ') {
        Some((scheme, _)) if is_scheme(scheme) => format!("{scheme} {HIDDEN}"),
        _ => HIDDEN.to_owned(),
    }
}

/// A URL or path without users, fragment and the values of parameters. Whatever stands before an `@`
/// may be a user with a password, to somebody who reads the text less strictly than is right.
fn url(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let parts = path.split_inclusive(['/', '\\']).map(|part| match part.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("{HIDDEN}@{host}")),
        None => Cow::Borrowed(part),
    });
    target(&(parts.collect::<String>() + rest))
}

/// Host and port, as far as they are not too long, without a user.
#[must_use]
pub fn authority(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((_, host)) => shortened(&format!("{HIDDEN}@{host}")).into(),
        None if text.len() <= LONGEST => text.into(),
        None => shortened(text).into(),
    }
}

/// `5; url=…`, or without `url=`.
fn refresh(text: &str) -> String {
    let Some((seconds, rest)) = text.split_once([';', ',']) else { return text.to_owned() };
    let is_url = |name: &str| name.trim().eq_ignore_ascii_case("url");
    let (name, to) = match rest.split_once('=') {
        Some((name, to)) if is_url(name) => ("url=", to),
        _ => ("", rest),
    };
    format!("{seconds}; {name}{}", url(to.trim().trim_matches(['"', '\''])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &'static str, value: &str) -> String {
        let name = HeaderName::from_static(name);
        field(&name, &HeaderValue::from_bytes(value.as_bytes()).unwrap())
    }

    #[test]
    fn the_lists_can_be_searched() {
        assert!(HARMLESS.is_sorted() && SCHEMES.is_sorted());
    }

    #[test]
    fn names_remain_and_values_do_not() {
        for (name, value, seen) in [
            ("cookie", "sessionid=SECRET!app1; b=SECRET;SECRET", "sessionid=***; b=***; ***"),
            ("cookie", "a=b=SECRET", "a=***"),
            ("authorization", "Bearer SECRET", "Bearer ***"),
            ("authorization", "SECRET", "***"),
            ("authorization", "SECRET+with/more SECRET", "***"),
            ("authorization", "SECRET x", "***"),
            ("authorization", "hunter SECRET", "***"),
            ("authorization", "SCRAM-SHA-256 SECRET", "SCRAM-SHA-256 ***"),
            ("proxy-authorization", "Basic SECRET", "Basic ***"),
            ("origin", "https://u:SECRET@a:8443", "https://***@a:8443"),
            ("origin", "https://www.site.com", "https://www.site.com"),
            ("origin", "null", "null"),
            ("host", "u:SECRET@a:80", "***@a:80"),
            ("x-forwarded-host", "SECRET@a", "***@a"),
            ("x-api-key", "SECRET", "***"),
            ("sec-websocket-key", "SECRET", "***"),
            ("set-cookie", "s=SECRET; Path=/a; HttpOnly", "s=***; Path=/a; HttpOnly"),
            ("set-cookie", "SECRET", "***"),
            ("user-agent", "curl/8", "curl/8"),
            ("referer", "http://a/b?c=SECRET#SECRET", "http://a/b?c=***"),
            ("location", "https://u:SECRET@a/b;s=SECRET?x=SECRET", "https://***@a/b;s=***?x=***"),
            ("location", "//a?SECRET", "//a?***"),
            ("location", "/b?c=SECRET", "/b?c=***"),
            ("location", "/b?c=SECRET&d=http://SECRET", "/b?c=***&d=***"),
            ("location", "?SECRET//SECRET", "?***"),
            ("destination", "http://a/b?SECRET", "http://a/b?***"),
            ("destination", "dav-s://u:SECRET@a/b", "dav-s://***@a/b"),
            ("referer", "x2y+z.1://u:SECRET@a/b?c", "x2y+z.1://***@a/b?***"),
            ("referer", "1x://u:SECRET@a/b", "1x://***@a/b"),
            ("location", "http:/u:SECRET@a/b", "http:/***@a/b"),
            ("location", "http:\\\\u:SECRET@a/b", "http:\\\\***@a/b"),
            ("location", "//u:SECRET;x@a;s=SECRET", "//***@a;s=***"),
            ("location", "mailto:SECRET@a", "***@a"),
            ("uri", "<ftp://u:SECRET@a/b>", "<ftp://***@a/b>"),
            ("refresh", "5; url=\"/b?c=SECRET\"", "5; url=/b?c=***"),
            ("refresh", "5; http://m/b?c=SECRET", "5; http://m/b?c=***"),
            ("refresh", "5", "5"),
        ] {
            assert_eq!(shown(name, value), seen, "{name}: {value}");
        }
    }

    #[test]
    fn a_target_keeps_its_path() {
        for (text, seen) in [
            ("/", "/"),
            ("/a/b?c=SECRET&d=SECRET&SECRET", "/a/b?c=***&d=***&***"),
            ("/a;jsessionid=SECRET/b;SECRET?", "/a;jsessionid=***/b;***?"),
            ("/a?b=c?d=SECRET", "/a?b=***"),
            ("/a?b=1;c=SECRET", "/a?b=***"),
        ] {
            assert_eq!(target(text), seen);
        }
        assert!(target(&"/a".repeat(10_000)).len() < 300);
        assert!(target(&format!("/{}", "\u{e9}".repeat(10_000))).len() < 300);
    }
}
