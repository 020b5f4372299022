//! `deploy/configuration.md` is written from the structs that are read from configuration files: keys, types and defaults are theirs,
//! the meaning is their documentation. `UPDATE=1 cargo nextest run --workspace reference` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use coordinator::spec::UpgradeSpec;
use serde_json::{Value, json};
use syn::{Fields, Item};

use super::structs::{Sources, Value as Kind, of_field, of_type};
use crate::invariants::source::root;

const PATH: &str = "deploy/configuration.md";

const HEAD: &str = "# Configuration

Every key of every file, written from the program's own structs by a test (`UPDATE=1 cargo nextest run --workspace reference`);
[README.md](../README.md) has the essential ones, [GUIDE.md](GUIDE.md) files to begin with. An unknown key is an error that names it.
Units are the last word of a key. What a file says is overridden by environment variables, then by flags.

";

/// One kind of file.
struct Root {
    title: &'static str,
    about: &'static str,
    name: &'static str,
    /// Where its structs are; those of the first file come before others of the same name.
    folders: &'static [&'static str],
    samples: Vec<Value>,
}

fn roots() -> [Root; 3] {
    [
        Root {
            title: "Coordinator: `pilot serve --config FILE`",
            about: "Environment: `PILOT_SERVE_` and the key, with `__` for each dot: `PILOT_SERVE_STORE__PATH`. Whether a file can be \
                    used, and what it comes to: `pilot serve --config FILE --check`.",
            name: "Config",
            folders: &["coordinator/src/config.rs", "coordinator/src/", "proto/"],
            samples: coordinators(),
        },
        Root {
            title: "Agent: `pilot-agent --config FILE`",
            about: "Environment: `PILOT_AGENT_` and the key, with `__` for each dot: `PILOT_AGENT_DATABASE__USER`. Whether a file can be \
                    used, and what it comes to: `pilot-agent --config FILE --check`.",
            name: "Config",
            folders: &["agent/src/config.rs", "agent/src/", "proto/"],
            samples: agents(),
        },
        Root {
            title: "Spec of an upgrade: `--spec FILE`",
            about: "Of `pilot preflight` and `pilot upgrade`. Only `cluster` and `to` are needed, and both may be flags; flags win. What \
                    cannot be is refused with a cure before anything is asked.",
            name: "UpgradeSpec",
            folders: &["coordinator/src/spec.rs", "coordinator/src/", "proto/"],
            samples: vec![json!(UpgradeSpec::new("orders", "16"))],
        },
    ]
}

/// The defaults, as the program itself fills them in.
fn coordinators() -> Vec<Value> {
    let start = "region = 'us-east-1'\n";
    let file = "[store]\nkind = 'sqlite'\npath = '/s'\n[insecure]\nloopback_without_tls = true\n\
                [[hooks]]\nname = 'h'\nkind = 'http'\npoints = ['finished']\nurl = 'https://h.example'\n";
    let shared = "[store]\nkind = 'postgres'\nhost = 'h'\ndatabase = 'd'\nuser = 'u'\n[tls]\nfolder = '/t'\n\
                  [oidc]\nissuer = 'https://id.example'\naudience = 'pilot'\n";
    let plain = super::loaded("defaults-1", &format!("{start}{file}"), super::coordinator_config);
    let mut plain = json!(plain);
    plain["insecure"]["loopback_without_tls"] = json!(false);
    vec![plain, json!(super::loaded("defaults-2", &format!("{start}{shared}"), super::coordinator_config))]
}

fn agents() -> Vec<Value> {
    let text = "agent_id = 'a'\ncluster = 'arn:aws:rds:us-east-1:123456789012:cluster:orders'\n\
                coordinator = 'https://p.example:7400'\nstate_file = '/s'\nhost_suffixes = ['e.example']\n\
                [tls]\nfolder = '/t'\n[database]\nuser = 'u'\npassword_file = '/p'\n";
    vec![json!(super::loaded("defaults-3", text, super::agent_config))]
}

/// A heading, and its rows.
struct Section {
    heading: String,
    about: String,
    rows: Vec<[String; 4]>,
}

