//! The regular expressions of `ProxyPassMatch` and `RewriteRule` that are prefixes in disguise.

use super::report::Verdict;

/// A prefix and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The prefix of paths.
    pub prefix: String,
    /// The URL that takes its place; or `!`.
    pub target: String,
    /// How it differs from the pattern, if it does.
    pub differs: Option<&'static str>,
}

/// What follows the literal beginning of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing, so anything.
    Open,
    /// `$`: nothing more.
    End,
    /// `.*`, not captured.
    Any,
    /// `(.*)`.
    Rest,
    /// `(/.*)`.
    Below,
    /// `(/.*)?`.
    MaybeBelow,
}

const SEGMENTS: &str = "the prefix is of whole segments, and the pattern's is not";
const BELOW: &str = "what is below the path is matched too";

impl Plain {
    /// Reads a pattern and its target.
    ///
    /// # Errors
    /// Why no prefix says the same.
    pub fn read(pattern: &str, target: &str) -> Result<Self, &'static str> {
        let bare =
            pattern.strip_prefix('^').ok_or("the pattern may match in the middle of a path")?;
        let (bare, ends) = match bare.strip_suffix('$') {
            Some(before) if !before.ends_with('\\') => (before, true),
            _ => (bare, false),
        };
        let whole = bare.strip_prefix('(').filter(|rest| literal(rest).0.starts_with('/'));
        let (bare, outer) = match whole.and_then(|rest| rest.strip_suffix(')')) {
            Some(inside) if balanced(inside) => (inside, true),
            _ => (bare, false),
        };
        let bare = bare.strip_prefix("/?").map_or(bare.to_owned(), |rest| format!("/{rest}"));
        let (mut prefix, tail) = literal(&bare);
        let tail = match (tail, ends) {
            ("", true) => Tail::End,
            ("", false) => Tail::Open,
            (".*", _) => Tail::Any,
            ("(.*)" | "(.+)" | "(.*)?", _) => Tail::Rest,
            ("(/.*)" | "(/.+)", _) => Tail::Below,
            ("(/.*)?" | "(|/.*)" | "(/.*|)", _) => Tail::MaybeBelow,
            _ => return Err("the pattern is no prefix"),
        };
        if prefix.is_empty() {
            prefix.push('/');
        }
        if !prefix.starts_with('/') {
            return Err("the pattern does not begin with /");
        }
        if target == "!" {
            let differs = Self::differs(&prefix, tail);
            return Ok(Self { prefix, target: "!".to_owned(), differs });
        }
        Self::target(prefix, tail, outer, &bare, target)
    }

    fn target(
        mut prefix: String,
        tail: Tail,
        outer: bool,
        bare: &str,
        target: &str,
    ) -> Result<Self, &'static str> {
        let whole = target
            .strip_suffix("$0")
            .or_else(|| target.strip_suffix("%{REQUEST_URI}"))
            .or_else(|| target.strip_suffix("$1").filter(|_| outer));
        let rest = target.strip_suffix("$1").filter(|_| !outer);
        let differs = Self::differs(&prefix, tail);
        let mut target = match (whole, rest, tail) {
            (Some(before), _, _) => before.trim_end_matches('/').to_owned() + &prefix,
            (None, Some(before), Tail::Rest) => {
                let root = bare.starts_with('(');
                if root { format!("{}/", before.trim_end_matches('/')) } else { before.to_owned() }
            }
            (None, Some(before), Tail::MaybeBelow) => before.to_owned(),
            (None, Some(before), Tail::Below) => {
                prefix.push('/');
                format!("{before}/")
            }
            (None, None, _) if !target.contains(['$', '%']) => {
                return Ok(Self {
                    target: target.trim_end_matches('/').to_owned() + &prefix,
                    prefix,
                    differs,
                });
            }
            _ => return Err("the target uses parts of the path in another way"),
        };
        if target.contains(['$', '%']) {
            return Err("the target uses parts of the path in another way");
        }
        // `http://host$1` with a rest that begins with a slash.
        if target.split('/').nth(2).is_none_or(str::is_empty) {
            return Err("the target names no host");
        }
        if target.matches('/').count() == 2 {
            target.push('/');
        }
        Ok(Self { prefix, target, differs })
    }

    fn differs(prefix: &str, tail: Tail) -> Option<&'static str> {
        match tail {
            Tail::End => Some(BELOW),
            Tail::Open | Tail::Any | Tail::Rest if !prefix.ends_with('/') => Some(SEGMENTS),
            _ => None,
        }
    }

    /// Whether it differs from the pattern.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        if self.differs.is_some() { Verdict::Approximated } else { Verdict::Converted }
    }
}

/// The literal beginning of a pattern, and what follows it.
fn literal(pattern: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let next = after.chars().next();
        let (literal, after) = match (c, next) {
            ('\\', Some(escaped)) if !escaped.is_ascii_alphanumeric() => {
                (escaped, &after[escaped.len_utf8()..])
            }
            (c, _) if "\\()[]{}.*+?|^$".contains(c) => break,
            (c, _) => (c, after),
        };
        // A repetition is about the letter before it.
        if after.starts_with(['*', '+', '?', '{']) {
            break;
        }
        text.push(literal);
        rest = after;
    }
    (text, rest)
}

fn balanced(text: &str) -> bool {
    let mut depth = 0_i32;
    for c in text.chars() {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_that_are_prefixes_are_found_out() {
        for (pattern, target, prefix, url) in [
            ("^/img/(.*)$", "http://h/g/$1", "/img/", "http://h/g/"),
            ("^/(.*)$", "http://h/$1", "/", "http://h/"),
            ("^(.*)$", "http://h$1", "/", "http://h/"),
            ("^/(.*)", "balancer://b/$1", "/", "balancer://b/"),
            ("^/skip(/.*)$", "http://h/s$1", "/skip/", "http://h/s/"),
            ("^/app(/.*)?$", "http://h/app$1", "/app", "http://h/app"),
            ("^(/app/.*)$", "http://h:81$1", "/app/", "http://h:81/app/"),
            ("^/?a\\.b/(.*)$", "http://h/$1", "/a.b/", "http://h/"),
            ("^/app/", "http://h/", "/app/", "http://h/app/"),
            ("^/app/.*$", "http://h%{REQUEST_URI}", "/app/", "http://h/app/"),
            ("^/app/", "!", "/app/", "!"),
        ] {
            let plain = Plain::read(pattern, target).unwrap();
            assert_eq!((plain.prefix.as_str(), plain.target.as_str()), (prefix, url), "{pattern}");
            assert_eq!(plain.differs, None, "{pattern}");
        }
        for (pattern, target, differs) in
            [("^/app(.*)$", "http://h/$1", SEGMENTS), ("^/app$", "http://h/", BELOW)]
        {
            assert_eq!(Plain::read(pattern, target).unwrap().differs, Some(differs));
        }
    }

    #[test]
    fn others_are_not() {
        for (pattern, target) in [
            ("\\.jpe?g$", "http://h"),
            ("^/img/(.*\\.gif)$", "http://h/$1"),
            ("^/(a|b)/(.*)$", "http://h/$2"),
            ("^/ab*(.*)$", "http://h/$1"),
            ("^/a/(.*)$", "http://h/$1/x"),
            ("^/a/(.*)$", "http://$1/"),
            ("^/([^/]+)/(.*)$", "http://h/$1"),
        ] {
            assert!(Plain::read(pattern, target).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_is_too_odd(pattern in "[\\^/a.*()?$|\\\\ä]{0,12}", target in "[!$10%h/:ä]{0,8}") {
            let _ = Plain::read(&pattern, &target);
        }
    }
}
