"""Receive notifications of the node: ``verify_webhook.py PORT SECRET_FILE`` checks each signature and prints each event once."""

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

OLDEST = 300  # seconds: an older request may have been recorded and sent again by somebody else
text = Path(sys.argv[2]).read_text(encoding="utf-8").strip()
secret = base64.b64decode(text.removeprefix("whsec_")) if text.startswith("whsec_") else text.encode()
seen = set()  # ids of messages; a receiver that restarts keeps them in its database


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to a message of the node, and 401 to any other request."""

    def do_POST(self) -> None:
        """Check the signature and the time of a message, then print its events."""
        body = self.rfile.read(int(self.headers["content-length"]))
        message, timestamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        expected = hmac.digest(secret, f"{message}.{timestamp}.".encode() + body, hashlib.sha256)
        given = self.headers["webhook-signature"].removeprefix("v1,")
        genuine = hmac.compare_digest(base64.b64encode(expected).decode(), given) and abs(time.time() - int(timestamp)) < OLDEST
        self.send_response(204 if genuine else 401)
        self.end_headers()
        if genuine and message not in seen:
            seen.add(message)
            for event in json.loads(body)["events"]:
                print(event["at"], event["kind"], event["text"], flush=True)

    def log_message(self, *_: object) -> None:
        """Print no line for each request."""


HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
