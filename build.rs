//! Linker settings of the shared library (its soname, and that it can not be unloaded), and the
//! build id.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The ABI's number. `include/wsredis.h` carries it as `WSREDIS_ABI_VERSION`; a test compares the
/// two.
const ABI: u32 = 0;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libwsredis.so.{ABI}");
    // The loops are threads with thread-local destructors: unmapping their code would end the host.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");

    // At an upgrade two builds of one version are told apart by what they were built from.
    let id = build_id().expect("the sources can be read");
    println!("cargo::rustc-env=WSREDIS_BUILD={id:016x}");
}

/// A hash of the sources and of what chooses the dependencies: the same wherever and whenever they
/// are built with the same compiler.
fn build_id() -> io::Result<u64> {
    let mut files = vec![PathBuf::from("Cargo.toml"), PathBuf::from("Cargo.lock")];
    for root in ["Cargo.toml", "Cargo.lock", "src"] {
        println!("cargo::rerun-if-changed={root}");
    }
    collect(Path::new("src"), &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        (file.as_os_str(), fs::read(&file)?).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Adds the `.rs` files in and below `folder`; a build script runs in the folder of Cargo.toml.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
