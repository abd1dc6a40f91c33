"""The official PayPal server SDK drives the simulator, and `cryptography` proves its webhooks.

The SDK knows the addresses of PayPal's two environments only. What it lets one choose is the HTTP
client (`http_client_instance`): ours sends what is meant for the sandbox to the simulator.
"""

import base64
import datetime
import urllib.parse
import urllib.request
import zlib

import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from paypalserversdk.exceptions.error_exception import ErrorException
from paypalserversdk.http.auth.o_auth_2 import ClientCredentialsAuthCredentials
from paypalserversdk.models.order_request import OrderRequest
from paypalserversdk.models.payment_token_request import PaymentTokenRequest
from paypalserversdk.models.refund_request import RefundRequest
from paypalserversdk.models.setup_token_request import SetupTokenRequest
from paypalserversdk.paypal_serversdk_client import PaypalServersdkClient

from kit import passed, until

SANDBOX = "https://api-m.sandbox.paypal.com"
# The host of PayPal's certificates for messages.
SIGNER = "messageverificationcerts.sandbox.paypal.com"
WHOLE = "return=representation"
RETURN_URL, CANCEL_URL = "https://app.example.com/done", "https://app.example.com/cart"


class Redirected(requests.Session):
    """Sends the sandbox's requests to another address."""

    def __init__(self, base):
        super().__init__()
        self.base = base.rstrip("/")
        self.trust_env = False

    def request(self, method, url, **options):
        assert url.startswith(SANDBOX), url
        return super().request(method, self.base + url.removeprefix(SANDBOX), **options)


def client_of(simulator):
    return PaypalServersdkClient(
        http_client_instance=Redirected(simulator.facts["paypal"]),
        client_credentials_auth_credentials=ClientCredentialsAuthCredentials(
            o_auth_client_id=simulator.facts["paypal_client_id"],
            o_auth_client_secret=simulator.facts["paypal_client_secret"],
        ),
    )


def refused(act):
    """Returns the SDK's error with its name and issues."""
    try:
        answer = act()
    except ErrorException as error:
        issues = [detail.issue for detail in error.details or []]
        assert error.name and error.message and error.debug_id, error
        return error.response_code, error.name, issues
    raise AssertionError(f"not refused: {answer}")


def order_of(payment, **wallet):
    source = {"paypal": {
        "experience_context": {"return_url": RETURN_URL, "cancel_url": CANCEL_URL}, **wallet,
    }}
    return OrderRequest.from_dictionary({
        "intent": "CAPTURE",
        "purchase_units": [{
            "amount": {"currency_code": "USD", "value": "10.99"},
            "custom_id": payment, "invoice_id": payment,
        }],
        "payment_source": source,
    })


def captures_of(order):
    return order.purchase_units[0].payments.captures


def an_order_is_approved_captured_and_read(simulator, client):
    asked = {"body": order_of("payment-1"), "paypal_request_id": "order-1", "prefer": WHOLE}
    made = client.orders.create_order(asked)
    assert made.status_code == 201 and made.body.status == "PAYER_ACTION_REQUIRED", made.body
    again = client.orders.create_order(asked)
    assert (again.status_code, again.body.id) == (200, made.body.id), again.body
    links = {link.rel: link.href for link in made.body.links}
    assert links["payer-action"].startswith(simulator.facts["paypal"]), links
    capture = {"id": made.body.id, "paypal_request_id": "capture-1", "prefer": WHOLE}
    early = refused(lambda: client.orders.capture_order(capture))
    assert early == (422, "UNPROCESSABLE_ENTITY", ["ORDER_NOT_APPROVED"]), early
    simulator.control(f"/paypal/orders/{made.body.id}/approve", {"funding": "instant"})
    done = client.orders.capture_order({**capture, "paypal_request_id": "capture-2"})
    assert done.status_code == 201 and done.body.status == "COMPLETED", done.body
    taken = captures_of(done.body)[0]
    assert (taken.status, taken.amount.value, taken.custom_id) == ("COMPLETED", "10.99", "payment-1")
    read = client.orders.get_order({"id": made.body.id}).body
    assert captures_of(read)[0].id == taken.id and read.payment_source.paypal.account_id, read
    twice = refused(lambda: client.orders.capture_order({**capture, "paypal_request_id": "capture-3"}))
    assert twice[2] == ["ORDER_ALREADY_CAPTURED"], twice
    missing = refused(lambda: client.orders.get_order({"id": "NONE"}))
    assert missing[:2] == (404, "RESOURCE_NOT_FOUND"), missing
    passed("paypal: an order is created, approved, captured and read; early and twice are refused")
    return taken.id


def a_capture_is_refunded(client, capture):
    read = client.payments.get_captured_payment({"capture_id": capture}).body
    breakdown = read.seller_receivable_breakdown
    assert (read.status, breakdown.gross_amount.value) == ("COMPLETED", "10.99"), read
    assert read.supplementary_data.related_ids.order_id and read.final_capture, read
    part = RefundRequest.from_dictionary(
        {"amount": {"currency_code": "USD", "value": "4.00"}, "note_to_payer": "Sorry"}
    )
    asked = {"capture_id": capture, "body": part, "paypal_request_id": "refund-1", "prefer": WHOLE}
    made = client.payments.refund_captured_payment(asked)
    assert made.status_code == 201 and made.body.status == "COMPLETED", made.body
    again = client.payments.refund_captured_payment(asked)
    assert (again.status_code, again.body.id) == (200, made.body.id), again.body
    refund = client.payments.get_refund({"refund_id": made.body.id}).body
    assert refund.amount.value == "4.00", refund
    assert refund.seller_payable_breakdown.total_refunded_amount.value == "4.00", refund
    read = client.payments.get_captured_payment({"capture_id": capture}).body
    assert read.status == "PARTIALLY_REFUNDED", read
    rest = {"capture_id": capture, "paypal_request_id": "refund-2", "prefer": WHOLE}
    assert client.payments.refund_captured_payment(rest).body.amount.value == "6.99"
    over = refused(lambda: client.payments.refund_captured_payment({**rest, "paypal_request_id": "refund-3"}))
    assert over == (422, "UNPROCESSABLE_ENTITY", ["CAPTURE_FULLY_REFUNDED"]), over
    passed("paypal: a capture is read and refunded in part and in whole; more is refused")


