//! Replays what was done in the server's order on the plain model, and compares every line of the
//! books and every answer.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::clients::{Record, Sequence};
use super::plain::{Line, LotIds, Plain, Time};

/// The books of one account, as they are stored.
struct Books {
    lines: Vec<Line>,
    /// Entry by principal and operation key, counted from 0.
    by_key: HashMap<(String, String), usize>,
    ids: LotIds,
}

#[derive(sqlx::FromRow)]
struct Row {
    kind: String,
    tokens: i64,
    debt: i64,
    held: i64,
    used: i64,
    balance_after: i64,
    available_after: i64,
    principal: String,
    operation_key: String,
    lot_ids: Vec<Uuid>,
    lot_tokens: Vec<i64>,
    created_at: Time,
}

impl Books {
    async fn load(db: &PgPool, customer: Uuid) -> Self {
        let rows: Vec<Row> = sqlx::query_as(
            "select kind::text, tokens, debt, held, used, balance_after, available_after,
                    principal, operation_key, lot_ids, lot_tokens, created_at
             from ledger_entries where customer_id = $1 order by seq",
        )
        .bind(customer)
        .fetch_all(db)
        .await
        .unwrap();
        let lots: Vec<(Uuid, Uuid, i32)> =
            sqlx::query_as("select id, source_id, part from grants where customer_id = $1")
                .bind(customer)
                .fetch_all(db)
                .await
                .unwrap();
        let ids = lots.into_iter().map(|(id, source, part)| ((source, part), id)).collect();
        let key = |(index, row): (usize, &Row)| {
            ((row.principal.clone(), row.operation_key.clone()), index)
        };
        let by_key = rows.iter().enumerate().map(key).collect();
        Self { lines: rows.into_iter().map(line).collect(), by_key, ids }
    }

    fn entry_of(&self, record: &Record) -> Option<usize> {
        let (principal, key) = record.key.as_ref()?;
        self.by_key.get(&((*principal).to_owned(), key.clone())).copied()
    }
}

fn line(row: Row) -> Line {
    const KINDS: [&str; 11] = [
        "granted",
        "consumed",
        "expired",
        "taken_back",
        "given_back",
        "debt_repaid",
        "held",
        "released",
        "adjusted",
        "plan_change",
        "debt_forgiven",
    ];
    let mut lots: Vec<(Uuid, i64)> = row.lot_ids.into_iter().zip(row.lot_tokens).collect();
    lots.retain(|(_, tokens)| *tokens != 0);
    lots.sort_unstable();
    Line {
        kind: KINDS.into_iter().find(|kind| *kind == row.kind).unwrap(),
        tokens: row.tokens,
        debt: row.debt,
        held: row.held,
        used: row.used,
        balance_after: row.balance_after,
        available_after: row.available_after,
        lots,
        at: row.created_at,
    }
}

/// Something done to the account, and where it stands in its order.
struct Placed<'a> {
    record: &'a Record,
    order: (i64, u64),
    /// For a deed under a key: its entry, counted from 0.
    entry: Option<usize>,
}

/// One account before the judge.
struct Case<'a> {
    sequence: &'a Sequence<'a>,
    books: Books,
    placed: Vec<Placed<'a>>,
    /// The account after each of them; the first is before all.
    states: Vec<Plain>,
}

/// Compares all that was done to an account with the model: the kinds of its entries, or what is
/// wrong.
pub(super) async fn judge(
    sequence: &Sequence<'_>,
    records: &[Record],
    index: usize,
) -> Result<Vec<&'static str>, String> {
    let books = Books::load(&sequence.app.app.db, sequence.accounts[index].id.uuid()).await;
    let own: Vec<&Record> = records.iter().filter(|record| record.account == index).collect();
    let placed = place(&books, &own)?;
    let mut case = Case { sequence, books, placed, states: vec![Plain::default()] };
    let mut result = case.replay();
    if result.is_ok() {
        result = case.real_time().and_then(|()| case.others(&own));
    }
    match result {
        Ok(()) => Ok(case.books.lines.iter().map(|line| line.kind).collect()),
        Err(wrong) => Err(format!("{wrong}\n{}", case.story())),
    }
}

