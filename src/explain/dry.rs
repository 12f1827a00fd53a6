//! What would become of a request that is only described. Nothing is sent, booked or changed.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Uri};
use jiff::Timestamp;

use super::{Explanation, Found, Head, Matched, Picked};
use crate::table::balance::{Ask, NoMember, Pick, Tried, preview, survey};
use crate::table::gate::{Gate, is_idempotent};
use crate::table::load::Admission;
use crate::table::path::{self, RequestPath};
use crate::table::sticky::Extract;
use crate::table::tally::Session;
use crate::table::{self, Route, Rule, Table};

/// Members that are told of.
const MEMBERS: usize = 1000;

/// A request as somebody describes it.
#[derive(Clone, Debug)]
pub struct Described {
    method: Method,
    url: Uri,
    headers: HeaderMap,
    client: IpAddr,
}

impl Described {
    /// Of words: an absolute URL, fields as `Name: value`, the client's address if it matters.
    ///
    /// # Errors
    /// Says which of them is wrong, and what would be right.
    pub fn new<'w>(
        url: &str,
        method: Option<&str>,
        fields: impl IntoIterator<Item = &'w str>,
        client: Option<&str>,
    ) -> Result<Self, String> {
        let wrong = || format!("url: `{url}` should look like http://www.site.com/cart?item=1");
        let parsed: Uri = url.parse().map_err(|_| wrong())?;
        let is_web =
            parsed.scheme() == Some(&Scheme::HTTP) || parsed.scheme() == Some(&Scheme::HTTPS);
        if !is_web || parsed.authority().is_none() {
            return Err(wrong());
        }
        let method = method.unwrap_or("GET");
        let mut headers = HeaderMap::new();
        for text in fields {
            let (name, value) = field(text)?;
            headers.append(name, value);
        }
        let client = client.map(|text| {
            text.parse().map_err(|_| format!("client: `{text}` is no address, such as 192.0.2.7"))
        });
        Ok(Self {
            method: method
                .parse()
                .map_err(|_| format!("method: `{method}` is none, such as GET"))?,
            url: parsed,
            headers,
            client: client.transpose()?.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        })
    }

    /// Host and port that it is for: a `Host` field goes before the URL, as with curl.
    fn authority(&self) -> &str {
        let field = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        field.unwrap_or_else(|| self.url.authority().map_or("", http::uri::Authority::as_str))
    }

    fn is_https(&self) -> bool {
        self.url.scheme() == Some(&Scheme::HTTPS)
    }

    /// What becomes of it by this table.
    #[must_use]
    pub fn explain(&self, table: &Table, now: Instant) -> Explanation {
        let target = self.url.path_and_query().map_or("/", PathAndQuery::as_str);
        let (method, authority, https) = (&self.method, self.authority(), self.is_https());
        let mut explanation = Explanation {
            at: Timestamp::now(),
            head: Some(Head::new(self.client, method, https, authority, target, &self.headers)),
            version: table.version(),
            ..Explanation::default()
        };
        if let Err(refused) = self.route(table, &mut explanation, now) {
            explanation.instead = Some(refused);
        }
        explanation
    }

    /// Fills the explanation in; an error is what Gibbon would answer itself.
    fn route(
        &self,
        table: &Table,
        explanation: &mut Explanation,
        now: Instant,
    ) -> Result<(), String> {
        if matches!(self.method, Method::CONNECT | Method::TRACE) {
            return Err("405: this method is not passed on".to_owned());
        }
        let host = path::host_of(self.authority()).map_err(|error| format!("400: {error}"))?;
        let path =
            RequestPath::resolve(self.url.path()).map_err(|error| format!("400: {error}"))?;
        let found = match table.find(&host, &path) {
            table::Found::Route(route) => Some(route),
            _ => None,
        };
        explanation.others = Some(table.others(&host, &path, found.map(AsRef::as_ref)));
        let Some(route) = found else {
            return Err(match table.find(&host, &path) {
                table::Found::UnknownPath => "404: no Balancer of the host has this path",
                table::Found::Undecided => "503: no table is in use yet",
                _ => "404: no Balancer has this host",
            }
            .to_owned());
        };
        explanation.matched = Some(Matched::of(route, &host));
        let gate = route.rule.gate(self.client, self.is_https(), path.plain());
        if !matches!(gate, Gate::Forbidden | Gate::ToHttps) {
            self.identity(table, &route.rule, &host, path.plain(), explanation)?;
        }
        match gate {
            Gate::Open => {
                self.pick(route, explanation, now);
                Ok(())
            }
            Gate::Forbidden => Err(format!("403: spec.access shuts {} out", self.client)),
            Gate::ToHttps => Err("308: to the same by https, for spec.tls".to_owned()),
            Gate::Redirect(to) => Err(format!("{}: redirect to {}", to.status.as_u16(), to.to)),
            Gate::Refused(status) => Err(format!("{}: spec.refuse", status.as_u16())),
        }
    }

    /// Notes what TLS decides: who the client is, and for which host its connection was made. An error
    /// if nothing that it could show would do.
    fn identity(
        &self,
        table: &Table,
        rule: &Rule,
        host: &str,
        plain: &str,
        explanation: &mut Explanation,
    ) -> Result<(), String> {
        let (policy, https) = (table.clients.find(host), self.is_https());
        let serves = |shown| rule.may_enter(policy, shown, https, plain);
        if !serves(https) {
            let why = if https { "has other authorities" } else { "wants a certificate: by TLS" };
            return Err(format!("403: spec.tls.clientCASecret of the host {why}"));
        }
        if https && !serves(false) {
            explanation.unknown.push(
                "whether the client shows the certificate that spec.tls.clientCASecret wants; else the \
                 handshake fails, or it is answered 403, or 421 if the connection is another host's",
            );
        } else if https && policy.is_some() {
            explanation.unknown.push(
                "whether the client shows a certificate; one that is not good fails the handshake",
            );
        }
        let is_brought = |rule: &Rule| {
            let secret = rule.tls.as_ref().and_then(|tls| tls.secret.as_ref());
            secret.is_some() && rule.covering(host).is_some()
        };
        let brought = || table.routes.iter().any(|route| is_brought(&route.rule));
        if https && table.certificates.find(host).is_none() && !brought() {
            explanation.unknown.push(
                "who speaks TLS with the client: Gibbon has no certificate for the host, and answers 421 \
                 if the connection is another host's",
            );
        }
        Ok(())
    }

    /// Whether the request is to leave HTTP; another version of it is not meant.
    fn wants_upgrade(&self) -> bool {
        let has = |name, what: fn(&str) -> bool| {
            self.headers.get_all(name).iter().any(|value: &HeaderValue| {
                let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
                text.split(',').any(|token| what(token.trim()))
            })
        };
        let is_http = |token: &str| token.starts_with("h2") || token.starts_with("http/");
        self.headers.contains_key(header::UPGRADE)
            && !has(header::UPGRADE, is_http)
            && has(header::CONNECTION, |token| token == "upgrade")
    }

    fn pick(&self, route: &Route, explanation: &mut Explanation, now: Instant) {
        let (path, query) = (self.url.path(), self.url.query());
        let findings = route.findings(path, query, &self.headers);
        // What a pattern has found is meant to be a name; a whole value may be a secret.
        let sticky = route.rule.sticky.as_ref();
        let named = sticky.is_some_and(|sticky| !matches!(sticky.extract, Extract::Whole));
        explanation.findings = findings.into_iter().map(|f| Found::new(f, route, named)).collect();
        let wish = route.wish(path, query, &self.headers);
        let (tunnel, mut tried) = (self.wants_upgrade(), Tried::default());
        let pick = loop {
            let ask = Ask {
                wanted: wish.members,
                tried: &tried,
                idempotent: is_idempotent(&self.method),
                tunnel,
                now,
            };
            if tried.count() == 0 {
                explanation.see(route, survey(route, &ask), MEMBERS);
            }
            match preview(route, &ask, &mut fastrand::Rng::with_seed(0)) {
                Ok(pick) if tunnel && !route.members[pick.member].protocol.can_switch() => {
                    tried.add(pick.member);
                }
                pick => break pick,
            }
        };
        let lost = wish.named && wish.members.is_empty();
        let session = match pick {
            Err(NoMember::Session) => Session::Refused,
            Ok(Pick { session: Session::New, .. }) if lost => Session::Lost,
            Ok(pick) => pick.session,
            Err(NoMember::Busy | NoMember::None) => Session::New,
        };
        explanation.session = Some(session.label());
        let member = pick.ok().map(|pick| &route.members[pick.member]);
        explanation.pick = Some(Picked {
            member: member.map(|member| (member.name.clone(), member.address)),
            why: match pick {
                Err(NoMember::None) if tried.count() > 0 => {
                    "501: it asks for another protocol, and the members speak HTTP/2 only"
                }
                pick => why(route, pick, wish.members, now),
            },
        });
        if let Some(member) = member {
            explanation.rewrite_request(route, member, self.authority(), path);
        }
    }
}

