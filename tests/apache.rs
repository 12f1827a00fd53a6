//! Cases recorded on a real Apache 2.4.71 (`tests/apache/cases.json`): the configuration goes through
//! the importer, members on loopback answer as they did, the requests are sent again, and what members
//! received and clients saw is compared with the record.
//!
//! A case is the same, or it differs for one of the reasons in `tests/apache/deviations.json`, and then
//! only in what the reason says. `GIBBON_APACHE_CASES=FILE` runs another file of the same form; its
//! cases without a reason are printed, and fail. Reasons for its cases may be in a `deviations.json`
//! beside it, as `{"cases": {"some-01": "doubled-slash"}}`. `GIBBON_APACHE_ONLY=rev-` runs those whose
//! names begin so.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use gibbon::import::{self, Options as ImportOptions};
use serde_json::Value;
use support::{Act, Client, Gibbon, Member, Options, Received, Seen, data, eventually};

/// Cases that run at once; most of the time they wait.
const AT_ONCE: usize = 4;
/// The names that the record's members have.
const NAMES: [&str; 7] = [
    "static1.site.com",
    "static2.site.com",
    "app1.site.com",
    "app2.site.com",
    "app3.site.com",
    "app4.site.com",
    "backend.example.com",
];
/// The ports at which they may listen.
const PORTS: [u16; 4] = [80, 8080, 8081, 443];
/// What the record does not have of requests' fields, outside the areas that are about them.
const RECORDED: [&str; 5] = ["host", "cookie", "content-length", "transfer-encoding", "expect"];

/// A difference: the field, what Apache did, what Gibbon does.
type Difference = (String, String, String);

/// A case of the file.
struct Case<'c> {
    id: &'c str,
    area: &'c str,
    title: &'c str,
    config: String,
    value: &'c Value,
}

impl<'c> Case<'c> {
    fn new(value: &'c Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let lines = value["config"].as_array().into_iter().flatten();
        let config: Vec<_> = lines.filter_map(Value::as_str).collect();
        let config = config.join("\n");
        let config = if config.to_ascii_lowercase().contains("<virtualhost") {
            config
        } else {
            let name = match text("title").split_once("ServerName ") {
                Some((_, rest)) => rest.split(' ').next().unwrap_or_default(),
                None => "www.site.com",
            };
            format!("<VirtualHost 127.0.0.1:80>\nServerName {name}\n{config}\n</VirtualHost>")
        };
        Self { id: text("id"), area: text("area"), title: text("title"), config, value }
    }

