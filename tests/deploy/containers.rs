//! The images: linted by hadolint, their last stages built by buildah of this build's binaries over a small Debian, and run as they say:
//! as their user, on a root that is read-only, with their health check. The stage that compiles is not run: its base cannot be fetched
//! here; what it copies, and that the workspace is whole in it, is looked at.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::install;
use serde_json::Value;

use super::tools::{Place, Said, binary, debian, ran, run, wheel};
use crate::invariants::source::{files, root, text};

const FILE: &str = "deploy/containers/Containerfile";

#[test]
fn the_container_file_is_clean_and_compiles_with_the_pinned_toolchain_and_the_locked_crates() {
    run(Command::new(wheel("hadolint")).arg("--failure-threshold=info").arg(root().join(FILE)));
    let (file, toolchain) = (text(FILE), text("rust-toolchain.toml"));
    let channel =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).expect("a channel").trim_matches('"');
    assert!(file.contains(&format!("rust:{channel}-slim-bookworm")), "the image is not of {channel}");
    assert!(file.contains("cargo build --release --locked --workspace --bins"));
}

/// buildah with a store of its own, which needs no overlay and leaves nothing.
struct Buildah {
    program: PathBuf,
    store: PathBuf,
}

impl Buildah {
    fn at(folder: &Path) -> Buildah {
        Buildah { program: debian("buildah", &["buildah", "crun"]), store: folder.join("store") }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.store.join("root")).arg("--runroot").arg(self.store.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments)).trim().to_owned()
    }
}

/// The root of a small Debian: glibc, certificates, no package manager; in place of the base that cannot be fetched here.
fn small_debian() -> PathBuf {
    let folder = install::cache_dir().join("small-debian");
    fs::create_dir_all(&folder).expect("the cache folder");
    let lock = fs::File::create(folder.join("lock")).expect("the lock's file");
    lock.lock().expect("the lock");
    let (done, draft) = (folder.join("bookworm.tar"), folder.join("draft.tar"));
    if !done.exists() {
        eprintln!("making {} with mmdebstrap", done.display());
        let _not_there = fs::remove_file(&draft);
        run(Command::new(debian("mmdebstrap", &["mmdebstrap"]))
            .args(["--quiet", "--variant=extract", "--include=base-files,libc6,libgcc-s1,ca-certificates"])
            // No package's script has run: what ca-certificates' own would do.
            .arg("--extract-hook=mkdir -p \"$1/etc/ssl/certs\"; cat \"$1\"/usr/share/ca-certificates/mozilla/*.crt > \"$1/etc/ssl/certs/ca-certificates.crt\"")
            .arg("bookworm")
            .arg(&draft));
        fs::rename(&draft, &done).expect("the root is whole");
    }
    done
}

/// What the stage that compiles would leave.
fn compiled(place: &Path) -> PathBuf {
    let out = place.join("compiled/out");
    fs::create_dir_all(out.join("state")).expect("a folder");
    for name in ["pilot", "pilot-agent"] {
        fs::copy(binary(name), out.join(name)).expect("a program");
    }
    place.join("compiled")
}

