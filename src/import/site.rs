//! Directives → sites: what each virtual host says of paths, balancers and headers.

use std::collections::BTreeMap;

use super::access::Guard;
use super::checks::Definitions;
use super::conditions::Conditions;
use super::errors::Errors;
use super::known;
use super::pattern::Plain;
use super::read::Directive;
use super::redirect::{self, Answer, Answered, Redirect};
use super::report::{Id, Report, Verdict};
use super::secure::{self, Secure, Verify};
use super::syntax::Error;
use super::upstream::Upstream;
use crate::api;
use crate::source::balancer::url_fault;

/// What belongs to one name: a virtual host, or the server outside of them.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The names, with their directives.
    pub names: Vec<(Id, String)>,
    /// The names, before the directives are read.
    pub hosts: Vec<String>,
    /// Paths that rules rewrite, which come before all others.
    pub rewritten: Vec<Mapping>,
    /// Paths and where they lead, in order.
    pub mappings: Vec<Mapping>,
    /// Those of `<Location>`, which come first; the last one first.
    pub located: Vec<Mapping>,
    /// What applies to the paths below a location; `/` is the server itself.
    pub settings: Vec<(String, Settings)>,
    /// Balancers by name.
    pub pools: BTreeMap<String, Pool>,
    /// What is said of members by URL, in `<Proxy http://…>` and by `ProxySet http://…`.
    pub workers: Vec<(String, Worker)>,
    /// What is answered without a member where nothing is proxied.
    pub answers: Vec<Mapping>,
    /// Who may come in, from `<Proxy *>`.
    pub guard: Guard,
    /// Templates and expressions of health checks.
    pub checks: Definitions,
    /// TLS with clients.
    pub secure: Secure,
    /// TLS with members.
    pub upstream: Upstream,
    /// `https` in `ServerName`.
    pub https: bool,
    /// `UseCanonicalName`.
    pub canonical: Option<(Id, bool)>,
    /// `ServerName` as it was written, without scheme.
    pub authority: Option<String>,
}

/// A path and where it leads.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The directive.
    pub id: Id,
    /// The beginning of the paths.
    pub prefix: String,
    /// It is the whole path.
    pub exact: bool,
    /// The hosts of the site for which it is, if not for all.
    pub hosts: Option<Vec<String>>,
    /// Where they lead.
    pub to: To,
    /// The parameters.
    pub params: Vec<Param>,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Nowhere: it is not proxied.
    Nowhere,
    /// To a balancer, and a path at its members.
    Pool(String, String),
    /// To a URL, as it was written.
    Url(String),
    /// To another URL, which the client is told.
    Elsewhere(Redirect),
    /// To an error.
    Refused(u16),
}

/// `key=value` of a directive.
#[derive(Clone, Debug)]
pub struct Param {
    /// The directive.
    pub id: Id,
    /// The key in small letters.
    pub key: String,
    /// The value.
    pub value: String,
    /// Both as they were written.
    pub text: String,
}

/// A balancer.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Its members.
    pub members: Vec<Member>,
    /// Its parameters.
    pub params: Vec<Param>,
    /// The directives that only hold others.
    pub ids: Vec<Id>,
    /// Who may come in.
    pub guard: Guard,
    /// TLS with its members.
    pub upstream: Upstream,
}

/// What is said of members by their URL.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    /// The parameters.
    pub params: Vec<Param>,
    /// TLS with them.
    pub upstream: Upstream,
}

/// A member of a balancer.
#[derive(Clone, Debug)]
pub struct Member {
    /// The directive.
    pub id: Id,
    /// Its URL.
    pub url: String,
    /// Its parameters.
    pub params: Vec<Param>,
}

/// What applies to all paths of a site, or to those below a location.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The directives that only hold others.
    pub ids: Vec<Id>,
    /// `ProxyPassReverse`: path and URL.
    pub reversals: Vec<(Id, String, String)>,
    /// `ProxyPassReverseCookieDomain`.
    pub cookie_domains: Vec<(Id, String, String)>,
    /// `ProxyPassReverseCookiePath`.
    pub cookie_paths: Vec<(Id, String, String)>,
    /// `ProxyPreserveHost`.
    pub preserve_host: Option<(Id, bool)>,
    /// `ProxyTimeout`.
    pub proxy_timeout: Option<(Id, String)>,
    /// `Timeout`.
    pub timeout: Option<(Id, String)>,
    /// `ProxyVia`.
    pub via: Option<(Id, String)>,
    /// `ProxyAddHeaders`.
    pub add_headers: Option<(Id, bool)>,
    /// Changes to requests' headers.
    pub request: Vec<(Id, Edit)>,
    /// Changes to responses' headers.
    pub response: Vec<(Id, Edit)>,
    /// The recipe for stickiness: a cookie with the member's route.
    pub issue: Option<(Id, api::Issue)>,
    /// Who may come in.
    pub guard: Guard,
    /// `SSLVerifyClient`.
    pub verify: Option<(Id, Verify)>,
    /// Pages of errors.
    pub errors: Errors,
    /// `LimitRequestBody`.
    pub body: Option<(Id, String)>,
}

