"""Receives poller's webhook: verifies the signature, takes single events and batches, drops what came before.

WEBHOOK_SECRET=whsec_... python receiver.py [PORT]    prints each new event's time, kind, stream and URL
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = Webhook(os.environ["WEBHOOK_SECRET"])
SEEN: set[str] = set()  # yours: a unique key in your database, in the transaction that stores the event
LOCK = threading.Lock()


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            SECRET.verify(body, dict(self.headers.items()))
        except WebhookVerificationError:
            return self.answer(401)  # poller tries again: nothing is lost while you put the secret right
        found = json.loads(body)
        with LOCK:  # several POSTs come at once
            for event in found if isinstance(found, list) else [found]:
                if event["id"] not in SEEN:  # delivery is at least once
                    print(
                        event["time"], event["type"], event.get("subject"), event["data"]["url"], flush=True
                    )
                    SEEN.add(event["id"])
        return self.answer(204)  # only now: whatever is answered 2xx is never sent again

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8090
    server = ThreadingHTTPServer(("127.0.0.1", port), Hook)
    print(f"listening on http://127.0.0.1:{server.server_port}/", file=sys.stderr, flush=True)
    server.serve_forever()
