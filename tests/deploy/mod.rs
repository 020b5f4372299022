//! What `deploy/` gives to people, judged by the tools that people use: images by buildah and hadolint, manifests by kubectl and the
//! published schemas, units by systemd, packages by cargo-deb, dpkg and lintian; the guide and the reference by the program itself.

mod containers;
mod debian;
mod guide;
mod kubernetes;
mod manifests;
mod reference;
mod structs;
mod systemd;
mod tools;

use std::path::Path;

/// What a text gives as a configuration file; `name` is of the file alone.
fn loaded<T>(name: &str, text: &str, load: impl Fn(&Path) -> Result<T, String>) -> T {
    try_loaded(name, text, load).unwrap_or_else(|wrong| panic!("{name}: {wrong}"))
}

fn try_loaded<T>(name: &str, text: &str, load: impl Fn(&Path) -> Result<T, String>) -> Result<T, String> {
    let name = name.replace('/', "-");
    let path = std::env::temp_dir().join(format!("pilot-deploy-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).expect("a file in the temporary folder");
    let config = load(&path);
    std::fs::remove_file(&path).expect("the file goes");
    config
}

fn coordinator_config(path: &Path) -> Result<coordinator::config::Config, String> {
    use coordinator::config::{Config, Overrides};
    Config::load(path, &Overrides::default()).map_err(|error| runtime::supervision::chain(&error))
}

fn agent_config(path: &Path) -> Result<agent::config::Config, String> {
    agent::config::Config::load(path, &[]).map_err(|error| runtime::supervision::chain(&error))
}
