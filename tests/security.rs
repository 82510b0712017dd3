//! SECURITY.md says what is so: its tests exist, and its limits are the code's defaults.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use wsredis::config::keys;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_it_names_is_there() {
    let text = read("SECURITY.md");
    let named: HashSet<_> = quoted(&text).filter_map(|name| name.split_once("::")).collect();
    assert!(named.len() > 20, "{named:?}");
    for (file, name) in named {
        let source = read(file);
        let is_there =
            ["fn ", "def "].iter().any(|word| source.contains(&format!("{word}{name}(")));
        assert!(is_there, "{file} has no test {name}");
    }
}

#[test]
fn every_limit_has_the_default_of_the_code() {
    let text = read("SECURITY.md");
    let (_, table) = text.split_once("## Limits").expect("it has a table of limits");
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let cells: Vec<_> = quoted(row).collect();
        let key = keys().iter().find(|key| key.name == cells[0]);
        let key = key.unwrap_or_else(|| panic!("there is no key {}", cells[0]));
        assert_eq!(cells[1], key.default, "{}", key.name);
    }
}
