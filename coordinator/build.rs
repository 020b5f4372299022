//! Compiles the runbook pages in, for `pilot explain`: one entry a file `deploy/runbook/PU*.md`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runbook = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../deploy/runbook");
    println!("cargo::rerun-if-changed={}", runbook.display());
    let mut files = Vec::new();
    if runbook.is_dir() {
        for entry in fs::read_dir(&runbook)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let mut code = String::from("/// Code and page, in order.\nconst PAGES: &[(&str, &str)] = &[\n");
    for file in files {
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("PU") && file.extension().is_some_and(|extension| extension == "md") {
            writeln!(code, "    ({name:?}, include_str!({:?})),", file.canonicalize()?)?;
        }
    }
    code.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("runbook.rs"), code)?;
    Ok(())
}
