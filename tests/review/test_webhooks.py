"""Webhooks, with a real server on this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from aspire_guard.review import Decision, ReviewItem, ReviewQueue, Webhook

KEY = b"a key of at least 24 bytes"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
APPROVE = Decision(action="approve", reviewer="bea")


class Receiver:
    """An address that answers 500 a given number of times, and then takes everything."""

    def __init__(self) -> None:
        self.failures = 0
        self.messages: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.failures > 0:
                    receiver.failures -= 1
                    self.send_response(500)
                else:
                    receiver.messages.append((dict(self.headers), body))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> list[tuple[str, str]]:
        """Return type and ticket of the messages, once there are so many."""
        end = time.monotonic() + 30
        while len(self.messages) < count and time.monotonic() < end:
            time.sleep(0.02)
        bodies = [json.loads(body) for _, body in self.messages]
        return [(body["type"], body["data"]["ticket"]["id"]) for body in bodies]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def test_a_webhook_is_told_in_order_and_signed(url: str, receiver: Receiver) -> None:
    """It is told of a decision by another process too, and its body holds no text of the answer."""
    hook = Webhook(url=receiver.url, secret=SecretStr(SECRET))
    queue = ReviewQueue(url, webhooks=[hook])
    ticket = queue.submit(ReviewItem(question="Who?", answer="zanq", group="acme"))
    queue.claim("bea")
    ReviewQueue(url).decide(ticket.id, APPROVE)
    assert receiver.wait_for(2) == [
        ("review.submitted", ticket.id),
        ("review.decided", ticket.id),
    ]
    headers, body = receiver.messages[1]
    data = json.loads(body)["data"]
    assert data["ticket"] == {
        "id": ticket.id, "key": ticket.item.key, "group": "acme", "status": "decided",
        "action": "approve",
    }  # fmt: skip
    assert b"zanq" not in body
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_an_address_that_fails_is_tried_again(url: str, receiver: Receiver) -> None:
    """Nothing is lost and nothing overtakes, also if another process sends the rest."""
    receiver.failures = 1
    hook = Webhook(url=receiver.url)
    queue = ReviewQueue(url, webhooks=[hook])
    ids = [queue.submit(ReviewItem(question=f"{n}?", answer="Ada")).id for n in range(3)]
    other = ReviewQueue(url, webhooks=[hook])
    queue.decide(ids[0], APPROVE)
    other.decide(ids[1], APPROVE)
    expected = [("review.submitted", one) for one in ids]
    expected += [("review.decided", one) for one in ids[:2]]
    assert receiver.wait_for(5) == expected
    time.sleep(0.3)
    assert len(receiver.messages) == 5


@pytest.mark.parametrize("wrong", [{"url": "nonsense"}, {"secret": "whsec_c2hvcnQ="}])
def test_a_webhook_needs_an_address_and_a_long_secret(wrong: dict[str, str]) -> None:
    """Both are checked when the webhook is made."""
    with pytest.raises(ValidationError):
        Webhook.model_validate({"url": "https://example.org"} | wrong)
