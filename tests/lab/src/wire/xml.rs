//! The XML of AWS Query answers: a small tree and its text. It knows the shape of an answer and no operation.

use std::borrow::Cow;
use std::fmt::Display;

use jiff::Timestamp;

/// An element with either text or children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    name: Cow<'static, str>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// An empty element.
    pub(crate) fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), text: String::new(), children: Vec::new() }
    }

    /// An element that holds text.
    pub(crate) fn text(name: impl Into<Cow<'static, str>>, value: impl Display) -> Self {
        Self { text: value.to_string(), ..Self::new(name) }
    }

    /// The same with one more child that holds text.
    pub(crate) fn with(self, name: &'static str, value: impl Display) -> Self {
        self.child(Self::text(name, value))
    }

    /// The same with one more child, if there is a value for it.
    pub(crate) fn maybe(self, name: &'static str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The same with a moment as AWS writes it.
    pub(crate) fn at(self, name: &'static str, moment: Timestamp) -> Self {
        self.with(name, iso(moment))
    }

    /// The same with one more child.
    pub(crate) fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// The same with a list: an element that holds the items, empty if there are none.
    pub(crate) fn list(self, name: &'static str, items: impl IntoIterator<Item = Self>) -> Self {
        self.child(Self { children: items.into_iter().collect(), ..Self::new(name) })
    }

    /// The same under another name.
    pub(crate) fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The tree as a test reads it: names become keys, an element whose children all have one list name a list.
    #[cfg(test)]
    pub(crate) fn as_json(&self) -> serde_json::Value {
        const ITEMS: [&str; 8] = [
            "member",
            "DBCluster",
            "DBClusterMember",
            "DBInstance",
            "Event",
            "EventCategory",
            "Tag",
            "DescribeDBLogFilesDetails",
        ];
        if self.children.is_empty() {
            return self.text.clone().into();
        }
        // `<DBCluster>` alone under the root of an answer about one cluster is read as a list too; tests do not look there.
        if self.children.iter().all(|child| ITEMS.contains(&child.name.as_ref())) {
            return self.children.iter().map(Self::as_json).collect();
        }
        self.children
            .iter()
            .map(|child| (child.name.to_string(), child.as_json()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn write(&self, out: &mut String) {
        self.open(out, "");
        self.close(out);
    }

    fn open(&self, out: &mut String, attributes: &str) {
        out.push('<');
        out.push_str(&self.name);
        out.push_str(attributes);
        out.push('>');
        push_text(out, &self.text);
        for child in &self.children {
            child.write(out);
        }
    }

    fn close(&self, out: &mut String) {
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }
}

/// A moment as AWS Query answers write it: UTC, milliseconds, `Z`.
pub(crate) fn iso(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The whole document with `root` in the given XML namespace.
pub(crate) fn document(root: &Element, namespace: &str) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    root.open(&mut out, &format!(" xmlns=\"{namespace}\""));
    root.close(&mut out);
    out
}

/// Text with the five signs escaped; what XML 1.0 cannot hold at all becomes U+FFFD.
fn push_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\r' => out.push_str("&#13;"),
            '\n' | '\t' => out.push(c),
            c if u32::from(c) < 0x20 || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_nests_escapes_and_keeps_empty_lists() {
        let root = Element::new("R")
            .child(Element::new("RResult").with("A", "x<&\u{1}").list("L", []).maybe("No", None::<u8>));
        assert_eq!(
            document(&root, "urn:x"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R xmlns=\"urn:x\"><RResult><A>x&lt;&amp;\u{fffd}</A><L></L></RResult></R>"
        );
    }

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        let at: Timestamp = "2026-11-23T01:02:03.456789Z".parse().expect("valid");
        assert_eq!(iso(at), "2026-11-23T01:02:03.456Z");
    }
}