/// What was done, in the server's order.
fn place<'a>(books: &Books, own: &[&'a Record]) -> Result<Vec<Placed<'a>>, String> {
    let mut placed = Vec::new();
    let mut makers: HashMap<usize, &Record> = HashMap::new();
    for record in own {
        if let Some(place) = record.place {
            placed.push(Placed { record, order: (place.after, place.turn), entry: None });
        } else if let Some(entry) = books.entry_of(record).filter(|_| is_effect(record)) {
            if let Some(other) = makers.insert(entry, record) {
                return Err(format!("two effects under one key: {record:?}\n{other:?}"));
            }
            let order = (i64::try_from(entry).unwrap() + 1, 0);
            placed.push(Placed { record, order, entry: Some(entry) });
        }
    }
    for ((principal, key), entry) in &books.by_key {
        if !principal.starts_with("system:")
            && !key.starts_with("reset:")
            && !makers.contains_key(entry)
        {
            return Err(format!("nobody was told of {principal} {key}"));
        }
    }
    placed.sort_by_key(|one| one.order);
    Ok(placed)
}

/// Whether the answer says that something was done, and was not before.
fn is_effect(record: &Record) -> bool {
    let answer = &record.answer;
    let is_short = answer["status"] == 400 && !answer["hold_id"].is_null();
    let is_done = answer["status"].as_u64().is_some_and(|status| status < 300);
    (is_done || is_short) && answer["replayed"] != true
}

/// What the model expects must be in the answer; more may be.
fn differs(expected: &Value, answer: &Value) -> Option<String> {
    match expected {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            differs(value, &answer[name]).map(|how| format!("{name}: {how}"))
        }),
        Value::Array(items) => {
            let others = answer.as_array().map_or(&[][..], Vec::as_slice);
            if items.len() != others.len() {
                return Some(format!("expected {expected}, is {answer}"));
            }
            items.iter().zip(others).find_map(|(one, other)| differs(one, other))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            (expected != answer).then(|| format!("expected {expected}, is {answer}"))
        }
    }
}

