"""The official Stripe SDK drives the simulator."""

import json

import stripe

from kit import passed, until

RETURN_URL = "https://app.example.com/"

# What the simulator tells of, all of it.
KINDS = set("""
    charge.captured charge.dispute.closed charge.dispute.created charge.dispute.funds_reinstated
    charge.dispute.funds_withdrawn charge.dispute.updated charge.failed charge.pending charge.refunded
    charge.succeeded charge.updated checkout.session.async_payment_failed
    checkout.session.async_payment_succeeded checkout.session.completed checkout.session.expired
    customer.created customer.deleted customer.updated payment_intent.amount_capturable_updated
    payment_intent.canceled payment_intent.created payment_intent.payment_failed
    payment_intent.processing payment_intent.requires_action payment_intent.succeeded
    payment_method.attached payment_method.detached payment_method.updated refund.created
    refund.failed refund.updated setup_intent.canceled setup_intent.created
    setup_intent.requires_action setup_intent.setup_failed setup_intent.succeeded
""".split())


def client_of(simulator):
    return stripe.StripeClient(
        simulator.facts["stripe_secret_key"],
        base_addresses={"api": simulator.facts["stripe"].rstrip("/")},
        max_network_retries=0,
    ).v1


def raised(kind, act):
    """Returns the SDK's own error; any other is a failure."""
    try:
        answer = act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} but {answer}")


def paid(api, customer=None, amount=1099, **more):
    params = {
        "amount": amount, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa",
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}, **more,
    }
    if customer:
        params["customer"] = customer
    intent = api.payment_intents.create(params)
    assert intent.status == "succeeded" and intent.amount_received == amount, intent
    return intent


def an_intent_is_created_confirmed_and_cancelled(api, customer):
    params = {
        "amount": 1099, "currency": "usd", "customer": customer, "capture_method": "automatic",
        "automatic_payment_methods": {"enabled": True}, "setup_future_usage": "off_session",
        "metadata": {"payment_id": "payment-1"},
    }
    made = api.payment_intents.create(params, {"idempotency_key": "create-1"})
    assert (made.status, made.object) == ("requires_payment_method", "payment_intent"), made
    again = api.payment_intents.create(params, {"idempotency_key": "create-1"})
    assert again.id == made.id and again.last_response.headers["idempotent-replayed"] == "true"
    done = api.payment_intents.confirm(
        made.id, {"payment_method": "pm_card_visa", "return_url": RETURN_URL}
    )
    assert done.status == "succeeded" and done.amount_received == 1099, done
    read = api.payment_intents.retrieve(made.id, {"expand": ["latest_charge", "customer"]})
    assert isinstance(read.latest_charge, stripe.Charge), read
    assert isinstance(read.customer, stripe.Customer) and read.customer.id == customer, read
    assert read.latest_charge.paid and read.metadata["payment_id"] == "payment-1", read
    other = api.payment_intents.create({"amount": 500, "currency": "eur"})
    assert api.payment_intents.cancel(other.id).status == "canceled"
    listed = [intent.id for intent in api.payment_intents.list({"limit": 1}).auto_paging_iter()]
    assert {made.id, other.id} <= set(listed), listed
    passed("stripe: an intent is created, confirmed, retrieved, listed and cancelled")


def refunds_are_whole_or_part(api):
    whole, part = paid(api), paid(api)
    refund = api.refunds.create({"payment_intent": whole.id})
    assert (refund.amount, refund.status, refund.object) == (1099, "succeeded", "refund"), refund
    first = api.refunds.create(
        {"payment_intent": part.id, "amount": 400, "reason": "requested_by_customer"}
    )
    assert api.refunds.retrieve(first.id).amount == 400
    refunds = api.refunds.list({"payment_intent": part.id}).data
    assert [refund.id for refund in refunds] == [first.id], refunds
    charge = api.charges.retrieve(part.latest_charge)
    assert charge.amount_refunded == 400 and not charge.refunded, charge
    error = raised(stripe.InvalidRequestError, lambda: api.refunds.create({"charge": charge.id, "amount": 700}))
    assert error.http_status == 400 and error.user_message, error
    error = raised(stripe.InvalidRequestError, lambda: api.refunds.create({"payment_intent": whole.id}))
    assert error.code == "charge_already_refunded", error
    passed("stripe: refunds are whole or part, retrieved, listed, and never exceed the charge")


def methods_are_set_up_listed_and_detached(api, customer):
    setup = api.setup_intents.create({
        "customer": customer, "payment_method": "pm_card_mastercard", "confirm": True,
        "usage": "off_session", "return_url": RETURN_URL,
    })
    assert (setup.status, setup.object) == ("succeeded", "setup_intent"), setup
    assert api.setup_intents.retrieve(setup.id).payment_method == setup.payment_method
    methods = api.payment_methods.list({"customer": customer, "type": "card"}).data
    assert setup.payment_method in [method.id for method in methods], methods
    by_customer = api.customers.payment_methods.list(customer).data
    assert [method.id for method in by_customer] == [method.id for method in methods]
    detached = api.payment_methods.detach(setup.payment_method)
    assert detached.customer is None and detached.card.last4 == "4444", detached
    methods = api.payment_methods.list({"customer": customer, "type": "card"}).data
    assert setup.payment_method not in [method.id for method in methods], methods
    passed("stripe: a setup intent saves a card, which is listed and detached")