/// A change of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// This value only.
    Set(String, String),
    /// This value too.
    Add(String, String),
    /// No value.
    Remove(String),
}

const BELOW: &str = "what is below the path is matched too";
const ROOT: &str = "the pattern is for / alone";

/// Where directives stand.
#[derive(Clone, Debug)]
struct Scope<'s> {
    /// The location they are in.
    location: Option<&'s str>,
    /// The pattern of that location, if it is one.
    pattern: Option<&'s str>,
    /// Conditions that stand before the next `RewriteRule`.
    conditions: Option<Conditions>,
    /// The hosts for which a directive is, if not for all.
    hosts: Option<Vec<String>>,
}

/// Reads the sites of a configuration: the server itself first, then the virtual hosts.
///
/// # Errors
/// Directives without what they need.
pub fn sites(directives: &[Directive], report: &mut Report) -> Result<Vec<Site>, Error> {
    let mut sites = vec![Site::default()];
    let mut server = Site::default();
    server.read(directives, (None, None), report, &mut sites)?;
    sites[0] = server;
    Ok(sites)
}

impl Site {
    fn read(
        &mut self,
        directives: &[Directive],
        (location, pattern): (Option<&str>, Option<&str>),
        report: &mut Report,
        sites: &mut Vec<Site>,
    ) -> Result<(), Error> {
        let mut scope = Scope { location, pattern, conditions: None, hosts: None };
        let names = directives.iter().filter(|d| matches!(&*d.name, "servername" | "serveralias"));
        self.hosts.extend(names.flat_map(|d| d.args.iter().map(|name| host(name))));
        for directive in directives {
            match directive.name.as_str() {
                "<virtualhost" => {
                    let first = sites.len() == 1;
                    let mut site = Site::default();
                    site.read(&directive.inner, (None, None), report, sites)?;
                    site.virtual_host(directive, first, report);
                    sites.push(site);
                }
                "<location" | "<locationmatch" => self.location(directive, report, sites)?,
                "<proxy" => self.proxy(directive, report)?,
                _ => self.directive(directive, &mut scope, report)?,
            }
        }
        Ok(())
    }

