//! `gibbon import apache --replay`: the same safe requests to two fronts, and what differs.

mod requests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

pub use requests::{Asked, Requests};

/// How long a front may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest body that is read to its end.
const BODY: usize = 64 << 20;
/// How many requests stand as examples of a difference.
const EXAMPLES: usize = 3;

/// What a front answered, as far as it is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status, or why there is none.
    pub status: String,
    /// `Location`.
    pub location: String,
    /// The cookies that are set: names and attributes, for values differ by session.
    pub cookies: String,
    /// Bytes of the body.
    pub length: String,
}

/// A field in which answers differ, by what the old front and the new one said.
type Difference = (&'static str, String, String);

/// What was compared.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Requests of which all was the same.
    pub equal: usize,
    /// Requests of which something differed.
    pub different: usize,
    groups: BTreeMap<Difference, (usize, Vec<String>)>,
}

struct Fronts {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    old: Uri,
    new: Uri,
}

/// Sends the requests to both fronts, one after the other.
///
/// # Errors
/// URLs that name no host, or a path, and a system without certificates.
pub async fn run(old: &Uri, new: &Uri, requests: &Requests) -> anyhow::Result<Comparison> {
    let connector = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http();
    let client = Builder::new(TokioExecutor::new()).build(connector.enable_http1().build());
    for front in [old, new] {
        if !matches!(front.path(), "" | "/") || front.query().is_some() {
            anyhow::bail!("{front} must be a front alone, without a path: requests bring theirs");
        }
    }
    let fronts = Fronts { client, old: old.clone(), new: new.clone() };
    let mut comparison = Comparison::default();
    for asked in &requests.asked {
        let host = asked.host.as_deref().or(old.authority().map(http::uri::Authority::as_str));
        let host = host.with_context(|| format!("{old} names no host"))?;
        let answers = (
            fronts.ask(&fronts.old, host, asked).await?,
            fronts.ask(&fronts.new, host, asked).await?,
        );
        comparison.add(asked, &answers.0, &answers.1);
    }
    Ok(comparison)
}

impl Fronts {
    async fn ask(&self, front: &Uri, host: &str, asked: &Asked) -> anyhow::Result<Answer> {
        let uri = Uri::builder()
            .scheme(front.scheme_str().unwrap_or("http"))
            .authority(
                front.authority().with_context(|| format!("{front} names no host"))?.as_str(),
            )
            .path_and_query(asked.target.as_str())
            .build();
        let mut request = Request::builder()
            .method(asked.method.clone())
            .uri(uri.with_context(|| format!("{} is no path", asked.target))?)
            .header(header::HOST, host);
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new())?;
        Ok(match timeout(PATIENCE, self.answer(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::none(&format!("no answer ({error})")),
            Err(_) => Answer::none("no answer in time"),
        })
    }

    async fn answer(&self, request: Request<Empty<Bytes>>) -> anyhow::Result<Answer> {
        let head = request.method() == Method::HEAD;
        let response = self.client.request(request).await?;
        let (parts, body) = response.into_parts();
        let text = |name| joined(&parts.headers, name, str::to_owned);
        let length = if head {
            text(header::CONTENT_LENGTH)
        } else {
            match Limited::new(body, BODY).collect().await {
                Ok(body) => body.to_bytes().len().to_string(),
                Err(error) => format!("broken off ({error})"),
            }
        };
        Ok(Answer {
            status: parts.status.as_u16().to_string(),
            location: text(header::LOCATION),
            cookies: joined(&parts.headers, header::SET_COOKIE, without_value),
            length,
        })
    }
}

impl Answer {
    fn none(why: &str) -> Self {
        Self { status: why.to_owned(), ..Self::default() }
    }

    fn is_none(&self) -> bool {
        !self.status.starts_with(|c: char| c.is_ascii_digit())
    }
}

impl Comparison {
    /// Compares two answers.
    pub fn add(&mut self, asked: &Asked, old: &Answer, new: &Answer) {
        let fields = [
            ("status", &old.status, &new.status),
            ("Location", &old.location, &new.location),
            ("Set-Cookie", &old.cookies, &new.cookies),
            ("content length", &old.length, &new.length),
        ];
        let mut equal = true;
        // Where there is no answer, that is all there is to tell.
        let told = if old.is_none() || new.is_none() { 1 } else { fields.len() };
        let host = asked.host.as_deref().unwrap_or_default();
        for (field, old, new) in fields.into_iter().take(told).filter(|(_, old, new)| old != new) {
            equal = false;
            let (count, examples) =
                self.groups.entry((field, old.clone(), new.clone())).or_default();
            *count += 1;
            if examples.len() < EXAMPLES {
                examples.push(format!("{} {host}{}", asked.method, asked.target));
            }
        }
        if equal { self.equal += 1 } else { self.different += 1 }
    }

    /// For people: the counts, then the differences, the most frequent first.
    #[must_use]
    pub fn text(&self, requests: &Requests) -> String {
        let mut text = format!(
            "requests: {}; equal: {}; different: {}; left out: {} not safe, {} not understood\n",
            requests.asked.len(),
            self.equal,
            self.different,
            requests.unsafe_ones,
            requests.unreadable
        );
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for ((field, old, new), (count, examples)) in groups {
            let shown =
                |value: &str| if value.is_empty() { "none".to_owned() } else { value.to_owned() };
            let _ = writeln!(text, "{count} × {field}: {} → {}", shown(old), shown(new));
            for example in examples {
                let _ = writeln!(text, "    {example}");
            }
        }
        text
    }
}

fn joined(headers: &HeaderMap, name: header::HeaderName, show: fn(&str) -> String) -> String {
    let values = headers.get_all(name).iter();
    let mut values: Vec<_> =
        values.map(|value| show(&String::from_utf8_lossy(value.as_bytes()))).collect();
    values.sort();
    values.join(", ")
}

/// `a=b; Path=/` → `a=…; Path=/`.
fn without_value(cookie: &str) -> String {
    let (pair, attributes) = cookie.find(';').map_or((cookie, ""), |at| cookie.split_at(at));
    let name = pair.split('=').next().unwrap_or_default();
    format!("{name}=…{attributes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_grouped_and_equals_counted() {
        let requests = Requests::read("");
        let asked = |target: &str| Asked::get(target);
        let old = Answer {
            status: "200".to_owned(),
            cookies: without_value("a=1; Path=/"),
            ..Answer::default()
        };
        let new = Answer { status: "404".to_owned(), ..old.clone() };
        let mut comparison = Comparison::default();
        comparison.add(&asked("/a"), &old, &old.clone());
        comparison.add(&asked("/b"), &old, &new);
        comparison.add(&asked("/c"), &old, &new);
        let text = comparison.text(&requests);
        assert!(text.contains("equal: 1; different: 2"), "{text}");
        assert!(text.ends_with("2 × status: 200 → 404\n    GET /b\n    GET /c\n"), "{text}");
        assert_eq!(old.cookies, "a=…; Path=/");
        let mut comparison = Comparison::default();
        let asked = Asked { host: Some("www.site.com".to_owned()), ..asked("/d") };
        comparison.add(&asked, &old, &Answer::none("no answer in time"));
        let text = comparison.text(&requests);
        let expected = "1 × status: 200 → no answer in time\n    GET www.site.com/d\n";
        assert!(text.ends_with(expected) && text.lines().count() == 3, "{text}");
    }
}
