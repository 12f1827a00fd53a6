//! Apache's configuration language: logical lines, words, sections. Pure; what includes and
//! conditions mean is `read`'s business.

use std::fmt;
use std::sync::Arc;

/// Sections within sections that are followed; Apache's own limit is the stack.
const DEEPEST: usize = 64;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from 1; the first of a continued one.
    pub line: usize,
}

/// A line of the configuration, continuations joined, without white space around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins.
    pub place: Place,
    /// The text.
    pub text: String,
}

/// A directive, or a section with what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub line: Line,
    /// The name as it was written, without `<`.
    pub name: String,
    /// All that follows the name, without the `>` of a section.
    pub rest: String,
    /// What is in it, if it is a section.
    pub inner: Option<Vec<Node>>,
}

/// A text that is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}: {text}")]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The line.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Line {
    /// An error about this line.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error { place: self.place.clone(), message: message.into(), text: self.text.clone() }
    }
}

impl Node {
    /// Whether it is called so; case does not matter.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The words that follow the name.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        words(&self.rest)
    }
}

/// Reads a text into directives and sections.
///
/// # Errors
/// Sections that are not closed, or closed and never opened.
pub fn parse(file: &str, text: &str) -> Result<Vec<Node>, Error> {
    let mut open: Vec<(Node, Vec<Node>)> = Vec::new();
    let mut nodes = Vec::new();
    for line in lines(file, text) {
        if let Some(inside) = line.text.strip_prefix("</") {
            let name = inside.trim_end_matches('>').trim();
            let Some((mut section, outer)) = open.pop() else {
                return Err(line.error(format!("closes <{name}>, which is not open")));
            };
            if !section.is(name) {
                let opened = format!("<{}> of line {}", section.name, section.line.place.line);
                return Err(line.error(format!("closes <{name}>, but {opened} is open")));
            }
            section.inner = Some(std::mem::replace(&mut nodes, outer));
            nodes.push(section);
        } else if let Some(inside) = line.text.strip_prefix('<') {
            let Some(inside) = inside.strip_suffix('>') else {
                return Err(line.error("a section must end its line with >"));
            };
            if open.len() == DEEPEST {
                return Err(line.error(format!("more than {DEEPEST} sections within each other")));
            }
            let section = node(line.clone(), inside);
            open.push((section, std::mem::take(&mut nodes)));
        } else {
            let text = line.text.clone();
            nodes.push(node(line, &text));
        }
    }
    match open.pop() {
        Some((section, _)) => {
            Err(section.line.error(format!("<{0}> is never closed by </{0}>", section.name)))
        }
        None => Ok(nodes),
    }
}

fn node(line: Line, text: &str) -> Node {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    Node { line, name: name.to_owned(), rest: rest.trim().to_owned(), inner: None }
}

/// Joins lines that end with a backslash; leaves out comments and empty lines. A comment that ends
/// with a backslash goes on, as it does in Apache.
#[must_use]
pub fn lines(file: &str, text: &str) -> Vec<Line> {
    let file: Arc<str> = file.into();
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (at, line) in text.lines().enumerate() {
        let (first, mut whole) = open.take().unwrap_or((at + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                open = Some((first, whole));
            }
            None => {
                whole.push_str(line);
                found.extend(logical(&file, first, &whole));
            }
        }
    }
    found.extend(open.and_then(|(first, whole)| logical(&file, first, &whole)));
    found
}

fn logical(file: &Arc<str>, line: usize, text: &str) -> Option<Line> {
    let text = text.trim();
    let place = Place { file: Arc::clone(file), line };
    (!text.is_empty() && !text.starts_with('#')).then(|| Line { place, text: text.to_owned() })
}

/// Splits a text as Apache does: at white space, but not within quotes; a backslash stands before a
/// backslash, and before the quote within quotes.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start().chars().peekable();
    while let Some(first) = rest.peek().copied() {
        let quote = matches!(first, '"' | '\'').then_some(first);
        if quote.is_some() {
            rest.next();
        }
        let mut word = String::new();
        while let Some(c) = rest.next() {
            match (c, rest.peek().copied()) {
                ('\\', Some(next)) if next == '\\' || Some(next) == quote => {
                    word.push(next);
                    rest.next();
                }
                (c, _) if quote.map_or(c.is_whitespace(), |quote| c == quote) => break,
                (c, _) => word.push(c),
            }
        }
        words.push(word);
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<(usize, String)> {
        lines("f", text).into_iter().map(|line| (line.place.line, line.text)).collect()
    }

    #[test]
    fn continued_lines_are_one_and_comments_none() {
        let text = "\u{feff}A a \\\r\n  b\n\n# c \\\n still a comment\nB\\\n# not one\nC \\";
        let expected = [(1, "A a   b"), (6, "B# not one"), (8, "C")];
        assert_eq!(texts(text), expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn words_are_split_and_unquoted_as_apache_does() {
        for (text, expected) in [
            (r#"a  "b c" 'd "e"'"#, vec!["a", "b c", "d \"e\""]),
            (r#""a \"b\" \\ \d" \.jpe?g$ \\."#, vec!["a \"b\" \\ \\d", "\\.jpe?g$", "\\."]),
            (r#"a"b c""#, vec!["a\"b", "c\""]),
            (r#""" "open end"#, vec!["", "open end"]),
            ("\t ", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn sections_hold_what_is_between_their_lines() {
        let nodes =
            parse("f", "<Proxy balancer://a>\n<IfModule x>\nB c\n</ifmodule>\n</PROXY >\nD");
        let nodes = nodes.unwrap();
        let proxy = &nodes[0];
        assert!(proxy.is("proxy") && proxy.words() == ["balancer://a"] && nodes[1].is("d"));
        let inner = &proxy.inner.as_ref().unwrap()[0];
        assert_eq!(inner.inner.as_ref().unwrap()[0].rest, "c");
    }

    #[test]
    fn an_error_has_the_file_the_line_and_the_text() {
        for (text, expected) in [
            ("A\n</Proxy>", "f:2: closes <Proxy>, which is not open: </Proxy>"),
            ("<A>\n</B>", "f:2: closes <B>, but <A> of line 1 is open: </B>"),
            ("\n<A x>\nB", "f:2: <A> is never closed by </A>: <A x>"),
            ("<A x\nB", "f:1: a section must end its line with >: <A x"),
        ] {
            assert_eq!(parse("f", text).unwrap_err().to_string(), expected);
        }
        let deep = "<A>\n".repeat(65);
        assert!(parse("f", &deep).unwrap_err().message.contains("64"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(?s).{0,200}") {
            let _ = parse("f", &text);
            let _ = words(&text);
        }
    }
}
