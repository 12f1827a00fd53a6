//! `hcmethod` and its kin → `spec.healthCheck`, one for all members.

use std::collections::BTreeMap;

use super::members::time;
use super::read::Directive;
use super::report::{Report, Verdict};
use super::site::Param;
use crate::api;

/// What `ProxyHCTemplate` and `ProxyHCExpr` have defined.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    templates: BTreeMap<String, Vec<Param>>,
    /// The statuses that are good.
    expressions: BTreeMap<String, Vec<String>>,
}

/// What the members of a balancer say of their checks.
#[derive(Debug, Default)]
pub struct Checks {
    given: Vec<Given>,
    /// Members that say nothing.
    silent: usize,
}

/// What one member says.
#[derive(Debug)]
struct Given {
    url: String,
    params: Vec<Param>,
}

const ALL: &str = "`healthCheck`, one for all members";

impl Definitions {
    /// Takes a `ProxyHCTemplate` with its parameters in, or a `ProxyHCExpr`.
    pub fn add(&mut self, directive: &Directive, params: Vec<Param>, report: &mut Report) {
        let id = directive.id;
        let name = directive.arg(0).unwrap_or_default().to_ascii_lowercase();
        if directive.name == "proxyhctemplate" {
            report.say(id, Verdict::Converted, "");
            self.templates.insert(name, params);
        } else if let Some(statuses) = statuses(&directive.node.rest) {
            report.say(id, Verdict::Converted, "`healthCheck.statuses`");
            self.expressions.insert(name, statuses);
        } else {
            let note = "checks look at the status alone: 200 to 399 are good";
            report.say(id, Verdict::Dropped, note);
        }
    }

    /// What stands here, and where it does not, what stands there.
    pub fn extend(&mut self, more: &Self) {
        self.templates.extend(more.templates.clone());
        self.expressions.extend(more.expressions.clone());
    }
}

impl Checks {
    /// Whether a parameter is about checks.
    pub fn has(key: &str) -> bool {
        matches!(
            key,
            "hcmethod" | "hcuri" | "hcinterval" | "hcpasses" | "hcfails" | "hcexpr" | "hctemplate"
        )
    }

    /// A member with its parameters; a template's stand before its own.
    pub fn member(&mut self, url: &str, params: &[Param], known: &Definitions) {
        let mut own = Vec::new();
        for param in params.iter().filter(|param| Self::has(&param.key)) {
            let template = known.templates.get(&param.value.to_ascii_lowercase());
            if let Some(template) = template.filter(|_| param.key == "hctemplate") {
                own.extend(template.iter().cloned());
            }
            own.push(param.clone());
        }
        if own.is_empty() {
            self.silent += 1;
        } else {
            self.given.push(Given { url: url.to_owned(), params: own });
        }
    }

    /// The check for all members: that of the first who has one.
    pub fn finish(&self, known: &Definitions, report: &mut Report) -> Option<api::HealthCheck> {
        let mut first: Option<api::HealthCheck> = None;
        for given in &self.given {
            let Some(method) = given.method() else {
                given.say(Verdict::Converted, "without hcmethod there are no checks", report);
                continue;
            };
            let Some(check) = given.check(method, known, report) else { continue };
            let (verdict, note) = match &first {
                _ if self.silent > 0 => (Verdict::Approximated, ALL),
                Some(first) if *first != check => {
                    (Verdict::Approximated, "`healthCheck`, one for all members: another one's")
                }
                _ => (Verdict::Converted, ""),
            };
            given.say(verdict, note, report);
            first.get_or_insert(check);
        }
        first
    }
}

impl Given {
    fn last(&self, key: &str) -> Option<&Param> {
        self.params.iter().rev().find(|param| param.key == key)
    }

    fn method(&self) -> Option<&Param> {
        self.last("hcmethod").filter(|param| !param.value.eq_ignore_ascii_case("none"))
    }

    fn say(&self, verdict: Verdict, note: &str, report: &mut Report) {
        for param in &self.params {
            report.part(param.id, &param.text, verdict, note);
        }
    }

    fn check(
        &self,
        method: &Param,
        known: &Definitions,
        report: &mut Report,
    ) -> Option<api::HealthCheck> {
        let mut check = api::HealthCheck {
            interval: api::Duration::from_secs(30),
            failure_threshold: 1,
            ..api::HealthCheck::default()
        };
        match method.value.to_ascii_lowercase().trim_end_matches("11") {
            "tcp" => check.kind = api::CheckKind::Tcp,
            "get" => {}
            "head" => check.method = api::CheckMethod::Head,
            "options" => check.method = api::CheckMethod::Options,
            _ => {
                let note = "Gibbon checks by GET, HEAD, OPTIONS and TCP";
                self.say(Verdict::Dropped, note, report);
                return None;
            }
        }
        let by_path =
            check.kind == api::CheckKind::Http && check.method != api::CheckMethod::Options;
        if let Some(uri) = self.last("hcuri").filter(|_| by_path) {
            let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
            let own = rest.find('/').map_or("", |at| &rest[at..]);
            let path =
                format!("{}/{}", own.trim_end_matches('/'), uri.value.trim_start_matches('/'));
            check.path = Some(path);
        }
        if let Some(interval) = self.last("hcinterval").and_then(|param| time(&param.value)) {
            check.interval = interval;
        }
        for (key, threshold) in
            [("hcpasses", &mut check.success_threshold), ("hcfails", &mut check.failure_threshold)]
        {
            let given = self.last(key).and_then(|param| param.value.parse().ok());
            *threshold = given.filter(|count| (1..=100).contains(count)).unwrap_or(*threshold);
        }
        let expression = self.last("hcexpr").map(|param| param.value.to_ascii_lowercase());
        let statuses = expression.and_then(|name| known.expressions.get(&name));
        if check.kind == api::CheckKind::Http {
            check.statuses = statuses.cloned().unwrap_or_default();
        }
        Some(check)
    }
}

