//! `include/wsredis.h` is what `src/ffi` says, compiles as C99 and as C++11, and agrees with
//! Cargo.toml and build.rs. `make header` writes it anew.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The header that `src/ffi` makes.
fn generated() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    config.after_includes =
        config.after_includes.map(|text| text.replace("@VERSION@", env!("CARGO_PKG_VERSION")));
    let builder = cbindgen::Builder::new().with_config(config);
    let mut header = Vec::new();
    // A source file and the modules it names, and no crate: cargo need not be asked for anything.
    builder.with_src(root().join("src/ffi/mod.rs")).generate().unwrap().write(&mut header);
    in_one_line(&String::from_utf8(header).unwrap())
        // What Rust calls safety is, for a caller in C, what the function requires of him.
        .replace(" * # Safety\n * ", " * *Requires:* ")
        // By rule and not by an attribute at each function, which one of them would lack.
        .replace("\nwsredis_status wsredis_", "\nWSREDIS_MUST_USE\nwsredis_status wsredis_")
}

/// Puts comments that have one line of text into one line.
fn in_one_line(header: &str) -> String {
    let lines: Vec<&str> = header.lines().collect();
    let mut out = String::with_capacity(header.len());
    let mut at = 0;
    while at < lines.len() {
        match lines[at..] {
            [begin, text, end, ..] if begin.trim() == "/**" && end.trim() == "*/" => {
                out.push_str(begin);
                out.push_str(text.trim_start().trim_start_matches('*'));
                out.push_str(" */");
                at += 3;
            }
            _ => {
                out.push_str(lines[at]);
                at += 1;
            }
        }
        out.push('\n');
    }
    out
}

/// The value of the constant or macro that `before` introduces.
fn value_after<'a>(text: &'a str, before: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?}"));
    rest.split([';', '\n']).next().unwrap().trim()
}

#[test]
fn the_header_is_what_the_source_says() {
    let path = root().join("include/wsredis.h");
    let header = generated();
    if env::var_os("WSREDIS_UPDATE").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &header).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if let Some(at) = header.lines().zip(kept.lines()).position(|(new, old)| new != old) {
        let (new, old) = (header.lines().nth(at).unwrap(), kept.lines().nth(at).unwrap());
        panic!("include/wsredis.h:{}: is {old:?}, should be {new:?}: make header", at + 1);
    }
    assert!(kept == header, "include/wsredis.h is too short or too long: make header");
}

#[test]
fn the_versions_agree() {
    let header = read("include/wsredis.h");
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(value_after(&header, "#define WSREDIS_VERSION "), version);
    let soname = value_after(&read("build.rs"), "const ABI: u32 = ").to_owned();
    assert_eq!(value_after(&header, "#define WSREDIS_ABI_VERSION "), soname);
}

/// What a compiler says of a program that includes the header, with all warnings on.
fn warnings(compiler: &str, standard: &str, program: &str) -> String {
    let name = standard.trim_start_matches("-std=").replace('+', "x");
    let extension = if compiler == "g++" { "cpp" } else { "c" };
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{extension}"));
    fs::write(&source, program).unwrap();
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-c", "-o"])
        .arg(source.with_extension("o"))
        .arg("-I")
        .arg(root().join("include"))
        .arg(&source)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Twice, for its include guard.
const PROGRAM: &str = "#include <wsredis.h>
#include <wsredis.h>
int main(void) {
    wsredis_config *config;
    if (wsredis_config_new(&config) != WSREDIS_STATUS_OK)
        return 1;
    wsredis_config_free(config);
    return 0;
}
";

#[test]
fn the_header_is_c99_and_cplusplus_11() {
    assert_eq!(warnings("gcc", "-std=c99", PROGRAM), "");
    assert_eq!(warnings("g++", "-std=c++11", PROGRAM), "");
}

#[test]
fn the_c_of_the_readme_compiles() {
    let readme = read("README.md");
    let (_, code) = readme.split_once("```c\n").unwrap();
    assert_eq!(warnings("gcc", "-std=gnu11", code.split_once("```").unwrap().0), "");
}

#[test]
fn a_status_that_nobody_looks_at_is_a_warning() {
    let careless = PROGRAM.replace("return 1;", "wsredis_config_check(config, 1);");
    let warnings = warnings("gcc", "-std=c11", &careless);
    assert!(warnings.contains("-Wunused-result"), "{warnings}");
}
