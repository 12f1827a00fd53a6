//! What is replayed: an access log in combined format, or a HAR file.

use http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

/// Fields of a HAR's requests that are sent again: those on which answers depend.
const KEPT: [&str; 5] = ["accept", "accept-language", "accept-encoding", "cookie", "user-agent"];

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method, a safe one.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The host, if it is known.
    pub host: Option<String>,
    /// More fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The requests of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Those to send, each once.
    pub asked: Vec<Asked>,
    /// How many might change something, and are not sent.
    pub unsafe_ones: usize,
    /// How many were not understood.
    pub unreadable: usize,
}

impl Asked {
    /// A plain GET.
    #[must_use]
    pub fn get(target: &str) -> Self {
        let (method, target) = (Method::GET, target.to_owned());
        Self { method, target, host: None, headers: Vec::new() }
    }

    fn new(method: &str, target: &str) -> Option<Self> {
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let uri: Uri = target.parse().ok()?;
        let target = uri.path_and_query().filter(|path| path.path().starts_with('/'))?.to_string();
        let host = uri.authority().map(ToString::to_string);
        Some(Self { method, target, host, headers: Vec::new() })
    }
}

impl Requests {
    /// Reads a file of either form.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut requests = Self::default();
        match serde_json::from_str::<Value>(text) {
            Ok(har) if har["log"]["entries"].is_array() => {
                for entry in har["log"]["entries"].as_array().into_iter().flatten() {
                    requests.add(har_entry(&entry["request"]));
                }
            }
            _ => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.for_each(|line| requests.add(log_line(line)));
            }
        }
        requests
    }

    fn add(&mut self, asked: Option<Asked>) {
        match asked {
            None => self.unreadable += 1,
            Some(asked) if !asked.method.is_safe() || asked.method == Method::TRACE => {
                self.unsafe_ones += 1;
            }
            Some(asked) if self.asked.contains(&asked) => {}
            Some(asked) => self.asked.push(asked),
        }
    }
}

/// `1.2.3.4 - - [date] "GET /x HTTP/1.1" 200 5 "referrer" "agent"`, with the virtual host before it or
/// not.
fn log_line(line: &str) -> Option<Asked> {
    let (before, rest) = line.split_once('[')?;
    let quoted = rest.split_once("] \"")?.1;
    let request = quoted.split_once('"')?.0;
    let mut parts = request.split(' ');
    let mut asked = Asked::new(parts.next()?, parts.next()?)?;
    if !parts.next()?.starts_with("HTTP/") {
        return None;
    }
    let words: Vec<_> = before.split_whitespace().collect();
    if let [host, _, _, _] = words.as_slice() {
        let bare = host.split(':').next().unwrap_or_default();
        asked.host = asked.host.or_else(|| Some(bare.to_owned()));
    }
    Some(asked)
}

fn har_entry(request: &Value) -> Option<Asked> {
    let mut asked = Asked::new(request["method"].as_str()?, request["url"].as_str()?)?;
    for header in request["headers"].as_array().into_iter().flatten() {
        let name = header["name"].as_str()?.to_ascii_lowercase();
        if KEPT.contains(&name.as_str())
            && let Ok(name) = HeaderName::try_from(name)
            && let Ok(value) = HeaderValue::try_from(header["value"].as_str()?)
        {
            asked.headers.push((name, value));
        }
    }
    Some(asked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_log_gives_its_safe_requests_once() {
        let log = "1.2.3.4 - - [10/Oct/2026:13:55:36 +0000] \"GET /a?b=c HTTP/1.1\" 200 5 \"-\" \"x\"\n\
                   1.2.3.4 - bob [10/Oct/2026:13:55:36 +0000] \"GET /a?b=c HTTP/1.1\" 200 5 \"-\" \"x\"\n\
                   www.site.com:80 1.2.3.4 - - [x] \"HEAD /h HTTP/1.0\" 200 - \"-\" \"x\"\n\
                   1.2.3.4 - - [x] \"POST /p HTTP/1.1\" 200 5 \"-\" \"x\"\n\
                   1.2.3.4 - - [x] \"-\" 408 0 \"-\" \"-\"\n";
        let requests = Requests::read(log);
        let shown =
            |a: &Asked| format!("{} {} {}", a.method, a.target, a.host.as_deref().unwrap_or("-"));
        let asked: Vec<_> = requests.asked.iter().map(shown).collect();
        assert_eq!(asked, ["GET /a?b=c -", "HEAD /h www.site.com"]);
        assert_eq!((requests.unsafe_ones, requests.unreadable), (1, 1));
    }

    #[test]
    fn a_har_gives_hosts_and_cookies() {
        let har = serde_json::json!({"log": {"entries": [{"request": {
            "method": "GET", "url": "https://www.site.com/a?b",
            "headers": [{"name": "Cookie", "value": "s=1"}, {"name": "Host", "value": "x"}],
        }}, {"request": {"method": "DELETE", "url": "https://www.site.com/a"}}]}});
        let requests = Requests::read(&har.to_string());
        let [asked] = requests.asked.as_slice() else { panic!("{requests:?}") };
        assert_eq!((asked.target.as_str(), asked.host.as_deref()), ("/a?b", Some("www.site.com")));
        assert_eq!(asked.headers.len(), 1);
        assert_eq!(requests.unsafe_ones, 1);
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(text in "(?s).{0,100}|[\\[\\]\" /a-z0-9GETHP.:{}-]{0,100}") {
            let _ = Requests::read(&text);
        }
    }
}