#[test]
fn images_are_built_hold_nothing_else_and_run_as_nobody_on_a_root_that_is_read_only() {
    let place = Place::new("containers");
    let buildah = Buildah::at(place.path());
    let base = buildah.run(&["from", "scratch"]);
    buildah.run(&["add", "--quiet", &base, &small_debian().display().to_string(), "/"]);
    buildah.run(&["commit", "--quiet", &base, "localhost/base"]);
    let context = format!("build={}", compiled(place.path()).display());
    let file = root().join(FILE);
    for target in ["pilot", "pilot-agent"] {
        let mut build = buildah.command();
        build.args(["bud", "--isolation", "chroot", "--format", "docker", "--build-arg", "BASE=localhost/base"]);
        build.args(["--build-context", &context, "--target", target, "--tag", &format!("localhost/{target}")]);
        run(build.arg("--file").arg(&file).arg(root()));
        let image: Value =
            serde_json::from_str(&buildah.run(&["inspect", "--type", "image", &format!("localhost/{target}")]))
                .expect("JSON");
        let config = &image["Docker"]["config"];
        assert_eq!(config["User"], "65532:65532");
        assert_eq!(config["Entrypoint"][0], format!("/usr/bin/{target}"));
        let check = config["Healthcheck"]["Test"].as_array().expect("a health check");
        assert!(check.iter().any(|word| word == "--probe"), "{check:?}");
        assert_eq!(config["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");
        let container = buildah.run(&["from", &format!("localhost/{target}")]);
        let inside = PathBuf::from(buildah.run(&["mount", &container]));
        let ours = binary(target).metadata().expect("the program").len();
        let small = fs::metadata(small_debian()).expect("the base").len();
        assert!(folder_bytes(&inside) < small + ours + (1 << 20), "more is in it than base and program");
        if target == "pilot" {
            runs(&inside, config, place.path());
        }
    }
    let seen = buildah.run(&["containers", "--quiet"]);
    for container in seen.lines() {
        buildah.run(&["umount", container]);
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let said = run(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1"]).arg(folder));
    said.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("a size")
}

/// The coordinator's image, with the command and the health check that stand in it: what a container engine does, by hand. Mounts are
/// in a name space that ends with the process.
fn runs(inside: &Path, config: &Value, place: &Path) {
    let own = place.join("etc");
    fs::create_dir_all(&own).expect("a folder");
    let toml = "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\naddress_file = '/var/lib/upgrade-pilot/addresses'\n\
                region = 'us-east-1'\n[store]\nkind = 'sqlite'\npath = '/var/lib/upgrade-pilot/pilot.sqlite'\n\
                [insecure]\nloopback_without_tls = true\n";
    fs::write(own.join("pilot.toml"), toml).expect("a configuration");
    let words = |value: &Value, from: usize| -> Vec<String> {
        value.as_array().into_iter().flatten().skip(from).filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let command = [words(&config["Entrypoint"], 0), words(&config["Cmd"], 0)].concat().join(" ");
    let check = words(&config["Healthcheck"]["Test"], 1).join(" ");
    fs::create_dir_all(inside.join("etc/upgrade-pilot")).expect("a place for the configuration");
    let script = format!(
        "set -e\nroot={root}\nmount --bind $root $root\nmount --bind {own} $root/etc/upgrade-pilot\n\
         mount -t tmpfs -o uid=65532,gid=65532,mode=0700 state $root/var/lib/upgrade-pilot\nmount -t proc proc $root/proc\n\
         mount -o remount,ro,bind $root\n\
         as_it=\"env -i HOME=/ PATH=/usr/sbin:/usr/bin chroot --userspec=65532:65532 $root\"\n\
         if touch $root/usr/written 2> /dev/null; then echo writable; exit 1; fi\n\
         $as_it {command} & pid=$!\n\
         trap 'kill $pid 2> /dev/null' EXIT\n\
         for attempt in $(seq 600); do $as_it {check} > /dev/null 2>&1 && break; kill -0 $pid; sleep 0.1; done\n\
         $as_it {check}\nkill $pid\nwait $pid\ntrap - EXIT\necho ended\n",
        root = inside.display(),
        own = own.display(),
    );
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-c", &script]).stderr(Stdio::piped());
    let Said { good, out, err, .. } = ran(&mut shell);
    assert!(good && out.contains("ready") && out.ends_with("ended\n"), "{out}\n{err}");
}

/// What `COPY . .` gives the stage that compiles: every manifest and source of the workspace, and what is compiled in.
#[test]
fn the_context_of_a_build_has_the_whole_workspace_and_nothing_that_is_not_needed() {
    let place = Place::new("context");
    let buildah = Buildah::at(place.path());
    let file = place.path().join("Containerfile");
    fs::write(&file, "FROM scratch\nCOPY . /source\n").expect("a container file");
    let mut build = buildah.command();
    build.args(["bud", "--isolation", "chroot", "--quiet", "--tag", "localhost/context", "--ignorefile"]);
    run(build.arg(root().join(".dockerignore")).arg("--file").arg(&file).arg(root()));
    let container = buildah.run(&["from", "localhost/context"]);
    let source = PathBuf::from(buildah.run(&["mount", &container])).join("source");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--offline", "--locked", "--no-deps", "--format-version", "1", "--manifest-path"]);
    run(cargo.arg(source.join("Cargo.toml")));
    let compiled_in =
        |path: &&String| path.ends_with(".rs") || path.ends_with(".proto") || path.starts_with("deploy/runbook/");
    let needed: BTreeSet<String> = files().iter().filter(compiled_in).cloned().collect();
    let missing: Vec<&String> = needed.iter().filter(|path| !source.join(path).is_file()).collect();
    assert!(missing.is_empty() && needed.len() > 300, "missing: {missing:?}");
    for kept_out in [".git", "README.md", "deploy/kubernetes", "target"] {
        assert!(!source.join(kept_out).exists(), "{kept_out} is in the context");
    }
    buildah.run(&["umount", &container]);
}
