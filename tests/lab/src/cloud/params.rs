//! The parameters of an AWS Query call: a flat form with dotted names, and the lists, filters and pages made of them.

use std::collections::BTreeMap;

use crate::cloud::errors::{Answer, Refusal};

/// The form of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    pub(crate) fn new(form: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(form.into_iter().collect())
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn require(&self, name: &str) -> Answer<&str> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| Refusal::missing(name))
    }

    /// An identifier: the service compares them in lower case.
    pub(crate) fn identifier(&self, name: &str) -> Answer<String> {
        Ok(self.require(name)?.to_lowercase())
    }

    /// The identifier of something that is to be made.
    pub(crate) fn new_identifier(&self, name: &str, most: usize) -> Answer<String> {
        let identifier = self.identifier(name)?;
        let fits = identifier.len() <= most
            && identifier.starts_with(|c: char| c.is_ascii_lowercase())
            && identifier.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !identifier.contains("--")
            && !identifier.ends_with('-');
        if fits {
            return Ok(identifier);
        }
        Err(Refusal::value(format!(
            "The parameter {name} is not a valid identifier. Identifiers must begin with a letter; must contain only ASCII \
             letters, digits, and hyphens; and must not end with a hyphen or contain two consecutive hyphens."
        )))
    }

    pub(crate) fn flag(&self, name: &str) -> Answer<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(Refusal::value(format!("{name} must be true or false, not {other}"))),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Answer<Option<i64>> {
        self.get(name)
            .map(|text| text.parse().map_err(|_| Refusal::value(format!("{name} must be an integer, not {text}"))))
            .transpose()
    }

    /// The entries of a list of structures: `Tags.Tag.1.Key` is `list("Tags", "Tag")[0]["Key"]`. Plain values are under "".
    pub(crate) fn list(&self, name: &str, item: &str) -> Vec<BTreeMap<String, String>> {
        let mut found: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
        for prefix in [format!("{name}.{item}."), format!("{name}.member.")] {
            for (key, value) in &self.0 {
                let Some(rest) = key.strip_prefix(&prefix) else { continue };
                let (number, field) = rest.split_once('.').unwrap_or((rest, ""));
                if let Ok(number) = number.parse() {
                    found.entry(number).or_default().insert(field.to_owned(), value.clone());
                }
            }
        }
        found.into_values().collect()
    }

    /// The values of a list of plain values.
    pub(crate) fn values(&self, name: &str, item: &str) -> Vec<String> {
        self.list(name, item).into_iter().filter_map(|mut entry| entry.remove("")).collect()
    }

    pub(crate) fn tags(&self) -> BTreeMap<String, String> {
        self.list("Tags", "Tag")
            .into_iter()
            .filter_map(|mut tag| Some((tag.remove("Key")?, tag.remove("Value").unwrap_or_default())))
            .collect()
    }

    /// The filters of a describe call, each a name with its values.
    ///
    /// # Errors
    /// For a filter that is not among `known`, as the service refuses it.
    pub(crate) fn filters(&self, known: &[&str]) -> Answer<Vec<(String, Vec<String>)>> {
        let mut filters = Vec::new();
        for entry in self.list("Filters", "Filter") {
            let name = entry.get("Name").ok_or_else(|| Refusal::missing("Filters.Filter.Name"))?.clone();
            if !known.contains(&name.as_str()) {
                return Err(Refusal::value(format!("Unrecognized filter name: {name}")));
            }
            let values =
                entry.iter().filter(|(key, _)| key.starts_with("Values.")).map(|(_, value)| value.clone()).collect();
            filters.push((name, values));
        }
        Ok(filters)
    }

    /// The page of `items` that was asked for, and the marker of the next one.
    pub(crate) fn page<T>(&self, items: Vec<T>, most: i64) -> Answer<(Vec<T>, Option<String>)> {
        let size = self.number("MaxRecords")?.unwrap_or(100);
        if !(20..=most).contains(&size) {
            return Err(Refusal::value(format!("Invalid value {size} for MaxRecords. Must be between 20 and {most}")));
        }
        let start = match self.get("Marker").filter(|marker| !marker.is_empty()) {
            None => 0,
            Some(marker) => marker
                .strip_prefix("after-")
                .and_then(|n| n.parse::<usize>().ok())
                .ok_or_else(|| Refusal::value("The requested marker is not valid."))?,
        };
        let size = usize::try_from(size).unwrap_or(100);
        let more = items.len() > start.saturating_add(size);
        let page = items.into_iter().skip(start).take(size).collect();
        Ok((page, more.then(|| format!("after-{}", start + size))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn lists_keep_their_order_past_ten() {
        let form: Vec<(String, String)> = (1..=12).map(|n| (format!("TagKeys.member.{n}"), format!("k{n}"))).collect();
        let values = Params::new(form).values("TagKeys", "member");
        assert_eq!(values.last().map(String::as_str), Some("k12"));
        assert_eq!(values.len(), 12);
    }

    #[test]
    fn filters_are_read_and_unknown_ones_refused() {
        let p = params(&[
            ("Filters.Filter.1.Name", "source"),
            ("Filters.Filter.1.Values.Value.1", "a"),
            ("Filters.Filter.1.Values.Value.2", "b"),
        ]);
        assert_eq!(
            p.filters(&["source"]).expect("known"),
            [("source".to_owned(), vec!["a".to_owned(), "b".to_owned()])]
        );
        assert_eq!(p.filters(&["target"]).expect_err("unknown").code, "InvalidParameterValue");
    }

    #[test]
    fn pages_cover_everything_once() {
        let first = params(&[("MaxRecords", "20")]);
        let (page, marker) = first.page((0..45).collect(), 100).expect("first page");
        assert_eq!((page.len(), marker.as_deref()), (20, Some("after-20")));
        let last = params(&[("MaxRecords", "20"), ("Marker", "after-40")]);
        assert_eq!(last.page((0..45).collect(), 100).expect("last page"), (vec![40, 41, 42, 43, 44], None));
        assert!(params(&[("MaxRecords", "5")]).page(vec![1], 100).is_err());
    }
}
