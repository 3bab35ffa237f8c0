"""nginx in front of the API processes, as the ingress is in front of them on Kubernetes."""

from pathlib import Path

from microfin_local.files import write_atomically
from microfin_local.programs import find_program
from microfin_local.supervised import Program

# proxy_next_upstream: another process is tried where this one did not answer, but a POST only if
# it was not sent yet (nginx repeats none without `non_idempotent`). GET accountGeneration opens an
# account, so it is never repeated.
# keepalive_timeout: shorter than the API keeps idle connections (75 s), so that no request is sent
# into one that is just being closed.
# max_fails=0: with few processes, leaving one out for 10 s would turn its restart into an outage.
# proxy_read_timeout: longer than the API's own deadlines, so that its answer is the one told.
# X-Forwarded-For: ours alone; what a client says about itself is not passed on.
_SETTINGS = """\
daemon off;
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 8192;

events {{
    worker_connections 4096;
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

    upstream api {{
        least_conn;
{servers}
        keepalive 64;
        keepalive_requests 100000;
        keepalive_timeout 60s;
    }}

    server {{
        listen 127.0.0.1:{port} backlog=1024;

        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_next_upstream error;
        proxy_next_upstream_tries 2;
        proxy_connect_timeout 2s;
        proxy_send_timeout 20s;
        proxy_read_timeout 30s;

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


def prepare(folder: Path, port: int, api_ports: list[int], *, as_root: bool) -> Program:
    """Write nginx's settings and return how to run it. Everything it writes is in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "nginx.conf"
    write_atomically(
        settings,
        _SETTINGS.format(
            # Its worker processes would otherwise run as a user who cannot reach the folder.
            user="user root;\n" if as_root else "",
            folder=folder,
            port=port,
            servers="\n".join(
                f"        server 127.0.0.1:{api_port} max_fails=0;" for api_port in api_ports
            ),
        ),
    )
    return Program(
        name="nginx",
        # -e: without it nginx first tries its built-in log, which only root may write.
        arguments=(find_program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(settings)),
        directory=folder,
    )
