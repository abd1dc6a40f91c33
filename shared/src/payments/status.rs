//! Where a payment stands, and what tellings of one object add up to. Pure: no clock, no database.

use crate::gateways::ObjectFacts;

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "payment_status", rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Nothing final is known.
    Pending,
    /// The money arrived.
    Completed,
    /// A charge was declined; another card may still succeed.
    Failed,
    /// Nothing can be collected any more.
    Cancelled,
    /// All of the money was sent back.
    Refunded,
}

impl PaymentStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
        }
    }
}

/// What several tellings of one object add up to, in whatever order they came.
///
/// Money that arrived has arrived (the first telling counts), and a decline or a void is never
/// untold; what is under way is only known as of the last reading.
pub(super) fn merge(known: ObjectFacts, told: &ObjectFacts) -> ObjectFacts {
    let captured = known.captured.or_else(|| told.captured.clone());
    let is_declined = known.is_declined || told.is_declined;
    let is_voided = known.is_voided || told.is_voided;
    let is_open = captured.is_none() && !is_voided;
    ObjectFacts {
        is_processing: is_open && told.is_processing,
        // PayPal shows a declined order as approved still: only the buyer's next approval, which
        // the caller knows of, is one.
        is_approved: is_open
            && !told.is_declined
            && (known.is_approved || (told.is_approved && !known.is_declined)),
        failure: told.failure.clone().or(known.failure),
        failure_code: told.failure_code.clone().or(known.failure_code),
        captured,
        is_declined,
        is_voided,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::gateways::Captured;
    use crate::money::{Currency, Money};
    use crate::payments::facts::{Known, KnownObject, reckon};

    fn told(word: u8) -> ObjectFacts {
        let nothing = ObjectFacts::default();
        match word {
            0 => ObjectFacts {
                captured: Some(Captured {
                    amount: Money::new(1_500, Currency::USD),
                    capture_id: None,
                    at: DateTime::from_timestamp(0, 0).unwrap(),
                }),
                ..nothing
            },
            1 => ObjectFacts { is_declined: true, ..nothing },
            2 => ObjectFacts { is_voided: true, ..nothing },
            3 => ObjectFacts { is_processing: true, ..nothing },
            _ => nothing,
        }
    }

    fn status_of(facts: &ObjectFacts) -> PaymentStatus {
        let object = KnownObject { id: "a".to_owned(), facts: facts.clone() };
        reckon(&Known { objects: vec![object], ..Known::default() }).status
    }

    #[test]
    fn a_late_decline_never_undoes_a_capture() {
        let facts = merge(merge(ObjectFacts::default(), &told(0)), &told(1));
        assert_eq!(status_of(&facts), PaymentStatus::Completed);
    }

    #[test]
    fn a_decline_is_not_the_end() {
        let declined = merge(ObjectFacts::default(), &told(1));
        assert_eq!(status_of(&declined), PaymentStatus::Failed);
        assert_eq!(status_of(&merge(declined, &told(0))), PaymentStatus::Completed);
    }

    proptest! {
        /// Any order and repetition of the same facts gives the same status.
        #[test]
        fn the_order_of_facts_does_not_matter(
            words in prop::collection::vec(0..5_u8, 1..8).prop_flat_map(|words| {
                (Just(words.clone()), Just(words).prop_shuffle())
            }),
        ) {
            let all = |words: &[u8]| {
                let known = words.iter().fold(ObjectFacts::default(), |known, word| {
                    merge(merge(known, &told(*word)), &told(*word))
                });
                (status_of(&known), known.captured.is_some(), known.is_declined, known.is_voided)
            };
            prop_assert_eq!(all(&words.0), all(&words.1));
        }
    }
}
