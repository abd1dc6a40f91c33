//! Stripe's form encoding: nested brackets in, a strictly read tree out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::StripeError;

/// What stands under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Field {
    Text(String),
    Map(BTreeMap<String, Field>),
}

/// Parameters not yet read. Each read takes its parameter away; what is left at the end is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Params {
    fields: BTreeMap<String, Field>,
    /// Name of the map these stand in, for messages; empty at the top.
    within: String,
}

/// Deeper nesting is refused; the deepest real parameter has four levels.
const DEEPEST: usize = 8;

/// A change of metadata: `None` empties it all, an empty value takes one key away.
pub(crate) type Metadata = BTreeMap<String, String>;

impl Params {
    /// Parses `a=1&b[c]=2&d[]=3&e[0][f]=4`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, StripeError> {
        let mut params = Params::default();
        for (name, value) in form_urlencoded::parse(text) {
            let path = split(&name)
                .ok_or_else(|| StripeError::invalid(format!("Invalid parameter name: {name}")))?;
            plant(&mut params.fields, &path, value.into_owned())
                .ok_or_else(|| StripeError::invalid(format!("Invalid parameter: {name}")))?;
        }
        Ok(params)
    }

    /// Returns the full name of a parameter, for messages.
    pub(crate) fn name_of(&self, name: &str) -> String {
        if self.within.is_empty() { name.to_owned() } else { format!("{}[{name}]", self.within) }
    }

    /// Takes a text; an empty one counts as absent.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, StripeError> {
        match self.fields.remove(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Field::Map(_)) => {
                let name = self.name_of(name);
                Err(StripeError::invalid(format!("Invalid string: {name}")).param(&name))
            }
        }
    }

    /// Takes a text that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, StripeError> {
        self.text(name)?.ok_or_else(|| StripeError::missing_param(&self.name_of(name)))
    }

    /// Takes a whole number.
    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, StripeError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if is_plain => Ok(Some(number)),
            Ok(_) | Err(_) => Err(StripeError::invalid(format!("Invalid integer: {text}"))
                .code("parameter_invalid_integer")
                .param(&self.name_of(name))),
        }
    }

    /// Takes `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, StripeError> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(StripeError::invalid(format!("Invalid boolean: {other}"))
                .param(&self.name_of(name))),
        }
    }

    /// Takes one of a few words.
    pub(crate) fn one_of(
        &mut self,
        name: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, StripeError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let name = self.name_of(name);
        words.iter().find(|&&word| word == text).map(|&word| Some(word)).ok_or_else(|| {
            let known = words.join(", ");
            StripeError::invalid(format!("Invalid {name}: must be one of {known}")).param(&name)
        })
    }

    /// Takes a map, to be read and finished by itself.
    pub(crate) fn map(&mut self, name: &str) -> Result<Option<Params>, StripeError> {
        let within = self.name_of(name);
        match self.fields.remove(name) {
            None => Ok(None),
            Some(Field::Map(fields)) => Ok(Some(Params { fields, within })),
            Some(Field::Text(text)) if text.is_empty() => Ok(None),
            Some(Field::Text(_)) => {
                Err(StripeError::invalid(format!("Invalid object: {within}")).param(&within))
            }
        }
    }

    /// Returns whether a parameter is a plain text.
    pub(crate) fn is_text(&self, name: &str) -> bool {
        matches!(self.fields.get(name), Some(Field::Text(_)))
    }

    /// Takes a list of texts, `name[]=…` or `name[0]=…`.
    pub(crate) fn list(&mut self, name: &str) -> Result<Vec<String>, StripeError> {
        let Some(mut items) = self.map(name)? else { return Ok(Vec::new()) };
        let mut places: Vec<_> = items.fields.keys().cloned().collect();
        places.sort_by_key(|place| place.parse::<usize>().unwrap_or(usize::MAX));
        places.into_iter().map(|place| items.required(&place)).collect()
    }

    /// Takes a list of maps, `name[0][a]=…`.
    pub(crate) fn maps(&mut self, name: &str) -> Result<Vec<Params>, StripeError> {
        let Some(mut items) = self.map(name)? else { return Ok(Vec::new()) };
        let mut places: Vec<_> = items.fields.keys().cloned().collect();
        places.sort_by_key(|place| place.parse::<usize>().unwrap_or(usize::MAX));
        let maps = places.into_iter().map(|place| items.map(&place));
        maps.filter_map(Result::transpose).collect()
    }

    /// Takes `metadata`: `None` is absent, an empty map from `metadata=` empties it.
    pub(crate) fn metadata(&mut self) -> Result<Option<Metadata>, StripeError> {
        if self.fields.get("metadata") == Some(&Field::Text(String::new())) {
            self.fields.remove("metadata");
            return Ok(Some(Metadata::new()));
        }
        let Some(map) = self.map("metadata")? else { return Ok(None) };
        let mut metadata = Metadata::new();
        for (key, field) in map.fields {
            let name = format!("metadata[{key}]");
            let Field::Text(value) = field else {
                let text = format!("Metadata values must be strings: {name}");
                return Err(StripeError::invalid(text).param(&name));
            };
            if key.chars().count() > 40 || value.chars().count() > 500 {
                let text = "Metadata keys have at most 40 characters, values 500.";
                return Err(StripeError::invalid(text).param(&name));
            }
            metadata.insert(key, value);
        }
        if metadata.len() > 50 {
            return Err(
                StripeError::invalid("Metadata can have at most 50 keys.").param("metadata")
            );
        }
        Ok(Some(metadata))
    }

    /// Takes a parameter that changes nothing here.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }

    /// Refuses what was not read.
    pub(crate) fn finish(self) -> Result<(), StripeError> {
        let left: Vec<_> = self.fields.keys().map(|name| self.name_of(name)).collect();
        if left.is_empty() { Ok(()) } else { Err(StripeError::unknown(&left)) }
    }
}

