"""When an object is as the operator wants it."""

from typing import Any

import pytest

from microfin_operator.drift import covers, with_hash


@pytest.mark.parametrize(
    ("live", "wanted", "so"),
    [
        ({"a": 1, "default": 2}, {"a": 1}, True),
        ({"a": 2}, {"a": 1}, False),
        ({}, {"a": 1}, False),
        ({"a": None}, {"a": {"b": 1}}, False),
        ([{"name": "x", "default": 1}], [{"name": "x"}], True),
        ([{"name": "x"}, {"name": "y"}], [{"name": "x"}], False),
        ([], [{"name": "x"}], False),
        ("1", 1, False),
    ],
)
def test_what_is_there_may_hold_more(live: Any, wanted: Any, so: bool) -> None:
    assert covers(live, wanted) is so


def test_the_hash_depends_on_the_content_and_not_on_the_order() -> None:
    one = with_hash({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}})
    other = with_hash({"spec": {"b": 2, "a": 1}, "metadata": {"name": "x"}})
    less = with_hash({"metadata": {"name": "x"}, "spec": {"a": 1}})
    assert one["metadata"] == other["metadata"]
    assert one["metadata"] != less["metadata"]
