"""Hints of failed calls, as the command line gives them: none of them is Python."""

from __future__ import annotations

import re

import pytest

from cli.hints import HINT_OF_PHRASE, HINT_OF_REASON, HINT_OF_STATUS, with_hint
from kithkin import errors
from kithkin.errors import ERROR_OF_STATUS, NotFound, Unavailable

PYTHON = re.compile(r"client\.|Client\(|\w=\.\.\.|\w='|Tls\(|\w\(\.\.\.\)|\('")


@pytest.mark.parametrize("reason", errors.HINT_OF_REASON)
def test_no_reason_is_answered_in_python(reason: str) -> None:
    error = with_hint(NotFound("no", code="NOT_FOUND", reason=reason, hint=errors.HINT_OF_REASON[reason]))
    assert not PYTHON.search(error.hint)
    assert bool(error.hint) >= bool(errors.HINT_OF_REASON[reason])


@pytest.mark.parametrize("phrase", ["", *errors.HINT_OF_PHRASE, *HINT_OF_PHRASE])
@pytest.mark.parametrize("code", errors.HINT_OF_STATUS)
def test_no_status_is_answered_in_python(code: str, phrase: str) -> None:
    given = errors.HINT_OF_PHRASE.get(phrase, errors.HINT_OF_STATUS[code])
    error = with_hint(ERROR_OF_STATUS[code](f"failed: {phrase}", code=code, hint=given))
    if code != "UNAVAILABLE" and phrase in errors.HINT_OF_PHRASE:
        return
    assert error.hint
    assert not PYTHON.search(error.hint)


def test_what_is_known_of_a_connection_goes_before_its_status() -> None:
    error = with_hint(Unavailable("SSL: CERTIFICATE_VERIFY_FAILED", code="UNAVAILABLE"))
    assert error.hint == HINT_OF_PHRASE["CERTIFICATE_VERIFY_FAILED"]
    assert with_hint(Unavailable("gone", code="UNAVAILABLE")).hint == HINT_OF_STATUS["UNAVAILABLE"]
    assert set(HINT_OF_REASON) <= set(errors.HINT_OF_REASON)
