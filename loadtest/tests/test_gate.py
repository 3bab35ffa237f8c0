"""The gate: what a Prometheus has of a run, asked by the program that runs in a pod.

The Prometheus is a real one. Samples come to it as k6 names them: from a page that it scrapes, and,
where there is a k6, from k6's own remote write.
"""

import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.kubernetes import prometheus_answers
from microfin_loadtest.kubernetes.gate import (
    answers,
    gate_command,
    query_address,
    questions,
    why_closed,
)
from microfin_loadtest.kubernetes.objects import Load, job
from microfin_loadtest.scripts import FOLDER
from microfin_loadtest.summary import read_figures
from microfin_local.programs import find_program
from support.ports import free_port
from support.waiting import until_blocking

PROGRAM: Final = Path(prometheus_answers.__file__).read_text()
BUILT_K6: Final = FOLDER.parent / ".local/cache/bin/k6"
WRITE: Final = "http://prometheus.monitoring:9090/api/v1/write"
QUERY: Final = "http://prometheus.monitoring:9090/api/v1/query"

# As k6 v1.8.1 writes them. The requests of `setup` are in k6_http_reqs_total and in no counter of
# lib.js.
SAMPLES: Final = """\
k6_http_reqs_total{testid="good"} 12
k6_http_reqs_total{testid="good",scenario="load"} 1000
k6_answers_signIn_200_total{testid="good",scenario="load"} 200
k6_answers_deposit_200_total{testid="good",scenario="load"} 790
k6_answers_deposit_202_total{testid="good",scenario="load"} 6
k6_answers_withdraw_422_total{testid="good",scenario="load"} 4
k6_latency_deposit_p99{testid="good",scenario="load"} 0.07
k6_answers_deposit_200_total{testid="bad",scenario="load"} 990
k6_answers_deposit_503_total{testid="bad",scenario="load"} 7
k6_answers_deposit_0_total{testid="bad",scenario="load"} 2
k6_answers_deposit_999_total{testid="bad",scenario="load"} 1
"""
RULES: Final = """\
groups:
  - name: microfin
    rules:
      - {alert: MicrofinSettlingStopped, expr: 'vector(1)',
         labels: {severity: critical, namespace: broken}}
      - {alert: MicrofinMoneyInTransit, expr: 'money_in_transit == 1',
         labels: {severity: critical, namespace: fixed}}
      - {alert: MicrofinLagging, expr: 'vector(1)', labels: {severity: warning, namespace: slow}}
      - {alert: MicrofinQuarantined, expr: 'vector(1)', for: 1h,
         labels: {severity: critical, namespace: slow}}
      - {alert: OfOthers, expr: 'vector(1)', labels: {severity: critical, namespace: slow}}
"""
SETTINGS: Final = """\
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
  - {job_name: k6, static_configs: [{targets: ["127.0.0.1:%d"]}]}
"""


