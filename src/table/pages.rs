//! What clients get with an error, as a rule asks for it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

/// The pages of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages(pub Vec<ErrorPage>);

/// What is sent with some statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// Those that it is for.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// It takes the place of what members answer, too.
    pub override_members: bool,
    /// What is sent; none: a line of text.
    pub content: Option<Content>,
}

/// A body and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The body.
    pub body: Arc<[u8]>,
    /// Its type.
    pub kind: HeaderValue,
}

impl Pages {
    /// The page for an error of Gibbon's own.
    #[must_use]
    pub fn own(&self, status: StatusCode) -> Option<&ErrorPage> {
        let has =
            |page: &&ErrorPage| page.statuses.iter().any(|all| all.contains(&status.as_u16()));
        self.0.iter().find(has)
    }

    /// The page in the place of what a member answers.
    #[must_use]
    pub fn of_member(&self, status: StatusCode) -> Option<&ErrorPage> {
        self.own(status).filter(|page| page.override_members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_with_the_status_counts() {
        let page = |statuses, override_members| ErrorPage {
            statuses: vec![statuses],
            override_members,
            content: None,
        };
        let pages = Pages(vec![page(503..=503, false), page(500..=599, true)]);
        let own = |status| pages.own(StatusCode::from_u16(status).unwrap());
        let of_member = |status| pages.of_member(StatusCode::from_u16(status).unwrap());
        assert_eq!((own(503), own(500), own(404)), (pages.0.first(), pages.0.get(1), None));
        assert_eq!((of_member(503), of_member(502)), (None, pages.0.get(1)));
    }
}
