//! `pilot explain`: the runbook pages, compiled in.

use clap::Args;

use super::{Exit, Fault, print};

include!(concat!(env!("OUT_DIR"), "/runbook.rs"));

const EXAMPLES: &str = "\
Examples:
  pilot explain
  pilot explain PU0001";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// A code, as PU0001; without it, all of them with their titles
    code: Option<String>,
}

impl Explain {
    pub(super) fn run(self) -> Result<Exit, Fault> {
        let Some(code) = self.code else {
            let titles = PAGES.iter().filter_map(|(_, page)| page.lines().next()?.strip_prefix("# "));
            print(&titles.collect::<Vec<_>>().join("\n"));
            return Ok(Exit::Done);
        };
        match page(&code.to_ascii_uppercase()) {
            Some(page) => {
                print(page);
                Ok(Exit::Done)
            }
            None => Err(Fault::refused(format!("there is no code {code}; `pilot explain` lists all that there are"))),
        }
    }
}

/// The page of a code.
pub fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, page)| *page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_says_what_to_do() {
        let all = crate::codes::ALL.iter().chain(crate::steps::codes::ALL).chain(engine::failure::codes::ALL);
        let missing: Vec<&str> = all.map(|code| code.as_str()).filter(|code| page(code).is_none()).collect();
        assert!(missing.is_empty(), "codes without a page in deploy/runbook: {missing:?}");
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}: ")), "{code} does not begin with its title");
            for part in ["## What it means", "## What the program did", "## What to do"] {
                assert!(page.contains(part), "{code} has no part {part:?}");
            }
        }
    }

    #[test]
    fn no_code_is_used_twice() {
        let all = crate::codes::ALL.iter().chain(crate::steps::codes::ALL).chain(engine::failure::codes::ALL);
        let mut seen = std::collections::BTreeSet::new();
        let twice: Vec<&str> = all.map(|code| code.as_str()).filter(|code| !seen.insert(*code)).collect();
        assert!(twice.is_empty(), "used twice: {twice:?}");
    }
}
