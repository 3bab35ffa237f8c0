"""Kafka's cluster id."""

import os
from pathlib import Path

import pytest

from microfin_local.kafka import make_cluster_id


def test_an_id_never_looks_like_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One id in 64 would begin with a dash, and formatting the storage would fail."""
    draws = iter([b"\xf8" * 16, b"\xfb" + b"\x00" * 15, b"\x04" * 16])
    monkeypatch.setattr(os, "urandom", lambda _size: next(draws))
    made = make_cluster_id(tmp_path / "cluster-id")
    assert not made.startswith("-")
    assert make_cluster_id(tmp_path / "cluster-id") == made