    /// The name in `<VirtualHost>` is the host where there is no `ServerName`, as in Ape.
    fn virtual_host(&mut self, directive: &Directive, first: bool, report: &mut Report) {
        if self.names.is_empty() {
            for address in &directive.args {
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, port)| {
                    let is_port = port == "*" || port.bytes().all(|b| b.is_ascii_digit());
                    if is_port { host } else { address.as_str() }
                });
                let is_name = host.bytes().any(|byte| byte.is_ascii_alphabetic())
                    && !host.starts_with(['[', '_'])
                    && !host.contains('%');
                if is_name {
                    self.names.push((directive.id, host.to_ascii_lowercase()));
                }
            }
            if !self.names.is_empty() {
                let note = "the name is taken as the host, as Helicon Ape does";
                report.say(directive.id, Verdict::Converted, note);
                return;
            }
            let note = "there is no ServerName: served for any host";
            report.say(directive.id, Verdict::Approximated, note);
            return;
        }
        if first {
            let note = "Apache gives the first virtual host unknown hosts too; from Gibbon they get \
                        404";
            report.say(directive.id, Verdict::Approximated, note);
        } else {
            report.say(directive.id, Verdict::Converted, "");
        }
    }

    fn location(
        &mut self,
        directive: &Directive,
        report: &mut Report,
        sites: &mut Vec<Site>,
    ) -> Result<(), Error> {
        let is_match = directive.name == "<locationmatch";
        let pattern = match directive.args.as_slice() {
            [pattern] if is_match => pattern,
            [tilde, pattern] if tilde == "~" => pattern,
            [path] if path.starts_with('/') => {
                let path = path.clone();
                self.settings(Some(&path)).ids.push(directive.id);
                return self.read(&directive.inner, (Some(&path), None), report, sites);
            }
            _ => return Err(directive.error("<Location> needs a path that begins with /")),
        };
        let all = Plain::read_all(pattern, "!");
        let root = |plain: &Plain| plain.exact && plain.prefix == "/";
        match all.and_then(|all| if all.iter().any(root) { Err(ROOT) } else { Ok(all) }) {
            Ok(all) => {
                for plain in all {
                    let (verdict, note) = match plain.differs {
                        None if plain.exact => (Verdict::Approximated, BELOW),
                        differs => (plain.verdict(), differs.unwrap_or_default()),
                    };
                    report.say(directive.id, verdict, note);
                    self.settings(Some(&plain.prefix)).ids.push(directive.id);
                    let place = (Some(plain.prefix.as_str()), Some(pattern.as_str()));
                    self.read(&directive.inner, place, report, sites)?;
                }
                Ok(())
            }
            Err(why) => {
                let why = format!("{why}: write a <Location> of a path");
                report.say(directive.id, Verdict::Dropped, why);
                drop_all(&directive.inner, report);
                Ok(())
            }
        }
    }

    fn proxy(&mut self, directive: &Directive, report: &mut Report) -> Result<(), Error> {
        let Some(target) = directive.arg(0) else {
            return Err(directive.error("<Proxy> needs a URL such as balancer://app"));
        };
        let Some((name, _)) = balancer(target) else {
            if target == "*" {
                report.say(directive.id, Verdict::Converted, "");
                for inner in &directive.inner {
                    if Guard::has(&inner.name) {
                        self.guard.add(inner, report);
                    } else if !self.upstream.add(inner) {
                        unknown(inner, report);
                    }
                }
                return Ok(());
            }
            let mut worker = Worker::default();
            for inner in &directive.inner {
                if inner.name == "proxyset" {
                    report.say(inner.id, Verdict::Converted, "");
                    worker.params.extend(self::params(inner, &inner.args));
                } else if !worker.upstream.add(inner) {
                    unknown(inner, report);
                }
            }
            report.say(directive.id, Verdict::Converted, "");
            self.workers.push((target.to_owned(), worker));
            return Ok(());
        };
        let pool = self.pools.entry(name).or_default();
        pool.ids.push(directive.id);
        pool.params.extend(self::params(directive, &directive.args[1..]));
        for inner in &directive.inner {
            match inner.name.as_str() {
                "balancermember" => {
                    let Some(url) = inner.arg(0) else {
                        return Err(inner.error("BalancerMember needs a URL"));
                    };
                    let params = self::params(inner, &inner.args[1..]);
                    pool.members.push(Member { id: inner.id, url: url.to_owned(), params });
                }
                "proxyset" => {
                    pool.ids.push(inner.id);
                    pool.params.extend(self::params(inner, &inner.args));
                }
                name if Guard::has(name) => pool.guard.add(inner, report),
                _ if pool.upstream.add(inner) => {}
                _ => unknown(inner, report),
            }
        }
        Ok(())
    }

    fn directive(
        &mut self,
        directive: &Directive,
        scope: &mut Scope<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let id = directive.id;
        let args = directive.args.as_slice();
        match (directive.name.as_str(), args) {
            ("servername", [name]) => {
                self.https =
                    name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
                let bare = name.split_once("://").map_or(name.as_str(), |(_, rest)| rest);
                self.authority = Some(bare.to_ascii_lowercase());
                self.names.push((id, host(name)));
            }
            ("serveralias", names) => {
                self.names.extend(names.iter().map(|name| (id, host(name))));
            }
            ("proxypass", _) => self.proxy_pass(directive, scope, report)?,
            ("proxypassmatch", _) => self.proxy_pass_match(directive, scope, report)?,
            ("usecanonicalname", [first, ..]) => {
                self.canonical = Some((id, first.eq_ignore_ascii_case("on")));
            }
            ("rewritecond", _) => {
                if scope.conditions.get_or_insert_default().add(directive) {
                    report.say(id, Verdict::Converted, "");
                } else {
                    unknown(directive, report);
                }
            }
            ("rewriterule", _) => {
                self.rewrite_rule(directive, scope, report)?;
                scope.conditions = None;
            }
            ("redirect" | "redirectmatch" | "redirectpermanent" | "redirecttemp", _) => {
                let answered = redirect::read(directive, scope.location);
                self.answered(directive, answered, scope, report);
            }
            ("balancermember", [to, url, rest @ ..]) => {
                let Some((name, _)) = balancer(to) else {
                    return Err(directive.error("BalancerMember needs a balancer:// here"));
                };
                let member = Member { id, url: url.clone(), params: params(directive, rest) };
                self.pools.entry(name).or_default().members.push(member);
            }
            ("proxyset", [to, rest @ ..]) => {
                let params = params(directive, rest);
                if let Some((name, _)) = balancer(to) {
                    let pool = self.pools.entry(name).or_default();
                    pool.ids.push(id);
                    pool.params.extend(params);
                } else {
                    report.say(id, Verdict::Converted, "");
                    self.workers.push((to.clone(), Worker { params, ..Worker::default() }));
                }
            }
            ("servername" | "balancermember" | "proxyset", _) => {
                return Err(directive.error(format!("{} needs more", directive.node.name)));
            }
            ("sslverifyclient", [how, ..]) => {
                let verify = Some((id, Verify::read(how)));
                match scope.location {
                    Some(_) => self.settings(scope.location).verify = verify,
                    None => self.secure.verify = verify,
                }
            }
            _ if self.secure.add(directive) || self.upstream.add(directive) => {}
            ("proxyhctemplate" | "proxyhcexpr", [_, rest @ ..]) => {
                self.checks.add(directive, params(directive, rest), report);
            }
            _ => self.setting(directive, scope, report)?,
        }
        Ok(())
    }

    fn settings(&mut self, location: Option<&str>) -> &mut Settings {
        let path = location.unwrap_or("/");
        let at = match self.settings.iter().position(|(at, _)| at == path) {
            Some(at) => at,
            None => {
                self.settings.push((path.to_owned(), Settings::default()));
                self.settings.len() - 1
            }
        };
        &mut self.settings[at].1
    }

    fn setting(
        &mut self,
        directive: &Directive,
        scope: &Scope<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let id = directive.id;
        let args: Vec<&str> = directive.args.iter().map(String::as_str).collect();
        let on = args.first().is_some_and(|arg| arg.eq_ignore_ascii_case("on"));
        let first = args.first().copied().unwrap_or_default().to_owned();
        let settings = self.settings(scope.location);
        match (directive.name.as_str(), args.as_slice()) {
            ("proxypassreverse", [path, url, ..])
                if path.starts_with('/') && *url != "interpolate" =>
            {
                settings.reversals.push((id, (*path).to_owned(), (*url).to_owned()));
            }
            ("proxypassreverse", [url, ..]) => {
                let Some(path) = scope.location else {
                    return Err(directive.error("ProxyPassReverse needs a path and a URL here"));
                };
                settings.reversals.push((id, path.to_owned(), (*url).to_owned()));
            }
            ("proxypassreversecookiedomain", [from, to, ..]) => {
                settings.cookie_domains.push((id, (*from).to_owned(), (*to).to_owned()));
            }
            ("proxypassreversecookiepath", [from, to, ..]) => {
                settings.cookie_paths.push((id, (*from).to_owned(), (*to).to_owned()));
            }
            (
                "proxypassreverse" | "proxypassreversecookiedomain" | "proxypassreversecookiepath",
                _,
            ) => {
                return Err(directive.error(format!("{} needs two values", directive.node.name)));
            }
            ("proxypreservehost", _) => settings.preserve_host = Some((id, on)),
            ("proxytimeout", _) => settings.proxy_timeout = Some((id, first)),
            ("timeout", _) => settings.timeout = Some((id, first)),
            ("limitrequestbody", _) => settings.body = Some((id, first)),
            (name, _) if Guard::has(name) => settings.guard.add(directive, report),
            ("proxyvia", _) => settings.via = Some((id, first.to_ascii_lowercase())),
            ("proxyaddheaders", _) => settings.add_headers = Some((id, on)),
            ("header", _) => header(directive, &args, settings, false, report),
            ("requestheader", _) => header(directive, &args, settings, true, report),
            _ if settings.errors.add(directive, report) => {}
            _ => unknown(directive, report),
        }
        Ok(())
    }

    fn proxy_pass(
        &mut self,
        directive: &Directive,
        scope: &Scope<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let args = &directive.args;
        let (prefix, rest) = match (scope.location, args.as_slice()) {
            (Some(location), [first, ..]) if !is_path(first) => (location.to_owned(), &args[..]),
            (_, [path, rest @ ..]) if is_path(path) && !rest.is_empty() => (path.clone(), rest),
            (None, [_, _, ..]) => {
                let note = "no path begins so: ProxyPassMatch is for patterns";
                report.say(directive.id, Verdict::Dropped, note);
                return Ok(());
            }
            _ => return Err(directive.error("ProxyPass needs a path and a URL or !")),
        };
        if let Some(pattern) = scope.pattern {
            self.pattern(directive, pattern, &rest[0], &rest[1..], scope, report);
            return Ok(());
        }
        self.map(directive, (prefix, false), rest, scope, report);
        Ok(())
    }

    /// What is answered without a member: before anything is proxied if it stands in a location.
    fn answered(
        &mut self,
        directive: &Directive,
        answered: Result<Vec<Answered>, String>,
        scope: &Scope<'_>,
        report: &mut Report,
    ) {
        let id = directive.id;
        match answered {
            Ok(all) => all.into_iter().for_each(|one| self.answer(directive, one, scope, report)),
            Err(why) => report.say(id, Verdict::Dropped, why),
        }
    }

    fn answer(
        &mut self,
        directive: &Directive,
        answered: Answered,
        scope: &Scope<'_>,
        report: &mut Report,
    ) {
        let id = directive.id;
        report.say(id, answered.verdict(), answered.differs.unwrap_or_default());
        let to = match answered.answer {
            Answer::Redirect(redirect) => To::Elsewhere(redirect),
            Answer::Refuse(status) => To::Refused(status),
        };
        let Answered { prefix, exact, .. } = answered;
        let hosts = scope.hosts.clone();
        let mapping = Mapping { id, prefix, exact, hosts, to, params: Vec::new() };
        // One in a location is only for what is in both.
        match scope.location.filter(|location| !covers(location, &mapping.prefix)) {
            Some(location) => match mapping.below(location) {
                Some(below) => self.located.insert(0, below),
                None => report.say(id, Verdict::Converted, "it matches nothing in this location"),
            },
            None if scope.location.is_some() => self.located.insert(0, mapping),
            None if directive.htaccess || directive.name == "rewriterule" => {
                self.rewritten.push(mapping);
            }
            None => self.answers.push(mapping),
        }
    }

    fn map(
        &mut self,
        directive: &Directive,
        (prefix, exact): (String, bool),
        rest: &[String],
        scope: &Scope<'_>,
        report: &mut Report,
    ) {
        let to = match target(&rest[0]) {
            Ok(to) => to,
            Err(why) => return report.say(directive.id, Verdict::Dropped, why),
        };
        let params = params(directive, &rest[1..]);
        let hosts = scope.hosts.clone();
        let mapping = Mapping { id: directive.id, prefix, exact, hosts, to, params };
        if scope.location.is_some() {
            self.located.insert(0, mapping);
        } else if directive.name == "rewriterule" {
            self.rewritten.push(mapping);
        } else {
            self.mappings.push(mapping);
        }
    }

    fn proxy_pass_match(
        &mut self,
        directive: &Directive,
        scope: &Scope<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (pattern, target) = pattern_and_target(directive)?;
        let rest = &directive.args[2..];
        self.pattern(directive, pattern, target, rest, scope, report);
        Ok(())
    }

    fn pattern(
        &mut self,
        directive: &Directive,
        pattern: &str,
        target: &str,
        rest: &[String],
        scope: &Scope<'_>,
        report: &mut Report,
    ) {
        match Plain::read_all(pattern, target) {
            Ok(all) => {
                for plain in all {
                    if let Some(differs) = plain.differs {
                        report.say(directive.id, plain.verdict(), differs);
                    }
                    let mut args = vec![plain.target];
                    args.extend_from_slice(rest);
                    self.map(directive, (plain.prefix, plain.exact), &args, scope, report);
                }
            }
            Err(why) => {
                let note = format!("{why}: write Balancers for the paths that it stands for");
                report.say(directive.id, Verdict::Dropped, note);
            }
        }
    }

    fn rewrite_rule(
        &mut self,
        directive: &Directive,
        scope: &Scope<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (pattern, target) = pattern_and_target(directive)?;
        let flags = directive.arg(2).unwrap_or_default().trim_matches(['[', ']']);
        let flags: Vec<String> =
            flags.split(',').map(|flag| flag.trim().to_ascii_lowercase()).collect();
        let plain = scope.conditions.as_ref().map(Conditions::is_plain);
        if plain != Some(false) && secure::sends_all(pattern, target) {
            self.secure.redirect = Some(directive.id);
            return Ok(());
        }
        if plain == Some(true)
            && let Some(Ok(all)) = redirect::rewrite(pattern, target, &flags)
            && let [Answered { prefix, exact: false, answer: Answer::Redirect(redirect), .. }] =
                all.as_slice()
            && prefix == "/"
            && redirect.https(prefix).is_some()
        {
            self.secure.redirect = Some(directive.id);
            report.say(directive.id, Verdict::Approximated, "each host is sent to itself by https");
            return Ok(());
        }
        let mut hosts = None;
        if let Some(conditions) = &scope.conditions {
            hosts = conditions.hosts(&self.hosts);
            if hosts.is_none() {
                let note = "it has conditions, and Gibbon chooses by host and path alone";
                report.say(directive.id, Verdict::Dropped, note);
                return Ok(());
            }
        }
        if hosts.as_ref().is_some_and(Vec::is_empty) {
            report.say(directive.id, Verdict::Converted, "it is for no host of this site");
            return Ok(());
        }
        let scope = Scope { conditions: None, hosts, ..scope.clone() };
        let variable = ["%{HTTP_HOST}", "%{SERVER_NAME}"].into_iter().find(|v| target.contains(v));
        let Some(variable) = variable.filter(|_| !self.hosts.is_empty()) else {
            self.rewrite(directive, pattern, target, &flags, &scope, report);
            return Ok(());
        };
        for host in scope.hosts.clone().unwrap_or_else(|| self.hosts.clone()) {
            let target = target.replace(variable, &host);
            let scope = Scope { hosts: Some(vec![host]), ..scope.clone() };
            self.rewrite(directive, pattern, &target, &flags, &scope, report);
        }
        Ok(())
    }

    /// A rule without conditions but for the hosts of the scope.
    fn rewrite(
        &mut self,
        directive: &Directive,
        pattern: &str,
        target: &str,
        flags: &[String],
        scope: &Scope<'_>,
        report: &mut Report,
    ) {
        let has = |short: &str, long: &str| flags.iter().any(|flag| flag == short || flag == long);
        // In a directory patterns see the path without the directory's own, slash included.
        let relative = directive.htaccess && !pattern.starts_with("^/");
        let pattern = match pattern.strip_prefix('^') {
            Some(rest) if relative => format!("^/{rest}"),
            _ if matches!(pattern, ".*" | "(.*)") => format!("^/{pattern}"),
            _ => pattern.to_owned(),
        };
        if has("p", "proxy") {
            let bare = target.strip_suffix("?%{QUERY_STRING}").unwrap_or(target);
            if bare.contains(['$', '%']) {
                self.pattern(directive, &pattern, bare, &[], scope, report);
            } else {
                self.whole(directive, &pattern, bare, scope, report);
            }
        } else if let Some(answered) = redirect::rewrite(&pattern, target, flags) {
            self.answered(directive, answered, scope, report);
        } else if target == "-" {
            let (verdict, note) = unchanged(flags);
            report.say(directive.id, verdict, note);
        } else {
            let note = "Gibbon does not rewrite paths: let the members do it";
            report.say(directive.id, Verdict::Dropped, note);
        }
    }

    /// A rule whose target has nothing of the path: Gibbon can send one path so.
    fn whole(
        &mut self,
        directive: &Directive,
        pattern: &str,
        target: &str,
        scope: &Scope<'_>,
        report: &mut Report,
    ) {
        let all = Plain::read_all(pattern, "!");
        match all.as_deref() {
            Ok(all) if all.iter().all(|plain| plain.exact) => {
                for plain in all {
                    let target = [target.to_owned()];
                    self.map(directive, (plain.prefix.clone(), true), &target, scope, report);
                }
            }
            _ => {
                let note = "all its paths become one at the member: let the member do it";
                report.say(directive.id, Verdict::Dropped, note);
            }
        }
    }
}

