"""`penstock.contracts.results`: the public face of an error is bounded and can always be written."""

from __future__ import annotations

import json

from penstock.contracts.errors import BackendTimeout, InvalidRequest
from penstock.contracts.results import MAX_ERROR_CHARACTERS, ErrorDetail


def test_an_error_shows_its_code_field_and_limit() -> None:
    error = InvalidRequest("temperature: too hot", code="invalid_field", field="temperature", limit=2)
    detail = ErrorDetail.of(error, "preprocess")
    assert detail == ErrorDetail(
        code="invalid_field", message="temperature: too hot", stage="preprocess", field="temperature", limit=2
    )
    assert ErrorDetail.of(BackendTimeout("slow"), "inference").retriable


def test_an_error_cannot_make_a_record_too_large_or_unwritable() -> None:
    error = InvalidRequest("\ud800" + "m" * 5000, field="\udfff" + "f" * 5000, limit="l" * 5000)
    detail = ErrorDetail.of(error, "preprocess")
    assert len(detail.message) == MAX_ERROR_CHARACTERS
    assert len(detail.field or "") == MAX_ERROR_CHARACTERS
    assert len(str(detail.limit)) == MAX_ERROR_CHARACTERS
    assert json.loads(detail.model_dump_json())["message"].startswith("?m")
