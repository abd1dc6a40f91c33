//! What goes wrong, and when: the one place that every API call and every delivery asks.

use serde::{Deserialize, Serialize};

use crate::Gateway;

/// One way in which a call or a delivery can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trouble {
    /// Call: 500, nothing was done and nothing is remembered.
    ErrorBefore,
    /// Call: 500 that Stripe saves under the idempotency key, though nothing was done.
    ErrorSaved,
    /// Call: everything was done, yet the answer is a 500; Stripe saves and replays it.
    ErrorAfter,
    /// Call: everything was done and is remembered; only this one answer became a 502.
    AnswerLost,
    /// Call: the connection is reset before anything was done.
    ResetBefore,
    /// Call: the connection is reset after everything was done.
    ResetAfter,
    /// Call: 429 with `Retry-After`.
    RateLimited {
        /// Value of `Retry-After`.
        retry_after_s: u32,
    },
    /// Call: the answer takes this long; meanwhile the idempotency key is in use.
    Slow {
        /// How long.
        ms: u64,
    },
    /// Call: done, and the answer is cut in the middle of its JSON.
    MalformedAnswer,
    /// Call: done, and the answer names one minor unit too much.
    WrongAmount,
    /// Call: done, and the answer names another currency.
    WrongCurrency,
    /// Call: the answer waits until every event it caused was delivered once, at most 5 s.
    AnswerAfterWebhook,
    /// Delivery: the event is sent this many times more.
    Duplicate {
        /// How many copies beside the first.
        times: u32,
    },
    /// Delivery: the first attempt waits.
    Delay {
        /// How long.
        ms: u64,
    },
    /// Delivery: the first attempt waits for a random time, so that events overtake each other.
    Shuffle {
        /// The longest wait.
        within_ms: u64,
    },
    /// Delivery: the event is never sent; it stays in the list of events.
    Drop,
    /// Attempt: signed with a secret or webhook id that is not the endpoint's.
    WrongSecret,
    /// Attempt: signed as of the past.
    StaleTime {
        /// How long ago.
        seconds: u32,
    },
    /// Attempt: signed as of the future.
    FutureTime {
        /// How far ahead.
        seconds: u32,
    },
    /// Attempt: one byte of the body differs from what was signed.
    FlipByte,
    /// Attempt: the body takes this long to arrive.
    SlowBody {
        /// How long.
        ms: u64,
    },
    /// Attempt: the connection ends in the middle of the body.
    TruncatedBody,
    /// Attempt: the body claims `Content-Encoding: gzip`.
    Gzip,
    /// Attempt: `Content-Type: text/plain`.
    WrongContentType,
}

/// The moments at which trouble may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Call,
    Event,
    Attempt,
}

impl Trouble {
    fn stage(&self) -> Stage {
        use Trouble::*;
        match self {
            ErrorBefore
            | ErrorSaved
            | ErrorAfter
            | AnswerLost
            | ResetBefore
            | ResetAfter
            | RateLimited { .. }
            | Slow { .. }
            | MalformedAnswer
            | WrongAmount
            | WrongCurrency
            | AnswerAfterWebhook => Stage::Call,
            Duplicate { .. } | Delay { .. } | Shuffle { .. } | Drop => Stage::Event,
            WrongSecret
            | StaleTime { .. }
            | FutureTime { .. }
            | FlipByte
            | SlowBody { .. }
            | TruncatedBody
            | Gzip
            | WrongContentType => Stage::Attempt,
        }
    }
}

/// How often trouble strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The next so many times that it could.
    Next(u32),
    /// So many times out of a thousand, by the seed.
    PerMille(u16),
}

/// Trouble, where and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Only this gateway; none: both.
    #[serde(default)]
    pub gateway: Option<Gateway>,
    /// Part of `POST /v1/refunds` for calls, of `charge.refunded` for deliveries; empty: all.
    #[serde(default)]
    pub matching: String,
    /// What happens.
    pub trouble: Trouble,
    /// How often.
    pub when: When,
}

impl Fault {
    /// Returns trouble that strikes the next time only, at either gateway.
    pub fn once(trouble: Trouble) -> Self {
        Fault { gateway: None, matching: String::new(), trouble, when: When::Next(1) }
    }

    /// Returns trouble that strikes by chance, at either gateway.
    pub fn by_chance(trouble: Trouble, per_mille: u16) -> Self {
        Fault { gateway: None, matching: String::new(), trouble, when: When::PerMille(per_mille) }
    }

    /// Narrows it to calls or events whose name contains `part`.
    #[must_use]
    pub fn matching(mut self, part: &str) -> Self {
        part.clone_into(&mut self.matching);
        self
    }

    /// Narrows it to one gateway.
    #[must_use]
    pub fn at(mut self, gateway: Gateway) -> Self {
        self.gateway = Some(gateway);
        self
    }

