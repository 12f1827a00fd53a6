//! One request: find, pick, send, fail over, reverse.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::attempts::{self, Ready};
use super::body::{self, Body, Upload, UploadError, Within};
use super::error::{self, Error, REPLACED, show};
use super::fields::Fields;
use super::grpc;
use super::headers::{self, Added, Hop, Peer};
use super::identity::Elsewhere;
use super::io::{self, Activity};
use super::log::{AccessLog, Asked, Begun};
use super::tls::Seen;
use super::upstream::http1::Wire;
use super::upstream::{self, Reply};
use super::visit::{Call, Visit};
use super::{Counted, Worker, explain, trace, tunnel};
use crate::explain::{Because, mask};
use crate::table::edit::Edits;
use crate::table::gate::Gate;
use crate::table::load::Failure;
use crate::table::pages::ErrorPage;
use crate::table::path::{self, RequestPath};
use crate::table::reverse::{Address, Public, Said, Scheme};
use crate::table::tally::Session;
use crate::table::tls::ClientPolicy;
use crate::table::{Found, Member, Redirect, Route};

/// What is kept of a member's answer that is replaced: how to be answered better.
const KEPT: [HeaderName; 3] = [header::WWW_AUTHENTICATE, header::RETRY_AFTER, header::ALLOW];

/// What Gibbon sends to clients.
pub type Answer = Response<Body<Box<Visit>>>;

/// The connection that a request came on.
#[derive(Debug)]
pub struct Connection {
    /// The other side of it.
    pub peer: Peer,
    /// What both sides have seen of each other, if they speak TLS.
    pub seen: Option<Seen>,
    /// What the connection is doing.
    pub activity: Arc<Activity>,
    /// Counts it as open until its last request, or its tunnel, has ended.
    pub counted: Counted,
}

/// Serves one request. Never fails: what goes wrong becomes an answer.
pub async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    busy: io::Request,
    mut request: Request<Incoming>,
) -> Answer {
    let peer = &connection.peer;
    let settings = &worker.shared.settings;
    let tls = connection.seen.is_some();
    let client = headers::client(peer, tls, request.headers(), &settings.trusted);
    let nonce = || worker.rng.borrow_mut().u128(..).to_be_bytes();
    let extended = headers::websocket(&mut request, nonce);
    let fields = Fields::of(request.headers());
    let new_traces = settings.new_traces;
    let id = trace::name(request.headers_mut(), fields, new_traces, &mut worker.rng.borrow_mut());
    let mut added = Added::with_room();
    added.push(&trace::X_REQUEST_ID, id.clone());
    let line = worker.shared.access_log.as_ref().map(|log| begin(log, client.ip, &request));
    let mut visit = Visit::begin(Rc::clone(&worker), id, line, busy);
    let accept = request.headers().get(header::ACCEPT).cloned();
    let call = grpc::call(request.method(), request.headers()).cloned();
    if call.is_some() {
        let until = grpc::timeout(request.headers()).map(|time| visit.begun() + time);
        visit.call = Some(Call { until });
    }
    let version = request.version();
    visit.ends_by_close = version == Version::HTTP_10;
    visit.multiplexed = version >= Version::HTTP_2;
    if worker.draws() {
        visit.explain(Because::Sampled);
    }
    // Reading the body of a client that waits to be told to go on would tell it so.
    let expects = fields.has(Fields::EXPECT) && headers::expects_continue(request.headers());
    let upgrades = extended || (fields.has(Fields::UPGRADE) && headers::wants_upgrade(&request));
    let on_upgrade = upgrades.then(|| hyper::upgrade::on(&mut request));
    let (mut parts, incoming) = request.into_parts();
    visit.unread = Some(incoming);
    let seen = connection.seen.as_ref();
    let journey = Journey { worker: &worker, peer, client, fields, expects, accept, seen };
    let outcome = journey.travel(&mut parts, &mut added, on_upgrade, &mut visit).await;
    explain::asked(&mut visit, &mut parts, added, &journey.client, outcome.as_ref().err());
    match outcome {
        Ok(Outcome::Member(response, within)) => from_member(*response, within, visit),
        Ok(Outcome::Own(response)) => {
            let status = response.status();
            own(response, status, None, visit)
        }
        Ok(Outcome::Replaced(response)) => {
            let status = response.status();
            own(response, status, Some(REPLACED), visit)
        }
        Ok(Outcome::Upgraded(response, upgrade)) => upgraded(response, upgrade, connection, visit),
        Err(error) => journey.refuse(error, parts.version, call, visit),
    }
}

