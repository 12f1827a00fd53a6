//! `/explain`: the requests that are kept, each by its id, and what would become of one that is
//! described.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{Admin, page, text};
use crate::explain::dry::Described;
use crate::explain::{self, Explanation};
use crate::table::path::{self, RequestPath};

/// Kept requests that the list shows.
const LISTED: usize = 1000;

/// What the page's address asks for.
#[derive(Debug, Default)]
struct Query<'q> {
    json: bool,
    url: Option<Cow<'q, str>>,
    method: Option<Cow<'q, str>>,
    headers: Vec<Cow<'q, str>>,
    client: Option<Cow<'q, str>>,
}

impl<'q> Query<'q> {
    fn read(query: &'q str, headers: &HeaderMap) -> Result<Self, String> {
        let accept = headers.get(ACCEPT).map(HeaderValue::as_bytes);
        let json = accept.is_some_and(|accept| accept.starts_with(b"application/json"));
        let mut read = Self { json, ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "json" => read.json = true,
                "url" => read.url = Some(value),
                "method" => read.method = Some(value),
                "header" => read.headers.push(value),
                "client" => read.client = Some(value),
                _ => {
                    return Err(format!(
                        "{name}: unknown; there are url, method, header, client, json"
                    ));
                }
            }
        }
        Ok(read)
    }
}

impl Admin {
    /// The page at `/explain`, or below it.
    pub(super) fn explain(&self, uri: &Uri, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let query = match Query::read(uri.query().unwrap_or_default(), headers) {
            Ok(query) => query,
            Err(wrong) => return text(StatusCode::BAD_REQUEST, &format!("{wrong}\n")),
        };
        match (uri.path().strip_prefix("/explain/").filter(|id| !id.is_empty()), &query.url) {
            (Some(id), _) => self.kept_one(id, query.json),
            (None, Some(url)) => self.described(url, &query),
            (None, None) => self.kept_list(query.json),
        }
    }

    fn kept_one(&self, id: &str, json: bool) -> Response<Full<Bytes>> {
        let found = self.kept.find(id);
        if found.is_empty() {
            let none =
                "no request with this id is kept: it went well and was not drawn, or is too old\n";
            return text(StatusCode::NOT_FOUND, none);
        }
        let whole: Vec<_> = found.iter().map(|explanation| self.with_others(explanation)).collect();
        if json {
            let all: Vec<_> = whole.iter().map(explain::json::whole).collect();
            return pretty(&json!({ "requests": all }));
        }
        let all: Vec<_> = whole.iter().map(explain::text::whole).collect();
        text(StatusCode::OK, &all.join("\n"))
    }

    fn described(&self, url: &str, query: &Query<'_>) -> Response<Full<Bytes>> {
        let headers = query.headers.iter().map(AsRef::as_ref);
        let described =
            Described::new(url, query.method.as_deref(), headers, query.client.as_deref());
        match described {
            Ok(described) => {
                let explanation = described.explain(&self.table.load(), Instant::now());
                if query.json {
                    pretty(&explain::json::whole(&explanation))
                } else {
                    text(StatusCode::OK, &explain::text::whole(&explanation))
                }
            }
            Err(wrong) => text(StatusCode::BAD_REQUEST, &format!("{wrong}\n")),
        }
    }

    fn kept_list(&self, json: bool) -> Response<Full<Bytes>> {
        let all = self.kept.all();
        let newest = || all.iter().take(LISTED).map(Arc::as_ref);
        if json {
            let all: Vec<_> = newest().map(explain::json::short).collect();
            return pretty(&json!({ "requests": all }));
        }
        text(StatusCode::OK, &newest().map(explain::text::short).collect::<String>())
    }

    /// Adds why other Balancers did not get the request, as long as that is still known.
    fn with_others(&self, explanation: &Explanation) -> Explanation {
        let mut whole = explanation.clone();
        let table = self.table.load();
        let Some(head) = whole.head.as_ref().filter(|_| table.version() == whole.version) else {
            return whole;
        };
        let target = head.target.split('?').next().unwrap_or_default();
        let (host, path) = (path::host_of(&head.authority), RequestPath::resolve(target));
        if let (Ok(host), Ok(path)) = (host, path) {
            let found = whole.matched.as_ref().and_then(|matched| table.route(&matched.rule));
            whole.others = Some(table.others(&host, &path, found.map(AsRef::as_ref)));
        }
        whole
    }
}

fn pretty(value: &Value) -> Response<Full<Bytes>> {
    page(StatusCode::OK, "application/json", format!("{value:#}\n"))
}