def a_way_to_pay_is_saved_and_charged(simulator, client):
    asked = SetupTokenRequest.from_dictionary({
        "payment_source": {"paypal": {
            "usage_type": "MERCHANT", "usage_pattern": "RECURRING_PREPAID",
            "experience_context": {"return_url": RETURN_URL, "cancel_url": CANCEL_URL},
        }},
    })
    setup = client.vault.create_setup_token({"body": asked, "paypal_request_id": "setup-1"}).body
    assert setup.status == "PAYER_ACTION_REQUIRED", setup
    assert "approve" in [link.rel for link in setup.links], setup
    simulator.control(f"/paypal/setup-tokens/{setup.id}/approve")
    assert client.vault.get_setup_token(setup.id).body.status == "APPROVED"
    asked = PaymentTokenRequest.from_dictionary(
        {"payment_source": {"token": {"id": setup.id, "type": "SETUP_TOKEN"}}}
    )
    token = client.vault.create_payment_token({"body": asked, "paypal_request_id": "token-1"}).body
    assert token.payment_source.paypal.email_address == "buyer@example.com", token
    listed = client.vault.list_customer_payment_tokens({"customer_id": token.customer.id}).body
    assert [it.id for it in listed.payment_tokens] == [token.id], listed
    assert client.vault.get_payment_token(token.id).body.id == token.id
    charge = order_of("payment-2", vault_id=token.id, stored_credential={
        "payment_initiator": "MERCHANT", "usage": "SUBSEQUENT", "usage_pattern": "RECURRING_PREPAID",
    })
    charged = client.orders.create_order({"body": charge, "paypal_request_id": "renew-1", "prefer": WHOLE})
    assert charged.body.status == "COMPLETED", charged.body
    assert captures_of(charged.body)[0].status == "COMPLETED", charged.body
    assert client.vault.delete_payment_token(token.id).status_code == 204
    gone = refused(lambda: client.vault.get_payment_token(token.id))
    assert gone[0] == 404, gone
    passed("paypal: a way to pay is set up, listed, charged without the payer, and deleted")


def the_history_shows_what_moved(client, capture):
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    found = client.transaction_search.search_transactions({
        "start_date": (now - day).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_date": (now + day).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fields": "all",
    }).body
    lines = [detail.transaction_info for detail in found.transaction_details]
    # The SDK leaves out members that were not answered.
    ours = [line for line in lines
            if capture in (line.transaction_id, getattr(line, "paypal_reference_id", None))]
    amounts = sorted(line.transaction_amount.value for line in ours)
    assert amounts == ["-4.00", "-6.99", "10.99"], amounts
    passed("paypal: the transaction search shows the capture and its refunds")


def genuine(simulator, headers, body):
    """Proves one delivery offline, by PayPal's published recipe, from the root alone."""
    assert headers["Paypal-Auth-Algo"] == "SHA256withRSA", headers
    path = urllib.parse.urlparse(headers["Paypal-Cert-Url"]).path
    with urllib.request.urlopen(simulator.facts["paypal"].rstrip("/") + path, timeout=15) as answer:
        leaf, *between = x509.load_pem_x509_certificates(answer.read())
    root = x509.load_pem_x509_certificate(simulator.facts["paypal_root_pem"].encode())
    verifier = x509.verification.PolicyBuilder().store(x509.verification.Store([root]))
    verifier.build_server_verifier(x509.DNSName(SIGNER)).verify(leaf, between)
    named = [headers["Paypal-Transmission-Id"], headers["Paypal-Transmission-Time"],
             simulator.facts["paypal_webhook_id"], str(zlib.crc32(body))]
    signature = base64.b64decode(headers["Paypal-Transmission-Sig"])
    try:
        leaf.public_key().verify(signature, "|".join(named).encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def every_delivery_is_proved(simulator, endpoint):
    """Runs last: waits for what all the calls before brought about."""
    until("all deliveries", lambda: simulator.control("/deliveries", method="GET")["pending"] == 0)
    delivered = endpoint.of("/paypal")
    assert len(delivered) >= 8, len(delivered)
    for headers, body in delivered:
        assert genuine(simulator, headers, body), headers
    headers, body = delivered[0]
    assert not genuine(simulator, headers, body.replace(b"10.99", b"10.98"))
    passed(f"paypal: {len(delivered)} webhooks are proved offline by cryptography, a changed one is not")


def drive(simulator, endpoint):
    client = client_of(simulator)
    capture = an_order_is_approved_captured_and_read(simulator, client)
    a_capture_is_refunded(client, capture)
    a_way_to_pay_is_saved_and_charged(simulator, client)
    the_history_shows_what_moved(client, capture)
    every_delivery_is_proved(simulator, endpoint)
