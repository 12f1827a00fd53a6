//! Files → directives: includes are followed, variables replaced, conditions decided. What was done
//! so is in the report; what is left is for the translation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::RegexBuilder;

use super::report::{Id, Report, Verdict};
use super::syntax::{Error, Node, parse, words};

/// The version that `<IfVersion>` compares with: the one whose behaviour Gibbon is measured against.
const VERSION: [u32; 3] = [2, 4, 71];
/// Files within files; Apache has the same limit.
const DEEPEST: usize = 128;
/// Bytes of a line with its variables replaced, against those that grow without end.
const LONGEST: usize = 1 << 16;
/// Files that are read for one configuration.
const MOST: usize = 4096;
/// Lines that macros may become.
const MOST_LINES: usize = 1 << 16;

/// The name and the text of a file.
pub type File = (String, String);

/// Finds the files of a name or pattern, in order.
pub type Find<'f> = dyn Fn(&Path) -> Result<Vec<File>, String> + 'f;

/// A directive as it applies, or a section with those in it.
#[derive(Clone, Debug)]
pub struct Directive {
    /// Its place in the report.
    pub id: Id,
    /// The name in small letters.
    pub name: String,
    /// The words after it.
    pub args: Vec<String>,
    /// The file is called `.htaccess`.
    pub htaccess: bool,
    /// The line.
    pub node: Node,
    /// What is in a section.
    pub inner: Vec<Directive>,
}

/// Reads configurations.
pub struct Reader<'f> {
    find: &'f Find<'f>,
    defines: BTreeMap<String, String>,
    root: PathBuf,
    files: usize,
    macros: BTreeMap<String, Macro>,
    lines: usize,
    report: Report,
}

/// What `<Macro>` has defined.
#[derive(Clone, Debug)]
struct Macro {
    parameters: Vec<String>,
    nodes: Vec<Node>,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Directive {
    /// An argument.
    #[must_use]
    pub fn arg(&self, at: usize) -> Option<&str> {
        self.args.get(at).map(String::as_str)
    }

    /// An error about it.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> Error {
        self.node.line.error(message)
    }
}

impl<'f> Reader<'f> {
    /// One that finds files so, and knows these variables.
    #[must_use]
    pub fn new(find: &'f Find<'f>, defines: BTreeMap<String, String>) -> Self {
        let (root, report) = (PathBuf::new(), Report::default());
        Self { find, defines, root, files: 0, macros: BTreeMap::new(), lines: 0, report }
    }

    /// Reads a file and what it includes.
    ///
    /// # Errors
    /// The first thing that is no configuration.
    pub fn read(&mut self, file: &str, text: &str) -> Result<Vec<Directive>, Error> {
        Path::new(file).parent().unwrap_or(Path::new("")).clone_into(&mut self.root);
        let mut found = Vec::new();
        self.file(file, text, 0, &mut found)?;
        Ok(found)
    }

    /// What became of the directives so far.
    #[must_use]
    pub fn report(self) -> Report {
        self.report
    }

