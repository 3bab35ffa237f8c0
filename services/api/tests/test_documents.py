"""The documents that are made from the code: complete, and committed as they are now."""

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from microfin.ledger.operation import Reason
from microfin_api.documentation import Documents
from microfin_api.http.problems import CATALOGUE, Problem
from microfin_api.reference import reference_files
from microfin_api.routes import ENDPOINTS

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(reference_files()))
def test_reference_is_fresh(name: str) -> None:
    assert (REFERENCE / name).read_bytes() == reference_files()[name], (
        "stale: run `python -m microfin_api.reference docs/reference`"
    )


def test_every_reason_is_in_the_catalogue() -> None:
    # A client sees a foreign account as a missing one.
    assert set(get_args(Reason)) - {"not_owner"} <= set(CATALOGUE)


def test_every_code_is_documented_where_it_can_occur() -> None:
    documented = {code for endpoint in ENDPOINTS for code in endpoint.problems}
    administrators_only = {"balance_not_zero", "state_unchanged"}
    anywhere = {"not_found", "method_not_allowed", "malformed_request"}
    assert set(CATALOGUE) - documented == administrators_only | anywhere


def test_a_problem_names_its_kind() -> None:
    answer = Problem("insufficient_funds", needed="2.00", available="1.00").answer()
    document = msgspec.json.decode(answer.body)
    assert answer.media_type == "application/problem+json"
    assert document["type"] == "/docs/errors#insufficient_funds"
    assert document["status"] == answer.status_code == 422
    assert document["needed"] == "2.00"


def test_every_unavailable_answer_says_when_to_come_back_if_that_helps() -> None:
    for code, kind in CATALOGUE.items():
        if kind.status == 503:
            assert ("retry-after" in Problem(code).answer().headers) is kind.repeat
    assert [code for code, kind in CATALOGUE.items() if not kind.repeat] == ["archive_unusable"]


def test_the_pages_need_nothing_from_elsewhere() -> None:
    documents = Documents.of(ENDPOINTS)
    for page in (documents.page, documents.problems):
        assert "://" not in page
        assert "<script" not in page


def test_every_reference_in_the_document_leads_somewhere() -> None:
    text = Documents.of(ENDPOINTS).openapi.decode()
    document = msgspec.json.decode(text)
    wanted = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert wanted <= set(document["components"]["schemas"])