    fn steps(&self) -> &'c [Value] {
        self.value["steps"].as_array().map_or(&[], Vec::as_slice)
    }

    fn names(&self, field: &str) -> Option<Vec<String>> {
        let names = self.value[field].as_array()?;
        Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Members that were down all the time, which the record says in its title only.
    fn down(&self) -> Vec<&'static str> {
        match self.id {
            "sticky-dead-01" | "sticky-dead-02" | "sticky-dead-03" => vec!["app2.site.com"],
            id if id.starts_with("sticky-nofail-0") => vec!["app2.site.com"],
            "sticky-drain-03" | "mgr-07" => vec!["app1.site.com"],
            id if id.starts_with("sticky-redirect-0") && id > "sticky-redirect-02" => {
                vec!["app2.site.com"]
            }
            id if self.area == "lbmethod" || id.starts_with("sticky-standby") => self.passed_over(),
            _ => Vec::new(),
        }
    }

    /// Members that come before those that served: they were down.
    fn passed_over(&self) -> Vec<&'static str> {
        let served = self.names("members_in_order").unwrap_or_default();
        let members = self.config.lines().map(str::trim).filter_map(|line| {
            let line = line.strip_prefix("BalancerMember http://")?;
            let name = NAMES.into_iter().find(|name| line.starts_with(name))?;
            let has = |flag: char| {
                line.contains(&format!("status={flag}"))
                    || line.contains(&format!("status=+{flag}"))
            };
            let kind = ['R', 'H'].iter().position(|flag| has(*flag)).map_or(0, |at| at + 1);
            let set = line.split("lbset=").nth(1).and_then(|rest| rest.chars().next());
            let served = served.iter().any(|short| name.starts_with(short));
            (!has('D') && !has('N')).then_some(((set.unwrap_or('0'), kind), served, name))
        });
        let members: Vec<_> = members.collect();
        let last = members.iter().filter(|(_, served, _)| *served).map(|(rank, ..)| *rank).max();
        let before = members.iter().filter(|(rank, served, _)| !served && Some(*rank) < last);
        before.map(|(.., name)| *name).collect()
    }

    /// Whether one member of a balancer is as good as another: the record is of one long run.
    fn any_of_balancer(&self) -> bool {
        let is_mapping = ["path", "reverse-location", "reverse-cookie"].contains(&self.area);
        is_mapping && self.config.contains("balancer://")
    }

    fn run(&self) -> Vec<Difference> {
        let mut found = Vec::new();
        let files = [("httpd.conf".to_owned(), self.config.clone())];
        let outcome = import::apache(&files, &|_| Ok(Vec::new()), &ImportOptions::default());
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return vec![("import".to_owned(), String::new(), error.to_string())],
        };
        if self.value["apache_configtest_ok"] == Value::Bool(false) {
            let output = self.value["apache_configtest_output"].as_str().unwrap_or_default();
            let ours = format!("{} Balancers", outcome.balancers.len());
            found.push(("import".to_owned(), output.to_owned(), ours));
            return found;
        }
        if self.area == "balancer-manager" {
            found.push(("manager".to_owned(), self.title.to_owned(), "none".to_owned()));
        }
        // Apache has no shorter interval than a second.
        let yaml = outcome.yaml().replace("    interval: 1s\n", "    interval: 50ms\n");
        let mut site = Site::new(&yaml, &self.config);
        if self.area == "health-check" {
            self.checks(&mut site, &mut found);
            return found;
        }
        site.down(&self.down());
        self.prepare(&mut site);
        for step in self.steps() {
            self.step(&mut site, step, &mut found);
        }
        self.order(&mut site, &mut found);
        found
    }

    /// How a member fares whose health checks fail, and then pass.
    fn checks(&self, site: &mut Site, found: &mut Vec<Difference>) {
        if self.value["check_results"].is_array() {
            return self.alternating(site, found);
        }
        for check in self.value["check_request"].as_array().into_iter().flatten() {
            let (line, host) = match check {
                Value::String(line) => (line.as_str(), None),
                check => (check["request_line"].as_str().unwrap_or_default(), Some(check)),
            };
            let bare =
                |line: &str| line.rsplit_once(' ').map_or(String::new(), |(l, _)| l.to_owned());
            let same = |(_, ours): &(String, Received)| bare(&ours.line) == bare(line);
            let asked = eventually(|| Some(site.received()).filter(|all| !all.is_empty()));
            let ours = asked.iter().find(|asked| same(asked)).unwrap_or(&asked[0]);
            differ(found, "check line", line, &ours.1.line);
            if let Some(check) = host {
                let theirs = joined(&pairs(&check["headers"]), "host");
                differ(found, "check host", &theirs, &joined(&ours.1.headers, "host"));
            }
        }
        let unhealthy = self.title.split_once("unhealthy = ").map_or("", |(_, text)| text);
        let status = unhealthy.split("'status': ").nth(1).and_then(|rest| rest.get(..3));
        for phase in ["healthy", "unhealthy", "recovery"] {
            let field = match phase {
                "recovery" => "members_after_recovery".to_owned(),
                phase => format!("members_while_{phase}"),
            };
            let Some(mut expected) = self.names(&field) else { continue };
            match (phase, status) {
                ("unhealthy", None) => site.down(&["app1.site.com"]),
                ("unhealthy", Some(status)) => {
                    let script = serde_json::json!({"status": status.parse::<u16>().unwrap()});
                    site.members["app1.site.com"].act(answer("app1.site.com", &script));
                }
                _ => {
                    site.down(&[]);
                    site.members["app1.site.com"].act(answer("app1.site.com", &Value::Null));
                }
            }
            let serves = expected.iter().any(|name| name == "app1");
            let state = if serves { "usable" } else { "failing" };
            site.checked("app1.site.com", state);
            let mut ours: Vec<String> =
                expected.iter().map(|_| site.get("/x", &[]).text()[5..9].to_owned()).collect();
            expected.sort();
            ours.sort();
            differ(found, "members", &expected.join(" "), &ours.join(" "));
        }
    }

    /// Checks that pass and fail in turn.
    fn alternating(&self, site: &mut Site, found: &mut Vec<Difference>) {
        let mut good = false;
        site.members["app1.site.com"].act_with(move |_| {
            good = !good;
            let status = if good { 200 } else { 500 };
            answer("app1.site.com", &serde_json::json!({"status": status}))
        });
        let results = self.value["check_results"].as_array().map_or(0, Vec::len);
        let mut states = BTreeSet::new();
        eventually(|| {
            states.insert(site.condition("app1.site.com"));
            (site.members["app1.site.com"].count() >= results).then_some(())
        });
        let changes = self.value["status_changes_after_n_checks"].as_array().map_or(0, Vec::len);
        let theirs = if changes > 1 { "usable failing" } else { "usable" };
        let ours: Vec<_> = states.iter().rev().map(String::as_str).collect();
        differ(found, "check results", theirs, &ours.join(" "));
    }

    /// What happened before the steps.
    fn prepare(&self, site: &mut Site) {
        match self.id {
            "sticky-dead-02" | "sticky-dead-03" | "sticky-nofail-02" | "sticky-nofail-05" => {
                site.get("/p", &[("Cookie", "sessionid=D!app2")]);
            }
            "sticky-dead-04" => {
                site.down(&["app2.site.com"]);
                site.get("/p", &[("Cookie", "sessionid=D!app2")]);
                site.down(&[]);
                let cookie = [("Cookie", "sessionid=D!app2")];
                eventually(|| (site.get("/p", &cookie).text().contains("app2")).then_some(()));
            }
            "sticky-drain-03" => drop(site.get("/p", &[])),
            _ => {}
        }
        site.forget();
    }

    fn step(&self, site: &mut Site, step: &Value, found: &mut Vec<Difference>) {
        if let Some(answers) = step["backend_response"].as_object() {
            site.script(answers);
        }
        if step["before"].as_str().is_some_and(|before| before.contains("close")) {
            site.close_idle();
        }
        site.forget();
        let began = Instant::now();
        let seen = site.send(step, self.version());
        let received = site.received();
        let sticky = self.value["outcome"].is_string();
        let balanced = sticky && !self.is_sticky();
        let recorded = step["upstream_requests"].as_array().map_or(&[][..], Vec::as_slice);
        let same = |name: &str| {
            if self.any_of_balancer() || balanced {
                name.replace("static2", "static1").replace("app2", "app1").replace("app3", "app1")
            } else {
                name.to_owned()
            }
        };
        let names = |all: Vec<String>| all.iter().map(|n| same(n)).collect::<Vec<_>>().join(" ");
        let theirs = names(recorded.iter().map(member_of).collect());
        let ours = names(received.iter().map(|(name, _)| name.clone()).collect());
        differ(found, "members", &theirs, &ours);
        let mut left: Vec<_> = received.iter().collect();
        for theirs in recorded {
            let name = same(&member_of(theirs));
            let Some(at) = left.iter().position(|(ours, _)| same(ours) == name) else { continue };
            self.request(theirs, &left.remove(at).1, &same, found);
        }
        response(&step["client_response"], seen.as_ref(), &same, found);
        let limit = step["elapsed_s"].as_f64().unwrap_or(10.0) + 3.0;
        if began.elapsed() > Duration::from_secs_f64(limit) {
            found.push(("time".to_owned(), format!("{limit}"), format!("{:?}", began.elapsed())));
        }
    }

    /// What a member received.
    fn request(
        &self,
        theirs: &Value,
        ours: &Received,
        same: &impl Fn(&str) -> String,
        found: &mut Vec<Difference>,
    ) {
        let line = theirs["request_line"].as_str().unwrap_or_default();
        differ(found, "request line", line, &ours.line);
        let recorded = pairs(&theirs["headers"]);
        let whole = ["forward-headers", "upgrade"].contains(&self.area);
        let mut names: BTreeSet<String> =
            recorded.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        let own = ours.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
        names.extend(own.filter(|name| whole || RECORDED.contains(&name.as_str())));
        for name in names.iter().filter(|name| !everywhere("request", name)) {
            let theirs = joined(&recorded, name);
            let ours = joined(&ours.headers, name);
            if name == "host" && theirs.is_empty() {
                continue;
            }
            let (theirs, ours) = match name.as_str() {
                "host" if self.any_of_balancer() => {
                    let bare = |host: &str| same(host.split(':').next().unwrap_or_default());
                    (bare(&theirs), bare(&ours))
                }
                "host" => (same(&theirs), same(&ours)),
                _ => (theirs, ours),
            };
            differ(found, &format!("request {name}"), &theirs, &ours);
        }
        if let Some(length) = theirs["body_len"].as_u64() {
            let ours = ours.body.len().to_string();
            differ(found, "request body", &length.to_string(), &ours);
        }
    }

    /// Of the client's HTTP, which the record says in its title only.
    fn version(&self) -> &'static str {
        let old = ["HTTP/1.0 request", "HTTP/1.0 client"].iter().any(|t| self.title.contains(t));
        if old { "1.0" } else { "1.1" }
    }

    fn is_sticky(&self) -> bool {
        let outcome = self.value["outcome"].as_str().unwrap_or_default();
        outcome.starts_with("sticky to") || outcome.starts_with("refused")
    }

    /// Who served the requests that were repeated.
    fn order(&self, site: &mut Site, found: &mut Vec<Difference>) {
        let Some(expected) = self.names("members_in_order") else { return };
        if self.area == "balancer-manager" {
            return;
        }
        site.forget();
        if self.id == "lb-bytraffic-01" {
            site.bodies(&[("app1.site.com", 5000), ("app2.site.com", 900)]);
        }
        let mut slow = None;
        if self.id == "lb-bybusyness-01" {
            slow = Some(site.hold("app1.site.com"));
        }
        let request = self.steps().last().map(|step| &step["request"]);
        let mut ours = Vec::new();
        for _ in 0..expected.len() {
            site.forget();
            match request {
                Some(request) => drop(site.send_request(request, self.version(), None)),
                None => drop(site.get("/x", &[])),
            }
            let name = site.received().first().map(|(name, _)| name.clone());
            let name = name.unwrap_or_else(|| "-".to_owned());
            ours.push(name.split('.').next().unwrap_or_default().to_owned());
        }
        drop(slow);
        let outcome = self.value["outcome"].as_str();
        let only_one = !self.down().is_empty() || self.config.contains("status=");
        if outcome.is_some() && !self.is_sticky() && !only_one {
            // Balanced: what the run had done before does not matter, only that no member is kept.
            let spread = ours.iter().collect::<BTreeSet<_>>().len() > 1;
            differ(found, "members", "balanced", if spread { "balanced" } else { "sticky" });
            return;
        }
        differ(found, "members", &expected.join(" "), &ours.join(" "));
    }
}

