//! PayPal's links: read for the ids and queries in them, never followed.

use serde::Deserialize;
use url::Url;

use crate::gateways::is_storable;

/// One of an object's links.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Link {
    pub(super) href: String,
    pub(super) rel: String,
}

/// Whether text may be put into a path: PayPal's ids are letters, digits and dashes, in the vault
/// also underscores.
pub(super) fn is_id(text: &str) -> bool {
    let is_id_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    is_storable(text) && text.bytes().all(is_id_byte)
}

/// The id in the link upwards, which must lead to exactly `prefix` and an id.
pub(super) fn id_upwards(links: &[Link], prefix: &str) -> Option<String> {
    let up = links.iter().find(|link| link.rel == "up")?;
    let url = Url::parse(&up.href).ok()?;
    url.path().strip_prefix(prefix).filter(|id| is_id(id)).map(str::to_owned)
}

/// The page on which a buyer goes on, whatever PayPal calls the link in this answer.
pub(super) fn page(links: &[Link]) -> Option<String> {
    let is_page = |link: &&Link| matches!(&*link.rel, "approve" | "payer-action" | "redirect");
    let link = links.iter().find(is_page)?;
    let url = Url::parse(&link.href).ok()?;
    matches!(url.scheme(), "https" | "http").then(|| link.href.clone())
}

/// The query of the link to a list's next page, to be asked of our own API base.
pub(super) fn next_query(links: &[Link]) -> Option<String> {
    let next = links.iter().find(|link| link.rel == "next")?;
    Url::parse(&next.href).ok()?.query().map(str::to_owned).filter(|query| !query.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(rel: &str, href: &str) -> Vec<Link> {
        vec![Link { href: href.to_owned(), rel: rel.to_owned() }]
    }

    #[test]
    fn only_an_exact_path_names_an_id() {
        let captures = "/v2/payments/captures/";
        let id = |href: &str| id_upwards(&link("up", href), captures);
        let good = "https://api.sandbox.paypal.com/v2/payments/captures/2GG279541U471931P";
        assert_eq!(id(good).as_deref(), Some("2GG279541U471931P"));
        for bad in [
            "https://api.paypal.com/v2/payments/captures/",
            "https://api.paypal.com/v2/payments/captures/A/refund",
            "https://api.paypal.com/v2/payments/captures/..",
            "https://api.paypal.com/v2/payments/captures/A%2F..",
            "https://api.paypal.com/x/v2/payments/captures/A",
            "https://api.paypal.com/v2/checkout/orders/A",
            "/v2/payments/captures/A",
            "javascript:alert(1)",
        ] {
            assert_eq!(id(bad), None, "{bad}");
        }
        assert_eq!(id_upwards(&link("self", good), captures), None);
    }

    #[test]
    fn a_page_is_a_web_address() {
        assert!(
            page(&link("payer-action", "https://www.paypal.com/checkoutnow?token=A")).is_some()
        );
        assert!(page(&link("approve", "javascript:alert(1)")).is_none());
        assert!(page(&link("self", "https://www.paypal.com/")).is_none());
    }

    #[test]
    fn a_foreign_host_gives_its_query_and_nothing_else() {
        let next = link("next", "https://evil.example/steal?page_size=2&start_id=WH-1");
        assert_eq!(next_query(&next).as_deref(), Some("page_size=2&start_id=WH-1"));
        assert_eq!(next_query(&link("next", "https://api.paypal.com/x")), None);
    }
}