impl Mapping {
    /// The same for a part of its paths alone.
    pub fn below(&self, prefix: &str) -> Option<Self> {
        if self.exact {
            return (self.prefix == prefix).then(|| self.clone());
        }
        if !covers(&self.prefix, prefix) {
            return None;
        }
        let rest = &prefix[self.prefix.len()..];
        let join =
            |base: &str| format!("{}/{}", base.trim_end_matches('/'), rest.trim_start_matches('/'));
        let to = match &self.to {
            To::Url(url) => To::Url(join(url)),
            To::Pool(name, path) => To::Pool(name.clone(), join(path)),
            To::Elsewhere(redirect) => To::Elsewhere(redirect.below(rest)),
            other => other.clone(),
        };
        Some(Self { prefix: prefix.to_owned(), to, ..self.clone() })
    }

    /// Whether it has every path that the other has.
    pub fn covers(&self, other: &Self) -> bool {
        let some_hosts = self.hosts.as_ref().is_some_and(|own| {
            other.hosts.as_ref().is_none_or(|all| !all.iter().all(|host| own.contains(host)))
        });
        !some_hosts && self.covers_paths(other)
    }

    /// Whether it has every path that the other has, on its hosts.
    pub fn covers_paths(&self, other: &Self) -> bool {
        if self.exact {
            return other.exact && self.prefix == other.prefix;
        }
        covers(&self.prefix, &other.prefix)
    }

