//! Interim.
use std::fmt;
use crate::api::Balancer;
/// A document.
#[derive(Debug)]
pub struct Document { /// line
 pub line: usize, /// it
 pub balancer: Balancer }
impl Document { /// line
 #[must_use] pub fn line_of(&self, _field: &str) -> usize { self.line } }
/// Fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault { /// line
 pub line: usize, /// field
 pub field: String, /// message
 pub message: String }
impl fmt::Display for Fault { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}: {}: {}", self.line, self.field, self.message) } }
/// read
#[must_use] pub fn read(text: &str) -> (Vec<Document>, Vec<Fault>) {
    let (mut d, mut f) = (vec![], vec![]);
    for part in text.split("\n---\n") {
        if part.trim().is_empty() { continue; }
        match serde_saphyr::from_str::<Balancer>(part) { Ok(balancer) => d.push(Document { line: 1, balancer }), Err(e) => f.push(Fault { line: 1, field: String::new(), message: e.to_string() }) }
    }
    (d, f)
}
