//! Nothing that the SDK offers is left out of its contract.

use std::collections::BTreeSet;
use std::path::Path;

/// The files of the SDK whose values are pure, and have their own tests beside them.
const PURE: [&str; 3] = ["retry.rs", "timestamp.rs", "value.rs"];

/// The suites that call what the others offer.
const CALLED: [&str; 4] = [
    include_str!("sdk.rs"),
    include_str!("sdk_members.rs"),
    include_str!("sdk_options.rs"),
    include_str!("old_positions.rs"),
];

/// The sources of all other files.
fn offered() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/src");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let ours = files.filter(|path| PURE.iter().all(|pure| !path.ends_with(pure)));
    ours.filter(|path| path.is_file()).map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// The names of the public methods in a file, those that macros make included.
fn methods(source: &str) -> impl Iterator<Item = &str> {
    let ours = source.split("#[cfg(test)]").next().unwrap_or_default();
    let public = ours.lines().filter_map(|line| line.strip_prefix(' ')?.trim_start().strip_prefix("pub "));
    let signatures = public.filter_map(|line| Some(line.split_once("fn ")?.1));
    signatures.filter_map(|signature| signature.split(['(', '<']).next())
}

#[test]
fn the_name_of_every_method_of_the_sdk_is_called() {
    let sources = offered();
    let offered: BTreeSet<&str> = sources.iter().flat_map(|source| methods(source)).collect();
    assert!(offered.len() > 100, "the methods are looked for in vain: {offered:?}");
    let is_called = |name: &&str| {
        CALLED.iter().any(|text| text.contains(&format!(".{name}(")) || text.contains(&format!("::{name}(")))
    };
    let left_out: Vec<&str> = offered.into_iter().filter(|name| !is_called(name)).collect();
    assert_eq!(left_out, Vec::<&str>::new());
}