/// What the client saw.
fn response(
    theirs: &Value,
    ours: Option<&Seen>,
    same: &impl Fn(&str) -> String,
    found: &mut Vec<Difference>,
) {
    let Some(status) = theirs["status"].as_u64() else {
        let ours = ours.map_or("closed".to_owned(), |seen| seen.status.to_string());
        return differ(found, "status", "closed", &ours);
    };
    let Some(ours) = ours else {
        return differ(found, "status", &status.to_string(), "closed");
    };
    differ(found, "status", &status.to_string(), &ours.status.to_string());
    let recorded = pairs(&theirs["headers"]);
    let body = theirs["body"].as_str().unwrap_or_default();
    // Their own pages are not ours.
    let own_page = body.starts_with("<!DOCTYPE HTML PUBLIC");
    let mut names: BTreeSet<String> =
        recorded.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.extend(ours.headers.iter().map(|(name, _)| name.to_ascii_lowercase()));
    for name in names.iter().filter(|name| !everywhere("response", name)) {
        let of_page = ["content-type", "content-length"].contains(&name.as_str());
        // Apache guesses a type from the path, and Gibbon's errors are not to be kept.
        let guessed = name == "content-type" && ours.header(name).is_none();
        let of_error = name == "cache-control" && ours.status >= 400;
        if (own_page && of_page) || guessed || of_error {
            continue;
        }
        let (theirs, ours) = (joined(&recorded, name), joined(&ours.headers, name));
        differ(found, &format!("response {name}"), &theirs, &ours);
    }
    if !own_page && ours.status == u16::try_from(status).unwrap_or(0) {
        differ(found, "body", &same(body), &same(&ours.text()));
    }
}

