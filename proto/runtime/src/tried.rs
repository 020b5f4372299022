//! Bad input, tried by machine: takes kept good and bad input apart, puts it together wrongly, and hands it to a parser that
//! must answer every time, in time, and without a panic. A plain module for tests that production never calls.
//!
//! A parser's target stands among its own tests and is called `any_bytes_…`; all of them: `cargo nextest run --workspace any_bytes`.
//! Input that once did harm is kept in the crate's folder `seeds/TARGET` and is tried first, for ever. What a parser says is
//! followed too: input that brings out an answer not heard before is kept for the rest of the run and taken apart in its turn.
//!
//! It takes the time of the processor that nobody else wants: other tests run beside it.
//!
//! - `TRIED_SECONDS`: how long each target runs; without it 2 s. `tests/run` gives each a minute.
//! - `TRIED_SEED`: where the numbers begin; without it always the same, so that a run can be had again.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;

/// No input is longer than this.
const BYTES_MAX: usize = 32 * 1024;
/// More inputs with new answers than this are not kept.
const KEPT_MAX: usize = 4096;
/// One input that takes longer is a failure; generous, for machines that are busy.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The priority behind everybody's.
const LAST: i32 = 19;
/// What numbers are replaced by.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "127",
    "255",
    "65536",
    "2147483647",
    "-2147483649",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999999",
    "1e308",
    "-0.0",
];
/// What is put in anywhere.
const WORDS: [&[u8]; 16] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"true",
    b"\0",
    b"\\",
    b"'",
    b"\"",
    b"$1",
    b"\xff\xfe",
    "\u{2028}é😀".as_bytes(),
    b"\r\n",
    b"..",
    b"%s",
    b"-",
];

