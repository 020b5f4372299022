//! The `pilot` command: one file a verb. A verb parses, makes one call to the coordinator, renders. No logic.
//!
//! Data to stdout, the rest to stderr. Exit codes: 0 done, 1 failed (and unwound), 2 refused, 3 stopped for a person,
//! 64 bad usage, 130 detached by Ctrl-C.

mod abort;
mod agents;
mod approve;
pub(crate) mod client;
mod enrol;
pub(crate) mod explain;
mod follow;
mod history;
mod hooks;
mod pace;
mod pages;
pub(crate) mod paint;
mod pause;
mod postpone;
mod preflight;
mod render;
mod report;
mod resume;
mod serve;
mod spec;
mod status;
mod tune;
mod upgrade;
mod watch;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

pub use explain::page;

/// Upgrades Amazon Aurora PostgreSQL clusters to a new major version with near-zero downtime.
#[derive(Debug, Parser)]
#[command(name = "pilot", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Colour: where there is a terminal and NO_COLOR is not set, always, or never
    #[arg(long, global = true, value_enum, default_value_t = paint::When::Auto, value_name = "WHEN")]
    color: paint::When,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed and unwound, 2 refused (nothing was touched), 3 stopped for a person,
64 bad usage, 130 detached by Ctrl-C (the upgrade goes on).

`pilot VERB --help` shows examples. A code such as PU0601 is explained by `pilot explain PU0601`.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the coordinator: gRPC for agents and operators, the web page, metrics
    Serve(serve::Serve),
    /// Looks at every precondition of an upgrade and changes nothing; exit 2 if something blocks
    Preflight(preflight::Preflight),
    /// Upgrades a cluster: shows the plan, starts, follows. Ctrl-C detaches, the upgrade goes on
    Upgrade(upgrade::Upgrade),
    /// Shows one upgrade, or all of them
    Status(status::Status),
    /// Follows an upgrade until it ends
    Watch(watch::Watch),
    /// Shows every fact of an upgrade
    History(history::History),
    /// Writes the report of an upgrade, for a change record: one HTML file, Markdown, JSON, or Terraform's follow-up
    Report(report::Report),
    /// Approves what an upgrade asks for
    Approve(approve::Approve),
    /// Pauses an upgrade at its next look; waiting harms nothing
    Pause(pause::Pause),
    /// Ends a pause, or tries again what stopped for a person
    Resume(resume::Resume),
    /// Holds an upgrade before its switchover until a time, or until told; everything before goes on
    Postpone(postpone::Postpone),
    /// Changes thresholds of an upgrade while it runs; without any, shows what can be changed
    Tune(tune::Tune),
    /// Unwinds an upgrade; not possible once it has switched over
    Abort(abort::Abort),
    /// Shows the agents; issues certificates
    Agents(agents::Agents),
    /// Tries a hook of the coordinator's configuration
    Hooks(hooks::Hooks),
    /// Shows the runbook page of an error code; without one, all codes
    Explain(explain::Explain),
    /// Prints the completions for a shell
    Completions(pages::Completions),
    /// Prints or writes the manual pages
    Man(pages::Man),
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// What every verb that asks the coordinator takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where the coordinator listens; several that share a store, separated by commas; http:// only on this machine
    #[arg(long, env = "PILOT_COORDINATOR", default_value = "https://localhost:7400", value_name = "URL")]
    pub(crate) coordinator: String,
    /// Your certificate: a folder with tls.crt, tls.key and ca.crt; with a token ca.crt is enough
    #[arg(long, env = "PILOT_TLS", value_name = "FOLDER")]
    pub(crate) tls: Option<PathBuf>,
    /// A file with your token of the provider that the coordinator takes tokens of; read at every call
    #[arg(long, env = "PILOT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How data is printed to stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Which cluster to upgrade, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpecArgs {
    /// The cluster, by identifier or ARN
    #[arg(long)]
    pub(crate) cluster: Option<String>,
    /// The version to go to, as 16 or 16.9
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
    /// A file with everything else that can be asked of an upgrade (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Option<PathBuf>,
    /// How often it may start again from provisioning when the deployment fails or degrades
    #[arg(long)]
    pub(crate) retries: Option<u32>,
    /// Begin by deleting the deployment (with its green cluster) that an earlier upgrade has left on this cluster
    #[arg(long)]
    pub(crate) clean_leftovers: bool,
}

/// An exit code with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Refused = 2,
    Person = 3,
    Usage = 64,
    /// By Ctrl-C; what was followed goes on.
    Detached = 130,
}

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn usage(text: impl Into<String>) -> Fault {
        Fault { exit: Exit::Usage, text: text.into() }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Fault {
        Fault { exit: Exit::Refused, text: text.into() }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Fault {
        Fault { exit: Exit::Failed, text: text.into() }
    }
}

/// Runs the command of this process's arguments. Help and version exit 0, bad usage 64.
pub async fn run() -> Exit {
    // Help and usage are coloured by the same rule, before anything is parsed.
    let command = Cli::command().color(paint::asked_for(std::env::args()).into());
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return exit;
        }
    };
    paint::decide(cli.color);
    match dispatch(cli.verb).await {
        Ok(exit) => exit,
        Err(fault) => {
            let _ = writeln!(std::io::stderr(), "pilot: {}", fault.text);
            fault.exit
        }
    }
}