/// Begins the request's line in the log.
fn begin(log: &AccessLog, client: IpAddr, request: &Request<Incoming>) -> Begun {
    let uri = request.uri();
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let host = uri.authority().map_or(host.unwrap_or_default(), |a| a.as_str().as_bytes());
    let host = String::from_utf8_lossy(host);
    log.begin(&Asked {
        client,
        method: request.method(),
        host: mask::authority(&host),
        path: uri.path_and_query().map_or("", PathAndQuery::as_str),
        protocol: match request.version() {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        },
        trace: trace::trace_id(request.headers()),
    })
}

fn own(
    mut response: Response<Bytes>,
    status: StatusCode,
    reason: Option<&'static str>,
    mut visit: Box<Visit>,
) -> Answer {
    response.headers_mut().insert(&trace::X_REQUEST_ID, visit.id.clone());
    visit.answered(status, reason);
    visit.complete(None);
    response.map(|bytes| Body::Own(Some(bytes), Some(visit)))
}

fn from_member(
    response: Response<upstream::Incoming>,
    within: Within,
    mut visit: Box<Visit>,
) -> Answer {
    visit.answered(response.status(), None);
    response.map(|incoming| {
        if hyper::body::Body::is_end_stream(&incoming) {
            visit.complete(Some(incoming));
            return Body::Own(None, Some(visit));
        }
        Body::member(incoming, within, visit)
    })
}

/// Sends the 101 on, and carries bytes from then on.
fn upgraded(
    response: Response<()>,
    upgrade: Upgrade,
    connection: Rc<Connection>,
    mut visit: Box<Visit>,
) -> Answer {
    visit.answered(response.status(), None);
    tokio::task::spawn_local(async move {
        let _open = connection;
        if let (Ok(client), Some(member)) = (upgrade.client.await, upgrade.member.into_parts()) {
            let sent = tunnel::carry(client, member, upgrade.idle).await;
            visit.tunnelled(sent);
        }
    });
    response.map(|()| Body::Own(None, None))
}

/// Both sides of a connection that leaves HTTP.
struct Upgrade {
    client: OnUpgrade,
    member: Wire,
    idle: Duration,
}

/// What a request has led to.
enum Outcome {
    Member(Box<Response<upstream::Incoming>>, Within),
    Own(Response<Bytes>),
    /// What a member answered is not for clients.
    Replaced(Response<Bytes>),
    Upgraded(Response<()>, Upgrade),
}

/// Who asks, and through whom.
struct Journey<'a> {
    worker: &'a Rc<Worker>,
    peer: &'a Peer,
    client: headers::Client,
    /// What the request's head has.
    fields: Fields,
    /// The client waits to be asked for the body.
    expects: bool,
    /// What the client would like to get, whatever members are told.
    accept: Option<HeaderValue>,
    /// What both sides have seen of each other, if they speak TLS.
    seen: Option<&'a Seen>,
}

