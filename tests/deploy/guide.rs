//! The guide and the examples are literally true: files are read by the program's own code, lines of `pilot` by its own parser, paths
//! and codes are there.

use std::collections::BTreeSet;
use std::process::Command;

use clap::Parser as _;
use coordinator::cli::Cli;
use coordinator::spec::UpgradeSpec;

use super::tools::{binary, ran};
use crate::invariants::source::{files, none, root, text};

const GUIDES: [&str; 4] = ["deploy/GUIDE.md", "deploy/tls/README.md", "deploy/iam/README.md", "README.md"];

/// Fenced parts of a document, by what stands behind the fence.
fn fenced(document: &str, language: &str) -> Vec<String> {
    let text = text(document);
    let mut found = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once(&format!("\n```{language}\n")) {
        let (part, after) = after.split_once("\n```").unwrap_or_else(|| panic!("{document}: a fence is not closed"));
        found.push(part.to_owned());
        rest = after;
    }
    found
}

/// Lines that a shell would be given.
fn commands() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for document in GUIDES {
        let indented = text(document);
        let indented = indented.lines().filter(|line| line.starts_with("    pilot")).map(|line| line.trim().to_owned());
        let parts = fenced(document, "sh");
        let lines = parts.iter().flat_map(|part| part.lines()).map(str::to_owned).chain(indented);
        found.extend(lines.map(|line| (document.to_owned(), line)));
    }
    assert!(found.len() > 40, "only {} commands were found", found.len());
    found
}

/// What stands for something in a line, as a reader would fill it in.
fn filled(line: &str) -> Vec<String> {
    // README's table of commands says beside each what it does.
    let line = line.split("   ").next().unwrap_or_default();
    let words = line.split_whitespace().skip_while(|word| ["sudo", "-u", "upgrade-pilot"].contains(word));
    let words = words.map(|word| match word {
        "ID" => "up-20260101-000000".to_owned(),
        "4a01…" => "4a01".to_owned(),
        word => word.to_owned(),
    });
    words.collect()
}

#[test]
fn every_line_of_pilot_in_the_guides_is_understood_by_its_own_parser() {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (document, line) in commands() {
        let words = filled(&line);
        match words.first().map(String::as_str) {
            Some("pilot") => {
                seen.insert(words[1].clone());
                if let Err(error) = Cli::try_parse_from(&words) {
                    wrong.push(format!("{document}: {line}: {error}"));
                }
            }
            // Its flags are its own: asked for help it says what it does not know before.
            Some("pilot-agent") => {
                let said = ran(Command::new(binary("pilot-agent")).args(&words[1..]).arg("--help"));
                if !said.good {
                    wrong.push(format!("{document}: {line}: {}", said.err));
                }
            }
            _ => {}
        }
    }
    none("a command that the program does not understand", &wrong);
    for verb in
        ["serve", "preflight", "upgrade", "status", "watch", "history", "approve", "pause", "resume", "abort", "agents"]
    {
        assert!(seen.contains(verb), "no guide has pilot {verb}");
    }
}

