"""A name server on a loopback port, which says what a test wants of any name."""

from __future__ import annotations

import contextlib
import socket
import threading

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.kit.waiting import PATIENCE


class NameServer:
    """Answers A queries over UDP. `address` is where it listens, as "127.0.0.1:PORT".

    `hosts` has the addresses of names, `default` those of all others; without addresses a name does not exist.
    `asked` are the names of the queries so far. With `silent` it answers nobody. A context manager.
    """

    def __init__(self, *default: str) -> None:
        self.default: tuple[str, ...] = default
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.asked: list[str] = []
        self.silent = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> NameServer:
        return self

    def __exit__(self, *error: object) -> None:
        # An empty message ends it: no query is one.
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(PATIENCE)
        self._socket.close()

    def _run(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            with contextlib.suppress(dns.exception.DNSException):
                query = dns.message.from_wire(data)
                answer = self._answer(query)
                if not self.silent:
                    self._socket.sendto(answer.to_wire(), peer)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        addresses = self.hosts.get(name, self.default)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if not addresses:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            self.asked.append(name)
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", *addresses))
        return answer
