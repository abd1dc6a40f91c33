//! Stripe's lists: newest first, by cursor.

use serde_json::{Value, json};

use super::error::StripeError;
use super::form::Params;

/// Which part of a list is wanted.
#[derive(Debug)]
pub(crate) struct Page {
    limit: usize,
    starting_after: Option<String>,
    ending_before: Option<String>,
}

impl Page {
    /// Takes `limit`, `starting_after` and `ending_before`.
    pub(crate) fn take(params: &mut Params) -> Result<Self, StripeError> {
        let limit = params.integer("limit")?.unwrap_or(10);
        let limit =
            usize::try_from(limit).ok().filter(|limit| (1..=100).contains(limit)).ok_or_else(
                || StripeError::invalid("This value must be between 1 and 100.").param("limit"),
            )?;
        let starting_after = params.text("starting_after")?;
        let ending_before = params.text("ending_before")?;
        if starting_after.is_some() && ending_before.is_some() {
            let text = "You can only use one of starting_after or ending_before.";
            return Err(StripeError::invalid(text));
        }
        Ok(Page { limit, starting_after, ending_before })
    }

    /// Cuts the page out of all that was found, which is newest first.
    pub(crate) fn cut<T>(
        self,
        url: &str,
        found: Vec<(&str, T)>,
        json: impl Fn(T) -> Value,
    ) -> Result<Value, StripeError> {
        let place = |id: &str| {
            found
                .iter()
                .position(|(other, _)| *other == id)
                .ok_or_else(|| StripeError::invalid(format!("No such object: '{id}'")))
        };
        let (from, to) = match (&self.starting_after, &self.ending_before) {
            (Some(id), _) => {
                let from = place(id)? + 1;
                (from, from + self.limit)
            }
            (None, Some(id)) => {
                let to = place(id)?;
                (to.saturating_sub(self.limit), to)
            }
            (None, None) => (0, self.limit),
        };
        let to = to.min(found.len());
        let has_more = if self.ending_before.is_some() { from > 0 } else { to < found.len() };
        let data: Vec<_> = found
            .into_iter()
            .skip(from)
            .take(to.saturating_sub(from))
            .map(|(_, object)| json(object))
            .collect();
        Ok(json!({ "object": "list", "data": data, "has_more": has_more, "url": url }))
    }
}

/// A span of seconds, each end optional.
#[derive(Debug, Default)]
pub(crate) struct Span {
    from: Option<i64>,
    to: Option<i64>,
}

impl Span {
    /// Takes `name=…` or `name[gt|gte|lt|lte]=…`.
    pub(crate) fn take(params: &mut Params, name: &str) -> Result<Self, StripeError> {
        if params.is_text(name) {
            let second = params.integer(name)?;
            return Ok(Span { from: second, to: second });
        }
        let Some(mut ends) = params.map(name)? else { return Ok(Span::default()) };
        let span = Span {
            from: ends.integer("gte")?.or(ends.integer("gt")?.map(|second| second + 1)),
            to: ends.integer("lte")?.or(ends.integer("lt")?.map(|second| second - 1)),
        };
        ends.finish()?;
        Ok(span)
    }

    pub(crate) fn contains(&self, second: i64) -> bool {
        self.from.is_none_or(|from| second >= from) && self.to.is_none_or(|to| second <= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> (Vec<String>, bool) {
        let mut params = Params::parse(query.as_bytes()).unwrap();
        let found = ["e", "d", "c", "b", "a"].map(|id| (id, json!(id))).to_vec();
        let list = Page::take(&mut params).unwrap().cut("/v1/x", found, |id| id).unwrap();
        let data = list["data"].as_array().unwrap();
        let ids = data.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        (ids, list["has_more"].as_bool().unwrap())
    }

    #[test]
    fn a_list_is_walked_by_cursor_to_its_end() {
        assert_eq!(page("limit=2"), (vec!["e".into(), "d".into()], true));
        assert_eq!(page("limit=2&starting_after=d"), (vec!["c".into(), "b".into()], true));
        assert_eq!(page("limit=2&starting_after=b"), (vec!["a".into()], false));
        assert_eq!(page("limit=2&ending_before=c"), (vec!["e".into(), "d".into()], false));
    }

    #[test]
    fn a_limit_is_between_1_and_100() {
        for query in ["limit=0", "limit=101", "limit=-1"] {
            let mut params = Params::parse(query.as_bytes()).unwrap();
            assert!(Page::take(&mut params).is_err(), "{query}");
        }
    }
}