#[test]
fn every_file_of_the_guide_and_every_example_is_valid() {
    let parts = fenced("deploy/GUIDE.md", "toml");
    assert!(parts.len() > 6, "only {} files were found", parts.len());
    let of =
        |name: &str| -> Vec<&String> { parts.iter().filter(|part| part.starts_with(&format!("# {name}\n"))).collect() };
    let (pilots, agents, more, specs) =
        (of("pilot.toml"), of("agent.toml"), of("added to agent.toml"), of("spec.toml"));
    assert_eq!(pilots.len() + agents.len() + more.len() + specs.len(), parts.len(), "a file says not what it is");
    let example = |name: &str| text(&format!("deploy/examples/{name}.toml"));
    for (n, text) in pilots.into_iter().chain([&example("pilot"), &self::text("deploy/coordinators.toml")]).enumerate()
    {
        super::loaded(&format!("pilot-{n}"), text, super::coordinator_config);
    }
    for (n, text) in agents.iter().copied().chain([&example("agent")]).enumerate() {
        let config = super::loaded(&format!("agent-{n}"), text, super::agent_config);
        reaches(&config);
        // Every part that may be added, alone and all together.
        let whole: String = more.iter().map(|part| format!("\n{part}\n")).collect();
        for (m, added) in more.iter().map(|part| (*part).clone()).chain([whole]).enumerate() {
            super::loaded(&format!("agent-{n}-{m}"), &format!("{text}\n{added}"), super::agent_config);
        }
    }
    for text in specs.into_iter().chain([&example("spec")]) {
        let spec: UpgradeSpec = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        spec.validate().unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
}

/// Names of the cluster's endpoints, of an instance, and an address in the subnets: an agent has to reach all of them.
pub(super) fn reaches(config: &agent::config::Config) {
    let zone = "abcdefghijkl.us-east-1.rds.amazonaws.com";
    for host in [
        format!("orders.cluster-{zone}"),
        format!("orders.cluster-ro-{zone}"),
        format!("orders-green-a1b2c3.cluster-{zone}"),
        format!("orders-1.{zone}"),
        "10.0.65.7".to_owned(),
    ] {
        assert!(config.host_suffixes.iter().any(|rule| rule.allows(&host)), "{host} is not allowed");
    }
    assert!(!config.host_suffixes.iter().any(|rule| rule.allows("rds.amazonaws.com.example.org")));
}

/// Words that look like a file of this repository: in commands, and between backticks.
#[test]
fn every_path_that_the_guide_names_is_there() {
    let known: BTreeSet<String> = files().into_iter().collect();
    let guide = text("deploy/GUIDE.md");
    let quoted = guide.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).map(str::to_owned);
    let commanded = fenced("deploy/GUIDE.md", "sh").join(" ");
    let commanded = commanded.split_whitespace().map(str::to_owned);
    // A word of a shell may end with a semicolon.
    let words: BTreeSet<String> = commanded.chain(quoted).map(|word| word.trim_end_matches(';').to_owned()).collect();
    let paths = words.iter().filter(|word| word.starts_with("deploy/"));
    let missing: Vec<String> = paths
        .filter(|path| !known.contains(*path) && !known.iter().any(|known| known.starts_with(&format!("{path}/"))))
        .cloned()
        .collect();
    none("a path leads nowhere", &missing);
    let headings: BTreeSet<String> = guide
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with("##")))
        .map(|heading| heading.to_lowercase().replace(' ', "-").replace('.', ""))
        .collect();
    let anchors = guide.split("](#").skip(1).filter_map(|rest| rest.split(')').next());
    let missing: Vec<String> = anchors.filter(|anchor| !headings.contains(*anchor)).map(str::to_owned).collect();
    none("an anchor leads nowhere", &missing);
}

/// What the guide says of users, groups, ports and folders is what packages, units, images and examples have.
#[test]
fn packages_units_images_and_the_guide_agree_on_names() {
    let guide = text("deploy/GUIDE.md");
    for (file, words) in [
        ("deploy/debian/sysusers.conf", vec!["u upgrade-pilot "]),
        (
            "deploy/systemd/pilot.service",
            vec!["User=upgrade-pilot", "/etc/upgrade-pilot/pilot.toml", "StateDirectory=upgrade-pilot"],
        ),
        (
            "deploy/systemd/pilot-agent@.service",
            vec!["/etc/upgrade-pilot/agents/%i.toml", "StateDirectory=upgrade-pilot-agent/%i"],
        ),
        ("deploy/containers/Containerfile", vec!["EXPOSE 7400 7401", "EXPOSE 7402", "/etc/upgrade-pilot/pilot.toml"]),
        ("deploy/examples/agent.toml", vec!["/var/lib/upgrade-pilot-agent/orders/agent.sqlite"]),
    ] {
        let missing: Vec<&str> = words.into_iter().filter(|word| !text(file).contains(word)).collect();
        assert!(missing.is_empty(), "{file} has not {missing:?}");
    }
    for word in
        ["/etc/upgrade-pilot/agents/orders.toml", "7400", "7401", "7402", "pilot-agent@orders", "-g upgrade-pilot"]
    {
        assert!(guide.contains(word), "the guide has not {word}");
    }
    assert!(root().join("deploy/debian/build").is_file());
}