impl Case<'_> {
    fn replay(&mut self) -> Result<(), String> {
        let mut model = Plain::default();
        for place in 0..self.placed.len() {
            let Placed { record, entry, .. } = &self.placed[place];
            let now = match (record.place, entry) {
                (Some(told), _) => {
                    while model.lines.len() < usize::try_from(told.before).unwrap() {
                        model.book_next();
                        compare_last(&model, &self.books)?;
                    }
                    told.now
                }
                (None, Some(entry)) => self.books.lines[*entry].at,
                (None, None) => unreachable!("what is placed has a place"),
            };
            let before = model.lines.len();
            let answer = model.apply(&record.deed, record.key.is_some(), &self.books.ids, now);
            for line in before..model.lines.len() {
                compare(&model, &self.books, line)?;
            }
            if let Some(how) = differs(&answer.body, &record.answer) {
                return Err(format!("the answer to {record:?} is wrong: {how}"));
            }
            if entry.is_some_and(|entry| entry >= model.lines.len() || !answer.is_booked) {
                return Err(format!("the model does not book {record:?}"));
            }
            if let Some(told) = record.place
                && model.lines.len() != usize::try_from(told.after).unwrap()
            {
                return Err(format!("{} lines after {record:?}", model.lines.len()));
            }
            if record.place.is_none()
                && !self.sequence.times(record.sent, record.answered).contains(&now)
            {
                return Err(format!("{now} was not the time of {record:?}"));
            }
            self.states.push(model.clone());
        }
        while model.lines.len() < self.books.lines.len() {
            model.book_next();
            compare_last(&model, &self.books)?;
        }
        Ok(())
    }

    /// Whoever was answered before another asked comes first.
    fn real_time(&self) -> Result<(), String> {
        for (index, one) in self.placed.iter().enumerate() {
            for later in &self.placed[index + 1..] {
                if later.record.answered < one.record.sent {
                    return Err(format!(
                        "answered before it was sent, but booked later: {:?}\n{:?}",
                        later.record, one.record
                    ));
                }
                let is_batch = one.record.batch.map(|(batch, _)| batch)
                    == later.record.batch.map(|(batch, _)| batch);
                if is_batch && one.record.batch > later.record.batch {
                    return Err(format!("a batch out of order: {:?}", later.record));
                }
            }
        }
        Ok(())
    }

    /// Refusals, repeats, looks: right at some moment between question and answer.
    fn others(&self, own: &[&Record]) -> Result<(), String> {
        for record in own {
            let entry = self.books.entry_of(record);
            if record.place.is_some() || entry.is_some() && is_effect(record) && !record.is_misuse {
                continue;
            }
            // A repeat that a closed hold answers changes nothing and leaves no entry.
            if record.is_misuse && entry.is_some() {
                if record.answer["status"] != 422 {
                    return Err(format!("another request under a used key: {record:?}"));
                }
                continue;
            }
            if record.answer["replayed"] == true {
                self.is_repeat(record, entry)?;
                continue;
            }
            self.is_right_at_some_moment(record, entry)?;
        }
        Ok(())
    }

    fn is_repeat(&self, record: &Record, entry: Option<usize>) -> Result<(), String> {
        let maker = self.placed.iter().find(|one| entry.is_some() && one.entry == entry);
        let Some(maker) = maker else {
            return Err(format!("a repeat of nothing: {record:?}"));
        };
        let (mut first, mut again) = (maker.record.answer.clone(), record.answer.clone());
        for answer in [&mut first, &mut again] {
            for of_the_route in ["replayed", "instance", "message", "subscription_active"] {
                answer.as_object_mut().unwrap().remove(of_the_route);
            }
        }
        if first != again {
            return Err(format!("a repeat was answered {again}\nthe first time {first}"));
        }
        Ok(())
    }

    fn is_right_at_some_moment(&self, record: &Record, entry: Option<usize>) -> Result<(), String> {
        let seen = self.placed.iter().rposition(|one| one.record.answered < record.sent);
        let first = seen.map_or(0, |index| index + 1);
        let after = self.placed.iter().position(|one| {
            one.record.sent > record.answered || entry.is_some() && one.entry == entry
        });
        let last = after.unwrap_or(self.placed.len());
        let mut nearest = String::new();
        for state in self.states.get(first..=last).unwrap_or_default() {
            for now in self.sequence.times(record.sent, record.answered) {
                let mut state = state.clone();
                let answer = state.apply(&record.deed, true, &self.books.ids, now);
                match differs(&answer.body, &record.answer) {
                    None if !answer.is_booked => return Ok(()),
                    None => "it should have been booked".clone_into(&mut nearest),
                    Some(how) => nearest = how,
                }
            }
        }
        Err(format!("never right between {first} and {last}: {record:?}\nlast: {nearest}"))
    }

    /// What happened, for whoever looks for the reason.
    fn story(&self) -> String {
        let mut story = String::new();
        let mut line = 0;
        for (index, one) in self.placed.iter().enumerate() {
            let now = one.record.place.map(|place| place.now);
            writeln!(story, "{index} at {now:?} {:?} -> {}", one.record.deed, one.record.answer)
                .unwrap();
            let end = usize::try_from(one.order.0).unwrap().min(self.books.lines.len());
            while line < end {
                writeln!(story, "    {} {:?}", line + 1, self.books.lines[line]).unwrap();
                line += 1;
            }
        }
        while line < self.books.lines.len() {
            writeln!(story, "    {} {:?}", line + 1, self.books.lines[line]).unwrap();
            line += 1;
        }
        story
    }
}

fn compare_last(model: &Plain, books: &Books) -> Result<(), String> {
    compare(model, books, model.lines.len() - 1)
}

fn compare(model: &Plain, books: &Books, index: usize) -> Result<(), String> {
    let (expected, found) = (&model.lines[index], books.lines.get(index));
    if found == Some(expected) {
        return Ok(());
    }
    Err(format!("entry {}: expected {expected:?}\nis {found:?}", index + 1))
}
