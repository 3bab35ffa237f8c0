"""The sentence with which a command ends."""

import contextlib
import io

import pytest
import typer
from aiokafka.errors import TopicAuthorizationFailedError

from microfin_tools.cli.failures import COULD_NOT, reported


def test_a_right_that_is_missing_in_kafka_is_named() -> None:
    """Trimming by hand, for example: only the Job's user may delete records."""
    said = io.StringIO()
    with pytest.raises(typer.Exit) as ended, contextlib.redirect_stderr(said), reported():
        raise TopicAuthorizationFailedError
    assert ended.value.exit_code == COULD_NOT
    assert "has not the right" in said.getvalue()
    assert "--from=cronjob/microfin-trim" in said.getvalue()
