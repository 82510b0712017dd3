//! Linker settings of the shared library: its soname, and that it can not be unloaded.

/// The ABI's number. `include/wsredis.h` carries it as `WSREDIS_ABI_VERSION`; a test compares the
/// two.
const ABI: u32 = 0;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libwsredis.so.{ABI}");
    // The loops are threads with thread-local destructors: unmapping their code would end the host.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
