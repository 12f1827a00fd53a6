//! What became of every directive: converted, approximated or dropped, and why.

use std::fmt::Write;

use serde::{Serialize, Serializer};

use super::syntax::{Line, Place};

/// What became of a directive or of a part of it; from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Gibbon does the same.
    Converted,
    /// Gibbon does nearly the same.
    Approximated,
    /// Gibbon does nothing of it.
    Dropped,
}

/// A directive of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(usize);

/// A parameter of a directive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The parameter as it was written, such as `max=20`.
    pub parameter: String,
    /// What became of it.
    pub verdict: Verdict,
    /// How it differs, or why it was dropped and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A directive, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it stands.
    #[serde(flatten, serialize_with = "place")]
    pub place: Place,
    /// The directive as it was written.
    pub directive: String,
    /// What became of it, but for its parameters.
    pub verdict: Verdict,
    /// What it became, how that differs, or why it was dropped and what to do.
    pub notes: Vec<String>,
    /// Its parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Part>,
    /// Whether anybody has looked at it.
    #[serde(skip)]
    seen: bool,
}

/// How many directives and parameters had which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Those that Gibbon does as well.
    pub converted: usize,
    /// Those that it does nearly.
    pub approximated: usize,
    /// Those that it does not.
    pub dropped: usize,
}

/// What became of every directive, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Place2<'p> {
    file: &'p str,
    line: usize,
}

fn place<S: Serializer>(place: &Place, to: S) -> Result<S::Ok, S::Error> {
    Place2 { file: &place.file, line: place.line }.serialize(to)
}

impl Counts {
    fn of(verdicts: impl Iterator<Item = Verdict>) -> Self {
        verdicts.fold(Self::default(), |mut counts, verdict| {
            match verdict {
                Verdict::Converted => counts.converted += 1,
                Verdict::Approximated => counts.approximated += 1,
                Verdict::Dropped => counts.dropped += 1,
            }
            counts
        })
    }

    fn text(self) -> String {
        format!(
            "{} converted, {} approximated, {} dropped",
            self.converted, self.approximated, self.dropped
        )
    }
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Converted => "converted",
            Self::Approximated => "approximated",
            Self::Dropped => "dropped",
        }
    }
}

impl Report {
    /// A directive that is to be accounted for.
    pub(super) fn open(&mut self, line: &Line) -> Id {
        self.entries.push(Entry {
            place: line.place.clone(),
            directive: line.text.clone(),
            verdict: Verdict::Converted,
            notes: Vec::new(),
            parameters: Vec::new(),
            seen: false,
        });
        Id(self.entries.len() - 1)
    }

    /// Says what became of a directive; the worst verdict stays.
    pub(super) fn say(&mut self, id: Id, verdict: Verdict, note: impl Into<String>) {
        let entry = &mut self.entries[id.0];
        let note = note.into();
        entry.seen = true;
        entry.verdict = entry.verdict.max(verdict);
        if !note.is_empty() && !entry.notes.contains(&note) {
            entry.notes.push(note);
        }
    }

    /// Whether anything has been said of a directive.
    pub(super) fn is_said(&self, id: Id) -> bool {
        self.entries[id.0].seen
    }

    /// Says what became of a parameter.
    pub(super) fn part(&mut self, id: Id, parameter: &str, verdict: Verdict, note: &str) {
        let part = Part { parameter: parameter.to_owned(), verdict, note: note.to_owned() };
        let parts = &mut self.entries[id.0].parameters;
        if !parts.contains(&part) {
            parts.push(part);
        }
    }

    /// Gives a verdict to what nobody has looked at.
    pub(super) fn close(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.seen) {
            entry.seen = true;
            entry.verdict = Verdict::Dropped;
            entry.notes.push("it does not lead to a Balancer".to_owned());
        }
    }

    /// A directive with its place, for what came from it.
    pub(super) fn origin(&self, id: Id) -> String {
        let entry = &self.entries[id.0];
        format!("{} {}", entry.place, entry.directive)
    }

    /// All directives.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many directives had which verdict.
    #[must_use]
    pub fn directives(&self) -> Counts {
        Counts::of(self.entries.iter().map(|entry| entry.verdict))
    }

    /// How many parameters had which verdict.
    #[must_use]
    pub fn parameters(&self) -> Counts {
        Counts::of(self.entries.iter().flat_map(|e| &e.parameters).map(|part| part.verdict))
    }

    /// Whether anything was dropped.
    #[must_use]
    pub fn drops(&self) -> bool {
        self.directives().dropped + self.parameters().dropped > 0
    }

    /// For people: what differs, line by line, then the counts.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            let _ = writeln!(text, "{}: {}", entry.place, entry.directive);
            let _ = writeln!(text, "  {}", remark(entry.verdict, &entry.notes.join("; ")));
            for part in &entry.parameters {
                let remark = remark(part.verdict, &part.note);
                let _ = writeln!(text, "  {} {remark}", part.parameter);
            }
        }
        let _ = writeln!(text, "directives: {}", self.directives().text());
        let _ = writeln!(text, "parameters: {}", self.parameters().text());
        text
    }

    /// For programs: the same as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let value = serde_json::json!({
            "directives": self.entries,
            "counts": {"directives": self.directives(), "parameters": self.parameters()},
        });
        format!("{value:#}\n")
    }
}

fn remark(verdict: Verdict, note: &str) -> String {
    if note.is_empty() { verdict.word().to_owned() } else { format!("{}: {note}", verdict.word()) }
}