    fn concerns(&self, gateway: Gateway, name: &str) -> bool {
        self.gateway.is_none_or(|only| only == gateway) && name.contains(&self.matching)
    }
}

/// All faults set, and the dice.
#[derive(Debug)]
pub(crate) struct Faults {
    set: Vec<Fault>,
    dice: Dice,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Faults { set: Vec::new(), dice: Dice(seed) }
    }

    /// Adds a fault; earlier ones strike first.
    pub(crate) fn add(&mut self, fault: Fault) {
        self.set.push(fault);
    }

    /// Removes every fault.
    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }

    /// Starts the dice anew.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.dice = Dice(seed);
    }

    /// Returns the faults still set.
    pub(crate) fn list(&self) -> &[Fault] {
        &self.set
    }

    /// Says what goes wrong with an API call; `name` is method and path.
    pub(crate) fn on_call(&mut self, gateway: Gateway, name: &str) -> Option<Trouble> {
        self.strike(Stage::Call, gateway, name)
    }

    /// Says what goes wrong with one attempt at delivering an event of this kind.
    pub(crate) fn on_attempt(&mut self, gateway: Gateway, kind: &str) -> Option<Trouble> {
        self.strike(Stage::Attempt, gateway, kind)
    }

    /// Says how a new event of this kind shall travel.
    pub(crate) fn on_event(&mut self, gateway: Gateway, kind: &str) -> Journey {
        match self.strike(Stage::Event, gateway, kind) {
            Some(Trouble::Drop) => Journey { copies: 0, ..Journey::PLAIN },
            Some(Trouble::Duplicate { times }) => Journey { copies: 1 + times, ..Journey::PLAIN },
            Some(Trouble::Delay { ms }) => Journey { wait_ms: ms, ..Journey::PLAIN },
            Some(Trouble::Shuffle { within_ms }) => {
                Journey { wait_ms: self.dice.below(within_ms.saturating_add(1)), ..Journey::PLAIN }
            }
            Some(_) | None => Journey::PLAIN,
        }
    }

    fn strike(&mut self, stage: Stage, gateway: Gateway, name: &str) -> Option<Trouble> {
        let dice = &mut self.dice;
        let struck = self.set.iter_mut().find_map(|fault| {
            if fault.trouble.stage() != stage || !fault.concerns(gateway, name) {
                return None;
            }
            let strikes = match &mut fault.when {
                When::Next(0) => false,
                When::Next(left) => {
                    *left -= 1;
                    true
                }
                When::PerMille(chance) => dice.below(1000) < u64::from(*chance),
            };
            strikes.then(|| fault.trouble.clone())
        });
        self.set.retain(|fault| fault.when != When::Next(0));
        struck
    }
}

/// How an event travels to its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Journey {
    /// How many times it is delivered; 0: never.
    pub(crate) copies: u32,
    /// How long the first attempt waits.
    pub(crate) wait_ms: u64,
}

impl Journey {
    const PLAIN: Journey = Journey { copies: 1, wait_ms: 0 };
}

/// A small repeatable generator (the mixing function of `SplitMix64`).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// Returns a number below `bound`, which must be positive.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_for_the_next_call_strikes_once() {
        let mut faults = Faults::new(7);
        faults.add(Fault::once(Trouble::ErrorBefore).at(Gateway::Stripe).matching("/v1/refunds"));

        assert_eq!(faults.on_call(Gateway::PayPal, "POST /v1/refunds"), None);
        assert_eq!(faults.on_call(Gateway::Stripe, "GET /v1/events"), None);
        let struck = faults.on_call(Gateway::Stripe, "POST /v1/refunds");
        assert_eq!(struck, Some(Trouble::ErrorBefore));
        assert_eq!(faults.on_call(Gateway::Stripe, "POST /v1/refunds"), None);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn the_same_seed_gives_the_same_troubles() {
        let run = || {
            let mut faults = Faults::new(42);
            faults.add(Fault::by_chance(Trouble::Drop, 300));
            (0..200).map(|_| faults.on_event(Gateway::Stripe, "any").copies).collect::<Vec<_>>()
        };

        let copies = run();

        assert_eq!(copies, run());
        assert!(copies.contains(&0) && copies.contains(&1));
    }

    #[test]
    fn trouble_strikes_only_at_its_own_stage() {
        let mut faults = Faults::new(1);
        faults.add(Fault::once(Trouble::FlipByte));

        assert_eq!(faults.on_call(Gateway::Stripe, "POST /v1/x"), None);
        assert_eq!(faults.on_event(Gateway::Stripe, "x"), Journey::PLAIN);
        assert_eq!(faults.on_attempt(Gateway::Stripe, "x"), Some(Trouble::FlipByte));
    }
}
