//! What everything we were told of a payment adds up to. Pure: no clock, no database.

use super::status::PaymentStatus;
use super::{RefundChoice, RefundOrigin};
use crate::gateways::{Captured, DisputeKind, DisputeStage, ObjectFacts, RefundStatus};

/// One of a payment's gateway objects, and what happened to it.
#[derive(Debug, Clone)]
pub(super) struct KnownObject {
    /// The gateway's id.
    pub(super) id: String,
    /// What happened to it.
    pub(super) facts: ObjectFacts,
}

/// One refund of one of its objects.
#[derive(Debug, Clone)]
pub(super) struct KnownRefund {
    /// The object whose money is sent back.
    pub(super) object_id: String,
    /// How much, in minor units.
    pub(super) amount_minor: i64,
    /// Where it stands.
    pub(super) status: RefundStatus,
    /// What becomes of the tokens.
    pub(super) choice: RefundChoice,
    /// Who made it.
    pub(super) origin: RefundOrigin,
}

/// One dispute of one of its objects.
#[derive(Debug, Clone)]
pub(super) struct KnownDispute {
    /// The object whose money is contested.
    pub(super) object_id: String,
    /// What kind.
    pub(super) kind: DisputeKind,
    /// How much, in minor units.
    pub(super) amount_minor: i64,
    /// Where it stands.
    pub(super) stage: DisputeStage,
}

/// Everything known of one payment.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) objects: Vec<KnownObject>,
    pub(super) refunds: Vec<KnownRefund>,
    pub(super) disputes: Vec<KnownDispute>,
}

/// A capture, and where it came through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnCapture {
    /// The gateway object that collected it.
    pub(super) object_id: String,
    /// The money.
    pub(super) captured: Captured,
}

/// What the facts of a payment add up to; amounts in minor units of its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reckoning {
    /// Where it stands.
    pub(super) status: PaymentStatus,
    /// The capture that pays it.
    pub(super) capture: Option<OwnCapture>,
    /// Captures too many, each to be refunded whole.
    pub(super) surplus: Vec<OwnCapture>,
    /// Refunds of the capture that did not fail.
    pub(super) refunded_minor: i64,
    /// Lost to disputes and reversals of the capture.
    pub(super) lost_minor: i64,
    /// What is gone by refunds that take tokens in proportion, and by lost disputes.
    pub(super) gone_minor: i64,
    /// What is gone by refunds that take unused tokens only.
    pub(super) gone_unused_only_minor: i64,
    /// Whether a dispute holds the capture's money.
    pub(super) is_disputed: bool,
    /// Whether money is under way.
    pub(super) is_processing: bool,
}

impl Reckoning {
    /// Captured, in minor units; 0 where nothing was.
    pub(super) fn captured_minor(&self) -> i64 {
        self.capture.as_ref().map_or(0, |own| own.captured.amount.minor)
    }

    /// What may still be refunded (rules.md, "Refundable").
    pub(super) fn refundable_minor(&self) -> i64 {
        (self.captured_minor() - self.refunded_minor - self.lost_minor).max(0)
    }

    /// Whether all that was paid for is forfeited: period and tokens end.
    pub(super) fn is_forfeited(&self) -> bool {
        self.capture.is_some()
            && self.gone_minor + self.gone_unused_only_minor >= self.captured_minor()
    }
}

