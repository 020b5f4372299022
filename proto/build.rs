//! Compiles `wire/v1/*.proto` without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=wire");
    let files = ["ids.proto", "link.proto", "operator.proto", "journal.proto"];
    let descriptors = protox::compile(files, ["wire/v1"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
