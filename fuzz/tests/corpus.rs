//! Every file of the corpus keeps its target's promise; no libFuzzer is needed for it.

use std::fs;
use std::path::Path;

use wsredis_fuzz::TARGETS;

#[test]
fn each_input_of_the_corpus_is_judged_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, check) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(root.join(name)).expect("each target has a corpus") {
            let path = entry.expect("a readable folder").path();
            let input = fs::read(&path).expect("a readable file");
            // A panic names the file.
            if std::panic::catch_unwind(|| check(&input)).is_err() {
                panic!("a finding: {}", path.display());
            }
            count += 1;
        }
        assert!(count >= 10, "{name} has only {count} inputs");
    }
}

#[test]
fn no_folder_of_the_corpus_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(root).expect("a readable folder") {
        let name = entry.expect("a readable folder").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?} is no target");
    }
}