    /// Whether it is answered without a member.
    pub const fn is_answer(&self) -> bool {
        matches!(self.to, To::Elsewhere(_) | To::Refused(_))
    }
}

/// Whether every path that begins with `inner` begins with `outer`, in whole segments.
pub fn covers(outer: &str, inner: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || outer.ends_with('/'))
}

fn pattern_and_target(directive: &Directive) -> Result<(&str, &str), Error> {
    match directive.args.as_slice() {
        [pattern, target, ..] => Ok((pattern, target)),
        _ => {
            let name = &directive.node.name;
            Err(directive.error(format!("{name} needs a pattern and a target")))
        }
    }
}

/// What a rule does that changes no path.
fn unchanged(flags: &[String]) -> (Verdict, &'static str) {
    let names: Vec<_> =
        flags.iter().map(|flag| flag.split('=').next().unwrap_or_default()).collect();
    let has = |all: &[&str]| names.iter().any(|name| all.contains(name));
    if has(&["co", "cookie"]) {
        (Verdict::Dropped, "cookies come from members, or by `sticky.issue` from Gibbon")
    } else if has(&["e", "env"]) {
        (Verdict::Dropped, "Gibbon has no variables")
    } else if has(&["l", "last", "end", "s", "skip", "c", "chain"]) {
        let note = "the rules after it are not stopped: write Balancers for what it leaves out";
        (Verdict::Dropped, note)
    } else {
        (Verdict::Converted, "it changes no path")
    }
}

