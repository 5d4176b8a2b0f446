"""Clients that ask while something happens, and forgive nothing."""

from __future__ import annotations

import http.client
import ssl
import threading
import time

from .saying import PATIENCE, expect

CLIENTS = 10
# Seconds between two requests of a client: 500 a second together, where the machine can do it.
PACE = CLIENTS / 500


class Traffic:
    """Clients on kept connections over TLS, from `with` to its end. A request is lost if its response is not 200 and
    complete, whatever the reason; a connection that the gateway has said it closes is opened anew."""

    def __init__(self, port: int, host: str, path: str) -> None:
        self._port, self._host, self._path = port, host, path
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE)
        self._context = ssl.create_default_context(cadata=pem)
        self._context.check_hostname = False
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        self.answered = 0
        self.lost: list[str] = []

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def more(self, count: int = 500) -> None:
        """Wait until so many more have been answered. Failed if that takes too long."""
        goal, deadline = self.answered + count, time.monotonic() + PATIENCE
        while self.answered < goal and not self.lost:
            expect(time.monotonic() < deadline, f"{self.answered} requests were answered, and then no more")
            time.sleep(0.05)

    def _ask(self, number: int) -> None:
        # Each has an address of its own: limits count them apart.
        source = (f"127.0.0.{10 + number}", 0)
        connection: http.client.HTTPSConnection | None = None
        while not self._enough.wait(PACE):
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection(
                        "127.0.0.1", self._port, timeout=PATIENCE, context=self._context, source_address=source
                    )
                connection.request("GET", self._path, headers={"Host": self._host})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.lost.append(f"status {response.status}")
                self.answered += 1
                if response.getheader("Connection", "").lower() == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{type(error).__name__}: {error}")
                connection = None
        if connection is not None:
            connection.close()
