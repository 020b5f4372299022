//! The hash of a journal: SHA-256 over one line a fact, in order. A line is the canonical JSON of `at`, `epoch`, `fact` and `seq` as
//! `pilot history --output json` prints them (keys sorted at every depth, no blanks, nothing but what must be escaped), and a line
//! feed. Whoever keeps the history can compute it again, also of its first facts only, without this program.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use engine::Record;

/// Computes the hash from the saved history. The same in README.md.
pub const COMMAND: &str = "import hashlib, json, sys; print(hashlib.sha256(\"\".join(json.dumps({k: f[k] for k in (\"at\", \
                           \"epoch\", \"fact\", \"seq\")}, sort_keys=True, separators=(\",\", \":\"), ensure_ascii=False) + \"\\n\" for f in \
                           json.load(sys.stdin)[\"facts\"]).encode()).hexdigest())";

/// The hash, in hexadecimal digits.
pub fn of(records: &[Record]) -> String {
    let mut sha = Sha256::new();
    for record in records {
        let line = json!({ "at": record.at, "epoch": record.epoch, "fact": record.fact, "seq": record.seq });
        let mut text = String::new();
        write(&line, &mut text);
        text.push('\n');
        sha.update(text.as_bytes());
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The order of keys is said here and not left to how maps are kept elsewhere.
fn write(value: &Value, to: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            to.push('{');
            for (n, key) in keys.into_iter().enumerate() {
                if n > 0 {
                    to.push(',');
                }
                *to += &Value::from(key.as_str()).to_string();
                to.push(':');
                write(&fields[key], to);
            }
            to.push('}');
        }
        Value::Array(items) => {
            to.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    to.push(',');
                }
                write(item, to);
            }
            to.push(']');
        }
        plain => *to += &plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use engine::{Epoch, Seq};

    use super::*;

    fn record(seq: u64, fact: Value) -> Record {
        Record { seq: Seq(seq), epoch: Epoch(1), at: "2026-11-23T00:00:00.5Z".parse().unwrap(), fact }
    }

    #[test]
    fn a_journal_has_the_hash_of_its_canonical_lines_whatever_the_order_of_keys() {
        let fact: Value = serde_json::from_str(r#"{"kind":"x","b":[1.5,{"z":null,"a":"ü\u0001\"<"}],"a":-3}"#).unwrap();
        let line = "{\"at\":\"2026-11-23T00:00:00.5Z\",\"epoch\":1,\"fact\":{\"a\":-3,\"b\":[1.5,{\"a\":\"ü\\u0001\\\"<\",\"z\":null}],\
                    \"kind\":\"x\"},\"seq\":0}\n";
        let expected: String = Sha256::digest(line.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(of(&[record(0, fact)]), expected);
    }

    #[test]
    fn a_fact_more_less_changed_or_moved_changes_the_hash() {
        let facts = [record(0, json!({"kind": "a"})), record(1, json!({"kind": "b"}))];
        let whole = of(&facts);
        let changed = [facts[0].clone(), record(1, json!({"kind": "c"}))];
        let moved = [facts[1].clone(), facts[0].clone()];
        for other in [&facts[..1], &changed, &moved, &[]] {
            assert_ne!(of(other), whole);
        }
    }
}