/// Adds up the facts, in whatever order they were told.
pub(super) fn reckon(known: &Known) -> Reckoning {
    let (capture, surplus) = captures(known);
    let is_of = |object_id: &str| capture.as_ref().is_some_and(|own| own.object_id == object_id);
    let standing =
        |refund: &&KnownRefund| is_of(&refund.object_id) && refund.status != RefundStatus::Failed;
    let refunded = |wanted: Option<RefundChoice>| -> i64 {
        let refunds = known.refunds.iter().filter(standing);
        let refunds = refunds.filter(|refund| wanted.is_none_or(|wanted| wanted == refund.choice));
        refunds.map(|refund| refund.amount_minor).sum()
    };
    let disputes: Vec<&KnownDispute> =
        known.disputes.iter().filter(|dispute| is_of(&dispute.object_id)).collect();
    let refunded_minor = refunded(None);
    let captured_minor = capture.as_ref().map_or(0, |own| own.captured.amount.minor);
    let lost_minor = lost(&disputes).min((captured_minor - refunded_minor).max(0));
    Reckoning {
        status: status(known, captured_minor, refunded_minor, capture.is_some()),
        refunded_minor,
        lost_minor,
        gone_minor: refunded(Some(RefundChoice::Proportional)) + lost_minor,
        gone_unused_only_minor: refunded(Some(RefundChoice::UnusedOnly)),
        is_disputed: disputes.iter().any(|dispute| dispute.stage == DisputeStage::Open),
        is_processing: capture.is_none()
            && known.objects.iter().any(|object| object.facts.is_processing),
        capture,
        surplus,
    }
}

/// The capture that pays: the earliest that was not refunded as one too many; and the others.
fn captures(known: &Known) -> (Option<OwnCapture>, Vec<OwnCapture>) {
    let mut captures: Vec<_> = known
        .objects
        .iter()
        .filter_map(|object| {
            let captured = object.facts.captured.clone()?;
            let is_surplus = known.refunds.iter().any(|refund| {
                refund.object_id == object.id && refund.origin == RefundOrigin::Automatic
            });
            let own = OwnCapture { object_id: object.id.clone(), captured };
            Some((is_surplus, own.captured.at, own.object_id.clone(), own))
        })
        .collect();
    captures.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    let mut captures = captures.into_iter().map(|(.., own)| own);
    let first = captures.next();
    (first, captures.collect())
}

/// What disputes took: a reversal and a dispute of one capture are one (rules.md, "Take-back").
fn lost(disputes: &[&KnownDispute]) -> i64 {
    let sum = |kind, stage| -> i64 {
        let of = |dispute: &&&KnownDispute| dispute.kind == kind && dispute.stage == stage;
        disputes.iter().filter(of).map(|dispute| dispute.amount_minor).sum()
    };
    let by_dispute = sum(DisputeKind::Dispute, DisputeStage::Lost);
    let by_reversal = sum(DisputeKind::Reversal, DisputeStage::Lost);
    let is_told_by_dispute = disputes.iter().any(|dispute| {
        dispute.kind == DisputeKind::Dispute
            && matches!(dispute.stage, DisputeStage::Open | DisputeStage::Won)
    });
    if is_told_by_dispute { by_dispute } else { by_dispute.max(by_reversal) }
}

/// A decline is not the end: the payer may try another card on the same intent.
fn status(known: &Known, captured: i64, refunded: i64, is_captured: bool) -> PaymentStatus {
    let objects = &known.objects;
    if is_captured && refunded > 0 && refunded >= captured {
        PaymentStatus::Refunded
    } else if is_captured {
        PaymentStatus::Completed
    } else if !objects.is_empty() && objects.iter().all(|object| object.facts.is_voided) {
        PaymentStatus::Cancelled
    } else if objects.iter().any(|object| object.facts.is_declined) {
        PaymentStatus::Failed
    } else {
        PaymentStatus::Pending
    }
}

/// What is left of the `asked_minor` that an object captured, or has captured unknown to us: neither
/// refunded nor on its way back.
pub(super) fn rest_minor(known: &Known, object_id: &str, asked_minor: i64) -> i64 {
    let refunds = known
        .refunds
        .iter()
        .filter(|refund| refund.object_id == object_id && refund.status != RefundStatus::Failed);
    let refunded: i64 = refunds.map(|refund| refund.amount_minor).sum();
    asked_minor - refunded
}

