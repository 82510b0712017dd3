//! What the shared library shows to the world: the functions of `include/wsredis.h` and nothing
//! else, under its soname, needing only what every Linux system with a C library has.
//!
//! It looks at the library that cargo built together with this test, which is never a stale one,
//! and at the one that `WSREDIS_LIBRARY` names (`make test` names the released one).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn libraries() -> Vec<PathBuf> {
    // The tests of a profile lie in `deps` beside the libraries that they were linked with.
    let own = env::current_exe().unwrap().with_file_name("libwsredis.so");
    assert!(own.exists(), "{} is missing: is `cdylib` still in Cargo.toml?", own.display());
    let named = env::var_os("WSREDIS_LIBRARY").map(PathBuf::from);
    named.into_iter().chain([own]).collect()
}

fn output(program: &str, arguments: &[&str], library: &PathBuf) -> String {
    let output = Command::new(program)
        .args(arguments)
        .arg(library)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {errors}", library.display());
    String::from_utf8(output.stdout).unwrap()
}

/// The names that stand before a `(` in the header, outside of its comments.
fn declared() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/include/wsredis.h");
    let header = fs::read_to_string(path).unwrap();
    let mut code = String::new();
    for (at, part) in header.split("/*").enumerate() {
        code += if at == 0 { part } else { part.split_once("*/").unwrap().1 };
    }
    let name = |before: &str| {
        let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')? + 1;
        before[start..].starts_with("wsredis_").then(|| before[start..].to_owned())
    };
    code.match_indices('(').filter_map(|(at, _)| name(&code[..at])).collect()
}

/// The values of one kind of entry in the dynamic section: `(NEEDED) Shared library: [libc.so.6]`.
fn dynamic(library: &PathBuf, kind: &str) -> BTreeSet<String> {
    let kind = format!("({kind})");
    output("readelf", &["-dW"], library)
        .lines()
        .filter(|line| line.contains(&kind))
        .map(|line| line.rsplit_once('[').unwrap().1.trim_end_matches(']').to_owned())
        .collect()
}

#[test]
fn the_library_exports_the_functions_of_the_header_and_nothing_else() {
    let declared = declared();
    assert!(declared.contains("wsredis_engine_adopt"), "{declared:?}");
    for library in libraries() {
        let symbols = output("nm", &["-D", "--defined-only"], &library);
        let exported: BTreeSet<String> =
            symbols.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
        assert_eq!(exported, declared, "{}", library.display());
    }
}

#[test]
fn the_library_has_its_soname_and_needs_only_the_c_library() {
    let abi = wsredis::ffi::WSREDIS_ABI_VERSION;
    for library in libraries() {
        assert_eq!(dynamic(&library, "SONAME"), [format!("libwsredis.so.{abi}")].into());
        for needed in dynamic(&library, "NEEDED") {
            let known = ["libc.so.", "libgcc_s.so.", "libm.so.", "ld-linux"];
            assert!(known.iter().any(|name| needed.starts_with(name)), "it needs {needed}");
        }
    }
}

#[test]
fn the_library_can_not_be_unloaded_under_its_threads() {
    for library in libraries() {
        assert!(output("readelf", &["-dW"], &library).contains("NODELETE"));
    }
}
