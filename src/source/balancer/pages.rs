//! `spec.errorPages`.

use http::HeaderValue;

use super::checks;
use super::health::range;
use super::problems::Problems;
use crate::api;
use crate::table::pages::{Content, ErrorPage, Pages};

const MAX_PAGES: usize = 16;
const MAX_STATUSES: usize = 16;
/// The longest body, in characters.
const MAX_BODY: usize = 16_384;
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Reads `spec.errorPages`.
pub fn pages(pages: &[api::ErrorPage], problems: &mut Problems) -> Pages {
    problems.at_most("spec.errorPages", pages.len(), MAX_PAGES);
    let page = |(at, page)| self::page(&format!("spec.errorPages[{at}]"), page, problems);
    Pages(pages.iter().enumerate().map(page).collect())
}

fn page(field: &str, page: &api::ErrorPage, problems: &mut Problems) -> ErrorPage {
    let statuses = format!("{field}.statuses");
    problems.at_most(&statuses, page.statuses.len(), MAX_STATUSES);
    if page.statuses.is_empty() {
        problems.add(&statuses, "must have at least 1 item");
    }
    if page.content_type.is_some() && page.body.is_none() {
        problems.add(format!("{field}.contentType"), "must be beside body, which it is about");
    }
    let kind = page.content_type.as_ref().and_then(|kind| {
        let parse = |text: &str| HeaderValue::try_from(text).map_err(|error| error.to_string());
        problems.read(format_args!("{field}.contentType"), kind, checks::HEADER_VALUE, parse)
    });
    let content = page.body.as_ref().map(|body| {
        if body.chars().count() > MAX_BODY {
            problems
                .add(format!("{field}.body"), format!("must have at most {MAX_BODY} characters"));
        }
        Content { body: body.as_bytes().into(), kind: kind.unwrap_or(HTML) }
    });
    let range = |(at, text): (usize, &String)| {
        problems.read(format_args!("{statuses}[{at}]"), text, checks::ERROR_RANGE, range)
    };
    let statuses = page.statuses.iter().enumerate().filter_map(range).collect();
    ErrorPage { statuses, override_members: page.override_members, content }
}
