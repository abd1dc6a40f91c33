"""What the checks share: calls, waiting, an endpoint for webhooks, Tollgate's processes."""

import http.server
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request

PASSED = []


def passed(what):
    PASSED.append(what)
    print("ok", what, flush=True)


def call(method, url, body=None, headers=None):
    """Sends JSON or bytes; returns status and decoded answer."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    if body is not None and not isinstance(body, bytes):
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def until(what, condition, seconds=30):
    """Waits for a condition with a deadline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


class Endpoint:
    """Takes webhooks in, answers 200 and keeps path, headers and exact body of each."""

    def __init__(self):
        received = self.received = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.path, self.headers, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, path):
        return [(headers, body) for at, headers, body in self.received if at == path]

    def stop(self):
        self.server.shutdown()


class Process:
    """A `tollgate` command that prints one line of JSON and runs until it is ended."""

    def __init__(self, *arguments):
        root = os.environ.get("CARGO_TARGET_DIR", "target")
        command = [f"{root}/debug/tollgate", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, f"{arguments[0]} ended before it was ready"
        self.facts = json.loads(line)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Tollgate(Process):
    def __init__(self, folder):
        super().__init__("dev", "--json", "--port", "0", "--data-dir", folder)
        self.api = self.facts["api"] + "/api/v1/billing/"
        self.auth = {"Authorization": "Bearer " + self.facts["customer"]["token"]}


class Simulator(Process):
    def __init__(self, endpoint):
        super().__init__(
            "simulator", "--json", "--stripe-port", "0", "--paypal-port", "0",
            "--paypal-tls-port", "0",
            "--stripe-webhook-url", endpoint.url + "/stripe",
            "--paypal-webhook-url", endpoint.url + "/paypal",
        )

    def control(self, path, body=None, method="POST"):
        """Plays the buyer, the bank or the gateway's staff."""
        url = self.facts["control"].rstrip("/") + path
        status, answer = call(method, url, None if method == "GET" else body or {})
        assert status < 300, (path, status, answer)
        return answer