/// Which member received a request; the port is in its Host.
fn member_of(request: &Value) -> String {
    let name = request["member"].as_str().unwrap_or_default();
    name.split(':').next().unwrap_or_default().to_owned()
}

fn differ(found: &mut Vec<Difference>, field: &str, theirs: &str, ours: &str) {
    let difference = (field.to_owned(), theirs.to_owned(), ours.to_owned());
    if theirs != ours && !found.contains(&difference) {
        found.push(difference);
    }
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let pair =
        |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()));
    value.as_array().into_iter().flatten().filter_map(pair).collect()
}

/// The values of a field as one.
fn joined(headers: &[(String, String)], name: &str) -> String {
    let named = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
    match name {
        "set-cookie" => values.join("\n"),
        "vary" => values.join(",").replace(' ', "").replace(',', ", "),
        "cookie" => values.join("; ").replace(", ", "; "),
        _ => values.join(", "),
    }
}

/// Fields in which Gibbon differs from Apache in every case, and should.
fn everywhere(direction: &str, name: &str) -> bool {
    let deviations = deviations();
    deviations["everywhere"]
        .as_array()
        .unwrap()
        .iter()
        .any(|rule| rule["direction"] == direction && rule["field"] == name)
}

fn deviations() -> Value {
    serde_json::from_slice(&std::fs::read(data("apache/deviations.json")).unwrap()).unwrap()
}

