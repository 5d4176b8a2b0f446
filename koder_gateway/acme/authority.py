"""One thread's conversation with the authority (RFC 8555), by certbot's `acme` library.

The library signs, keeps nonces, and reads problem documents; how long, how much and how often is decided here. Each
method raises OrderError, with the authority's own words, for whatever goes wrong.
"""

from __future__ import annotations

import base64
import datetime
import email.utils
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NoReturn, TypeVar, cast

import josepy.errors
import msgspec
import requests
from acme import client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.interfaces import JSONDeSerializable
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from .bounded_http import BoundedHttp, UnreachableError
from .faults import LONGEST_PATIENCE, Fault, OrderError, plain, refused, told_after, unreachable
from .messages import Terms
from .storage import Account, Storage

T = TypeVar("T")

# How often one request is signed anew, with another nonce.
_NONCES: Final = 5
# What an answer leads to that is none of an authority's; JSON may be nested too deep to be read.
_STRANGE: Final = (
    errors.Error,
    josepy.errors.Error,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    RecursionError,
)
# What authorities say of an account that was ended; there is no type for it.
_ENDED: Final = ("deactivated", "revoked", "no longer valid")
# How many problems of one answer are told.
_PROBLEMS: Final = 4


class Problem(msgspec.Struct):
    """A problem document within another answer."""

    type: str = ""
    detail: str = ""
    subproblems: list[Problem] = []


class ChallengeBody(msgspec.Struct):
    """A challenge of an authorization."""

    type: str = ""
    url: str = ""
    token: str = ""
    status: str = ""
    error: Problem | None = None


class AuthorizationBody(msgspec.Struct):
    """An authorization."""

    status: str = ""
    challenges: list[ChallengeBody] = []


class OrderBody(msgspec.Struct):
    """An order."""

    status: str = ""
    authorizations: list[str] = []
    finalize: str = ""
    certificate: str = ""
    error: Problem | None = None


class _Window(msgspec.Struct):
    start: str
    end: str


class _RenewalBody(msgspec.Struct, rename="camel"):
    suggested_window: _Window
    explanation_url: str = msgspec.field(name="explanationURL", default="")


class RenewalInfo(msgspec.Struct):
    """When the authority wants a certificate renewed, in seconds since the epoch, why, and in how many seconds it
    wants to be asked again (None: it does not say)."""

    window: tuple[float, float]
    explanation: str
    after: float | None


class _Json(JSONDeSerializable):
    """The body of a request."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body

    def to_partial_json(self) -> dict[str, Any]:
        """It as it is."""
        return self._body

    @classmethod
    def from_json(cls, jobj: Any) -> NoReturn:
        """Nobody reads one."""
        raise NotImplementedError


class _Network(client.ClientNetwork):
    """The library's requests, over HTTP with bounds."""

    def __init__(self, http: BoundedHttp, key: JWK) -> None:
        super().__init__(key, alg=ES256)
        self._http = http
        self.last: requests.Response | None = None

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        self.last = None
        headers: Mapping[str, str] = kwargs.get("headers", {})
        self.last = self._http.request(method, url, headers, kwargs.get("data"))
        return self.last

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """As the library's, which signs anew but once."""
        for _ in range(_NONCES - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)


