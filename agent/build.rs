//! Functions that come out the same are kept once: an agent lives beside applications, and its code is most of its memory.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // By rust-lld, which Rust links with there; other linkers may not know it.
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if (target("ARCH"), target("OS"), target("ENV")) == ("x86_64".into(), "linux".into(), "gnu".into()) {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
