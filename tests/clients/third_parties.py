"""Third parties against us: the official Stripe and PayPal SDKs, `cryptography`, and localstripe.

Started by tests/clients/run. Everything listens on 127.0.0.1 and is ended here.
"""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import stripe

import paypal_sdk
import stripe_sdk
from kit import PASSED, Endpoint, Simulator, Tollgate, call, passed, until

# Where tests/clients/run put the packages for Node, if it could.
NODE_HOME = ".tollgate/clients-node"
HAS_NODE = shutil.which("node") is not None and os.path.isdir(NODE_HOME + "/node_modules")
# How many checks the parts below have: one that ends early must not look whole.
EXPECTED = 10 + 5 + HAS_NODE + 4


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def the_sdk_confirms_what_our_purchase_created(tollgate):
    client = stripe.StripeClient(
        tollgate.facts["stripe_secret_key"],
        base_addresses={"api": tollgate.facts["stripe"].rstrip("/")},
    )
    status, bought = call(
        "POST", tollgate.api + "purchase/", {"plan_id": 1, "payment_method": "stripe"}, tollgate.auth
    )
    assert status == 201, bought
    intent = client.v1.payment_intents.retrieve(bought["transaction_id"])
    assert intent.amount == 1500 and intent.currency == "usd", intent
    assert intent.metadata["payment_id"] == bought["payment_id"], intent
    confirmed = client.v1.payment_intents.confirm(
        intent.id, {"payment_method": "pm_card_visa", "return_url": "https://app.example.com/"}
    )
    assert confirmed.status == "succeeded", confirmed

    def has_tokens():
        status, subscription = call("GET", tollgate.api + "subscription/", headers=tollgate.auth)
        return status == 200 and subscription["tokens_remaining"] == 1000

    until("tokens", has_tokens)
    passed("the official SDK retrieves and confirms our intent, and the tokens arrive")


def events_signed_by_the_sdk_are_accepted(tollgate):
    body = json.dumps(
        {"id": "evt_sdk", "object": "event", "type": "plan.created", "data": {"object": {}}}
    )
    now = int(time.time())
    secret = tollgate.facts["stripe_webhook_secret"]
    signature = stripe.WebhookSignature._compute_signature(f"{now}.{body}", secret)
    url = tollgate.api + "webhooks/stripe/"
    header = {"Stripe-Signature": f"t={now},v1={signature}"}
    assert call("POST", url, body.encode(), header) == (200, {"received": True})
    status, problem = call("POST", url, body.replace("plan", "plum").encode(), header)
    assert (status, problem["code"]) == (400, "invalid_signature"), problem
    passed("an event signed by the official SDK is accepted, a changed one is not")


class Relay(http.server.BaseHTTPRequestHandler):
    """Passes webhooks on to Tollgate and remembers what it answered."""

    target = None
    answers = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        header = {"Stripe-Signature": self.headers["Stripe-Signature"]}
        status, _ = call("POST", Relay.target, body, header)
        Relay.answers.append((json.loads(body)["type"], status))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


LOCALSTRIPE = """
import sys
from aiohttp import web
from localstripe import server
web.run_app(server.app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


def localstripe_and_we_understand_each_other(tollgate, folder):
    port = free_port()
    environment = dict(os.environ, HOME=folder, TMPDIR=folder)
    process = subprocess.Popen(
        [sys.executable, "-c", LOCALSTRIPE, str(port)],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    relay = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    try:
        until("localstripe", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        Relay.target = tollgate.api + "webhooks/stripe/"
        hook = {
            "url": f"http://127.0.0.1:{relay.server_address[1]}/",
            "secret": tollgate.facts["stripe_webhook_secret"],
        }
        config = urllib.request.Request(
            f"http://127.0.0.1:{port}/_config/webhooks/tollgate",
            data=json.dumps(hook).encode(), method="POST",
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(config, timeout=15).close()
        test = ["cargo", "test", "--quiet", "-p", "shared", "--lib", "--", "--ignored",
                "our_transport_creates_and_reads_a_customer_at_localstripe"]
        environment = dict(os.environ, LOCALSTRIPE_URL=f"http://127.0.0.1:{port}/")
        done = subprocess.run(test, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
        passed("our Stripe transport creates and retrieves a customer at localstripe")
        until("a webhook of localstripe", lambda: ("customer.created", 200) in Relay.answers)
        passed("a webhook signed by localstripe is accepted")
    finally:
        process.terminate()
        process.wait(30)
        relay.shutdown()


def paypals_schemas_hold_every_answer(simulator):
    """The SDK for Node checks each answer against PayPal's schemas; the one for Python does not."""
    if not HAS_NODE:
        print("skipped: PayPal's SDK for Node, for node or its packages are absent", flush=True)
        return
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "paypal_strict.mjs")
    command = ["node", script, json.dumps(simulator.facts)]
    done = subprocess.run(command, cwd=NODE_HOME, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    passed(f"paypal: {done.stdout.strip()} keep to PayPal's schemas and hold nothing besides")


def the_simulator_alone():
    endpoint = Endpoint()
    simulator = Simulator(endpoint)
    try:
        stripe_sdk.drive(simulator, endpoint)
        paypal_sdk.drive(simulator, endpoint)
        paypals_schemas_hold_every_answer(simulator)
    finally:
        simulator.stop()
        endpoint.stop()


def tollgate_as_a_whole():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        tollgate = Tollgate(os.path.join(folder, "data"))
        try:
            the_sdk_confirms_what_our_purchase_created(tollgate)
            events_signed_by_the_sdk_are_accepted(tollgate)
            localstripe_and_we_understand_each_other(tollgate, folder)
        finally:
            tollgate.stop()


def main():
    try:
        the_simulator_alone()
        tollgate_as_a_whole()
    finally:
        print(f"third parties: {len(PASSED)} of {EXPECTED} passed", flush=True)
    sys.exit(len(PASSED) != EXPECTED)


if __name__ == "__main__":
    main()