/// `balancer://name/path` → name, path.
pub fn balancer(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("balancer") {
        return None;
    }
    let (name, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    Some((name.to_ascii_lowercase(), path.to_owned()))
}

fn target(url: &str) -> Result<To, String> {
    if url == "!" {
        return Ok(To::Nowhere);
    }
    if let Some((name, path)) = balancer(url) {
        return Ok(To::Pool(name, path));
    }
    member_url(url).map(|_| To::Url(url.to_owned()))
}

/// The URL of a member as Gibbon writes it, and what is spoken if that is not HTTP/1.1 or HTTPS.
///
/// # Errors
/// Why Gibbon cannot speak to it.
pub fn member_url(url: &str) -> Result<(String, Option<api::Protocol>), String> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("`{url}` is no URL"))?;
    let (plain, secure) =
        (|| checked(format!("http://{rest}")), || checked(format!("https://{rest}")));
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Ok((plain()?, None)),
        "https" | "wss" => Ok((secure()?, None)),
        "h2c" => Ok((plain()?, Some(api::Protocol::H2c))),
        "h2" => Ok((secure()?, Some(api::Protocol::H2))),
        _ if scheme.starts_with("unix:") => {
            Err("Gibbon does not speak to Unix sockets: let the member listen on a port".to_owned())
        }
        other => Err(format!("Gibbon speaks HTTP to members, not {other}")),
    }
}