/// `ok {%{REQUEST_STATUS} =~ /^[23]/}` → 200-299 and 300-399; also `-eq 200` and `== 200`.
fn statuses(text: &str) -> Option<Vec<String>> {
    let inside = text.split_once('{')?.1.trim().strip_suffix('}')?.trim();
    let condition = inside.strip_prefix("%{REQUEST_STATUS}")?.trim();
    if let Some(pattern) = condition.strip_prefix("=~") {
        let pattern = pattern.trim().strip_prefix("/^")?.strip_suffix('/')?;
        let digits = match pattern.strip_prefix('[') {
            Some(list) => list.strip_suffix(']')?,
            None => pattern,
        };
        let class =
            |digit: char| matches!(digit, '1'..='5').then(|| format!("{digit}00-{digit}99"));
        return digits.chars().map(class).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty());
    }
    let status = condition.strip_prefix("-eq").or_else(|| condition.strip_prefix("=="))?.trim();
    let status = status.trim_matches(['\'', '"']).parse().ok().filter(|s| (100..600).contains(s));
    status.map(|status: u16| vec![status.to_string()])
}

#[cfg(test)]
mod tests {
    use super::super::{Options, apache};
    use super::*;

    fn import(definitions: &str, members: &[&str]) -> (serde_json::Value, String) {
        let members: Vec<_> = members.iter().map(|m| format!("BalancerMember {m}\n")).collect();
        let text = format!(
            "{definitions}\nProxyPass / balancer://b/\n<Proxy balancer://b>\n{}</Proxy>",
            members.concat()
        );
        let files = [("httpd.conf".to_owned(), text)];
        let outcome = apache(&files, &|_| Ok(Vec::new()), &Options::default()).unwrap();
        let spec = serde_json::to_value(&outcome.balancers[0].1.spec).unwrap();
        (spec["healthCheck"].clone(), outcome.report.text())
    }

    #[test]
    fn checks_of_members_are_one_for_all() {
        let same = "hcmethod=GET hcuri=/health?a hcinterval=2 hcpasses=2 hcfails=3 hcexpr=ok";
        let members = ["a", "b"].map(|name| format!("http://{name}/m/ {same}"));
        let expression = "ProxyHCExpr ok {%{REQUEST_STATUS} =~ /^[24]/}";
        let (check, report) = import(expression, &[&members[0], &members[1]]);
        assert_eq!(check["path"], "/m/health?a");
        assert_eq!((&check["interval"], &check["statuses"][1]), (&"2s".into(), &"400-499".into()));
        assert_eq!(
            (&check["successThreshold"], &check["failureThreshold"]),
            (&2.into(), &3.into())
        );
        assert!(report.contains("0 approximated, 0 dropped\n"), "{report}");
        let template = "ProxyHCTemplate t hcmethod=TCP hcinterval=500ms";
        let (check, report) = import(template, &["http://a hctemplate=t", "http://b"]);
        assert_eq!((&check["type"], &check["interval"]), (&"Tcp".into(), &"500ms".into()));
        assert!(
            report.contains("hctemplate=t approximated: `healthCheck`, one for all"),
            "{report}"
        );
        let (check, _) = import("", &["http://a hcmethod=CPING", "http://b hcuri=/x"]);
        assert_eq!(check, serde_json::Value::Null);
    }

    #[test]
    fn expressions_about_the_status_are_read() {
        for (text, expected) in [
            ("n {%{REQUEST_STATUS} =~ /^[234]/}", Some(vec!["200-299", "300-399", "400-499"])),
            ("n {%{REQUEST_STATUS} =~ /^5/}", Some(vec!["500-599"])),
            ("n {%{REQUEST_STATUS} -eq 204}", Some(vec!["204"])),
            ("n {hc('body') !~ /Under maintenance/}", None),
            ("n {%{REQUEST_STATUS} =~ /^[2-4]/}", None),
            ("n {%{REQUEST_STATUS} =~ /^[]/}", None),
            ("n", None),
        ] {
            let read = statuses(text);
            let read: Option<Vec<_>> =
                read.as_ref().map(|all| all.iter().map(String::as_str).collect());
            assert_eq!(read, expected, "{text}");
        }
    }
}
