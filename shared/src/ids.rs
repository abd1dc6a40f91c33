//! Ids as types: a payment's id never stands where a customer's is asked for.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

/// Namespace of customer ids. Constant for ever: every customer's rows hang on it.
const CUSTOMER_NAMESPACE: Uuid = Uuid::from_u128(0x5f3c_1b0e_8a4d_5e7b_9c21_70a6_d2e4_f813);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            sqlx::Type,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The bare id, for SQL and the wire.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

macro_rules! made_by_us {
    ($($name:ident),+) => {
        $(impl $name {
            /// A new id (`UUIDv7`) whose order is that of `now`, to the millisecond.
            pub fn new(now: DateTime<Utc>) -> Self {
                Self(new_v7(now))
            }
        })+
    };
}

id!(
    /// A customer: derived from the application's user id.
    CustomerId
);
id!(
    /// A payment; also our idempotency key at the gateway.
    PaymentId
);
id!(
    /// A subscription.
    SubscriptionId
);
id!(
    /// A lot of tokens.
    GrantId
);
id!(
    /// A ledger entry; on the wire `usage_id` where tokens were consumed.
    EntryId
);
id!(
    /// Tokens set aside.
    HoldId
);
id!(
    /// Something that happened.
    EventId
);
id!(
    /// A webhook event in our inbox.
    WebhookEventId
);
id!(
    /// A refund; also our idempotency key at the gateway.
    RefundId
);
id!(
    /// A dispute, as we keep it.
    DisputeId
);
id!(
    /// A saved payment method, as we name it.
    PaymentMethodId
);

id!(
    /// An operator's deed.
    AuditId
);

made_by_us!(
    PaymentId,
    SubscriptionId,
    GrantId,
    EntryId,
    HoldId,
    EventId,
    WebhookEventId,
    RefundId,
    DisputeId,
    PaymentMethodId,
    AuditId
);

impl RefundId {
    /// The refund that `principal` asks for under his own key: asked again, it is the same.
    pub fn of_key(payment: PaymentId, principal: &str, key: &str) -> Self {
        let name = format!("{}:{principal}:{key}", principal.len());
        Self(Uuid::new_v5(&payment.uuid(), name.as_bytes()))
    }
}

impl CustomerId {
    /// The customer of the application's user `external_id`: `UUIDv5`, so no look-up is needed.
    pub fn of(external_id: &str) -> Self {
        Self(Uuid::new_v5(&CUSTOMER_NAMESPACE, external_id.as_bytes()))
    }
}

/// `UUIDv7` of `now` (RFC 9562 §5.7): milliseconds, then random bits.
fn new_v7(now: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_id_is_constant_for_ever() {
        assert_eq!(CustomerId::of("42").to_string(), "a4c70c7f-d318-5dce-9f33-26ffb12a5503");
        assert_ne!(CustomerId::of("42"), CustomerId::of("042"));
        assert_ne!(CustomerId::of("42"), CustomerId::of(" 42"));
    }
}
