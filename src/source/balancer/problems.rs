//! What is wrong with a Balancer, by field.

use std::fmt;

use super::checks::Text;

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.members[2].url`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// Whose fault it is.
    pub cause: Cause,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// It cannot work anywhere.
    #[default]
    Invalid,
    /// The namespace may not serve any host.
    AnyHostNotPermitted,
    /// The namespace may not have members by URL.
    UrlMembersNotPermitted,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A field of the item at this place of a list, named only where something is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Of(pub &'static str, pub usize, pub &'static str);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(list, at, field) = self;
        write!(f, "{list}[{at}]{field}")
    }
}

/// Collects problems while a Balancer is read.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The value, unless anything is wrong.
    pub fn unless_any<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Something is wrong.
    pub fn add(&mut self, field: impl fmt::Display, message: impl Into<String>) {
        self.refuse(Cause::Invalid, field, message);
    }

    /// Something is refused for this reason.
    pub fn refuse(&mut self, cause: Cause, field: impl fmt::Display, message: impl Into<String>) {
        self.0.push(Problem { field: field.to_string(), message: message.into(), cause });
    }

    /// The value, or a problem.
    pub fn take<T>(&mut self, field: impl fmt::Display, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(field, message)).ok()
    }

    /// Whether a text keeps its rules.
    pub fn text(&mut self, field: impl fmt::Display, text: &str, rules: Text) -> bool {
        let before = self.count();
        rules.faults(text).for_each(|message| self.add(&field, message));
        self.count() == before
    }

    /// What a text stands for, if it keeps its rules.
    pub fn read<T>(
        &mut self,
        field: impl fmt::Display,
        text: &str,
        rules: Text,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let good = self.text(&field, text, rules);
        good.then(|| self.take(field, parse(text))).flatten()
    }

    /// A list has this many items at most.
    pub fn at_most(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            self.add(field, format!("must have at most {most} items, not {count}"));
        }
    }
}