async fn dispatch(verb: Verb) -> Result<Exit, Fault> {
    match verb {
        Verb::Serve(verb) => verb.run().await,
        Verb::Preflight(verb) => verb.run().await,
        Verb::Upgrade(verb) => verb.run().await,
        Verb::Status(verb) => verb.run().await,
        Verb::Watch(verb) => verb.run().await,
        Verb::History(verb) => verb.run().await,
        Verb::Report(verb) => verb.run().await,
        Verb::Approve(verb) => verb.run().await,
        Verb::Pause(verb) => verb.run().await,
        Verb::Resume(verb) => verb.run().await,
        Verb::Postpone(verb) => verb.run().await,
        Verb::Tune(verb) => verb.run().await,
        Verb::Abort(verb) => verb.run().await,
        Verb::Agents(verb) => verb.run().await,
        Verb::Hooks(verb) => verb.run().await,
        Verb::Explain(verb) => verb.run(),
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    }
}

/// Prints data. A closed pipe is not an error of ours.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{}", text.trim_end());
    let _ = stdout.flush();
}

/// Says something beside the data.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
        assert_eq!(Cli::command().render_version(), "pilot 0.0.0\n");
    }

    #[test]
    fn the_lines_of_the_readme_are_understood() {
        for line in [
            "pilot serve --config pilot.toml",
            "pilot preflight --cluster orders --to 16 --output json",
            "pilot upgrade --cluster orders --to 16 --spec a.toml --yes --until finished --output json",
            "pilot upgrade --cluster orders --to 16 --clean-leftovers",
            "pilot status",
            "pilot status up-1 --output json",
            "pilot watch up-1",
            "pilot history up-1",
            "pilot report up-1",
            "pilot report up-1 --format md --out upgrade.md",
            "pilot report up-1 --format terraform",
            "pilot report up-1 --output json",
            "pilot approve up-1 reboot",
            "pilot approve up-1",
            "pilot pause up-1",
            "pilot resume up-1",
            "pilot abort up-1 --confirm orders",
            "pilot agents",
            "pilot agents enrol --ca ca --out tls --cluster arn:aws:rds:us-east-1:123456789012:cluster:orders --agent a-1",
            "pilot agents enrol --ca ca --out tls --operator alice --role operate,approve",
            "pilot agents enrol --ca ca --out tls --coordinator-name pilot.example.com,10.0.0.7 --days 30",
            "pilot agents revoke --ca ca --crl ca/ca.crl --certificate tls/tls.crt --serial 4a:01",
            "pilot hooks test --config pilot.toml change-freeze",
            "pilot hooks test --config pilot.toml team-channel --point finished --output json",
            "pilot explain PU0001",
            "pilot tune up-1 replication.lag_bytes_max=16MiB",
            "pilot postpone up-1 --for 2h",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    /// Every leaf of the tree of verbs, with its help.
    fn leaves(command: &clap::Command, path: &str, all: &mut Vec<(String, String)>) {
        let (name, help) = (format!("{path}{}", command.get_name()), command.get_after_help());
        if !command.has_subcommands() || command.get_name() == "agents" {
            all.push((name.clone(), help.map(ToString::to_string).unwrap_or_default()));
        }
        command.get_subcommands().for_each(|verb| leaves(verb, &format!("{name} "), all));
    }

    #[test]
    fn every_verb_has_examples_and_each_of_them_is_understood() {
        let mut all = Vec::new();
        leaves(&Cli::command(), "", &mut all);
        assert!(all.len() > 15, "{all:?}");
        for (name, help) in all {
            let lines: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(lines.iter().any(|line| line.starts_with(&name)), "{name} --help has no example of it:\n{help}");
            for line in lines {
                let command = line.split(['>', '|']).next().unwrap_or(line);
                let words = words(command);
                Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    /// As a shell takes a line apart, for lines with nothing but single quotes.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (n, part) in line.split('\'').enumerate() {
            match n % 2 {
                1 => words.push(part.to_owned()),
                _ => words.extend(part.split_whitespace().map(str::to_owned)),
            }
        }
        words
    }

    #[test]
    fn what_is_missing_or_unknown_is_bad_usage() {
        for line in [
            "pilot",
            "pilot fly",
            "pilot watch",
            "pilot report",
            "pilot report up-1 --format pdf",
            "pilot upgrade --until never --cluster a --to 16",
            "pilot agents enrol --ca ca --out tls",
            "pilot agents enrol --ca ca --out tls --operator alice",
            "pilot agents enrol --ca ca --out tls --operator alice --role root",
            "pilot agents enrol --ca ca --out tls --agent a-1",
            "pilot agents revoke --ca ca --crl ca/ca.crl",
            "pilot hooks test change-freeze",
            "pilot tune up-1 lag",
            "pilot postpone up-1 --for 2h --off",
            "pilot postpone up-1 --until tomorrow",
            "pilot status --color sometimes",
        ] {
            assert!(parse(line).unwrap_err().use_stderr(), "{line}");
        }
    }
}
