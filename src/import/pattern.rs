//! The regular expressions of `ProxyPassMatch` and `RewriteRule` that are prefixes in disguise.

use super::report::Verdict;

/// A prefix and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The prefix of paths.
    pub prefix: String,
    /// The path is matched alone.
    pub exact: bool,
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

/// The most patterns that one with alternatives becomes.
const MOST: usize = 32;
const SEGMENTS: &str = "the prefix is of whole segments, and the pattern's is not";

impl Plain {
    /// Reads a pattern and its target, with each of its alternatives written out.
    ///
    /// # Errors
    /// Why no prefixes say the same.
    pub fn read_all(pattern: &str, target: &str) -> Result<Vec<Self>, &'static str> {
        let all = alternatives(pattern, target);
        all.iter().map(|(pattern, target)| Self::read(pattern, target)).collect()
    }

    /// Reads a pattern without alternatives and its target.
    ///
    /// # Errors
    /// Why no prefix says the same.
    fn read(pattern: &str, target: &str) -> Result<Self, &'static str> {
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
            let exact = tail == Tail::End;
            return Ok(Self { prefix, exact, target: "!".to_owned(), differs });
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
        if target.contains(['?', '#']) {
            return Err("the target has a query");
        }
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
                    exact: tail == Tail::End,
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
        Ok(Self { prefix, exact: tail == Tail::End, target, differs })
    }

    fn differs(prefix: &str, tail: Tail) -> Option<&'static str> {
        match tail {
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

/// The texts that a pattern stands for, in small letters, if they are all that it does.
pub fn literals(pattern: &str) -> Option<Vec<String>> {
    let text = |(pattern, _): &(String, String)| {
        let inside = pattern.strip_prefix('^')?.strip_suffix('$')?;
        let (text, rest) = literal(inside);
        (rest.is_empty() && !text.is_empty()).then(|| text.to_ascii_lowercase())
    };
    alternatives(pattern, "").iter().map(text).collect()
}

/// `^/(a|b)/(.*)$` with `/$1/$2` → `^/a/(.*)$` with `/a/$1`, and the same for b.
fn alternatives(pattern: &str, target: &str) -> Vec<(String, String)> {
    let mut done = Vec::new();
    let mut left = vec![(pattern.to_owned(), target.to_owned())];
    while let Some((pattern, target)) = left.pop() {
        match group(&pattern).filter(|_| done.len() + left.len() < MOST) {
            Some((before, texts, after, number)) => {
                // The last is taken first.
                left.extend(texts.iter().rev().map(|text| {
                    let plain = text.replace('\\', "");
                    (format!("{before}{text}{after}"), without(&target, number, &plain))
                }));
            }
            None => done.push((pattern, target)),
        }
    }
    done
}

/// The first group of literal alternatives: what is before it, those, what follows it, and its number
/// if it has one.
fn group(pattern: &str) -> Option<(&str, Vec<&str>, &str, Option<usize>)> {
    let is_escaped =
        |at: usize| pattern[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    let opens = pattern.match_indices('(').filter(|(at, _)| !is_escaped(*at));
    let mut captures = 0;
    for (at, _) in opens {
        let inside = &pattern[at + 1..];
        let (inside, is_capture) =
            inside.strip_prefix("?:").map_or((inside, !inside.starts_with('?')), |i| (i, false));
        captures += usize::from(is_capture);
        let Some(end) = inside.find([')', '(', '[']).filter(|end| inside[*end..].starts_with(')'))
        else {
            continue;
        };
        let (inside, after) = (&inside[..end], &inside[end + 1..]);
        let texts: Vec<_> = inside.split('|').collect();
        let is_literal = texts.iter().all(|text| literal(text).1.is_empty());
        if texts.len() > 1 && is_literal && !after.starts_with(['*', '+', '?', '{']) {
            return Some((&pattern[..at], texts, after, is_capture.then_some(captures)));
        }
    }
    None
}

/// A target with a text for the group of this number, and those after it counted anew.
fn without(target: &str, number: Option<usize>, text: &str) -> String {
    let Some(number) = number else { return target.to_owned() };
    let mut made = String::new();
    let mut rest = target;
    while let Some(at) = rest.find('$') {
        let digit = rest[at + 1..].chars().next().and_then(|c| c.to_digit(10));
        let Some(own) = digit.map(|digit| digit as usize) else {
            made.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        };
        made.push_str(&rest[..at]);
        match own.cmp(&number) {
            std::cmp::Ordering::Less => made.push_str(&rest[at..at + 2]),
            std::cmp::Ordering::Equal => made.push_str(text),
            std::cmp::Ordering::Greater => {
                made.push('$');
                made.push_str(&(own - 1).to_string());
            }
        }
        rest = &rest[at + 2..];
    }
    made + rest
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
            [("^/app(.*)$", "http://h/$1", SEGMENTS), ("^/app", "http://h/", SEGMENTS)]
        {
            assert_eq!(Plain::read(pattern, target).unwrap().differs, Some(differs));
        }
    }

    #[test]
    fn alternatives_are_written_out() {
        for (pattern, target, expected) in [
            (
                "^/(v1|v2)/(.*)$",
                "http://h/$1/$2",
                vec![("/v1/", "http://h/v1/"), ("/v2/", "http://h/v2/")],
            ),
            (
                "^/(?:a|b\\.c)(/.*)?$",
                "http://h$1",
                vec![("/a", "http://h/"), ("/b.c", "http://h/")],
            ),
            ("^(/(a|b)/.*)$", "http://h$1", vec![("/a/", "http://h/a/"), ("/b/", "http://h/b/")]),
            (
                "^/x(1|2)/(p|q)/",
                "!",
                vec![("/x1/p/", "!"), ("/x1/q/", "!"), ("/x2/p/", "!"), ("/x2/q/", "!")],
            ),
        ] {
            let plain = Plain::read_all(pattern, target).unwrap();
            let plain: Vec<_> = plain.iter().map(|p| (&*p.prefix, &*p.target)).collect();
            assert_eq!(plain, expected, "{pattern}");
        }
        for pattern in ["^/(a|b.*)/", "^/(a|b)?/", "^/(a|b", "^/((((", "^/\\(a|b\\)/"] {
            assert!(Plain::read_all(pattern, "!").is_err(), "{pattern}");
        }
        let many = "^/".to_owned() + &"(a|b)".repeat(40);
        assert!(Plain::read_all(&many, "!").is_err());
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
            ("^/a/(.*)$", "http://h/?p=$1"),
            ("^/([^/]+)/(.*)$", "http://h/$1"),
        ] {
            assert!(Plain::read(pattern, target).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_is_too_odd(pattern in "[\\^/a.*()?:$|\\\\ä]{0,12}", target in "[!$10%h/:ä]{0,8}") {
            let _ = Plain::read_all(&pattern, &target);
        }
    }
}
