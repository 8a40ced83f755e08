//! Nothing that the SDK offers is left out of its contract.

use std::collections::BTreeSet;

/// The files of the SDK that are calls, what they are told, and what they answer. Elsewhere are pure values, with their own
/// tests.
const OFFERED: [&str; 15] = [
    include_str!("../../client/src/client.rs"),
    include_str!("../../client/src/cluster.rs"),
    include_str!("../../client/src/error.rs"),
    include_str!("../../client/src/filter.rs"),
    include_str!("../../client/src/history.rs"),
    include_str!("../../client/src/import.rs"),
    include_str!("../../client/src/memory.rs"),
    include_str!("../../client/src/namespaces.rs"),
    include_str!("../../client/src/new_space.rs"),
    include_str!("../../client/src/query.rs"),
    include_str!("../../client/src/results.rs"),
    include_str!("../../client/src/space.rs"),
    include_str!("../../client/src/update.rs"),
    include_str!("../../client/src/update_space.rs"),
    include_str!("../../client/src/watch.rs"),
];

/// What calls them.
const CALLED: [&str; 4] = [
    include_str!("sdk.rs"),
    include_str!("sdk_members.rs"),
    include_str!("sdk_options.rs"),
    include_str!("old_positions.rs"),
];

/// The names of the public methods in a file, those that macros make included.
fn methods(source: &str) -> impl Iterator<Item = &str> {
    let ours = source.split("#[cfg(test)]").next().unwrap_or_default();
    let signatures = ours.lines().filter_map(|line| line.trim_start().strip_prefix("pub fn "));
    signatures.filter_map(|signature| signature.split(['(', '<']).next())
}

#[test]
fn every_method_of_the_sdk_is_called() {
    let offered: BTreeSet<&str> = OFFERED.into_iter().flat_map(methods).collect();
    assert!(offered.len() > 100, "the methods are looked for in vain: {offered:?}");
    let is_called = |name: &&str| {
        CALLED.iter().any(|text| text.contains(&format!(".{name}(")) || text.contains(&format!("::{name}(")))
    };
    let left_out: Vec<&str> = offered.into_iter().filter(|name| !is_called(name)).collect();
    assert_eq!(left_out, Vec::<&str>::new());
}
