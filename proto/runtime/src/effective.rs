//! A configuration as it takes effect, fit to be shown to anybody: what may hold a secret is left out. Configurations hold
//! none by themselves; people write some into addresses, commands and queries.

use serde::Serialize;
use serde_json::Value;

/// Stands for what is not shown.
pub const HIDDEN: &str = "…";

/// The whole of `config` with defaults; keys without a value are left out.
pub fn shown(config: &impl Serialize) -> Value {
    // A configuration was read from text, so it can be written as one; if it cannot, nothing is shown.
    let mut whole = serde_json::to_value(config).unwrap_or_default();
    hide(&mut whole);
    whole
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(table) => {
            table.retain(|_, value| !value.is_null());
            for (key, value) in table.iter_mut() {
                hide_at(key, value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::String(text) => *text = without_user(text),
        _ => {}
    }
}

fn hide_at(key: &str, value: &mut Value) {
    match value {
        // A command is shown by its program.
        Value::Array(words) if is_command(key) => {
            if words.len() > 1 {
                words.truncate(1);
                words.push(HIDDEN.into());
            }
        }
        Value::String(text) if is_secret(key) => HIDDEN.clone_into(text),
        other => hide(other),
    }
}

fn is_command(key: &str) -> bool {
    key.ends_with("command") || ["observe", "pause", "resume"].contains(&key)
}

fn is_secret(key: &str) -> bool {
    let speaks = ["password", "token", "secret", "sql"].iter().any(|word| key.contains(word));
    speaks && !["_file", "_command", "_name"].iter().any(|end| key.ends_with(end))
}

/// `https://user:secret@host/` without what stands before the host.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{HIDDEN}{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_hold_a_secret_is_left_out_and_nothing_else() {
        let written = json!({
            "region": "us-east-1",
            "advertise": null,
            "database": { "password_file": "/etc/pw", "password_command": ["aws", "--profile", "s3cret"], "port": 5432 },
            "ingestion": [{ "base_url": "http://me:s3cret@10.0.0.1:80/a@b", "pause": ["curl", "-H", "s3cret"] }],
            "query": [{ "name": "total", "sql": "select 's3cret'" }],
            "hook": { "token": "s3cret", "url": "https://example.com/a@b" },
        });
        let seen = shown(&written);
        assert!(!seen.to_string().contains("s3cret"), "{seen}");
        assert_eq!(
            seen["database"],
            json!({ "password_file": "/etc/pw", "password_command": ["aws", "…"], "port": 5432 })
        );
        assert_eq!(seen["ingestion"][0]["base_url"], "http://…@10.0.0.1:80/a@b");
        assert_eq!((&seen["query"][0]["name"], &seen["query"][0]["sql"]), (&json!("total"), &json!("…")));
        assert_eq!(seen["hook"]["url"], "https://example.com/a@b");
        assert!(seen.get("advertise").is_none());
    }
}
