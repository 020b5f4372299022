//! The structs of the sources, as far as configuration needs them: fields with their documentation, their type and whether serde
//! has a default. Read from the text, so that what is documented is what is compiled.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, LitStr, Meta, PathArguments, Stmt, Type};

use crate::invariants::source::{rust_under, text};

/// What can stand behind a key.
#[derive(Debug)]
pub(super) enum Value {
    Text,
    /// A text with a form of its own.
    Named(&'static str),
    Flag,
    Whole,
    Number,
    /// One of these texts, each with what it means where that is documented.
    Choice(Vec<(String, String)>),
    Optional(Box<Value>),
    List(Box<Value>),
    /// A struct, or an enum with a tag.
    Table(String),
}

/// Structs and enums that are deserialized, and the functions that give defaults.
pub(super) struct Sources {
    items: BTreeMap<String, Item>,
    functions: BTreeMap<String, Json>,
}

/// What serde's attributes say.
#[derive(Debug, Default)]
pub(super) struct Serde {
    /// The function that gives it; empty for the type's own.
    pub(super) default: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) rename_all: Option<String>,
    /// It is read from a text.
    from_text: bool,
}

/// A key of a table.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) meaning: String,
    pub(super) default: Option<String>,
}

impl Sources {
    /// Those of the files below these; a name is that of the first file that has it.
    pub(super) fn below(folders: &[&str]) -> Sources {
        let mut sources = Sources { items: BTreeMap::new(), functions: BTreeMap::new() };
        for folder in folders {
            for path in rust_under(&[folder]) {
                let file = syn::parse_file(&text(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
                for item in file.items {
                    sources.add(item);
                }
            }
        }
        sources
    }

    fn add(&mut self, item: Item) {
        let (name, attributes) = match &item {
            Item::Struct(item) => (item.ident.to_string(), &item.attrs),
            Item::Enum(item) => (item.ident.to_string(), &item.attrs),
            Item::Fn(item) => {
                if let Some(literal) = item.block.stmts.last().and_then(literal) {
                    self.functions.entry(item.sig.ident.to_string()).or_insert(literal);
                }
                return;
            }
            _ => return,
        };
        if derives(attributes, "Deserialize") {
            self.items.entry(name).or_insert(item);
        }
    }

    pub(super) fn item(&self, name: &str) -> &Item {
        self.items.get(name).unwrap_or_else(|| panic!("{name} is no struct that is read from a file"))
    }

    pub(super) fn fields_of(&self, ty: &Type) -> Fields {
        match self.item(&last(ty).0) {
            Item::Struct(item) => item.fields.clone(),
            _ => panic!("a variant is no struct"),
        }
    }

    /// What a function gives that is nothing but a literal.
    pub(super) fn literal_of(&self, function: &str) -> Option<Json> {
        self.functions.get(function).cloned()
    }
}

/// A literal, or one that a method makes something of: `"roles".to_owned()`.
fn literal(statement: &Stmt) -> Option<Json> {
    let Stmt::Expr(expression, None) = statement else { return None };
    let expression = match expression {
        Expr::MethodCall(call) => &*call.receiver,
        other => other,
    };
    let Expr::Lit(literal) = expression else { return None };
    match &literal.lit {
        Lit::Str(text) => Some(json!(text.value())),
        Lit::Int(number) => number.base10_parse::<u64>().ok().map(|number| json!(number)),
        Lit::Float(number) => number.base10_parse::<f64>().ok().map(|number| json!(number)),
        Lit::Bool(flag) => Some(json!(flag.value)),
        _ => None,
    }
}

fn derives(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("derive")).any(|attribute| {
        let mut found = false;
        let _other_traits = attribute.parse_nested_meta(|meta| {
            found |= meta.path.segments.last().is_some_and(|segment| segment.ident == name);
            Ok(())
        });
        found
    })
}

/// The documentation, as one line.
pub(super) fn meaning(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

pub(super) fn serde_of(attributes: &[Attribute]) -> Serde {
    let mut serde = Serde::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let read = attribute.parse_nested_meta(|meta| {
            let value = match meta.value() {
                Ok(value) => Some(value.parse::<LitStr>()?.value()),
                Err(_) => None,
            };
            match meta.path.get_ident().map(ToString::to_string).unwrap_or_default().as_str() {
                "default" => serde.default = Some(value.unwrap_or_default()),
                "tag" => serde.tag = value,
                "rename_all" => serde.rename_all = value,
                "try_from" | "from" => serde.from_text = true,
                "rename" | "flatten" | "skip" => {
                    panic!("serde({}) is not understood here", meta.path.get_ident().unwrap())
                }
                _ => {}
            }
            Ok(())
        });
        read.unwrap_or_else(|error| panic!("an attribute of serde: {error}"));
    }
    serde
}

/// A field, whose struct may give every field a default.
pub(super) fn of_field(field: &syn::Field, whole_default: bool) -> Field {
    let own = serde_of(&field.attrs).default;
    Field {
        name: field.ident.as_ref().map(ToString::to_string).unwrap_or_default(),
        meaning: meaning(&field.attrs),
        default: own.or_else(|| whole_default.then(String::new)),
    }
}

/// The last name of a type's path, and the first type in its brackets.
fn last(ty: &Type) -> (String, Option<&Type>) {
    let Type::Path(path) = ty else { panic!("a configuration has no such type") };
    let segment = path.path.segments.last().expect("a path has a last part");
    let inner = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        }),
        _ => None,
    };
    (segment.ident.to_string(), inner)
}

pub(super) fn of_type(ty: &Type, sources: &Sources) -> Value {
    let (name, inner) = last(ty);
    let inside = || Box::new(of_type(inner.expect("a type in brackets"), sources));
    match name.as_str() {
        "Option" => Value::Optional(inside()),
        "Vec" | "BTreeSet" => Value::List(inside()),
        "String" | "AgentId" => Value::Text,
        "PathBuf" => Value::Named("path"),
        "BTreeMap" => Value::Named("table of texts"),
        "SocketAddr" => Value::Named("address and port"),
        "ClusterArn" => Value::Named("ARN"),
        "bool" => Value::Flag,
        "u16" | "u32" | "u64" | "usize" => Value::Whole,
        "f64" => Value::Number,
        name => match sources.item(name) {
            Item::Enum(item) if serde_of(&item.attrs).from_text => Value::Text,
            Item::Struct(item) if serde_of(&item.attrs).from_text => Value::Text,
            Item::Enum(item) if item.variants.iter().all(|variant| variant.fields.is_empty()) => {
                let case = serde_of(&item.attrs).rename_all;
                let value = |name: &str| cased(name, case.as_deref());
                let values = item.variants.iter().map(|one| (value(&one.ident.to_string()), meaning(&one.attrs)));
                Value::Choice(values.collect())
            }
            _ => Value::Table(name.to_owned()),
        },
    }
}

/// A variant's name as serde writes it.
pub(super) fn cased(name: &str, case: Option<&str>) -> String {
    let between = match case {
        Some("snake_case") => "_",
        Some("kebab-case") => "-",
        Some("lowercase") => "",
        None => return name.to_owned(),
        Some(other) => panic!("rename_all = {other:?} is not understood here"),
    };
    let mut cased = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            cased.push_str(between);
        }
        cased.extend(letter.to_lowercase());
    }
    cased
}

#[test]
fn names_of_variants_are_written_as_serde_does() {
    assert_eq!(cased("AfterRetention", Some("snake_case")), "after_retention");
    assert_eq!(cased("VerifyFull", Some("kebab-case")), "verify-full");
}