    fn file(
        &mut self,
        file: &str,
        text: &str,
        depth: usize,
        to: &mut Vec<Directive>,
    ) -> Result<(), Error> {
        let nodes = parse(file, text)?;
        let htaccess = Path::new(file)
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.contains("htaccess"));
        self.nodes(nodes, htaccess, depth, to)
    }

    fn nodes(
        &mut self,
        nodes: Vec<Node>,
        htaccess: bool,
        depth: usize,
        to: &mut Vec<Directive>,
    ) -> Result<(), Error> {
        for mut node in nodes {
            node.rest = self.expand(&node)?;
            let id = self.report.open(&node.line);
            let name = node.name.to_ascii_lowercase();
            let inner = node.inner.take();
            match (name.as_str(), inner) {
                ("define", None) => self.define(&node, id)?,
                ("undefine", None) => self.undefine(&node, id),
                ("serverroot", None) => self.server_root(&node, id)?,
                ("include" | "includeoptional", None) => {
                    self.include(&node, id, htaccess, depth, to)?;
                }
                ("macro", Some(inner)) => self.macro_(&node, id, inner)?,
                ("undefmacro", None) => {
                    self.macros.remove(&node.rest.to_ascii_lowercase());
                    self.report.say(id, Verdict::Converted, "");
                }
                ("use", None) => {
                    let nodes = self.expand_macro(&node, id)?;
                    if depth == DEEPEST {
                        let message = format!("uses {DEEPEST} macros within each other");
                        return Err(node.line.error(message));
                    }
                    self.nodes(nodes, htaccess, depth + 1, to)?;
                }
                (
                    "ifmodule" | "ifdefine" | "ifversion" | "ifdirective" | "ifsection" | "iffile",
                    Some(inner),
                ) => {
                    if self.holds(&name, &node, id)? {
                        self.nodes(inner, htaccess, depth, to)?;
                    } else {
                        self.skip(&inner);
                    }
                }
                (_, inner) => {
                    let is_section = inner.is_some();
                    let mut within = Vec::new();
                    self.nodes(inner.unwrap_or_default(), htaccess, depth, &mut within)?;
                    let name = if is_section { format!("<{name}") } else { name };
                    let args = words(&node.rest);
                    to.push(Directive { id, name, args, htaccess, node, inner: within });
                }
            }
        }
        Ok(())
    }

    /// Replaces `${NAME}` by what was defined; what was not stays, as in Apache.
    fn expand(&self, node: &Node) -> Result<String, Error> {
        let mut text = String::new();
        let mut rest = node.rest.as_str();
        while let Some(at) = rest.find("${") {
            let after = &rest[at + 2..];
            let value = after
                .split_once('}')
                .and_then(|(name, after)| self.defines.get(name).map(|value| (value, after)));
            let Some((value, after)) = value else {
                text.push_str(&rest[..at + 2]);
                rest = after;
                continue;
            };
            text.push_str(&rest[..at]);
            text.push_str(value);
            rest = after;
            if text.len() > LONGEST {
                return Err(node.line.error(format!(
                    "is longer than {LONGEST} bytes when its variables are replaced"
                )));
            }
        }
        text.push_str(rest);
        Ok(text)
    }

    fn define(&mut self, node: &Node, id: Id) -> Result<(), Error> {
        let args = words(&node.rest);
        let [name, value @ ..] = args.as_slice() else {
            return Err(node.line.error("Define needs a name"));
        };
        self.defines.insert(name.clone(), value.first().cloned().unwrap_or_default());
        self.report.say(id, Verdict::Converted, "");
        Ok(())
    }

    fn undefine(&mut self, node: &Node, id: Id) {
        self.defines.remove(&node.rest);
        self.report.say(id, Verdict::Converted, "");
    }

    fn server_root(&mut self, node: &Node, id: Id) -> Result<(), Error> {
        let args = words(&node.rest);
        let [root] = args.as_slice() else {
            return Err(node.line.error("ServerRoot needs a directory"));
        };
        self.root = PathBuf::from(root);
        self.report.say(id, Verdict::Converted, "where Include looks for files");
        Ok(())
    }

    fn include(
        &mut self,
        node: &Node,
        id: Id,
        htaccess: bool,
        depth: usize,
        to: &mut Vec<Directive>,
    ) -> Result<(), Error> {
        let args = words(&node.rest);
        let [pattern] = args.as_slice() else {
            return Err(node.line.error("Include needs one file, directory or pattern"));
        };
        if depth == DEEPEST {
            return Err(node.line.error(format!("includes {DEEPEST} files within each other")));
        }
        let files = (self.find)(&self.root.join(pattern)).map_err(|why| node.line.error(why))?;
        if files.is_empty() && !node.is("IncludeOptional") {
            return Err(node.line.error("there is no such file"));
        }
        let count = files.len();
        let plural = if count == 1 { "" } else { "s" };
        self.report.say(id, Verdict::Converted, format!("{count} file{plural}"));
        for (file, text) in files {
            self.files += 1;
            if self.files > MOST {
                return Err(node.line.error(format!("includes more than {MOST} files")));
            }
            let nodes = parse(&file, &text)?;
            self.nodes(nodes, htaccess, depth + 1, to)?;
        }
        Ok(())
    }

    fn macro_(&mut self, node: &Node, id: Id, nodes: Vec<Node>) -> Result<(), Error> {
        let mut args = words(&node.rest).into_iter();
        let name = args.next().ok_or_else(|| node.line.error("<Macro> needs a name"))?;
        let parameters = args.filter(|parameter| !parameter.is_empty()).collect();
        self.macros.insert(name.to_ascii_lowercase(), Macro { parameters, nodes });
        self.report.say(id, Verdict::Converted, "replaced wherever Use stands");
        Ok(())
    }

    /// What a macro stands for, with its parameters replaced; a line is still where it was written.
    fn expand_macro(&mut self, node: &Node, id: Id) -> Result<Vec<Node>, Error> {
        let args = words(&node.rest);
        let Some((name, values)) = args.split_first() else {
            return Err(node.line.error("Use needs the name of a macro"));
        };
        let Some(found) = self.macros.get(&name.to_ascii_lowercase()) else {
            return Err(node.line.error(format!("there is no macro {name}")));
        };
        if found.parameters.len() != values.len() {
            let message = format!("macro {name} has {} parameters", found.parameters.len());
            return Err(node.line.error(message));
        }
        let mut pairs: Vec<_> = found.parameters.iter().zip(values).collect();
        // One may be the beginning of another.
        pairs.sort_by_key(|(parameter, _)| std::cmp::Reverse(parameter.len()));
        let mut left = MOST_LINES - self.lines.min(MOST_LINES);
        let nodes = found.nodes.iter().map(|node| replaced(node, &pairs, &mut left));
        let nodes = nodes.collect::<Option<Vec<_>>>();
        self.lines = MOST_LINES - left;
        self.report.say(id, Verdict::Converted, "as what the macro stands for");
        nodes.ok_or_else(|| node.line.error("macros become too many or too long lines"))
    }

    /// Whether what is in a condition applies.
    fn holds(&mut self, name: &str, node: &Node, id: Id) -> Result<bool, Error> {
        let text = node.rest.trim();
        let (negated, bare) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let bare = words(bare).into_iter().next().unwrap_or_default();
        let (holds, why) = match name {
            "ifdefine" => (self.defines.contains_key(&bare) != negated, ""),
            "ifversion" => (version(text).map_err(|why| node.line.error(why))?, "as Apache 2.4.71"),
            "iffile" => (!negated, "taken as if the file were there"),
            _ => (!negated, "every module is taken as loaded"),
        };
        let applies = if holds { "applies" } else { "does not apply" };
        let said = if why.is_empty() { applies.to_owned() } else { format!("{applies}: {why}") };
        self.report.say(id, Verdict::Converted, said);
        Ok(holds)
    }

    /// What stands in a condition that does not hold.
    fn skip(&mut self, nodes: &[Node]) {
        for node in nodes {
            let id = self.report.open(&node.line);
            self.report.say(id, Verdict::Converted, "does not apply");
            self.skip(node.inner.as_deref().unwrap_or_default());
        }
    }
}