/// Applies a change to metadata already there.
pub(crate) fn merge(metadata: &mut Metadata, change: Metadata) {
    if change.is_empty() {
        metadata.clear();
    }
    for (key, value) in change {
        if value.is_empty() {
            metadata.remove(&key);
        } else {
            metadata.insert(key, value);
        }
    }
}

/// Applies a change of metadata if there is one.
pub(crate) fn merge_some(metadata: &mut Metadata, change: Option<Metadata>) {
    if let Some(change) = change {
        merge(metadata, change);
    }
}

/// Splits `a[b][]` into `a`, `b` and an empty part.
fn split(name: &str) -> Option<Vec<&str>> {
    let (first, mut rest) = match name.find('[') {
        Some(at) => name.split_at(at),
        None => (name, ""),
    };
    let mut path = vec![first];
    while !rest.is_empty() {
        let (part, after) = rest.strip_prefix('[')?.split_once(']')?;
        path.push(part);
        rest = after;
    }
    (!first.is_empty() && path.len() <= DEEPEST).then_some(path)
}

/// Puts a value at its place; `None` if the place is taken by something of another shape.
fn plant(fields: &mut BTreeMap<String, Field>, path: &[&str], value: String) -> Option<()> {
    let (name, rest) = path.split_first()?;
    let name = if name.is_empty() { fields.len().to_string() } else { (*name).to_owned() };
    if rest.is_empty() {
        if matches!(fields.get(&name), Some(Field::Map(_))) {
            return None;
        }
        fields.insert(name, Field::Text(value));
        return Some(());
    }
    match fields.entry(name).or_insert_with(|| Field::Map(BTreeMap::new())) {
        Field::Map(inner) => plant(inner, rest, value),
        Field::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_brackets_become_a_tree() {
        let text = b"amount=1099&metadata[payment_id]=p%201&expand[]=a&expand[]=b&types[0]=x";
        let mut params = Params::parse(text).unwrap();

        assert_eq!(params.integer("amount").unwrap(), Some(1099));
        assert_eq!(params.metadata().unwrap().unwrap()["payment_id"], "p 1");
        assert_eq!(params.list("expand").unwrap(), ["a", "b"]);
        assert_eq!(params.list("types").unwrap(), ["x"]);
        assert!(params.finish().is_ok());
    }

    #[test]
    fn a_parameter_nobody_reads_is_unknown() {
        let mut params = Params::parse(b"automatic_payment_methods[enabld]=true").unwrap();
        let map = params.map("automatic_payment_methods").unwrap().unwrap();

        let error = map.finish().unwrap_err();

        assert_eq!(error.fields()["param"], "automatic_payment_methods[enabld]");
        assert_eq!(error.fields()["code"], "parameter_unknown");
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in ["a[b=1", "a[b]c=1", "[a]=1", "a=1&a[b]=2", "a[b]=1&a=2"] {
            assert!(Params::parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("a{}=1", "[b]".repeat(5000));
        assert!(Params::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn whole_numbers_are_read_strictly() {
        for text in ["10.5", "1e3", "+1", "%201", "abc", "99999999999999999999"] {
            let mut params = Params::parse(format!("amount={text}").as_bytes()).unwrap();
            assert!(params.integer("amount").is_err(), "{text}");
        }
    }
}