def a_bank_that_asks_raises_a_card_error(api, customer):
    method = api.payment_methods.attach("pm_card_authenticationRequired", {"customer": customer})
    error = raised(stripe.CardError, lambda: api.payment_intents.create({
        "amount": 1099, "currency": "usd", "customer": customer, "payment_method": method.id,
        "off_session": True, "confirm": True,
    }))
    assert (error.http_status, error.code) == (402, "authentication_required"), error
    intent = error.error.payment_intent
    assert isinstance(intent, stripe.PaymentIntent), type(intent)
    assert intent.status == "requires_payment_method", intent
    assert error.error.payment_method.id == method.id, error.error
    declined = raised(stripe.CardError, lambda: paid(api, payment_method="pm_card_chargeDeclinedInsufficientFunds"))
    assert (declined.code, declined.error.decline_code) == ("card_declined", "insufficient_funds")
    passed("stripe: off-session and declined charges raise CardError with their intent")


def errors_are_of_the_sdks_kinds(simulator, api):
    params = {"amount": 500, "currency": "usd"}
    api.payment_intents.create(params, {"idempotency_key": "once"})
    error = raised(stripe.IdempotencyError, lambda: api.payment_intents.create(
        {**params, "amount": 600}, {"idempotency_key": "once"}
    ))
    assert error.http_status == 400, error
    error = raised(stripe.InvalidRequestError, lambda: api.payment_intents.retrieve("pi_none"))
    assert (error.http_status, error.code, error.param) == (404, "resource_missing", "intent"), error
    error = raised(stripe.InvalidRequestError, lambda: api.customers.create({"colour": "red"}))
    assert error.code == "parameter_unknown", error
    foreign = stripe.StripeClient(
        "sk_test_wrong", base_addresses={"api": simulator.facts["stripe"].rstrip("/")}
    )
    error = raised(stripe.AuthenticationError, lambda: foreign.v1.customers.list())
    assert error.http_status == 401, error
    for trouble, kind in [("rate_limited", stripe.RateLimitError), ("error_before", stripe.APIError)]:
        fault = {"kind": trouble, "retry_after_s": 1} if trouble == "rate_limited" else {"kind": trouble}
        simulator.control("/faults", {"gateway": "stripe", "matching": "GET /v1/customers",
                                      "trouble": fault, "when": {"next": 1}})
        raised(kind, lambda: api.customers.list())
    passed("stripe: mistakes, wrong keys, reused keys and faults raise the SDK's own errors")


def sessions_are_paid_expired_and_left(simulator, api, customer):
    params = {
        "mode": "payment", "customer": customer, "success_url": RETURN_URL,
        "line_items": [{"quantity": 2, "price_data": {
            "currency": "usd", "unit_amount": 500, "product_data": {"name": "Starter"}}}],
    }
    made = api.checkout.sessions.create(params)
    assert (made.status, made.payment_status, made.amount_total) == ("open", "unpaid", 1000), made
    assert made.url.startswith(simulator.facts["stripe"]), made.url
    simulator.control(f"/stripe/sessions/{made.id}/pay", {"payment_method": "pm_card_visa"})
    done = api.checkout.sessions.retrieve(made.id, {"expand": ["payment_intent", "line_items"]})
    assert (done.status, done.payment_status) == ("complete", "paid"), done
    assert isinstance(done.payment_intent, stripe.PaymentIntent), done
    assert done.line_items.data[0].amount_total == 1000, done.line_items
    other = api.checkout.sessions.create(params)
    assert api.checkout.sessions.expire(other.id).status == "expired"
    raised(stripe.InvalidRequestError, lambda: api.checkout.sessions.expire(made.id))
    portal = api.billing_portal.sessions.create({"customer": customer, "return_url": RETURN_URL})
    assert portal.object == "billing_portal.session" and portal.url, portal
    passed("stripe: checkout sessions are paid and expired, the portal opens")


def disputes_are_read_and_closed(simulator, api):
    intent = paid(api)
    simulator.control("/stripe/disputes", {"object": intent.id, "inquiry": False, "amount": None})
    dispute = api.disputes.list({"payment_intent": intent.id}).data[0]
    read = api.disputes.retrieve(dispute.id, {"expand": ["charge"]})
    assert (read.status, read.amount) == ("needs_response", 1099), read
    assert isinstance(read.charge, stripe.Charge) and read.charge.disputed, read
    simulator.control(f"/stripe/disputes/{dispute.id}/settle", {"outcome": "won"})
    assert api.disputes.retrieve(dispute.id).status == "won"
    passed("stripe: a dispute is listed and retrieved while it is open and when it is won")


