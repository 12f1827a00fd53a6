//! `ErrorDocument` and `ProxyErrorOverride` → `spec.errorPages`.

use super::read::Directive;
use super::report::{Id, Report, Verdict};
use crate::api;

/// The most pages and the most statuses of one.
const MOST: usize = 16;
/// The longest page.
const LONGEST: usize = 16_384;

/// What is said of errors, here or further outside.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// Members' errors are replaced: those with these statuses, or all.
    overridden: Option<(Id, bool, Vec<u16>)>,
    /// Texts by status, the later before the earlier.
    documents: Vec<(Id, u16, Option<String>)>,
}

impl Errors {
    /// Takes a directive in; false if it is about something else, or of another form.
    pub fn add(&mut self, directive: &Directive, report: &mut Report) -> bool {
        let id = directive.id;
        match (directive.name.as_str(), directive.args.as_slice()) {
            ("proxyerroroverride", [first, codes @ ..]) => {
                let codes = codes.iter().filter_map(|code| error(code)).collect();
                self.overridden = Some((id, first.eq_ignore_ascii_case("on"), codes));
            }
            ("errordocument", [code, document @ ..]) => {
                match error(code)
                    .ok_or(NO_ERROR)
                    .and_then(|code| Ok((code, text(&document.join(" "))?)))
                {
                    Ok((code, text)) => self.documents.insert(0, (id, code, text)),
                    Err(why) => report.say(id, Verdict::Dropped, why),
                }
            }
            _ => return false,
        }
        true
    }

    /// What applies here, and then there.
    pub fn and(&mut self, more: &Self) {
        if more.overridden.is_some() {
            self.overridden.clone_from(&more.overridden);
        }
        self.documents.splice(0..0, more.documents.iter().cloned());
    }

    /// Whether it says nothing.
    pub const fn is_empty(&self) -> bool {
        self.overridden.is_none() && self.documents.is_empty()
    }

    /// The pages.
    pub fn pages(&self, report: &mut Report) -> Vec<api::ErrorPage> {
        let (on, codes) = match &self.overridden {
            Some((_, true, codes)) => (true, codes.as_slice()),
            _ => (false, &[][..]),
        };
        let is_overridden = |code: u16| on && (codes.is_empty() || codes.contains(&code));
        let mut pages: Vec<api::ErrorPage> = Vec::new();
        let mut done = Vec::new();
        for (id, code, text) in &self.documents {
            let Some(text) = text.clone().filter(|_| !done.contains(code)) else {
                report.say(*id, Verdict::Converted, "");
                done.push(*code);
                continue;
            };
            if pages.len() + 1 == MOST {
                report.say(*id, Verdict::Dropped, "a Balancer has 16 pages at most");
                continue;
            }
            done.push(*code);
            let note = if *code == 404 { OF_PATHS } else { "`spec.errorPages`" };
            report.say(*id, Verdict::Converted, note);
            pages.push(page(vec![code.to_string()], is_overridden(*code), Some(text)));
        }
        let Some((id, ..)) = self.overridden else { return pages };
        report.say(id, Verdict::Converted, if on { OVERRIDDEN } else { "" });
        if on {
            let statuses = match codes {
                [] => vec!["400-599".to_owned()],
                codes => codes.iter().map(u16::to_string).take(MOST).collect(),
            };
            pages.push(page(statuses, true, None));
        }
        pages
    }
}

const OVERRIDDEN: &str =
    "`spec.errorPages` with `overrideMembers`: a line of text, where no ErrorDocument has another";

const OF_PATHS: &str =
    "`spec.errorPages`, for the paths of Balancers: others get Gibbon's own line";
const NO_ERROR: &str = "pages are for statuses from 400 to 599";

const fn page(
    statuses: Vec<String>,
    override_members: bool,
    body: Option<String>,
) -> api::ErrorPage {
    api::ErrorPage { statuses, override_members, body, content_type: None }
}

/// The status of an error.
fn error(code: &str) -> Option<u16> {
    code.parse().ok().filter(|code| (400..600).contains(code))
}

/// What stands in an `ErrorDocument`; nothing for Apache's own.
fn text(document: &str) -> Result<Option<String>, &'static str> {
    match document {
        "default" => Ok(None),
        path if path.starts_with('/') => {
            Err("Gibbon serves no files: write the page into `spec.errorPages`")
        }
        url if url.starts_with("http://") || url.starts_with("https://") => {
            Err("errors are no redirects: write a page into `spec.errorPages`")
        }
        text if text.contains("%{") => Err("Gibbon has no variables"),
        text if text.chars().count() > LONGEST => Err("a page has 16384 characters at most"),
        text => Ok(Some(text.to_owned())),
    }
}