class Authority:
    """A conversation by the account that `storage` has, which is made if need be. The caller closes it."""

    def __init__(self, terms: Terms, storage: Storage) -> None:
        self._terms = terms
        self._storage = storage
        self._http = BoundedHttp(terms.ca, terms.agent)
        account = storage.account(terms.directory)
        bound = terms.eab[0] if terms.eab else ""
        key = None if account is None or account.bound != bound else _key(account)
        if account is None or key is None:
            key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
            account = Account(key=key.to_json(), bound=bound)
        self._account = account
        self._key = key
        self._network = _Network(self._http, key)
        try:
            with self._telling(""):
                self._directory = client.ClientV2.get_directory(terms.directory, self._network)
                self._client = client.ClientV2(self._directory, self._network)
            self._register()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it."""
        self._http.close()

    @property
    def thumbprint(self) -> bytes:
        """That of the account's key (RFC 7638)."""
        return bytes(self._key.thumbprint())

    @property
    def has_renewal_info(self) -> bool:
        """Whether it suggests when to renew (RFC 9773)."""
        return isinstance(getattr(self._directory, "renewalInfo", None), str)

    def new_order(self, name: str, replaces: str) -> tuple[str, OrderBody]:
        """A new order, and its URL. `replaces` is the certificate that it renews, "" for none."""
        body: dict[str, Any] = {"identifiers": [{"type": "dns", "value": name}]}
        if self._terms.profile:
            body["profile"] = self._terms.profile
        if replaces and self.has_renewal_info:
            try:
                return self._new_order(name, {**body, "replaces": replaces})
            except OrderError as error:
                # RFC 9773 section 5: another order has replaced it, or it knows nothing of it any more.
                if error.fault.result != "rejected":
                    raise
        return self._new_order(name, body)

    def _new_order(self, name: str, body: dict[str, Any]) -> tuple[str, OrderBody]:
        with self._of_account(), self._telling(name):
            response = self._post(self._directory["newOrder"], body)
            return response.headers["Location"], _decoded(response, OrderBody)

    @contextmanager
    def _of_account(self) -> Iterator[None]:
        """What is refused within is refused to the account."""
        try:
            yield
        except OrderError as error:
            if error.fault.code in ("unauthorized", "accountDoesNotExist"):
                raise OrderError(self._lost(error.fault)) from None
            raise

    def _lost(self, fault: Fault) -> Fault:
        """The authority does not take the account. One that it does not know any more, or has ended, is forgotten, so
        that a new one is made next time."""
        gone = fault.code == "accountDoesNotExist" or any(word in fault.words.lower() for word in _ENDED)
        if not gone:
            return replace(fault, scope="account", advice="see what the authority wants of the account")
        self._storage.keep_account(self._terms.directory, Account(key={}, bound=self._account.bound))
        return replace(fault, scope="account", advice="wait: a new account is made at the next try", after=1.0)

    def order(self, url: str, name: str) -> tuple[OrderBody, float | None]:
        """An order as it is now, and in how many seconds the authority wants to be asked again."""
        return self._get(url, name, OrderBody)

    def authorization(self, url: str, name: str) -> tuple[AuthorizationBody, float | None]:
        """The same of an authorization."""
        return self._get(url, name, AuthorizationBody)

    def accept(self, challenge: ChallengeBody, name: str) -> None:
        """Have the authority look for the answer to a challenge (RFC 8555 section 7.5.1)."""
        with self._telling(name):
            self._post(challenge.url, {})

    def finalize(self, order: OrderBody, request: x509.CertificateSigningRequest, name: str) -> OrderBody:
        """Have the certificate made."""
        encoded: Any = messages.CertificateRequest(csr=request)
        with self._telling(name):
            return _decoded(self._post(order.finalize, encoded.to_json()), OrderBody)

    def certificate(self, url: str, name: str) -> bytes:
        """A certificate with its chain, in PEM."""
        with self._telling(name):
            return bytes(self._post(url, None).content)

    def renewal_info(self, ari: str) -> RenewalInfo | None:
        """What the authority says of the renewal of a certificate; None where it says nothing."""
        if not self.has_renewal_info or not ari:
            return None
        with self._telling(""):
            response = self._network.get(f"{self._directory['renewalInfo'].rstrip('/')}/{ari}")
            body = _decoded(response, _RenewalBody)
            start, end = (_moment(each) for each in (body.suggested_window.start, body.suggested_window.end))
            if end < start:
                raise ValueError("its window ends before it starts")
            return RenewalInfo((start, end), plain(body.explanation_url, 200), asked_patience(response))

    def _register(self) -> None:
        known = self._account.url
        if known:
            self._network.account = messages.RegistrationResource(body=messages.Registration(), uri=known)
            self._update_contact()
            return
        # Kept before it is known there: the same key finds the same account after a sudden end.
        self._storage.keep_account(self._terms.directory, self._account)
        parts: dict[str, Any] = {"terms_of_service_agreed": True}
        if self._terms.contact:
            parts["contact"] = tuple(self._contact())
        with self._telling(""):
            if self._terms.eab is not None:
                key_id, secret = self._terms.eab
                mac = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
                parts["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                    self._key.public_key(), key_id, mac, self._directory
                )
            elif self._client.external_account_required():
                raise OrderError(refused("externalAccountRequired", "it wants an external account", status=403))
            found = False
            try:
                url = self._client.new_account(messages.NewRegistration(**parts)).uri
            except errors.ConflictError as there:
                url, found = there.location, True
            if not url:
                raise ValueError("it names no account")
        self._network.account = messages.RegistrationResource(body=messages.Registration(), uri=url)
        # An account that was there already may have another contact.
        told = None if found else self._terms.contact
        self._account = Account(key=self._account.key, url=url, bound=self._account.bound, contact=told)
        self._storage.keep_account(self._terms.directory, self._account)
        self._update_contact()

    def _contact(self) -> list[str]:
        return [f"mailto:{address}" for address in self._terms.contact]

    def _update_contact(self) -> None:
        """Have the account's contact be that of the settings (RFC 8555 section 7.3.2)."""
        if self._account.contact == self._terms.contact:
            return
        with self._of_account(), self._telling(""):
            self._post(self._account.url, {"contact": self._contact()})
        self._account = msgspec.structs.replace(self._account, contact=self._terms.contact)
        self._storage.keep_account(self._terms.directory, self._account)

    def _get(self, url: str, name: str, kind: type[T]) -> tuple[T, float | None]:
        with self._telling(name):
            response = self._post(url, None)
            return _decoded(response, kind), asked_patience(response)

    def _post(self, url: str, body: dict[str, Any] | None) -> requests.Response:
        payload = None if body is None else _Json(body)
        return self._network.post(url, payload, new_nonce_url=self._directory["newNonce"])

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        """Raises OrderError for whatever the authority does wrong within. `name`: whose order it is, "" for none."""
        try:
            yield
        except UnreachableError as error:
            raise OrderError(unreachable(f"{self._terms.directory}: {error}")) from None
        except messages.Error as error:
            last = self._network.last
            status, after = (0, None) if last is None else (last.status_code, asked_patience(last))
            words = _words(error)
            after = told_after(words, time.time()) if after is None else after
            raise OrderError(
                refused(str(error.typ), words, status=status, name=name, after=after, link=_terms_link(last))
            ) from None
        except errors.ConflictError:
            raise OrderError(refused("conflict", "it answers 409", status=409, name=name)) from None
        except _STRANGE:
            raise OrderError(self._strange(name)) from None

    def _strange(self, name: str) -> Fault:
        """It answers, but not as an authority does."""
        last = self._network.last
        if last is None:
            return unreachable(f"{self._terms.directory}: its answer is not that of an ACME authority")
        kind = plain(last.headers.get("Content-Type", "nothing"), 60)
        said = f"{self._terms.directory}: it answers {last.status_code} with {kind}, not as an ACME authority does"
        if last.status_code == 429:
            return refused("rateLimited", said, status=429, name=name, after=asked_patience(last))
        return unreachable(said, asked_patience(last), last.status_code)