def undelivered_events_are_found(simulator, api):
    simulator.control("/deliveries/pause")
    customer = api.customers.create({"email": "late@example.com"})

    def undelivered():
        events = api.events.list({"delivery_success": False, "types": ["customer.created"]})
        return [event.data.object["id"] for event in events.auto_paging_iter()]

    until("an undelivered event", lambda: undelivered() == [customer.id])
    simulator.control("/deliveries/resume")
    until("its delivery", lambda: undelivered() == [])
    event = api.events.list({"type": "customer.created", "limit": 1}).data[0]
    assert api.events.retrieve(event.id).data.object["id"] == customer.id, event
    passed("stripe: events not yet delivered are listed, delivered ones are not")


def what_happens_seldom(simulator, api, customer):
    """Brings about the kinds of events that no other check does."""
    held = api.payment_intents.create({
        "amount": 900, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa",
        "capture_method": "manual",
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
    })
    assert held.status == "requires_capture", held
    assert api.payment_intents.capture(held.id).amount_received == 900
    asked = api.payment_intents.create({
        "amount": 900, "currency": "usd", "confirm": True, "return_url": RETURN_URL,
        "payment_method": "pm_card_authenticationRequired",
        "automatic_payment_methods": {"enabled": True},
    })
    assert (asked.status, asked.next_action.type) == ("requires_action", "redirect_to_url"), asked
    for success in [True, False]:
        session = api.checkout.sessions.create({
            "mode": "payment", "success_url": RETURN_URL,
            "line_items": [{"quantity": 1, "price_data": {
                "currency": "usd", "unit_amount": 500, "product_data": {"name": "Starter"}}}],
        })
        pay = {"payment_method": "pm_usBankAccount_processing"}
        simulator.control(f"/stripe/sessions/{session.id}/pay", pay)
        waiting = api.checkout.sessions.retrieve(session.id)
        assert (waiting.status, waiting.payment_status) == ("complete", "unpaid"), waiting
        simulator.control(f"/stripe/intents/{waiting.payment_intent}/settle", {"success": success})
        paid_now = api.checkout.sessions.retrieve(session.id).payment_status == "paid"
        assert paid_now == success, session.id
    refund = api.refunds.create({"payment_intent": paid(api).id})
    simulator.control(f"/stripe/refunds/{refund.id}/settle", {"success": False})
    assert api.refunds.retrieve(refund.id).status == "failed"
    common = {"customer": customer, "confirm": True, "return_url": RETURN_URL}
    methods = {"automatic_payment_methods": {"enabled": True}}
    waiting = api.setup_intents.create(
        {**common, **methods, "payment_method": "pm_card_authenticationRequired"})
    assert waiting.status == "requires_action", waiting
    assert api.setup_intents.cancel(waiting.id).status == "canceled"
    raised(stripe.CardError, lambda: api.setup_intents.create(
        {**common, **methods, "payment_method": "pm_card_chargeDeclined"}))
    method = api.payment_methods.attach("pm_card_visa", {"customer": customer})
    assert api.payment_methods.update(method.id, {"metadata": {"a": "b"}}).metadata["a"] == "b"
    assert api.customers.update(customer, {"name": "Jenny"}).name == "Jenny"
    dispute = paid(api)
    simulator.control("/stripe/disputes", {"object": dispute.id, "inquiry": True, "amount": None})
    found = api.disputes.list({"payment_intent": dispute.id}).data[0]
    simulator.control(f"/stripe/disputes/{found.id}/escalate")
    assert api.customers.delete(customer).deleted is True
    assert api.customers.retrieve(customer).deleted is True
    passed("stripe: holds, late money, failed refunds, cancelled setups and deletions are understood")


def every_event_is_constructed(simulator, endpoint):
    """Runs last: waits for what all the calls before brought about."""
    secret = simulator.facts["stripe_webhook_secrets"][0]
    until("all deliveries", lambda: simulator.control("/deliveries", method="GET")["pending"] == 0)
    kinds = set()
    for headers, body in endpoint.of("/stripe"):
        event = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], secret)
        assert event.object == "event" and event.data.object["object"], event
        kinds.add(event.type)
    assert kinds == KINDS, (sorted(KINDS - kinds), sorted(kinds - KINDS))
    headers, body = endpoint.of("/stripe")[0]
    changed = body.replace(b'"livemode"', b'"deadmode"')
    raised(stripe.SignatureVerificationError,
           lambda: stripe.Webhook.construct_event(changed, headers["Stripe-Signature"], secret))
    assert json.loads(changed)
    passed(f"stripe: events of all {len(kinds)} kinds pass construct_event, a changed one does not")


def drive(simulator, endpoint):
    api = client_of(simulator)
    customer = api.customers.create({"email": "jenny@example.com", "name": "Jenny Rosen"}).id
    assert api.customers.retrieve(customer).email == "jenny@example.com"
    an_intent_is_created_confirmed_and_cancelled(api, customer)
    refunds_are_whole_or_part(api)
    methods_are_set_up_listed_and_detached(api, customer)
    a_bank_that_asks_raises_a_card_error(api, customer)
    errors_are_of_the_sdks_kinds(simulator, api)
    sessions_are_paid_expired_and_left(simulator, api, customer)
    disputes_are_read_and_closed(simulator, api)
    undelivered_events_are_found(simulator, api)
    what_happens_seldom(simulator, api, customer)
    every_event_is_constructed(simulator, endpoint)
