//! `expand[]`: ids in an answer replaced by what they name.

use serde_json::Value;

use super::Books;
use super::charges::{Charge, Refund};
use super::customers::Customer;
use super::disputes::Dispute;
use super::error::StripeError;
use super::objects::{Intent, PaymentMethod};
use super::sessions::Session;
use super::setups::Setup;

/// Expands one dotted path; `data.` walks into a list's items.
pub(super) fn expand(books: &Books, body: &mut Value, path: &str) -> Result<(), StripeError> {
    let parts: Vec<_> = path.split('.').collect();
    // Stripe goes no deeper than four levels.
    if parts.len() > 4 {
        let text = "You cannot expand more than 4 levels of a property.";
        return Err(StripeError::invalid(text).param("expand"));
    }
    walk(books, body, &parts).ok_or_else(|| {
        let text = format!("This property cannot be expanded ({path}).");
        StripeError::invalid(text).param("expand")
    })
}

/// Returns `None` if the path leads to nothing that could be expanded.
fn walk(books: &Books, value: &mut Value, parts: &[&str]) -> Option<()> {
    let Some((first, rest)) = parts.split_first() else { return Some(()) };
    // The one part that is not there at all, not even as an id, before it is expanded.
    if *first == "line_items" && value.get("object").is_some_and(|o| o == "checkout.session") {
        let session = value.get("id").and_then(Value::as_str);
        let items = books.sessions.find(session?)?.line_items();
        value["line_items"] = items;
    }
    let field = value.get_mut(*first)?;
    match field {
        Value::Null => return Some(()),
        Value::Array(items) => {
            return items.iter_mut().try_for_each(|item| walk(books, item, rest));
        }
        Value::String(id) => *field = lookup(books, id)?,
        Value::Object(_) => {}
        Value::Bool(_) | Value::Number(_) => return None,
    }
    walk(books, field, rest)
}

fn lookup(books: &Books, id: &str) -> Option<Value> {
    match id.split_once('_')?.0 {
        "pi" => books.intents.find(id).map(Intent::json),
        "ch" => books.charges.find(id).map(Charge::json),
        "re" => books.refunds.find(id).map(Refund::json),
        "cus" => books.customers.find(id).map(Customer::json),
        "du" => books.disputes.find(id).map(Dispute::json),
        "cs" => books.sessions.find(id).map(Session::json),
        "seti" => books.setups.find(id).map(Setup::json),
        "pm" => books.methods.find(id).map(PaymentMethod::json),
        _ => None,
    }
}