fn checked(url: String) -> Result<String, String> {
    url_fault(&url).map_or(Ok(url), |fault| Err(format!("the URL {fault}")))
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
}

fn host(name: &str) -> String {
    let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
    let bare = bare.rsplit_once(':').map_or(bare, |(host, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { bare }
    });
    bare.trim_end_matches('.').to_ascii_lowercase()
}

fn params(directive: &Directive, words: &[String]) -> Vec<Param> {
    let param = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Param {
            id: directive.id,
            key: key.to_ascii_lowercase(),
            value: value.to_owned(),
            text: text.clone(),
        }
    };
    words.iter().map(param).collect()
}

/// What is told by the name alone.
fn unknown(directive: &Directive, report: &mut Report) {
    let name = match directive.name.strip_prefix('<') {
        Some(name) => format!("<{name}>"),
        None => directive.name.clone(),
    };
    match known::find(known::DIRECTIVES, &name) {
        Some(known) => report.say(directive.id, known.verdict, known.meaning),
        None => report.say(
            directive.id,
            Verdict::Dropped,
            "the importer does not know it: look whether anything depends on it",
        ),
    }
    drop_all(&directive.inner, report);
}

fn drop_all(directives: &[Directive], report: &mut Report) {
    for directive in directives {
        let mut note = "it stands in a section that is dropped".to_owned();
        if Guard::has(&directive.name) {
            note.push_str(": what it shuts is open");
        }
        report.say(directive.id, Verdict::Dropped, note);
        drop_all(&directive.inner, report);
    }
}

