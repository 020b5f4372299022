//! Compiles `wire/v1/*.proto` without a `protoc` on the machine, and lists what is in them for the test that holds it.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=wire");
    let files = ["ids.proto", "link.proto", "operator.proto", "journal.proto"];
    let descriptors = protox::compile(files, ["wire/v1"])?;
    let mut fields = Vec::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            for field in &message.field {
                let (kind, many) = (format!("{:?}{}", field.r#type(), field.type_name()), field.label());
                fields.push(format!("{}.{} = {} {many:?} {kind}", message.name(), field.name(), field.number()));
            }
        }
        for service in &file.service {
            for method in &service.method {
                let (asked, answered) = (method.input_type(), method.output_type());
                fields.push(format!("{}/{} {asked} {answered}", service.name(), method.name()));
            }
        }
    }
    fields.sort();
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("v1.fields"), fields.join("\n") + "\n")?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
