"""Every refusal of the gateway: its status and code are the contract, and it can stand in a response."""

from __future__ import annotations

import pytest

from koder_gateway import errors
from koder_gateway.errors import Refusal, RefusedError

ALL = {name: value for name, value in vars(errors).items() if isinstance(value, Refusal)}
# Status and codes are the product's contract.
CONTRACT = {
    400: {"bad_request", "tenant_required", "tenant_conflict"},
    403: {"tenant_suspended", "not_allowed"},
    404: {"no_route", "unknown_tenant"},
    405: {"method_not_allowed"},
    408: {"request_timeout"},
    413: {"body_too_large"},
    414: {"uri_too_long"},
    417: {"expectation_failed"},
    421: {"misdirected_request"},
    429: {"rate_limited"},
    431: {"head_too_large"},
    500: {"internal_error"},
    501: {"not_implemented"},
    502: {"upstream_unreachable", "upstream_untrusted", "upstream_invalid", "upstream_closed"},
    503: {"overloaded", "draining"},
    504: {"upstream_timeout"},
}


def test_the_codes_are_those_of_the_contract() -> None:
    codes: dict[int, set[str]] = {}
    for refusal in ALL.values():
        codes.setdefault(refusal.status, set()).add(refusal.code)
    assert codes == CONTRACT


@pytest.mark.parametrize("refusal", ALL.values(), ids=ALL)
def test_a_refusal_can_stand_in_an_answer(refusal: Refusal) -> None:
    assert refusal.title.isascii()
    assert refusal.fields == b"" or refusal.fields.endswith(b"\r\n")
    assert refusal.detail.endswith(".")


def test_a_refusal_is_a_value() -> None:
    refusal = errors.NO_ROUTE.because("Not here.").with_fields(b"A: 1\r\n").with_fields(b"B: 2\r\n").closing()
    assert (refusal.detail, refusal.fields, refusal.close) == ("Not here.", b"A: 1\r\nB: 2\r\n", True)
    assert (errors.NO_ROUTE.fields, errors.NO_ROUTE.close) == (b"", False)
    assert errors.METHOD_NOT_ALLOWED.with_fields(b"A: 1\r\n").fields.startswith(b"Allow: GET")


def test_a_refusal_can_be_raised() -> None:
    raised = RefusedError(errors.NO_ROUTE)
    assert raised.refusal is errors.NO_ROUTE
    assert str(raised) == errors.NO_ROUTE.detail