/// `Header` and `RequestHeader`, as far as they are the same for every request.
fn header(
    directive: &Directive,
    args: &[&str],
    settings: &mut Settings,
    request: bool,
    report: &mut Report,
) {
    let id = directive.id;
    let args = match args {
        [first, rest @ ..]
            if first.eq_ignore_ascii_case("always") || first.eq_ignore_ascii_case("onsuccess") =>
        {
            rest
        }
        all => all,
    };
    let note = |why: &str| format!("{why}: let the members set it");
    let [action, name, rest @ ..] = args else {
        return report.say(id, Verdict::Dropped, note("Gibbon does not know this form"));
    };
    let name = name.trim_end_matches(':').to_owned();
    let action = action.to_ascii_lowercase();
    if !request
        && matches!(action.as_str(), "add" | "set")
        && name.eq_ignore_ascii_case("set-cookie")
        && let [value, condition] = rest
        && condition.eq_ignore_ascii_case("env=BALANCER_ROUTE_CHANGED")
        && let Some(issue) = recipe(value)
    {
        settings.issue = Some((id, issue));
        return;
    }
    let edit = match (action.as_str(), rest) {
        ("unset", []) => Edit::Remove(name),
        ("set", [value]) => Edit::Set(name, (*value).to_owned()),
        ("add" | "append" | "merge", [value]) => Edit::Add(name, (*value).to_owned()),
        ("edit" | "edit*", _) => {
            return report.say(id, Verdict::Dropped, note("Gibbon changes no parts of values"));
        }
        (_, [_, _, ..]) => {
            return report.say(id, Verdict::Dropped, note("Gibbon has no conditions on headers"));
        }
        _ => return report.say(id, Verdict::Dropped, note("Gibbon does not know this form")),
    };
    let edit = match edit {
        Edit::Set(name, value) => constant(&value).map(|value| Edit::Set(name, value)),
        Edit::Add(name, value) => constant(&value).map(|value| Edit::Add(name, value)),
        Edit::Remove(name) => Some(Edit::Remove(name)),
    };
    let Some(edit) = edit else {
        return report.say(id, Verdict::Dropped, note("the value differs by request"));
    };
    if matches!(action.as_str(), "append" | "merge") {
        report.say(id, Verdict::Approximated, "the value is a field of its own");
    }
    if request { &mut settings.request } else { &mut settings.response }.push((id, edit));
}

/// A value without `%{…}`, with `%%` as one.
fn constant(value: &str) -> Option<String> {
    let plain = value.replace("%%", "\u{0}");
    (!plain.contains('%')).then(|| plain.replace('\u{0}', "%"))
}

/// The manual's recipe: `NAME=.%{BALANCER_WORKER_ROUTE}e; path=/`.
fn recipe(value: &str) -> Option<api::Issue> {
    let mut parts = value.split(';').map(str::trim);
    let (name, route) = parts.next()?.split_once('=')?;
    if !route.contains("%{BALANCER_WORKER_ROUTE}e") {
        return None;
    }
    let mut issue = api::Issue {
        name: name.trim().to_owned(),
        path: None,
        same_site: api::SameSite::Lax,
        secure: false,
        http_only: false,
        max_age: None,
    };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => issue.path = Some(value.trim().to_owned()),
            "secure" => issue.secure = true,
            "httponly" => issue.http_only = true,
            "max-age" => issue.max_age = value.trim().parse().ok().map(api::Duration::from_secs),
            "samesite" if value.eq_ignore_ascii_case("strict") => {
                issue.same_site = api::SameSite::Strict;
            }
            "samesite" if value.eq_ignore_ascii_case("none") => {
                issue.same_site = api::SameSite::None;
            }
            _ => {}
        }
    }
    Some(issue)
}
