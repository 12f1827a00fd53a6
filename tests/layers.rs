//! The direction of dependencies, read from the `use` lines and paths of the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which modules of this crate a module may use.
const ALLOWED: [(&str, &[&str]); 16] = [
    (
        "main",
        &[
            "api", "app", "args", "check", "demo", "dry_run", "healthz", "import", "proxy",
            "source", "table",
        ],
    ),
    ("demo", &["app", "args", "metrics", "proxy", "source", "table"]),
    ("check", &["source", "table"]),
    ("dry_run", &["args", "explain", "healthz", "source", "table"]),
    ("import", &["api", "args", "source", "table"]),
    ("app", &["admin", "explain", "health", "metrics", "proxy", "source", "table"]),
    ("args", &["api", "proxy", "table"]),
    ("admin", &["explain", "health", "metrics", "table"]),
    ("source", &["api", "health", "metrics", "table"]),
    ("proxy", &["explain", "metrics", "table"]),
    ("explain", &["table"]),
    ("metrics", &["table"]),
    ("health", &[]),
    ("healthz", &[]),
    ("api", &[]),
    ("table", &[]),
];

/// The only crates that decisions may depend on; `cookie` to write one, `rustls` for its key types, `ipnet` for networks,
/// `fastrand` for the randomness that is handed in.
const PURE: [&str; 8] =
    ["cookie", "fastrand", "http", "ipnet", "regex", "rustls", "std", "proptest"];

fn sources(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module at the top to which a file belongs.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(src()).unwrap();
    let first = inside.components().next().unwrap();
    Path::new(&first).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The first names after `root::` in a text, braces included.
fn named_after(text: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(root) {
        let after = &text[at + root.len()..];
        let list = after.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(l, _)| l);
        for item in list.unwrap_or(after).split(',') {
            let name: String =
                item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            names.extend((!name.is_empty()).then_some(name));
            if list.is_none() {
                break;
            }
        }
    }
    names
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut seen = BTreeSet::new();
    for path in sources(&src()) {
        let (text, module) = (std::fs::read_to_string(&path).unwrap(), module(&path));
        if module == "lib" {
            continue;
        }
        let (_, allowed) = ALLOWED.iter().find(|(name, _)| *name == module).expect(&module);
        let root = if module == "main" { "gibbon::" } else { "crate::" };
        for used in named_after(&text, root).into_iter().filter(|used| *used != module) {
            assert!(allowed.contains(&used.as_str()), "{} uses {used}", path.display());
        }
        seen.insert(module);
    }
    assert_eq!(seen.len(), ALLOWED.len(), "{seen:?}");
}

#[test]
fn the_table_is_pure() {
    for path in sources(&src().join("table")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("use ")) {
            let root: String =
                line[4..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let own = ["super", "self", "crate"].contains(&root.as_str());
            let local = own || root.chars().next().is_some_and(char::is_uppercase);
            let sibling = src().join("table").join(format!("{root}.rs")).exists();
            assert!(
                local || sibling || PURE.contains(&root.as_str()),
                "{}: {line}",
                path.display()
            );
        }
        for clock in ["Instant::now()", "SystemTime::now()", "async fn", "fastrand::Rng::new()"] {
            let code = text.split("#[cfg(test)]").next().unwrap();
            assert!(!code.contains(clock), "{} has {clock}", path.display());
        }
    }
}

#[test]
fn only_args_reads_the_environment() {
    for path in sources(&src()).into_iter().filter(|path| module(path) != "args") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("env::var"), "{}", path.display());
    }
}
