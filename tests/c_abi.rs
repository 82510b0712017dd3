//! The C ABI from its other side: C programs that call every function, with gcc's sanitizers and under valgrind.

#[path = "c/build.rs"]
mod build;

use std::process::Command;

use build::{Link, SANITIZED, compile, has, text_of};

#[test]
fn wrong_arguments_are_a_status_and_never_undefined() {
    if !has("gcc") {
        return;
    }
    let program = compile("tests/c/arguments.c", "arguments-sanitized", Link::Shared, &SANITIZED);
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}

#[test]
fn wrong_arguments_touch_no_memory_that_is_not_theirs() {
    if !has("gcc") || !has("valgrind") {
        return;
    }
    for (link, name) in [(Link::Shared, "arguments-shared"), (Link::Static, "arguments-static")] {
        let program = compile("tests/c/arguments.c", name, link, &["-O1"]);
        let valgrind = [
            "--error-exitcode=9",
            "--quiet",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
        ];
        let output = Command::new("valgrind").args(valgrind).arg(program).output().unwrap();
        assert!(output.status.success(), "{}", text_of(&output));
    }
}
