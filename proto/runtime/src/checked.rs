//! What a check of a configuration found: what a process would do with it, and what is wrong. Files are read; nothing is opened
//! for writing and nobody is asked.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use crate::clock::Clock;
use crate::supervision::chain;
use crate::tls::Credentials;

/// One sentence a line, and what is wrong, by key.
#[derive(Debug, Default)]
pub struct Checked {
    pub told: Vec<String>,
    pub wrong: Vec<String>,
}

impl Checked {
    /// Something that would be done.
    pub fn say(&mut self, sentence: impl Into<String>) {
        self.told.push(sentence.into());
    }

    /// Something that cannot be used.
    pub fn fault(&mut self, key: &str, what: impl Display) {
        self.wrong.push(format!("{key}: {what}"));
    }

    /// The certificates of `folder` fit together and are good now.
    pub fn certificates(&mut self, folder: &Path, crl_file: Option<&Path>, clock: &Clock) {
        match Credentials::open_with(folder, crl_file, clock.clone()) {
            Err(error) => self.fault("tls", chain(&error)),
            Ok(own) if own.not_after() <= clock.now() => {
                self.fault("tls.folder", format!("the certificate has expired, at {}", own.not_after()));
            }
            Ok(own) => self.say(format!(
                "connections are TLS 1.3 with the certificate of {}, good until {}",
                folder.display(),
                own.not_after()
            )),
        }
    }

    /// A file that is named is there, and not empty.
    pub fn readable(&mut self, key: &str, file: Option<&Path>) {
        match file.map(|file| (file, fs::read(file))) {
            Some((file, Err(error))) => self.fault(key, format!("{}: {error}", file.display())),
            Some((file, Ok(bytes))) if bytes.is_empty() => self.fault(key, format!("{} is empty", file.display())),
            _ => {}
        }
    }

    /// The program of a command is there. It is not run.
    pub fn program(&mut self, key: &str, command: &[String]) {
        let Some(program) = command.first() else { return };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = match program.contains('/') {
            true => Path::new(program).is_file(),
            false => std::env::split_paths(&path).any(|folder| folder.join(program).is_file()),
        };
        if !found {
            self.fault(key, format!("there is no program {program}"));
        }
    }

    /// All of it for people, what is wrong last.
    pub fn text(&self) -> String {
        let told = self.told.iter().map(|line| format!("{line}\n"));
        let wrong = self.wrong.iter().map(|line| format!("wrong: {line}\n"));
        told.chain(wrong).collect()
    }
}