/// What a refund of what is unused would be: advice, not a bound (rules.md, "Quote").
///
/// `time` and `tokens` are unused shares as (unused, whole); a pack has no time.
pub(super) fn quote(refundable_minor: i64, time: Option<(i64, i64)>, tokens: (u64, u64)) -> i64 {
    let money = i128::from(refundable_minor);
    let by_tokens = match tokens {
        (_, 0) => money,
        (unused, whole) => money * i128::from(unused) / i128::from(whole),
    };
    let by_time = match time {
        None | Some((_, 0)) => money,
        Some((unused, whole)) => money * i128::from(unused.max(0)) / i128::from(whole),
    };
    i64::try_from(by_tokens.min(by_time).clamp(0, money)).expect("a share of an i64")
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Duration, Utc};
    use proptest::prelude::*;

    use super::*;
    use crate::money::{Currency, Money};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + Duration::seconds(seconds)
    }

    fn object(id: &str, captured_at: Option<i64>) -> KnownObject {
        let captured = captured_at.map(|seconds| Captured {
            amount: Money::new(1_099, Currency::USD),
            capture_id: None,
            at: at(seconds),
        });
        KnownObject { id: id.to_owned(), facts: ObjectFacts { captured, ..ObjectFacts::default() } }
    }

    fn refund(amount_minor: i64) -> KnownRefund {
        KnownRefund {
            object_id: "a".to_owned(),
            amount_minor,
            status: RefundStatus::Succeeded,
            choice: RefundChoice::Proportional,
            origin: RefundOrigin::Gateway,
        }
    }

    fn dispute(kind: DisputeKind, stage: DisputeStage) -> KnownDispute {
        KnownDispute { object_id: "a".to_owned(), kind, amount_minor: 1_099, stage }
    }

    fn paid() -> Known {
        Known { objects: vec![object("a", Some(0))], ..Known::default() }
    }

    #[test]
    fn only_when_all_objects_are_voided_is_a_payment_cancelled() {
        let voided = |id: &str| KnownObject {
            facts: ObjectFacts { is_voided: true, ..ObjectFacts::default() },
            ..object(id, None)
        };
        let known = |objects| Known { objects, ..Known::default() };
        let one_open = known(vec![voided("a"), object("b", None)]);
        assert_eq!(reckon(&one_open).status, PaymentStatus::Pending);
        assert_eq!(reckon(&known(vec![voided("a"), voided("b")])).status, PaymentStatus::Cancelled);
        assert_eq!(reckon(&Known::default()).status, PaymentStatus::Pending);
    }

    #[test]
    fn refunds_add_up_by_their_ids_to_refunded() {
        let mut known = paid();
        known.refunds = vec![refund(400)];
        assert_eq!(reckon(&known).status, PaymentStatus::Completed);
        known.refunds.push(refund(699));
        let reckoned = reckon(&known);
        assert_eq!((reckoned.status, reckoned.refunded_minor), (PaymentStatus::Refunded, 1_099));
        assert!(reckoned.is_forfeited());
    }

    #[test]
    fn a_failed_refund_counts_no_more() {
        let mut known = paid();
        known.refunds = vec![KnownRefund { status: RefundStatus::Failed, ..refund(1_099) }];
        let reckoned = reckon(&known);
        assert_eq!((reckoned.status, reckoned.gone_minor), (PaymentStatus::Completed, 0));
    }

    #[test]
    fn a_refund_known_before_its_capture_changes_no_status() {
        let known =
            Known { refunds: vec![refund(400)], objects: vec![object("a", None)], ..paid() };
        let reckoned = reckon(&known);
        assert_eq!((reckoned.status, reckoned.refunded_minor), (PaymentStatus::Pending, 0));
    }

    #[test]
    fn a_dispute_and_a_reversal_of_one_capture_lose_its_money_once() {
        let mut known = paid();
        known.refunds = vec![refund(400)];
        known.disputes = vec![
            dispute(DisputeKind::Dispute, DisputeStage::Lost),
            dispute(DisputeKind::Reversal, DisputeStage::Lost),
        ];
        let reckoned = reckon(&known);
        assert_eq!((reckoned.lost_minor, reckoned.gone_minor), (699, 1_099));
        known.disputes[0].stage = DisputeStage::Won;
        assert_eq!(reckon(&known).lost_minor, 0);
        known.disputes.remove(0);
        assert_eq!(reckon(&known).lost_minor, 699);
    }

    #[test]
    fn a_part_told_as_a_dispute_and_as_a_reversal_is_lost_once() {
        let part = |kind| KnownDispute { amount_minor: 500, ..dispute(kind, DisputeStage::Lost) };
        let disputes = vec![part(DisputeKind::Dispute), part(DisputeKind::Reversal)];
        let known = Known { disputes, ..paid() };
        assert_eq!(reckon(&known).lost_minor, 500);
    }

    #[test]
    fn an_inquiry_freezes_nothing_and_a_dispute_does() {
        let mut known = paid();
        known.disputes = vec![dispute(DisputeKind::Dispute, DisputeStage::Inquiry)];
        assert!(!reckon(&known).is_disputed);
        known.disputes = vec![dispute(DisputeKind::Dispute, DisputeStage::Open)];
        assert!(reckon(&known).is_disputed);
    }

    #[test]
    fn the_earliest_capture_pays_and_stays_though_an_earlier_one_comes_to_light() {
        let mut known = paid();
        known.objects.push(object("b", Some(-60)));
        assert_eq!(reckon(&known).capture.unwrap().object_id, "b");
        // "b" was refunded as one too many before.
        known.refunds = vec![KnownRefund {
            object_id: "b".to_owned(),
            origin: RefundOrigin::Automatic,
            ..refund(1_099)
        }];
        let reckoned = reckon(&known);
        assert_eq!(reckoned.capture.as_ref().unwrap().object_id, "a");
        assert_eq!((reckoned.status, reckoned.refunded_minor), (PaymentStatus::Completed, 0));
    }

    #[test]
    fn a_quote_is_the_smaller_unused_share_rounded_down() {
        assert_eq!(quote(1_500, Some((10, 30)), (900, 1_000)), 500);
        assert_eq!(quote(1_500, Some((29, 30)), (1, 1_000)), 1);
        assert_eq!(quote(1_000, None, (499, 500)), 998);
        assert_eq!(quote(1_500, Some((-5, 30)), (1_000, 1_000)), 0);
    }

    proptest! {
        /// Any order of the same facts gives the same reckoning.
        #[test]
        fn the_order_of_facts_does_not_matter(
            captures in prop::collection::vec(prop::option::of(-5..5_i64), 0..3),
            refunds in prop::collection::vec((1..1_100_i64, 0..3_u8), 0..4),
            stages in prop::collection::vec((0..5_u8, any::<bool>()), 0..3),
        ) {
            let known = Known {
                objects: captures
                    .iter()
                    .enumerate()
                    .map(|(index, at)| object(["a", "b", "c"][index], *at))
                    .collect(),
                refunds: refunds
                    .iter()
                    .map(|(amount, status)| KnownRefund {
                        status: match status {
                            0 => RefundStatus::Pending,
                            1 => RefundStatus::Succeeded,
                            _ => RefundStatus::Failed,
                        },
                        ..refund(*amount)
                    })
                    .collect(),
                disputes: stages
                    .iter()
                    .map(|(stage, is_reversal)| {
                        let kind =
                            if *is_reversal { DisputeKind::Reversal } else { DisputeKind::Dispute };
                        dispute(kind, match stage {
                            0 => DisputeStage::Inquiry,
                            1 => DisputeStage::InquiryClosed,
                            2 => DisputeStage::Open,
                            3 => DisputeStage::Lost,
                            _ => DisputeStage::Won,
                        })
                    })
                    .collect(),
            };
            let mut turned = known.clone();
            turned.objects.reverse();
            turned.refunds.reverse();
            turned.disputes.reverse();
            let reckoned = reckon(&known);
            prop_assert_eq!(&reckoned, &reckon(&turned));
            prop_assert!(reckoned.lost_minor >= 0 && reckoned.refundable_minor() >= 0);
            prop_assert!(
                reckoned.capture.is_none()
                    || reckoned.refunded_minor.min(1_099) + reckoned.lost_minor <= 1_099
            );
        }
    }
}
