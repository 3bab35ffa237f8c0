"""nginx in front of the API processes, like the Ingress on Kubernetes."""

import json
from pathlib import Path

from microfin_api.http.problems import MEDIA_TYPE, RETRY_SECONDS, Problem
from microfin_local.files import write_atomically
from microfin_local.programs import find_program
from microfin_local.supervised import Program

# proxy_next_upstream: if a process does not answer, nginx tries another one; a POST only if it was
# not sent yet (nginx repeats none without `non_idempotent`). GET accountGeneration opens an
# account, so nginx never repeats it.
# keepalive_timeout: shorter than the time for which the API keeps idle connections (75 s), so that
# nginx sends no request into a connection that is being closed.
# limit_conn: counts requests in progress, not idle connections. Above it nginx refuses, which costs
# a fraction of a refusal by the API; behind an Ingress without a limit the API process refuses.
# keepalive: the number of requests that may be in progress. A request without an idle connection
# opens a new one, which costs the API more than the request's head does.
# backlog, multi_accept: if the queue of new connections overflows, the kernel drops connections,
# and the client's kernel repeats after 1, 3, 7, 15 s: those were the slowest answers in overload.
# max_fails=0: with few processes, leaving one out for 10 s would turn its restart into an outage.
# proxy_read_timeout: longer than the API's own deadlines, so that the client gets the API's answer.
# X-Forwarded-For: only the address that nginx sees; a client's own header is not passed on.
# Connection, Upgrade, HTTP2-Settings: an offer to upgrade concerns only the proxy and ends here.
# error_page: nginx's own refusals are problems of the API's catalogue, too. The API's answers pass
# unchanged, because nothing is intercepted. 494 (nginx's number for a head that is too large)
# becomes 431, and an unknown HTTP version 400: the request is at fault. 502 and 504 become 503, the
# catalogue's status for them: if an API process has hung up, nobody knows whether it had sent the
# command (`unknown`), unless the request could change nothing.
# $request_method: the API's server knows no other methods and would answer in plain text.
_SETTINGS = """\
daemon off;
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 32768;

events {{
    worker_connections 16384;
    multi_accept on;
}}

http {{
    access_log off;
    server_tokens off;
    client_max_body_size 64k;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000;
    limit_conn_zone $server_port zone=under_way:64k;
    limit_conn_status 429;
    limit_conn_log_level info;

    map "$request_method $request_uri" $no_answer {{
        default '{unknown}';
        "~^(GET|HEAD|OPTIONS) (?!/api/accountGeneration)" '{unavailable}';
    }}

    upstream api {{
        least_conn;
{servers}
        keepalive {most_under_way};
        keepalive_requests 100000;
        keepalive_timeout 60s;
    }}

    server {{
        listen 127.0.0.1:{port} backlog=4096;
        limit_conn under_way {most_under_way};

        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Upgrade "";
        proxy_set_header HTTP2-Settings "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_next_upstream error;
        proxy_next_upstream_tries 2;
        proxy_connect_timeout 2s;
        proxy_send_timeout 20s;
        proxy_read_timeout 30s;

        if ($request_method !~ ^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)$) {{
            return 405;
        }}

        default_type {media_type};
        error_page 400 /problem/400;
        error_page 405 /problem/405;
        error_page 413 /problem/413;
        error_page 414 /problem/414;
        error_page 429 =503 @overloaded;
        error_page 494 =431 /problem/431;
        error_page 505 =400 /problem/400;
        error_page 500 502 503 504 =503 @no_answer;

{problems}
        location @no_answer {{
            add_header Retry-After {retry_seconds} always;
            add_header X-Content-Type-Options nosniff always;
            add_header Cache-Control no-store always;
            return 503 $no_answer;
        }}

        location @overloaded {{
            add_header Retry-After {retry_seconds} always;
            add_header X-Content-Type-Options nosniff always;
            add_header Cache-Control no-store always;
            return 503 '{overloaded}';
        }}

        location / {{
            proxy_pass http://api;
        }}

        location /api/accountGeneration {{
            proxy_next_upstream off;
            proxy_pass http://api;
        }}
    }}
}}
"""

_MOST_UNDER_WAY = 800  # for one API process: below its own limit, whose refusals cost more
_REFUSAL = """\
        location = /problem/{status} {{
            internal;
            add_header X-Content-Type-Options nosniff always;{allow}
            return {status} '{problem}';
        }}
"""
_REFUSALS = (
    Problem("malformed_request"),
    Problem("malformed_request", "The address is too long.", status=414),
    Problem("malformed_request", "The headers, cookies among them, are too large.", status=431),
    Problem("body_too_large"),
    Problem("method_not_allowed", headers={"Allow": "DELETE, GET, HEAD, POST"}),
)
_UNKNOWN = Problem(
    "unknown",
    "The API process did not answer. Repeat with the same Idempotency-Key, which is safe: it takes "
    "effect once at most. Where none was sent, look first whether it took effect.",
)


def _refusal(problem: Problem) -> str:
    allow = "".join(
        f'\n            add_header {name} "{value}" always;'
        for name, value in problem.headers.items()
    )
    return _REFUSAL.format(status=problem.status, allow=allow, problem=_text(problem))


def _text(problem: Problem) -> str:
    """Return the problem's JSON for nginx's single quotes; `$` would begin a variable there."""
    text = json.dumps(problem.document()).replace("'", "\\u0027").replace("$", "\\u0024")
    return text.replace("\\", "\\\\")


def prepare(folder: Path, port: int, api_ports: list[int], *, as_root: bool) -> Program:
    """Write nginx's settings and return how to run it. It writes only into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "nginx.conf"
    write_atomically(
        settings,
        _SETTINGS.format(
            # Its worker processes would otherwise run as a user who cannot reach the folder.
            user="user root;\n" if as_root else "",
            folder=folder,
            port=port,
            media_type=MEDIA_TYPE,
            retry_seconds=RETRY_SECONDS,
            problems="".join(_refusal(problem) for problem in _REFUSALS),
            unknown=_text(_UNKNOWN),
            overloaded=_text(Problem("overloaded")),
            most_under_way=_MOST_UNDER_WAY * len(api_ports),
            unavailable=_text(Problem("unavailable")),
            servers="\n".join(
                f"        server 127.0.0.1:{api_port} max_fails=0;" for api_port in api_ports
            ),
        ),
    )
    return Program(
        name="nginx",
        # -e: without it nginx first opens its built-in log, which only root may write.
        arguments=(find_program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(settings)),
        directory=folder,
    )