struct Writer {
    sources: Sources,
    samples: Vec<Value>,
    sections: Vec<Section>,
    without: Vec<String>,
}

impl Writer {
    /// The section of one struct, then those of the structs in it. `path` has a dot for each level, `[]` for a list.
    fn table(&mut self, heading: String, about: String, fields: &Fields, whole_default: bool, path: &[String]) {
        let at = self.sections.len();
        self.sections.push(Section { heading, about, rows: Vec::new() });
        for field in fields {
            let found = of_field(field, whole_default);
            let key = found.name.clone();
            if found.meaning.is_empty() {
                self.without.push(format!("{}{key}", path.iter().map(|part| format!("{part}.")).collect::<String>()));
            }
            let below: Vec<String> = path.iter().cloned().chain([key.clone()]).collect();
            let kind = of_type(&field.ty, &self.sources);
            let (inner, many) = match &kind {
                Kind::Optional(inner) => (&**inner, false),
                Kind::List(inner) => (&**inner, true),
                other => (other, false),
            };
            match inner {
                Kind::Table(name) => self.inner(name, &found.meaning, &below, many),
                other => {
                    let default = self.default(&kind, &found.default, &below);
                    let mut meaning = found.meaning;
                    if let Kind::Choice(values) = other {
                        for (value, said) in values.iter().filter(|(_, said)| !said.is_empty()) {
                            let _infallible = write!(meaning, " `{value}`: {said}");
                        }
                    }
                    let shown = typed(other, many, &key);
                    self.sections[at].rows.push([format!("`{key}`"), shown, default, meaning]);
                }
            }
        }
    }

    fn inner(&mut self, name: &str, about: &str, path: &[String], many: bool) {
        let dotted = path.join(".");
        let brackets = if many { format!("[[{dotted}]]") } else { format!("[{dotted}]") };
        match self.sources.item(name).clone() {
            Item::Struct(item) => {
                let whole = super::structs::serde_of(&item.attrs).default.is_some();
                self.table(format!("`{brackets}`"), about.to_owned(), &item.fields, whole, path);
            }
            Item::Enum(item) => {
                let serde = super::structs::serde_of(&item.attrs);
                let tag = serde.tag.unwrap_or_else(|| panic!("{name} has no tag"));
                for variant in &item.variants {
                    let value = super::structs::cased(&variant.ident.to_string(), serde.rename_all.as_deref());
                    let heading = format!("`{brackets}` with `{tag} = \"{value}\"`");
                    let mut said = super::structs::meaning(&variant.attrs);
                    if said.is_empty() {
                        self.without.push(format!("{dotted} {tag} = {value}"));
                    }
                    if !about.is_empty() {
                        said = format!("{about} {said}");
                    }
                    let fields = match &variant.fields {
                        Fields::Unnamed(one) => self.sources.fields_of(&one.unnamed[0].ty),
                        named => named.clone(),
                    };
                    self.table(heading, said, &fields, false, path);
                }
            }
            _ => panic!("{name} is neither a struct nor an enum"),
        }
    }

    fn default(&self, kind: &Kind, default: &Option<String>, path: &[String]) -> String {
        if matches!(kind, Kind::Optional(_)) {
            return "none".to_owned();
        }
        let Some(function) = default else { return "required".to_owned() };
        let mut found = self.samples.iter().filter_map(|sample| looked_up(sample, path));
        let found =
            found.next().filter(|found| found != &&json!({})).cloned().or_else(|| match (function.as_str(), kind) {
                ("", Kind::List(_)) => Some(json!([])),
                ("", Kind::Flag) => Some(json!(false)),
                ("", Kind::Named(_)) => Some(json!("none")),
                ("", _) => None,
                (function, _) => self.sources.literal_of(function),
            });
        let found = found.unwrap_or_else(|| panic!("{}: no sample has its default", path.join(".")));
        shown(&found, path.last().map_or("", |key| key.as_str()))
    }
}

fn looked_up<'a>(sample: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(sample, |value, key| match value {
        Value::Array(list) => list.iter().find_map(|one| one.get(key)),
        value => value.get(key),
    })
}

