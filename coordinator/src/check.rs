//! `pilot serve --check`: whether a configuration can be used and what a coordinator would do with it. Files are read; nothing is
//! opened for writing, nobody is asked and nothing is listened on.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use runtime::checked::Checked;
use runtime::clock::Clock;
use runtime::tls::trusting_as_the_system;

use crate::config::{Config, Oidc, StorePlace};

/// Checks what stands behind a configuration that was read.
pub fn check(config: &Config, clock: &Clock) -> Checked {
    let mut checked = Checked::default();
    checked.say(format!(
        "agents and operators are served at {}, page and metrics at {}",
        config.listen, config.admin_listen
    ));
    match &config.tls {
        Some(tls) => checked.certificates(&tls.folder, tls.crl_file.as_deref(), clock),
        None => checked.say("connections are plain, on this machine only: whoever can dial may do everything"),
    }
    match &config.oidc {
        Some(oidc) => tokens(&mut checked, oidc),
        None => checked.say("operators show certificates"),
    }
    store(&mut checked, &config.store);
    if let Err(error) = trusting_as_the_system() {
        checked.fault("the system", format!("{error}, and AWS is reached over TLS; install ca-certificates"));
    }
    checked.say(format!(
        "clusters of {} are upgraded, with the credentials that the AWS SDK finds by itself (not asked for here)",
        config.region
    ));
    checked
}

/// Where `--probe` asks: the configured address, or the bound one where the system chose the port.
///
/// # Errors
/// Why it is not known.
pub fn admin_address(config: &Config) -> Result<SocketAddr, String> {
    if config.admin_listen.port() != 0 {
        return Ok(config.admin_listen);
    }
    let Some(path) = &config.address_file else {
        return Err("the system chooses the port of admin_listen, and no address_file tells it".to_owned());
    };
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let address = found["admin"].as_str().and_then(|address| address.parse().ok());
    address.ok_or_else(|| format!("{} has no address", path.display()))
}

fn tokens(checked: &mut Checked, oidc: &Oidc) {
    checked.say(format!("operators show certificates, or tokens of {} for {}", oidc.issuer, oidc.audience));
    let keys = oidc.jwks.as_deref().filter(|place| !place.starts_with("https://"));
    checked.readable("oidc.jwks", keys.map(Path::new));
    checked.readable("oidc.ca_file", oidc.ca_file.as_deref());
}

fn store(checked: &mut Checked, place: &StorePlace) {
    match place {
        StorePlace::Sqlite { path } => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return checked.fault("store.path", format!("{} is no folder; make it", folder.display()));
            }
            let there = if path.exists() { "goes on" } else { "is made" };
            checked.say(format!("the store {} {there}; it is of this coordinator alone", path.display()));
        }
        StorePlace::Postgres(place) => {
            checked.say(format!(
                "the store is database {} at {}:{}, as {}; it may be shared (not dialled here)",
                place.database, place.host, place.port, place.user
            ));
            checked.readable("store.password_file", place.password_file.as_deref());
            checked.readable("store.tls_ca_file", place.tls_ca_file.as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn checked(name: &str, text: &str) -> Checked {
        let path = std::env::temp_dir().join(format!("pilot-check-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        let config = Config::load(&path, &Overrides::default()).unwrap();
        fs::remove_file(&path).unwrap();
        check(&config, &Clock::system())
    }

    #[test]
    fn what_would_be_done_is_said_and_what_is_missing_is_named_by_key() {
        let plain = "region = 'us-east-1'\n[store]\nkind = 'sqlite'\npath = '/tmp/pilot.sqlite'\n\
                     [insecure]\nloopback_without_tls = true\n";
        let good = checked("good", plain);
        assert!(good.wrong.is_empty(), "{:?}", good.wrong);
        assert!(good.told.iter().any(|line| line.contains("127.0.0.1:7400")), "{:?}", good.told);
        let missing = "region = 'us-east-1'\n[store]\nkind = 'postgres'\nhost = 'store.example'\ndatabase = 'p'\n\
                       user = 'p'\npassword_file = '/nowhere/password'\n[tls]\nfolder = '/nowhere/tls'\n\
                       [oidc]\nissuer = 'https://id.example'\naudience = 'pilot'\njwks = '/nowhere/keys'\n";
        let wrong = checked("missing", missing).wrong.join("\n");
        for key in ["tls: /nowhere/tls/", "store.password_file: /nowhere/password", "oidc.jwks: /nowhere/keys"] {
            assert!(wrong.contains(key), "{key} is not in {wrong}");
        }
        let nowhere = checked("nowhere", &plain.replace("/tmp/", "/nowhere/"));
        assert!(nowhere.wrong[0].starts_with("store.path: /nowhere"), "{:?}", nowhere.wrong);
    }
}