impl Journey<'_> {
    async fn travel(
        &self,
        parts: &mut Parts,
        added: &mut Added,
        on_upgrade: Option<OnUpgrade>,
        visit: &mut Visit,
    ) -> Result<Outcome, Error> {
        if self.fields.has(Fields::FRAMING) && !headers::is_framed_once(&parts.headers, self.fields)
        {
            return Err(Error::BadRequest("the request is framed ambiguously"));
        }
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return Err(Error::Method);
        }
        let authority = authority(parts, self.fields)?;
        let host = host(authority.as_str())?;
        if parts.method == Method::OPTIONS
            && (parts.uri.path() == "*" || !headers::may_go_on(&mut parts.headers))
        {
            return Ok(Outcome::Own(options()));
        }
        let uri = &parts.uri;
        let path = RequestPath::resolve(uri.path());
        let path = path.map_err(|_| Error::BadRequest("the path is malformed"))?;
        if self.fields.has(Fields::LOOP) && headers::looped(&parts.headers) {
            return Err(Error::Loop);
        }
        let table = self.worker.shared.table.load();
        // Another host's certificate says nothing of this host (RFC 9110, section 15.5.20).
        if let Some(seen) = self.seen
            && table.certificates.find(&host).is_none_or(|own| own.secret != seen.secret)
        {
            return Err(Error::Misdirected);
        }
        let policy = table.clients.find(&host).cloned();
        let subject = self.subject(policy.as_ref())?.cloned();
        let route = match table.find(&host, &path) {
            Found::Route(route) => Arc::clone(route),
            Found::UnknownHost => return Err(Error::UnknownHost),
            Found::UnknownPath => return Err(Error::UnknownPath),
            Found::Undecided => return Err(Error::NoMember),
        };
        drop(table);
        visit.route = Some(Arc::clone(&route));
        let rest = route.rule.prefix.rest(&path).unwrap_or_default();
        let gate = route.rule.gate(self.client.ip, self.client.https, path.plain());
        if !matches!(gate, Gate::Forbidden | Gate::ToHttps)
            && !route.rule.may_enter(
                policy.as_ref(),
                subject.is_some(),
                self.seen.is_some(),
                path.plain(),
            )
        {
            return Err(Error::ClientCertificate);
        }
        match gate {
            Gate::Open => {}
            Gate::Forbidden => return Err(Error::Forbidden),
            Gate::ToHttps => return self.to_https(&host, uri).map(Outcome::Own),
            Gate::Redirect(redirect) => {
                let authority = authority.as_str();
                let mut response = self.redirect(redirect, authority, rest, uri.query())?;
                self.tell_hsts(&route, response.headers_mut());
                return Ok(Outcome::Own(response));
            }
            Gate::Refused(status) => return Err(Error::Refused(status)),
        }
        let upload = self.upload(&route, visit)?;
        visit.upload = Some(upload.clone());
        let hop =
            self.prepare(&route, &mut parts.headers, parts.version, added, &authority, subject);
        let ready = Ready {
            parts,
            added,
            tunnel: on_upgrade.is_some() && hop.upgrade.is_some(),
            hop,
            upload,
            authority: &authority,
            rest,
        };
        let (reply, newer) = attempts::forward(self.worker, &route, &ready, visit).await?;
        self.conclude(newer.as_ref().unwrap_or(&route), &ready, reply, on_upgrade, visit)
    }

    /// What the client is told that gets no member's answer.
    fn refuse(
        &self,
        error: Error,
        version: Version,
        call: Option<HeaderValue>,
        mut visit: Box<Visit>,
    ) -> Answer {
        self.worker.shared.metrics.refused(error.reason());
        if !self.expects {
            body::drain(visit.unread.take(), visit.upload.as_ref());
        }
        let mut response = match call {
            Some(kind) => {
                let response = grpc::refusal(error, kind);
                visit.grpc_status = grpc::status(response.headers());
                response
            }
            None => {
                let mut response = error.answer(self.accept.as_ref());
                let rule = visit.route.as_ref().map(|route| &route.rule);
                if let Some(page) = rule.and_then(|rule| rule.pages.own(error.status())) {
                    show(page, &mut response);
                }
                response
            }
        };
        if version >= Version::HTTP_2 {
            response.headers_mut().remove(header::CONNECTION);
        }
        if let Some(route) = &visit.route {
            self.tell_hsts(route, response.headers_mut());
        }
        // A call of gRPC has 200 whatever is wrong.
        own(response, error.status(), Some(error.reason()), visit)
    }

    /// The subject of the client's certificate, if the host of the request wants to know it and it was
    /// shown. A connection that was made for a host that asks for less is not for this one.
    fn subject(&self, policy: Option<&ClientPolicy>) -> Result<Option<&HeaderValue>, Error> {
        let (Some(policy), Some(seen)) = (policy, self.seen) else {
            return Ok(None);
        };
        let identity = seen.identity.as_ref().ok_or(Error::Misdirected)?;
        let subject = identity.subject_for(policy).map_err(|Elsewhere| Error::Misdirected)?;
        if policy.strict && subject.is_none() {
            return Err(Error::Misdirected);
        }
        Ok(subject)
    }

    fn upload(&self, route: &Route, visit: &mut Visit) -> Result<Upload, Error> {
        let limit = route.rule.body_limit;
        let length = visit.unread.as_ref().map(hyper::body::Body::size_hint).unwrap_or_default();
        if limit.is_some_and(|limit| length.lower() > limit) {
            return Err(Error::Upload(UploadError::TooLarge));
        }
        // The body was put there when the request was taken apart.
        let Some(incoming) = visit.unread.take() else {
            return Err(Error::NoMember);
        };
        let patience = self.worker.shared.settings.body_timeout;
        Ok(Upload::new(incoming, limit, patience, self.expects, visit.begun()))
    }

    /// Changes the request's headers in all that does not depend on the member.
    fn prepare(
        &self,
        route: &Route,
        headers: &mut HeaderMap,
        version: Version,
        added: &mut Added,
        authority: &Authority,
        subject: Option<HeaderValue>,
    ) -> Hop {
        let fields = self.fields;
        let hop = headers::request(headers, fields);
        if fields.has(Fields::COOKIE) {
            headers::join_cookies(headers);
        }
        headers::forwarded(headers, added, fields, self.peer, &self.client, authority.value());
        headers::identify(headers, added, fields, subject);
        headers::mark_hop(added);
        if version < Version::HTTP_11 && fields.has(Fields::EXPECT) {
            headers.remove(header::EXPECT);
        }
        if route.rule.request_headers != Edits::default() {
            added.move_into(headers);
            route.rule.request_headers.apply(headers);
        }
        hop
    }

    /// A member has answered: books it, and turns the answer into one of Gibbon's.
    fn conclude(
        &self,
        route: &Arc<Route>,
        ready: &Ready<'_>,
        reply: Reply,
        on_upgrade: Option<OnUpgrade>,
        visit: &mut Visit,
    ) -> Result<Outcome, Error> {
        let Reply { mut response, fields, connection, asked } = reply;
        let member = &route.members[visit.pick.map_or(0, |pick| pick.member)];
        let status = response.status();
        let excluded = attempts::judge(route, member, &response, asked, visit);
        if visit.explanation.is_some() || excluded.is_some() {
            explain::answered(visit, route, member, status.as_u16(), excluded);
        }
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let tunnel = match (on_upgrade.filter(|_| ready.tunnel), response.body()) {
            (Some(client), upstream::Incoming::Alone(wire)) if switching => {
                Some(Upgrade { client, member: wire.clone(), idle: route.rule.timeouts.idle })
            }
            _ if switching => return Err(Error::Member(Failure::Protocol)),
            _ => None,
        };
        let page = route.rule.pages.of_member(status).filter(|_| visit.call.is_none());
        if let Some(page) = page {
            let mut response = replaced(page, ready, self.accept.as_ref(), *response, connection);
            self.tell_hsts(route, response.headers_mut());
            return Ok(Outcome::Replaced(response));
        }
        let protocol = headers::response(response.headers_mut(), fields);
        let before = explain::before(visit, response.headers());
        self.reverse(route, ready, member, response.headers_mut(), fields, visit);
        explain::after(visit, before.as_ref(), response.headers());
        if let Some(upgrade) = tunnel {
            visit.open_tunnel(member);
            if ready.parts.version >= Version::HTTP_2 {
                // What is 101 in HTTP/1.1 is 200 here, and nothing is to be proven (RFC 8441).
                *response.status_mut() = StatusCode::OK;
                response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
            } else {
                headers::switch(response.headers_mut(), protocol.as_ref());
            }
            return Ok(Outcome::Upgraded(response.map(drop), upgrade));
        }
        visit.connection = Some(connection);
        *response.version_mut() = Version::HTTP_11;
        close_if_withheld(ready, response.headers_mut());
        let within = self.within(route, ready, response.headers(), fields, visit);
        Ok(Outcome::Member(response, within))
    }

    /// How long a member's body may take.
    fn within(
        &self,
        route: &Route,
        ready: &Ready<'_>,
        head: &HeaderMap,
        fields: Fields,
        visit: &Visit,
    ) -> Within {
        let timeouts = &route.rule.timeouts;
        let multiplexed = ready.parts.version >= Version::HTTP_2;
        let events = fields.has(Fields::TYPE) && headers::is_event_stream(head);
        Within {
            silence: match (visit.call.is_some(), events) {
                (true, _) => timeouts.messages,
                (false, true) => timeouts.idle,
                (false, false) => timeouts.response,
            },
            quiet: events,
            deadline: attempts::deadline(route, visit).filter(|_| !events),
            stall: multiplexed.then_some(self.worker.shared.settings.patience.write),
            told: visit.call.is_some() && multiplexed && grpc::has_trailers(head),
        }
    }

    /// Changes the response's headers: reversal, the rule's edits, Gibbon's own cookie.
    fn reverse(
        &self,
        route: &Route,
        ready: &Ready<'_>,
        member: &Member,
        headers: &mut HeaderMap,
        fields: Fields,
        visit: &Visit,
    ) {
        if let Some(reversal) = route.reversal.as_ref().filter(|_| fields.has(Fields::ADDRESS)) {
            let elsewhere = |address: &Address<'_>| {
                let host = host(ready.authority.as_str()).ok()?;
                let namespace = &route.rule.id.namespace;
                self.worker.shared.table.load().public_path(&host, namespace, address)
            };
            let leaks = reversal.apply(
                headers,
                Said {
                    public: &self
                        .public(ready.authority.as_str())
                        .as_said(route.rule.reverse.as_ref()),
                    by: &route.rule.entries[member.entry].path,
                    host_kept: route.rule.entries[member.entry].preserve_host,
                    elsewhere: &elsewhere,
                },
            );
            if leaks > 0 {
                route.tally.leaks.add(leaks as u64);
            }
        }
        headers.insert(&trace::X_REQUEST_ID, visit.id.clone());
        route.rule.response_headers.apply(headers);
        self.tell_hsts(route, headers);
        let issue = route.rule.sticky.as_ref().and_then(|sticky| sticky.issue.as_ref());
        if let (Some(issue), Some(token)) = (issue, &member.token)
            && visit.session != Some(Session::Hit)
        {
            headers.append(header::SET_COOKIE, issue.set_cookie(token, self.client.https));
        }
    }

    /// How the client addressed the site.
    fn public<'a>(&'a self, authority: &'a str) -> Public<'a> {
        Public {
            scheme: if self.client.https { Scheme::Https } else { Scheme::Http },
            authority: self.client.host.as_deref().unwrap_or(authority),
        }
    }

    /// The same by TLS; the method stays.
    fn to_https(&self, host: &str, uri: &Uri) -> Result<Response<Bytes>, Error> {
        let named = self.client.host.as_deref().and_then(|authority| self::host(authority).ok());
        let host = named.as_deref().unwrap_or(host);
        if host.is_empty() {
            return Err(Error::BadRequest("there is no Host, and so nowhere to be sent to"));
        }
        let port = match self.worker.shared.settings.public_https_port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let to = HeaderValue::try_from(format!("https://{host}{port}{path}"));
        let to = to.map_err(|_| Error::BadRequest("the path cannot be redirected"))?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(header::LOCATION, to);
        Ok(response)
    }

    /// Says that the host is reached by TLS only, if the rule says so.
    fn tell_hsts(&self, route: &Route, headers: &mut HeaderMap) {
        let hsts = route.rule.tls.as_ref().and_then(|tls| tls.hsts.as_ref());
        if let Some(hsts) = hsts.filter(|_| self.client.https) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    fn redirect(
        &self,
        redirect: &Redirect,
        authority: &str,
        rest: &str,
        query: Option<&str>,
    ) -> Result<Response<Bytes>, Error> {
        let mut to = if redirect.to.starts_with('/') {
            self.public(authority).url(&redirect.to)
        } else {
            redirect.to.to_string()
        };
        if redirect.keep_path && !rest.is_empty() {
            to = path::join(&to, rest).into_owned();
        }
        if let Some(query) = query.filter(|_| redirect.keep_path) {
            to = format!("{to}?{query}");
        }
        let to = HeaderValue::try_from(to);
        let to = to.map_err(|_| Error::BadRequest("the path cannot be redirected"))?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = redirect.status;
        response.headers_mut().insert(header::LOCATION, to);
        Ok(response)
    }
}

