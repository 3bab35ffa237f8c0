import subprocess
from pathlib import Path

from microfin_local.endpoints import Endpoints
from microfin_local.session import shell_session, summary

_ENDPOINTS = Endpoints(
    api="http://127.0.0.1:8000", postgres_shards=["postgresql://microfin:secret@127.0.0.1:5432/m"]
)


def test_the_session_is_shell() -> None:
    session = shell_session(_ENDPOINTS)
    subprocess.run(["sh", "-n"], input=session, text=True, check=True)
    assert "{{" not in session


def test_no_password_is_printed(tmp_path: Path) -> None:
    assert "secret" not in summary(tmp_path, _ENDPOINTS, "Ctrl-C")
