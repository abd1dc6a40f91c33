//! What a payment's status is, given everything we know. Pure: no clock, no database.

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
        is_approved: is_open && (known.is_approved || told.is_approved),
        failure: known.failure.or_else(|| told.failure.clone()),
        failure_code: known.failure_code.or_else(|| told.failure_code.clone()),
        captured,
        is_declined,
        is_voided,
    }
}

/// The status that the facts of all a payment's objects add up to.
///
/// A decline is not the end: the payer may try another card on the same intent.
pub(super) fn status_of<'a>(objects: impl IntoIterator<Item = &'a ObjectFacts>) -> PaymentStatus {
    let objects: Vec<&ObjectFacts> = objects.into_iter().collect();
    if objects.iter().any(|object| object.captured.is_some()) {
        PaymentStatus::Completed
    } else if !objects.is_empty() && objects.iter().all(|object| object.is_voided) {
        PaymentStatus::Cancelled
    } else if objects.iter().any(|object| object.is_declined) {
        PaymentStatus::Failed
    } else {
        PaymentStatus::Pending
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::gateways::Captured;
    use crate::money::{Currency, Money};

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

    #[test]
    fn a_late_decline_never_undoes_a_capture() {
        let facts = merge(merge(ObjectFacts::default(), &told(0)), &told(1));
        assert_eq!(status_of([&facts]), PaymentStatus::Completed);
    }

    #[test]
    fn a_decline_is_not_the_end() {
        let declined = merge(ObjectFacts::default(), &told(1));
        assert_eq!(status_of([&declined]), PaymentStatus::Failed);
        assert_eq!(status_of([&merge(declined, &told(0))]), PaymentStatus::Completed);
    }

    #[test]
    fn only_when_all_objects_are_voided_is_a_payment_cancelled() {
        assert_eq!(status_of([&told(2), &told(4)]), PaymentStatus::Pending);
        assert_eq!(status_of([&told(2), &told(2)]), PaymentStatus::Cancelled);
        assert_eq!(status_of([]), PaymentStatus::Pending);
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
                (status_of([&known]), known.captured.is_some(), known.is_declined, known.is_voided)
            };
            prop_assert_eq!(all(&words.0), all(&words.1));
        }
    }
}