/// A Gibbon with the members of the record.
struct Site {
    gibbon: Gibbon,
    members: BTreeMap<&'static str, Member>,
    clients: BTreeMap<String, Client>,
    is_down: Vec<String>,
    /// Accepts no connection, and does not refuse any.
    deaf: Option<Deaf>,
}

/// A listener whose queue is full.
struct Deaf {
    address: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl Deaf {
    fn new() -> Self {
        let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let listener = new().unwrap();
        let any: SocketAddr = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connect = |_| {
            let socket = new().unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        };
        let waiting = (0..4).map(connect).collect();
        Self { address, _listener: listener, _waiting: waiting }
    }
}

impl Site {
    fn new(yaml: &str, config: &str) -> Self {
        let mut members = BTreeMap::new();
        let mut options = Options::default();
        let deaf = config.contains("connectiontimeout").then(Deaf::new);
        for name in NAMES {
            let member = Member::new(answer(name, &Value::Null));
            for port in PORTS {
                let address = match &deaf {
                    Some(deaf) if name == "app4.site.com" => deaf.address,
                    _ => member.address,
                };
                options = options.name(name, port, address);
            }
            members.insert(name, member);
        }
        // A site of which nothing could be translated serves nothing.
        options.hasty = yaml.is_empty();
        let gibbon = Gibbon::with(yaml, options);
        Self { gibbon, members, clients: BTreeMap::new(), is_down: Vec::new(), deaf }
    }