/// A line with other values in the place of parameters; nothing if that becomes too much.
fn replaced(node: &Node, pairs: &[(&String, &String)], left: &mut usize) -> Option<Node> {
    *left = left.checked_sub(1)?;
    let mut node = node.clone();
    for text in [&mut node.line.text, &mut node.name, &mut node.rest] {
        for (parameter, value) in pairs {
            let count = text.matches(parameter.as_str()).count();
            if text.len() + count * value.len() > LONGEST {
                return None;
            }
            *text = text.replace(parameter.as_str(), value);
        }
    }
    let inner = node.inner.take();
    let inner = inner.map(|all| all.iter().map(|node| replaced(node, pairs, left)).collect());
    node.inner = match inner {
        Some(None) => return None,
        Some(inner) => inner,
        None => None,
    };
    Some(node)
}

/// Compares [`VERSION`] with the argument of `<IfVersion>`.
fn version(text: &str) -> Result<bool, String> {
    let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let args = words(text);
    let (operator, wanted) = match args.as_slice() {
        [wanted] => ("=", wanted.as_str()),
        [operator, wanted] => (operator.as_str(), wanted.as_str()),
        _ => return Err("IfVersion needs an operator and a version".to_owned()),
    };
    let inside = wanted.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let pattern = inside.or((operator == "~").then_some(wanted));
    if let Some(pattern) = pattern {
        let regex = RegexBuilder::new(pattern).size_limit(1 << 20).build();
        let own = VERSION.map(|part| part.to_string()).join(".");
        return regex.map(|regex| regex.is_match(&own) != negated).map_err(|e| e.to_string());
    }
    let mut parts = [0; 3];
    for (part, text) in parts.iter_mut().zip(wanted.split('.')) {
        *part = text.parse().map_err(|_| format!("`{wanted}` is no version such as 2.4"))?;
    }
    let order = VERSION.cmp(&parts);
    let holds = match operator {
        "=" | "==" => order.is_eq(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        _ => return Err(format!("`{operator}` is none of =, >, >=, <, <=, ~")),
    };
    Ok(holds != negated)
}

/// Finds files as Apache does: one, all in a directory, or those that a pattern matches, by name.
///
/// # Errors
/// What cannot be read.
pub fn find(pattern: &Path) -> Result<Vec<File>, String> {
    let text = pattern.to_str().ok_or("is not in UTF-8")?;
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let is_pattern = text.contains(['*', '?', '[']);
    let found = glob::glob_with(text, options).map_err(|error| error.to_string())?;
    let mut paths: Vec<PathBuf> = if is_pattern {
        found.collect::<Result<_, _>>().map_err(|error| error.to_string())?
    } else {
        pattern.exists().then(|| pattern.to_owned()).into_iter().collect()
    };
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        add(&path, 0, &mut files)?;
    }
    Ok(files)
}

fn add(path: &Path, depth: usize, to: &mut Vec<File>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    if depth > 16 || to.len() > MOST {
        return Err(format!("{} has too many files", path.display()));
    }
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        paths.sort();
        return paths.iter().try_for_each(|path| add(path, depth + 1, to));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    to.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    Ok(())
}
