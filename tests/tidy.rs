//! The house rules that neither rustc nor clippy knows.
//!
//! | rule | counted how |
//! |---|---|
//! | A function has at most 70 lines. | From `fn` to its closing brace, every line. Tests too. |
//! | A file has at most 600 lines of code. | Lines that are neither blank nor only a `//` comment. |
//! | Crates use each other only along the arrows of ARCHITECTURE.md. | All dependencies, those of tests and build scripts included. |
//! | Crates inherit the workspace's lints. | `[lints] workspace = true`. |
//! | Links in documents resolve. | Relative links of every `.md` file, with the heading behind a `#`. |
//! | `unsafe` stands in two places. | `index/src/distance/` and `index/src/arena.rs`, and each block says why it is sound. |
//! | Nothing in the repository names a package registry or a home directory. | Every text file. |

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that meets an error has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_CODE_LINES_MAX: usize = 600;
const UNSAFE_ALLOWED: [&str; 2] = ["index/src/distance/", "index/src/arena.rs"];
/// A SAFETY comment ends at most this many lines above its block.
const SAFETY_COMMENT_DISTANCE_LINES_MAX: usize = 8;
/// Directories that hold what is made, not what is written.
const SKIPPED: [&str; 5] = [".git", "target", "data", "node_modules", ".venv"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A file of the repository, by its path from the top and its text. Files that are not UTF-8 are left out.
struct SourceFile {
    path: String,
    text: String,
}

fn repository_files() -> Vec<SourceFile> {
    let mut directories = vec![root()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let name = entry.file_name().into_string().unwrap();
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                directories.push(entry.path());
            } else if kind.is_file()
                && name != ".git"
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                let path = entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push(SourceFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn files_named(suffix: &str) -> Vec<SourceFile> {
    repository_files().into_iter().filter(|file| file.path.ends_with(suffix)).collect()
}

#[track_caller]
fn assert_tidy(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}\n", problems.len(), problems.join("\n"));
}

/// What a walk through one file finds.
#[derive(Default)]
struct Findings {
    /// Name, first line and number of lines of each function.
    functions: Vec<(String, usize, usize)>,
    /// Lines of `unsafe` blocks.
    unsafe_blocks: Vec<usize>,
    /// Lines of `unsafe` functions, traits and implementations.
    unsafe_items: Vec<usize>,
}

impl Findings {
    fn of(file: &SourceFile) -> Self {
        let parsed = syn::parse_file(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        let mut findings = Self::default();
        findings.visit_file(&parsed);
        findings
    }

    fn function(&mut self, signature: &syn::Signature, end: proc_macro2::Span) {
        let first = signature.fn_token.span.start().line;
        self.functions.push((signature.ident.to_string(), first, end.end().line + 1 - first));
    }

    fn unsafe_item(&mut self, token: Option<&syn::Token![unsafe]>) {
        self.unsafe_items.extend(token.map(|token| token.span.start().line));
    }
}

impl<'ast> Visit<'ast> for Findings {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, item.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.span());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let syn::Safety::Unsafe(token) = &signature.safety {
            self.unsafe_item(Some(token));
        }
        visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.unsafe_item(item.unsafety.as_ref());
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.unsafe_item(item.unsafety.as_ref());
        visit::visit_item_trait(self, item);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.unsafe_blocks.push(block.unsafe_token.span.start().line);
        visit::visit_expr_unsafe(self, block);
    }
}

#[test]
fn functions_and_files_are_short() {
    let mut problems = Vec::new();
    for file in files_named(".rs") {
        for (name, line, lines) in Findings::of(&file).functions {
            if lines > FUNCTION_LINES_MAX {
                problems
                    .push(format!("{}:{line}: fn {name} has {lines} lines, {FUNCTION_LINES_MAX} at most", file.path));
            }
        }
        let code = file.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        if code > FILE_CODE_LINES_MAX {
            problems.push(format!("{}: {code} lines of code, {FILE_CODE_LINES_MAX} at most", file.path));
        }
    }
    assert_tidy(&problems);
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why() {
    let mut problems = Vec::new();
    for file in files_named(".rs") {
        let findings = Findings::of(&file);
        let lines: Vec<_> = file.text.lines().collect();
        let allowed = UNSAFE_ALLOWED.iter().any(|place| file.path.starts_with(place));
        for line in findings.unsafe_blocks.iter().chain(&findings.unsafe_items) {
            if !allowed {
                problems.push(format!("{}:{line}: unsafe stands outside {}", file.path, UNSAFE_ALLOWED.join(" and ")));
            }
        }
        for &line in &findings.unsafe_blocks {
            let near = &lines[line.saturating_sub(SAFETY_COMMENT_DISTANCE_LINES_MAX)..line];
            if !near.iter().any(|line| line.contains("SAFETY:")) {
                problems.push(format!("{}:{line}: an unsafe block without a SAFETY comment", file.path));
            }
        }
    }
    assert_tidy(&problems);
}

/// The arrows of ARCHITECTURE.md: the crates that each crate may use.
fn allowed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = text.split("```arrows\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("ARCHITECTURE.md has a block of arrows");
    block
        .lines()
        .map(|line| {
            let (name, targets) = line.split_once(':').expect("a line of arrows is `crate: crate crate`");
            (name.to_owned(), targets.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

/// The workspace's packages, as cargo reads their manifests.
fn packages() -> Vec<serde_json::Value> {
    let output = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn crates_use_each_other_only_along_the_arrows() {
    let arrows = allowed_arrows();
    let mut problems = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = arrows.get(name) else {
            problems.push(format!("{name} is not among the arrows of ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = dependency["name"].as_str().unwrap();
            if target.starts_with("cairn-") && target != name && !allowed.contains(target) {
                problems.push(format!("{name} uses {target}, which no arrow of ARCHITECTURE.md allows"));
            }
            if target == "cairn-links" && dependency["kind"] != "dev" {
                problems.push(format!("{name} uses {target} not only in tests"));
            }
        }
    }
    assert_tidy(&problems);
}

#[test]
fn arrows_form_no_circle() {
    let mut left = allowed_arrows();
    while !left.is_empty() {
        let known: Vec<_> = left.keys().cloned().collect();
        left.retain(|_, targets| targets.iter().any(|target| known.contains(target)));
        assert!(left.len() < known.len(), "these crates use each other in a circle: {known:?}");
    }
}

#[test]
fn crates_inherit_the_lints_of_the_workspace() {
    let without: Vec<_> = packages()
        .iter()
        .map(|package| package["manifest_path"].as_str().unwrap().to_owned())
        .filter(|path| !fs::read_to_string(path).unwrap().contains("[lints]\nworkspace = true"))
        .collect();
    assert_tidy(&without);
}

/// The targets of inline links, `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, part) in text.split("```").enumerate() {
        if number % 2 == 0 {
            let prose: String = part.split('`').step_by(2).collect();
            found.extend(prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned));
        }
    }
    found
}

/// The anchors of a document's headings, made as code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
        })
        .collect()
}

#[test]
fn links_in_documents_resolve() {
    let mut problems = Vec::new();
    for file in files_named(".md") {
        let folder = root().join(&file.path).parent().unwrap().to_path_buf();
        for link in links(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { root().join(&file.path) } else { folder.join(path) };
            let found = target.exists();
            let reached =
                found && (anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !reached {
                problems.push(format!("{}: the link {link} leads nowhere", file.path));
            }
        }
    }
    assert_tidy(&problems);
}

/// Whether a line holds `name`; a directory only where a path begins with it, not within one such as `a/home/b`.
fn stands_in(line: &str, name: &str) -> bool {
    let begins = |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric() || "_-.~}".contains(before));
    line.match_indices(name).any(|(at, _)| !name.starts_with('/') || begins(at))
}

#[test]
fn nothing_names_a_registry_or_a_home_directory() {
    // Put together from parts, so that this file does not contain what it looks for.
    let forbidden = [
        ("registry.npmjs", ".org"),
        ("index.crates", ".io"),
        ("static.crates", ".io"),
        ("files.pythonhosted", ".org"),
        ("pypi", ".org"),
        ("artifact", "ory"),
        ("/home", "/"),
        ("/root", "/"),
        ("/Users", "/"),
    ]
    .map(|(start, end)| format!("{start}{end}"));
    let mut problems = Vec::new();
    for file in repository_files() {
        for (number, line) in file.text.lines().enumerate() {
            for name in forbidden.iter().filter(|name| stands_in(line, name)) {
                problems.push(format!("{}:{}: names {name}", file.path, number + 1));
            }
        }
    }
    assert_tidy(&problems);
}