    /// These refuse connections, and no others.
    fn down(&mut self, names: &[&str]) {
        for (name, member) in &mut self.members {
            let (was, is) = (self.is_down.iter().any(|n| n == name), names.contains(name));
            match (was, is) {
                (false, true) => member.stop(),
                (true, false) => member.start(),
                _ => {}
            }
        }
        self.is_down = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// What a member is good for.
    fn condition(&self, name: &str) -> String {
        let table = self.gibbon.table();
        let balancers = table["balancers"].as_array().into_iter().flatten();
        let mut members = balancers.flat_map(|b| b["members"].as_array().into_iter().flatten());
        let member = members.find(|member| member["name"] == name);
        member.map_or(String::new(), |m| m["condition"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a member is so for several checks.
    fn checked(&self, name: &str, condition: &str) {
        let passed = || {
            let table = self.gibbon.table();
            let balancers = table["balancers"].as_array().into_iter().flatten();
            let mut members = balancers.flat_map(|b| b["members"].as_array().into_iter().flatten());
            let found = members.find(|m| m["name"] == name).map(|m| m["healthChecks"].clone());
            let checks = found.unwrap_or_default();
            checks["passed"].as_u64().unwrap_or(0) + checks["failed"].as_u64().unwrap_or(0)
        };
        let before = passed();
        eventually(|| (passed() >= before + 3 && self.condition(name) == condition).then_some(()));
    }

    fn script(&mut self, answers: &serde_json::Map<String, Value>) {
        let is_down =
            |answer: &Value| answer["mode"].as_str().is_some_and(|mode| mode.starts_with("down"));
        let down: Vec<&str> =
            answers.iter().filter(|(_, a)| is_down(a)).map(|(name, _)| name.as_str()).collect();
        let names: Vec<&str> =
            NAMES.into_iter().filter(|name| down.contains(name) || down.contains(&"*")).collect();
        self.down(&names);
        for (name, member) in &self.members {
            let Some(script) = answers.get(*name).or_else(|| answers.get("*")) else { continue };
            if script == "scripted" {
                // The first request on a connection is answered, the second ends it.
                let name = *name;
                let mut count = 0;
                member.act_with(move |_| {
                    count += 1;
                    if count % 2 == 0 { Act::Close } else { answer(name, &Value::Null) }
                });
            } else {
                member.act(answer(name, script));
            }
        }
    }

    fn bodies(&self, sizes: &[(&str, usize)]) {
        for (name, size) in sizes {
            self.members[name].act(support::ok(&"x".repeat(*size)));
        }
    }

    /// A request that a member does not answer while the client is there.
    fn hold(&self, name: &str) -> Client {
        let member = &self.members[name];
        member.act(Act::Silence);
        let mut client = self.gibbon.client();
        client.send("GET /slow HTTP/1.1\r\nHost: www.site.com\r\n\r\n");
        eventually(|| (member.count() > 0).then_some(()));
        client
    }

    /// Members close the connections on which nothing is under way.
    fn close_idle(&mut self) {
        for member in self.members.values_mut() {
            member.stop();
            member.start();
        }
        self.is_down.clear();
    }

    fn forget(&self) {
        self.members.values().for_each(Member::forget);
    }

    fn received(&self) -> Vec<(String, Received)> {
        let mut all = Vec::new();
        for (name, member) in &self.members {
            all.extend(member.received().into_iter().map(|r| ((*name).to_owned(), r)));
        }
        all
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Seen {
        self.gibbon.ask("GET", "www.site.com", path, headers)
    }

    fn send(&mut self, step: &Value, version: &str) -> Option<Seen> {
        let connection = step["client_connection"].as_str().map(str::to_owned);
        self.send_request(&step["request"], version, connection)
    }

    fn send_request(
        &mut self,
        request: &Value,
        version: &str,
        connection: Option<String>,
    ) -> Option<Seen> {
        let method = request["method"].as_str().unwrap_or("GET");
        let target = request["target"].as_str().unwrap_or("/");
        let mut text = format!("{method} {target} HTTP/{version}\r\n");
        let headers = pairs(&request["headers"]);
        for (name, value) in &headers {
            text = text + name + ": " + value + "\r\n";
        }
        text.push_str("\r\n");
        let body = request["body"].as_str().unwrap_or_default();
        let length =
            request["body_len"].as_u64().map_or(body.len(), |n| usize::try_from(n).unwrap());
        let body: String = body.chars().chain("x".repeat(length).chars()).take(length).collect();
        let chunked =
            headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
        let body = if chunked { format!("{length:x}\r\n{body}\r\n0\r\n\r\n") } else { body };
        let mut client = connection
            .as_ref()
            .and_then(|name| self.clients.remove(name))
            .unwrap_or_else(|| self.gibbon.client());
        let expects = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("expect"));
        // The record has bytes as characters.
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
        client.send(&bytes);
        if !expects {
            client.send(&body);
        }
        let mut seen = client.read_for(method);
        if seen.as_ref().is_some_and(|seen| seen.status == 100) {
            client.send(&body);
            seen = client.read_for(method);
        }
        if let Some(name) = connection {
            self.clients.insert(name, client);
        }
        seen
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.deaf = None;
    }
}

/// What a member of the record answers.
fn answer(name: &str, script: &Value) -> Act {
    let text = |field: &str| script[field].as_str();
    let body = text("body").map_or(format!("from {name}"), str::to_owned);
    let act = match text("mode").unwrap_or("http") {
        "close" => Act::WriteAndClose(Vec::new()),
        "close_before_body" => Act::Close,
        "rst" => Act::Reset,
        "garbage" => Act::WriteAndClose(b"NOT HTTP AT ALL\r\n".to_vec()),
        "raw" => Act::WriteAndClose(text("raw").unwrap_or_default().as_bytes().to_vec()),
        "no100" => Act::Silence,
        "partial" => Act::WriteAndClose(support::response("200 OK", &[("X-Part", "1")], &body)),
        _ => {
            let status = script["status"].as_u64().unwrap_or(200);
            let headers = pairs(&script["headers"]);
            let framed = headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length"));
            let mut head = format!("HTTP/1.1 {status} X\r\n");
            for (name, value) in &headers {
                head = head + name + ": " + value + "\r\n";
            }
            let bodiless = matches!(status, 204 | 304);
            if !framed && !bodiless {
                head = head + "Content-Length: " + &body.len().to_string() + "\r\n";
            }
            let body = if bodiless { "" } else { &body };
            Act::Write(format!("{head}\r\n{body}").into_bytes())
        }
    };
    match script["delay"].as_f64() {
        Some(delay) => Act::After(Duration::from_secs_f64(delay), Box::new(act)),
        None => act,
    }
}

/// Whether a reason covers a field: `request *` covers all that begin so.
fn covered(reason: &Value, field: &str) -> bool {
    reason["in"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|allowed| {
        allowed == field || allowed.strip_suffix('*').is_some_and(|start| field.starts_with(start))
    })
}

#[test]
fn recorded_cases_are_the_same_or_differ_for_a_reason() {
    let other = std::env::var_os("GIBBON_APACHE_CASES");
    let path = other.clone().map_or_else(|| data("apache/cases.json"), Into::into);
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let only = std::env::var("GIBBON_APACHE_ONLY").unwrap_or_default();
    let all: Vec<_> = file["cases"].as_array().unwrap().iter().map(Case::new).collect();
    let cases: Vec<_> = all.iter().filter(|case| case.id.starts_with(&only)).collect();
    let mut deviations = deviations();
    if let Some(beside) =
        other.as_ref().map(|path| Path::new(path).with_file_name("deviations.json"))
        && let Ok(text) = std::fs::read(beside)
    {
        let more: Value = serde_json::from_slice(&text).unwrap();
        let cases = more["cases"].as_object().cloned().unwrap_or_default();
        deviations["cases"].as_object_mut().unwrap().extend(cases);
    }
    let (reasons, listed) = (&deviations["reasons"], &deviations["cases"]);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, SeqCst)) {
                    results.lock().unwrap().insert(case.id, case.run());
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let (mut same, mut faults) = (0, Vec::new());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        let differences = &results[case.id];
        let given: Vec<&str> = match &listed[case.id] {
            Value::String(reason) => vec![reason],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is_covered = |(field, ..): &&Difference| {
            given.iter().any(|reason| covered(&reasons[*reason], field))
        };
        let odd: Vec<_> = differences.iter().filter(|d| !is_covered(d)).collect();
        let useless: Vec<_> = given
            .iter()
            .filter(|reason| !differences.iter().any(|(f, ..)| covered(&reasons[**reason], f)))
            .collect();
        if differences.is_empty() {
            same += 1;
        } else if let Some(first) = given.first() {
            *counts.entry(first).or_default() += 1;
        }
        if !odd.is_empty() || !useless.is_empty() {
            let all: Vec<_> = odd
                .iter()
                .map(|(field, theirs, ours)| format!("\n    {field}: {theirs:?} → {ours:?}"))
                .collect();
            let (id, title) = (case.id, case.title);
            let mut text = format!("{id} ({title}), reasons {given:?}:{}", all.concat());
            if !useless.is_empty() {
                text = format!("{text}\n    nothing is {useless:?}");
            }
            faults.push(text);
        }
    }
    let deviating: usize = counts.values().sum();
    // Not by `println`, which is shown only when a test fails.
    let mut out = std::io::stderr().lock();
    let total = cases.len();
    let _ = writeln!(out, "recorded cases: {total}; the same: {same}; deviating: {deviating}");
    for (reason, count) in &counts {
        let text = reasons[*reason]["text"].as_str().unwrap_or("no such reason");
        let _ = writeln!(out, "  {count:3} {reason}: {text}");
    }
    drop(out);
    if other.is_none() && only.is_empty() {
        for reason in reasons.as_object().unwrap().keys() {
            let needs = |given: &Value| {
                given == reason
                    || given.as_array().is_some_and(|all| all.iter().any(|r| r == reason))
            };
            let needed = listed.as_object().unwrap().values().any(needs);
            assert!(needed, "no case needs the reason {reason}");
        }
        for id in listed.as_object().unwrap().keys() {
            assert!(results.contains_key(id.as_str()), "there is no case {id}");
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The site's configuration as Helicon Ape has it, and what became of it.
#[test]
fn the_example_is_what_the_importer_makes_of_it_and_serves() {
    let conf = std::fs::read_to_string(data("../examples/apache/httpd.conf")).unwrap();
    let files = [("httpd.conf".to_owned(), conf.clone())];
    let outcome = import::apache(&files, &|_| Ok(Vec::new()), &ImportOptions::default()).unwrap();
    assert!(!outcome.report.drops(), "{}", outcome.report.text());
    let path = data("../examples/apache/balancers.yaml");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, outcome.yaml()).unwrap();
    }
    let yaml = std::fs::read_to_string(path).unwrap();
    assert!(yaml == outcome.yaml(), "the example is old: BLESS=1 cargo test --test apache");
    let site = Site::new(&yaml, &conf);
    for (route, name) in [("app1", "app1.site.com"), ("app2", "app2.site.com")] {
        let cookie = format!("sessionid=x!{route}");
        for _ in 0..4 {
            assert_eq!(site.get("/", &[("Cookie", &cookie)]).text(), format!("from {name}"));
        }
    }
    for _ in 0..8 {
        assert_eq!(site.get("/static/a.png", &[]).status, 200);
    }
    let files = site.received().into_iter().filter(|(name, _)| name.starts_with("static"));
    let files: Vec<_> = files.map(|(name, request)| (name, request.line)).collect();
    assert!(files.iter().all(|(_, line)| line == "GET /media/a.png HTTP/1.1"), "{files:?}");
    assert_eq!(files.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), 2);
    for (name, from, to) in [
        ("app2.site.com", "http://app2.site.com/login", "http://www.site.com/login"),
        ("app1.site.com", "http://static2.site.com/media/a", "http://www.site.com/static/a"),
    ] {
        let route = &name[..4];
        let headers = [("Location", from), ("Set-Cookie", "a=b; Domain=app2.site.com")];
        site.members[name].act(Act::Write(support::response("302 Found", &headers, "")));
        let seen = site.get("/", &[("Cookie", &format!("sessionid=x!{route}"))]);
        assert_eq!(seen.header("location"), Some(to));
        assert_eq!(seen.header("set-cookie"), Some("a=b; Domain=www.site.com"));
    }
    assert_eq!(site.gibbon.get("other.site.com", "/").status, 404);
}