/// What the client gets in the place of a member's answer.
fn replaced(
    page: &ErrorPage,
    ready: &Ready<'_>,
    accept: Option<&HeaderValue>,
    theirs: Response<upstream::Incoming>,
    connection: upstream::Connection,
) -> Response<Bytes> {
    let mut response = error::replaced(theirs.status(), accept);
    show(page, &mut response);
    for name in KEPT {
        for value in theirs.headers().get_all(&name) {
            response.headers_mut().append(&name, value.clone());
        }
    }
    close_if_withheld(ready, response.headers_mut());
    if !ready.upload.is_withheld() {
        body::skip(theirs.into_body(), connection);
    }
    response
}

/// What a client sends next that was not told to go on could be the body, or another request.
fn close_if_withheld(ready: &Ready<'_>, headers: &mut HeaderMap) {
    if ready.upload.is_withheld() && ready.parts.version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The authority that a request is for: of an absolute target, else the Host (RFC 9112, 3.2).
fn authority(parts: &Parts, fields: Fields) -> Result<Authority, Error> {
    let host = parts.headers.get(header::HOST);
    if fields.has(Fields::REPEATED) && parts.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Error::BadRequest("there is more than one Host"));
    }
    if host.is_none_or(HeaderValue::is_empty) && parts.version == Version::HTTP_11 {
        return Err(Error::BadRequest("there is no Host"));
    }
    if parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Error::BadRequest("the target is neither http nor https"));
    }
    let malformed = Error::BadRequest("the Host is malformed");
    let Some(named) = parts.uri.authority() else {
        let host = host.cloned().unwrap_or(HeaderValue::from_static(""));
        return Authority::new(host).ok_or(malformed);
    };
    if let Some(host) = host {
        self::host(host.to_str().map_err(|_| malformed)?)?;
    }
    HeaderValue::try_from(named.as_str()).ok().and_then(Authority::new).ok_or(malformed)
}

/// Host and port as the client wrote them: text, whatever else a field could hold.
pub struct Authority(HeaderValue);

impl Authority {
    fn new(value: HeaderValue) -> Option<Self> {
        let is_text = value.to_str().is_ok();
        is_text.then_some(Self(value))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As a field's value.
    #[must_use]
    pub const fn value(&self) -> &HeaderValue {
        &self.0
    }
}

/// The host of an authority; HTTP/1.0 may come without one.
fn host(authority: &str) -> Result<Cow<'_, str>, Error> {
    if authority.is_empty() {
        return Ok(Cow::Borrowed(""));
    }
    path::host_of(authority).map_err(|_| Error::BadRequest("the Host is malformed"))
}

fn options() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
