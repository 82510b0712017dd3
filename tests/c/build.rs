//! Compiles C against this library: shared by the tests that run C programs. They use the library
//! that cargo has built for the very same test run, as `.so` or as `.a`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, io, process};

/// What every C file here must pass.
pub const STRICT: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Memory faults and undefined behaviour end the program with a report.
#[allow(dead_code, reason = "not every test that includes this file uses it")]
pub const SANITIZED: [&str; 3] =
    ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Is there such a tool? If not, the test is left out loudly, or fails where all must run.
#[allow(dead_code, reason = "not every test asks")]
pub fn has(tool: &str) -> bool {
    if Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success()) {
        return true;
    }
    let required = env::var_os("WSREDIS_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{tool} is missing and WSREDIS_REQUIRE_ALL=1: tests/setup.sh installs it");
    eprintln!("SKIPPED: {tool} is missing; tests/setup.sh installs it");
    false
}

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn built() -> PathBuf {
    // Tests lie where cargo puts the library they were built with.
    env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// A folder that has the shared library under the names the linker and the loader look for.
pub fn library_folder() -> PathBuf {
    let profile = built().parent().unwrap().file_name().unwrap().to_owned();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(profile);
    fs::create_dir_all(&folder).unwrap();
    let soname = format!("libwsredis.so.{}", wsredis::ffi::WSREDIS_ABI_VERSION);
    for name in ["libwsredis.so", &soname] {
        let library = built().join("libwsredis.so");
        assert!(library.exists(), "{} was not built", library.display());
        match std::os::unix::fs::symlink(&library, folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.unwrap(),
        }
    }
    folder
}

/// What the program links.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every test that includes this file uses both")]
pub enum Link {
    /// `libwsredis.so`
    Shared,
    /// `libwsredis.a`
    Static,
}

/// Compiles `source`, a path in the project, to a program of that name.
pub fn compile(source: &str, name: &str, link: Link, flags: &[&str]) -> PathBuf {
    let folder = library_folder();
    let program = folder.join(name);
    // Renamed into place: the tests of another run may be running the one that is there.
    let fresh = folder.join(format!("{name}.{}", process::id()));
    let mut gcc = Command::new("gcc");
    gcc.args(STRICT).args(flags).args(["-g", "-pthread", "-I"]).arg(root().join("include"));
    gcc.arg(root().join(source)).arg("-o").arg(&fresh);
    match link {
        Link::Shared => {
            gcc.arg("-L").arg(&folder).arg("-lwsredis").arg("-ldl");
            gcc.arg(format!("-Wl,-rpath,{}", folder.display()));
        }
        Link::Static => {
            gcc.arg(built().join("libwsredis.a")).args(["-lm", "-ldl"]);
        }
    }
    let output = gcc.output().unwrap();
    assert!(output.status.success(), "{source}: {}", text_of(&output));
    fs::rename(&fresh, &program).unwrap();
    program
}

/// What a program wrote.
pub fn text_of(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}{err}", output.status)
}