/// Why a member is picked, in a sentence.
fn why(route: &Route, pick: Result<Pick, NoMember>, own: &[usize], now: Instant) -> &'static str {
    let usable = |pick: &Pick| route.members[pick.member].admission(now) == Admission::Usable;
    match pick {
        Err(NoMember::Session) => "503: the session's member cannot serve, and failover is off",
        Err(NoMember::Busy) => "those that could serve it are full: it waits, then 503",
        Err(NoMember::None) => "503: there is no member that could serve it",
        Ok(pick) if pick.session == Session::Hit && (usable(&pick) || pick.probe) => {
            "the session is its own"
        }
        Ok(pick) if pick.session == Session::Hit => {
            "the session is its own, and nobody is better: it is tried though it is not usable"
        }
        Ok(pick) if route.is_heir(own, pick.member) => {
            "the session's member cannot serve, and leaves its sessions to this one (failoverRoute)"
        }
        Ok(pick) if pick.probe => {
            "its exclusion is over: this request finds out whether it is back"
        }
        Ok(pick) if !usable(&pick) => "none is usable: it is tried rather than nobody",
        Ok(_) => "it has the least score of the usable ones",
    }
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("header: `{text}` should look like `Cookie: sessionid=x!app1`");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    Ok((name, HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_| wrong())?))
}