fn typed(kind: &Kind, many: bool, key: &str) -> String {
    let one = match kind {
        Kind::Text => "text".to_owned(),
        Kind::Named(name) => (*name).to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Whole => "whole number".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Choice(values) => {
            let values: Vec<String> = values.iter().map(|(value, _)| format!("`\"{value}\"`")).collect();
            values.join(" or ")
        }
        Kind::Optional(inner) => return typed(inner, many, key),
        Kind::List(inner) => return typed(inner, true, key),
        Kind::Table(name) => panic!("{name} is a table"),
    };
    let number = matches!(kind, Kind::Whole | Kind::Number);
    let has = |word: &str| number && key.split('_').any(|part| part == word);
    let units = [("seconds", "s"), ("ms", "ms"), ("bytes", "bytes"), ("hours", "h")];
    let unit = units.iter().find(|(word, _)| has(word)).map_or(String::new(), |(_, unit)| format!(", {unit}"));
    if many { format!("list: {one}{unit}") } else { format!("{one}{unit}") }
}

fn shown(value: &Value, key: &str) -> String {
    let number = value.as_u64().filter(|_| key.contains("bytes"));
    let binary = [("GiB", 30), ("MiB", 20)].iter().find_map(|(unit, power)| {
        number.filter(|n| *n > 0 && n % (1 << power) == 0).map(|n| format!("`{n}` ({} {unit})", n >> power))
    });
    binary.unwrap_or_else(|| match value {
        Value::Number(number) => format!("`{}`", number.to_string().trim_end_matches(".0")),
        other => format!("`{other}`"),
    })
}

fn written() -> (String, Vec<String>) {
    let mut text = HEAD.to_owned();
    let mut without = Vec::new();
    for root in roots() {
        let sources = Sources::below(root.folders);
        let Item::Struct(item) = sources.item(root.name).clone() else { panic!("{} is no struct", root.name) };
        let mut writer = Writer { sources, samples: root.samples, sections: Vec::new(), without: Vec::new() };
        writer.table(String::new(), root.about.to_owned(), &item.fields, false, &[]);
        let _infallible = writeln!(text, "## {}\n", root.title);
        for section in writer.sections {
            let heading =
                if section.heading.is_empty() { String::new() } else { format!("### {}\n\n", section.heading) };
            let _infallible = writeln!(text, "{heading}{}\n", section.about);
            if !section.rows.is_empty() {
                text.push_str("| key | type | default | |\n| --- | --- | --- | --- |\n");
                for row in section.rows {
                    let _infallible = writeln!(text, "| {} |", row.join(" | "));
                }
                text.push('\n');
            }
        }
        without.extend(writer.without.into_iter().map(|key| format!("{}: {key}", root.title)));
    }
    (text.trim_end().to_owned() + "\n", without)
}

#[test]
fn the_reference_of_the_configuration_is_what_the_structs_say() {
    let (text, without) = written();
    crate::invariants::source::none("a key is not documented", &without);
    let path = root().join(PATH);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).expect("the reference can be written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    if there != text {
        let (mut old, mut new) = (there.lines(), text.lines());
        let differs = std::iter::from_fn(|| Some((old.next(), new.next()))).take(10_000).find(|(old, new)| old != new);
        panic!(
            "{PATH} is not what the structs say; UPDATE=1 cargo nextest run --workspace reference. First: {differs:?}"
        );
    }
}

#[test]
fn the_reference_tells_every_key_that_the_program_fills_in() {
    let text = fs::read_to_string(root().join(PATH)).expect("the reference");
    let mut missing = Vec::new();
    for sample in roots().into_iter().flat_map(|root| root.samples) {
        keys(&sample, &mut |key| {
            if !text.contains(&format!("| `{key}` |")) && !text.contains(&format!("{key}]")) {
                missing.push(key.to_owned());
            }
        });
    }
    missing.retain(|key| key != "kind");
    crate::invariants::source::none("a key of a configuration is not in the reference", &missing);
}

fn keys(value: &Value, seen: &mut impl FnMut(&str)) {
    let tables: BTreeMap<&String, &Value> = value.as_object().into_iter().flatten().collect();
    for (key, value) in tables {
        seen(key);
        keys(value, seen);
    }
}
