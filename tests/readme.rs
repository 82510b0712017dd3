//! The README's reference of configuration keys is the code's table.

use std::fs;

use wsredis::config::{keys, markdown};

const BEGIN: &str = "<!-- config keys -->\n";
const END: &str = "<!-- /config keys -->";

#[test]
fn the_reference_of_keys_is_the_table_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(path).expect("README.md can be read");
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has the beginning comment");
    let (block, after) = rest.split_once(END).expect("README.md has the end comment");
    if block == markdown() {
        return;
    }
    if std::env::var_os("WSREDIS_UPDATE").is_some_and(|value| value == "1") {
        let updated = format!("{before}{BEGIN}{}{END}{after}", markdown());
        fs::write(path, updated).expect("README.md can be written");
        return;
    }
    panic!(
        "README.md differs from the table of keys in src/config/table.rs; \
         WSREDIS_UPDATE=1 cargo test --test readme writes it"
    );
}

#[test]
fn each_key_has_a_row_with_its_default_and_its_help() {
    let table = markdown();
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(rows.len(), keys().len());
    for (row, key) in rows.iter().zip(keys()) {
        assert!(row.starts_with(&format!("| `{}` | ", key.name)), "{row}");
        assert!(row.contains(key.default) && row.contains(key.range) && row.contains(key.help));
        // A bar in a text would begin another column.
        assert_eq!(row.matches('|').count(), 5, "{row}");
        assert!(key.help.ends_with('.') && key.help.len() < 120, "{}", key.help);
    }
}