/// One parser, what it is begun with, and how long it is tried.
pub struct Target {
    name: &'static str,
    folder: PathBuf,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Target {
    /// With the files of `CRATE/seeds/NAME`, where there are any. `manifest` is the crate's `CARGO_MANIFEST_DIR`.
    ///
    /// # Panics
    /// When a kept file cannot be read.
    #[must_use]
    pub fn new(manifest: &str, name: &'static str) -> Target {
        let folder = Path::new(manifest).join("seeds").join(name);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
        files.sort();
        let read = |file: &PathBuf| std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Target { name, folder, seeds: files.iter().map(read).collect(), words: Vec::new() }
    }

    /// One more to begin with.
    #[must_use]
    pub fn seed(mut self, bytes: impl Into<Vec<u8>>) -> Target {
        self.seeds.push(bytes.into());
        self
    }

    /// Words of the parser's language, put in anywhere.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Target {
        self.words.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// Tries the parser. `parse` gives what it said, without what is quoted of the input; it asserts whatever must hold.
    ///
    /// # Panics
    /// With the input, when the parser panics or takes too long. The input is kept in a file that is named.
    pub fn run(self, parse: impl Fn(&[u8]) -> String) {
        // Where it may not, it runs as it did.
        let _as_before = rustix::process::nice(LAST);
        let clock = Clock::system();
        let began = clock.mono();
        let mut random = Random(seed());
        println!("{}: TRIED_SEED={}", self.name, random.0);
        let mut heard = BTreeSet::new();
        let mut pool = self.seeds.clone();
        pool.push(Vec::new());
        let mut attempt = |input: &[u8], n: u64| {
            let at = clock.mono();
            let answer = catch_unwind(AssertUnwindSafe(|| parse(input)));
            let took = clock.mono().since(at);
            match answer {
                Ok(answer) if took < ANSWER_MAX => heard.insert(fingerprint(&answer)),
                Ok(_) => panic!("{}", self.harm(input, &format!("run {n} took {took:?}"))),
                Err(_) => panic!("{}", self.harm(input, &format!("run {n} panicked"))),
            }
        };
        for (n, input) in pool.clone().iter().enumerate() {
            attempt(input, n as u64);
        }
        let mut runs = pool.len() as u64;
        while clock.mono().since(began) < time() {
            let input = self.made(&pool, &mut random);
            runs += 1;
            if attempt(&input, runs) && pool.len() < KEPT_MAX {
                pool.push(input);
            }
        }
        println!("{}: {runs} runs, {} different answers", self.name, heard.len());
    }

    /// Keeps the input that did harm and says where, and what to do with it.
    fn harm(&self, input: &[u8], what: &str) -> String {
        let file = std::env::temp_dir().join(format!("upgrade-pilot-{}-{:016x}", self.name, fingerprint(input)));
        let kept = std::fs::write(&file, input).map_or_else(|error| error.to_string(), |()| file.display().to_string());
        let shown: String = input.escape_ascii().take(2000).map(char::from).collect();
        format!("{}: {what}; kept as {kept}, mend it and add it to {}\n{shown}", self.name, self.folder.display())
    }

    /// One input of the pool, changed in one to four ways.
    fn made(&self, pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let mut bytes = pool[random.below(pool.len())].clone();
        for _ in 0..=random.below(4) {
            self.change(&mut bytes, pool, random);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&self, bytes: &mut Vec<u8>, pool: &[Vec<u8>], random: &mut Random) {
        let at = random.below(bytes.len() + 1);
        match random.below(11) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(random.part(bytes.len()))),
            4 => {
                let again = bytes[random.part(bytes.len())].to_vec();
                insert(bytes, at, &again);
            }
            5 => {
                let other = &pool[random.below(pool.len())];
                insert(bytes, at, &other[random.part(other.len())]);
            }
            6 => {
                let n = random.below(WORDS.len() + self.words.len());
                let word = WORDS.get(n).copied().unwrap_or_else(|| &self.words[n - WORDS.len()]);
                insert(bytes, at, word);
            }
            7 => replace_run(bytes, at, NUMBERS[random.below(NUMBERS.len())].as_bytes(), u8::is_ascii_digit),
            8 => replace_run(bytes, at, WORDS[random.below(WORDS.len())], u8::is_ascii_alphanumeric),
            9 => {
                // Deeply nested, or long.
                let byte = bytes.get(at).copied().unwrap_or(b'[');
                insert(bytes, at, &vec![byte; 1 << random.below(13)]);
            }
            _ => {
                let some: Vec<u8> = (0..=random.below(8)).map(|_| random.below(256) as u8).collect();
                insert(bytes, at, &some);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    drop(bytes.splice(at..at, more.iter().copied()));
}

/// Replaces the first run of such bytes at or behind `at`.
fn replace_run(bytes: &mut Vec<u8>, at: usize, by: &[u8], such: impl Fn(&u8) -> bool) {
    let Some(start) = bytes[at..].iter().position(&such).map(|n| at + n) else { return };
    let end = bytes[start..].iter().position(|byte| !such(byte)).map_or(bytes.len(), |n| start + n);
    drop(bytes.splice(start..end, by.iter().copied()));
}

/// Numbers in an answer are most often a place in the input: the same answer.
fn fingerprint(answer: impl AsRef<[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    answer.as_ref().iter().filter(|byte| !byte.is_ascii_digit()).for_each(|byte| byte.hash(&mut hasher));
    hasher.finish()
}

fn time() -> Duration {
    let given = std::env::var("TRIED_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(2))
}

fn seed() -> u64 {
    std::env::var("TRIED_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed)
}

/// SplitMix64: even enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to one less than `end`; 0 where there is nothing to choose from.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Some part of what has this length, more often a short one.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 { length - start } else { (length - start).min(16) };
        start..start + self.below(longest + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_found_and_kept() {
        let careless = |bytes: &[u8]| match bytes {
            [b'{', .., b'}'] => String::from_utf8(bytes.to_vec()).map_or("no text".into(), |text| {
                let n: u64 = text[1..text.len() - 1].parse().unwrap_or_default();
                // A sum that somebody forgot to check.
                assert!(n.checked_mul(3).is_some(), "too large");
                "a number".into()
            }),
            _ => "no braces".into(),
        };
        let target = || Target::new(env!("CARGO_MANIFEST_DIR"), "nothing").seed(*b"{12}");
        let said = catch_unwind(|| target().run(careless)).expect_err("it was not found");
        let said = said.downcast_ref::<String>().expect("a text");
        let file = said.split("kept as ").nth(1).and_then(|rest| rest.split(',').next()).expect("a file");
        let kept = std::fs::read(file).expect("what was kept");
        std::fs::remove_file(file).expect("it can go");
        assert!(catch_unwind(|| careless(&kept)).is_err(), "{said}");
    }
}