def challenge_fault(problem: Problem | None, name: str, otherwise: str) -> Fault:
    """Why an authorization or an order has become invalid, by the problem that the authority tells."""
    if problem is None:
        return refused("", otherwise, status=403, name=name)
    details = [problem.detail, *(each.detail for each in problem.subproblems[:_PROBLEMS])]
    words = "; ".join(filter(None, details)) or otherwise
    fault = refused(problem.type, words, status=403, name=name)
    if fault.scope in ("authority", "account") and fault.result != "limited":
        # What it says of one name's challenge is about that one.
        return Fault("rejected", "name", fault.words, fault.advice, fault.after, fault.code)
    return fault


def _words(error: messages.Error) -> str:
    details = [error.detail or error.title or ""]
    details += [each.detail or "" for each in (error.subproblems or ())[:_PROBLEMS]]
    return "; ".join(filter(None, map(str, details)))


def _key(account: Account) -> JWK | None:
    try:
        return cast(JWK, JWKEC.from_json(account.key))
    except (josepy.errors.Error, ValueError, LookupError, TypeError):
        # It is lost, and so is the account.
        return None


def _decoded(response: requests.Response, kind: type[T]) -> T:
    return msgspec.json.decode(response.content, type=kind)


def _terms_link(response: requests.Response | None) -> str:
    if response is None:
        return ""
    return str(response.links.get("terms-of-service", {}).get("url", ""))


def asked_patience(response: requests.Response, now: Callable[[], float] = time.time) -> float | None:
    """Retry-After in seconds (RFC 9110 section 10.2.3), but no longer than anybody waits; None for what is none."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_PATIENCE)
    try:
        return min(max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now()), LONGEST_PATIENCE)
    except (ValueError, TypeError, OverflowError):
        return None


def _moment(text: str) -> float:
    """A time of RFC 3339, in seconds since the epoch."""
    moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