class Page(http.server.BaseHTTPRequestHandler):
    """To GET, the samples; to POST, the API: each tenth request is refused."""

    protocol_version = "HTTP/1.1"
    posts = 0
    in_transit = 1
    starting = True

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer to Prometheus."""
        self._answer(200, "text/plain", f"{SAMPLES}money_in_transit {Page.in_transit}\n")

    def do_POST(self) -> None:
        """Answer to k6, or as a Prometheus that is not ready the first time."""
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/starting":
            Page.starting, was = False, Page.starting
            empty = '{"data": {"result": []}}'
            return self._answer(503 if was else 200, "application/json", empty)
        money = not self.path.endswith("/signin")
        Page.posts += money
        refused = money and Page.posts % 10 == 9
        body = {"code": "overloaded"} if refused else {"sessionId": "s", "status": "settled"}
        text = json.dumps(body, separators=(",", ":"))
        return self._answer(503 if refused else 200, "application/json", text)

    def _answer(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def prometheus(
    real_components: None, page: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A Prometheus that accepts remote writes, and has the samples and the alerts above."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "prometheus.yml").write_text(SETTINGS % int(page.rpartition(":")[2]))
    (folder / "rules.yml").write_text(RULES)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [find_program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
             "--web.enable-remote-write-receiver"],
            stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        until_has(address, 'k6_http_reqs_total{scenario="load"}', seconds=20)
        until_has(address, 'ALERTS{alertstate="firing",namespace="broken"}', seconds=20)
        yield address
    finally:
        process.kill()
        process.wait()


def until_has(address: str, query: str, seconds: float = 10) -> None:
    until_blocking(query, lambda: has(address, query), seconds)


def has(address: str, query: str) -> bool:
    try:
        return bool(prometheus_answers.ask(f"{address}/api/v1/query", query))
    except OSError:
        return False


def answers_of(
    address: str, run: str, namespace: str = "bank", statuses: Sequence[int] = ()
) -> dict[str, Any]:
    """Return what the program prints, run as the pod does."""
    asked = questions(run, namespace, 60, statuses)
    command = gate_command(PROGRAM, query_address(f"{address}/api/v1/write", ""), asked)
    done = subprocess.run(
        [sys.executable, *command[1:]], capture_output=True, text=True, check=True
    )
    return answers(json.loads(done.stdout)["found"])


def reasons(answered: dict[str, Any] | None, sent: int = 1000) -> list[str]:
    return why_closed({"answered": answered, "impossible": "no route to host"}, sent)


# Against a real Prometheus ----------------------------------------------------------------------


def test_of_a_good_run_the_gate_is_open(prometheus: str) -> None:
    answered = answers_of(prometheus, "good")
    assert answered == {"requests": 1000, "failed": 0, "alerts": []}
    assert reasons(answered) == []


def test_requests_that_failed_close_it(prometheus: str) -> None:
    answered = answers_of(prometheus, "bad")
    assert answered == {"requests": 1000, "failed": 10, "alerts": []}
    assert reasons(answered) == ["Prometheus reports that 10 of 1000 requests failed."]


def test_statuses_that_are_allowed_are_no_failures(prometheus: str) -> None:
    assert answers_of(prometheus, "bad", statuses=(503,))["failed"] == 3


def test_a_run_of_which_prometheus_has_nothing_closes_it(prometheus: str) -> None:
    answered = answers_of(prometheus, "unheard-of")
    assert reasons(answered) == ["Prometheus got 0 of 1000 requests."]


def test_a_critical_alert_of_the_bank_closes_it(prometheus: str) -> None:
    answered = answers_of(prometheus, "good", "broken")
    assert reasons(answered) == ["Critical alerts fired during the run: MicrofinSettlingStopped."]


def test_an_alert_that_is_over_closes_it_too(prometheus: str) -> None:
    firing = 'ALERTS{alertstate="firing",namespace="fixed"}'
    until_has(prometheus, firing)
    Page.in_transit = 0
    until_blocking("the alert is gone", lambda: not has(prometheus, firing), 10)
    assert answers_of(prometheus, "good", "fixed")["alerts"] == ["MicrofinMoneyInTransit"]


def test_of_an_alert_that_fires_on_the_window_may_hold_nothing(prometheus: str) -> None:
    asked = questions("good", "broken", 0, ())["alerts"].replace("[1s]", "[1ms]")
    found = prometheus_answers.ask(f"{prometheus}/api/v1/query", asked)
    assert [it["labels"] for it in found] == [{"alertname": "MicrofinSettlingStopped"}]


def test_warnings_pending_alerts_and_those_of_others_do_not(prometheus: str) -> None:
    until_has(prometheus, 'ALERTS{alertstate="pending",namespace="slow"}')
    until_has(prometheus, 'ALERTS{alertname="OfOthers",alertstate="firing"}')
    assert answers_of(prometheus, "good", "slow")["alerts"] == []


def test_what_k6_itself_writes_is_what_its_summary_shows(
    prometheus: str, page: str, tmp_path: Path
) -> None:
    program = shutil.which("k6") or (str(BUILT_K6) if BUILT_K6.exists() else None)
    if program is None:
        pytest.skip(f"There is no k6 on the PATH and none at {BUILT_K6}: `make load` builds it.")
    user = {"email": "e", "password": "p", "accounts": ["1", "2"]}
    (tmp_path / "users.json").write_text(json.dumps({"users": [user] * 3}))
    load = Load("load-money-1", "bank", FOLDER / "money.js", 40, "2s", 2, page, "",
                f"{prometheus}/api/v1/write", f"{prometheus}/api/v1/query")  # fmt: skip
    (container,) = job(load)["spec"]["template"]["spec"]["containers"]
    variables = {it["name"]: it["value"] for it in container["env"]}
    variables |= {"USERS": str(tmp_path / "users.json"), "VUS": "2"}
    command = [program, *container["command"][1:-1], str(load.script)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    figures = read_figures(json.loads(done.stdout[done.stdout.index('{"ended"') :]))
    answered = answers_of(prometheus, load.name)
    assert figures.requests > 70
    assert answered["requests"] == figures.requests
    refused = sum(statuses.get(503, 0) for statuses in figures.answers.values())
    assert answered["failed"] == refused > 5
    assert reasons(answered, figures.requests) == [
        f"Prometheus reports that {answered['failed']} of {figures.requests} requests failed."
    ]


def test_who_is_no_prometheus_is_said_so(prometheus: str, page: str) -> None:
    def last_words(*arguments: str) -> str:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stdout == ""
        return done.stderr.splitlines()[-1]

    assert "does not accept the question" in last_words(f"{page}/signin", '{"up": "up"}')
    assert "400" in last_words(f"{prometheus}/api/v1/query", '{"up": "up("}')


def test_a_server_that_is_not_there_yet_is_asked_again(page: str) -> None:
    url, began = f"http://127.0.0.1:{free_port()}/api/v1/query", time.monotonic()
    with pytest.raises(OSError, match="refused"):
        prometheus_answers.ask_patiently(url, {"up": "up"}, 0.5)
    assert time.monotonic() - began > 0.5
    found = prometheus_answers.ask_patiently(f"{page}/starting", {"up": "up"}, 5)
    assert found == {"up": []}


# Decisions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "closed"), [(1000, False), (990, False), (1010, False), (989, True), (1011, True)]
)
def test_about_all_requests_must_have_come(has: int, closed: bool) -> None:
    found = reasons({"requests": has, "failed": 0, "alerts": []})
    assert found == ([f"Prometheus got {has} of 1000 requests."] if closed else [])


def test_who_does_not_answer_closes_the_gate() -> None:
    assert reasons(None) == ["Prometheus could not be asked: no route to host"]


@pytest.mark.parametrize(
    ("remote_write", "prometheus", "address"),
    [
        ("", "", ""),
        (WRITE, "", QUERY),
        ("https://x.test/tenant/api/v1/write", "", "https://x.test/tenant/api/v1/query"),
        ("http://mimir/api/v1/push", "http://mimir/prometheus/",
         "http://mimir/prometheus/api/v1/query"),
        (WRITE, QUERY, QUERY),
    ],
)  # fmt: skip
def test_where_to_ask(remote_write: str, prometheus: str, address: str) -> None:
    assert query_address(remote_write, prometheus) == address


@pytest.mark.parametrize(
    ("remote_write", "prometheus", "what"),
    [
        ("http://mimir/api/v1/push", "", "Set PROMETHEUS to"),
        ("", "http://mimir", "set both"),
        ("http://me:secret@mimir/api/v1/write", "", "password"),
        (WRITE, "http://me:secret@mimir", "password"),
    ],
)
def test_addresses_with_which_nothing_can_be_asked(
    remote_write: str, prometheus: str, what: str
) -> None:
    with pytest.raises(LoadImpossible, match=what):
        query_address(remote_write, prometheus)
