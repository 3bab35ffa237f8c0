#!/bin/sh
# Sets this checkout up: the machine's packages, Kafka's jars, .venv. `make` calls it before every
# target that needs it; if nothing is missing it ends at once and prints nothing.
# `local/setup.sh python` makes only .venv.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

# Only one setup at a time: two would overwrite each other's files.
if command -v flock >/dev/null && [ -z "${MICROFIN_SETUP_LOCKED:-}" ]; then
    mkdir -p .local
    MICROFIN_SETUP_LOCKED=1 exec flock .local/setup "$0" "$@"
fi

# Debian installs servers in sbin, which an ordinary user's PATH may lack.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# The distribution's Python first: one that was built without optimisations needs a third more CPU.
python=${MICROFIN_PYTHON:-/usr/bin/python3}
is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
[ -n "${MICROFIN_PYTHON:-}" ] || is_recent "$python" || python=python3

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# --- The machine's packages -----------------------------------------------------------------

java_is_recent() {
    version=$(java -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 17 ]
}

recent_java_package() {
    for package in openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless; do
        if apt-cache show "$package" >/dev/null 2>&1; then echo "$package"; return; fi
    done
    echo default-jre-headless
}

missing_for_python() {
    [ -x .venv/bin/python ] || "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

missing_packages() {
    { ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null; } || echo postgresql
    command -v pgbouncer >/dev/null || echo pgbouncer
    command -v redis-server >/dev/null || echo redis-server
    command -v nginx >/dev/null || echo nginx-light
    java_is_recent || echo java
    command -v setpriv >/dev/null || echo util-linux
    command -v curl >/dev/null || echo curl
    # Prometheus and promtool, for the alerts' tests and for `make observe`.
    command -v promtool >/dev/null || echo prometheus
    command -v prometheus-redis-exporter >/dev/null || echo prometheus-redis-exporter
    # For the fault tests' jumping clocks.
    command -v cc >/dev/null || echo gcc libc6-dev
    # The following are needed only until their product exists.
    [ -e "$jars/$reporter" ] || command -v mvn >/dev/null || echo maven
    missing_for_python
}

# Debian starts a server when its package is installed. The platform starts its own servers on other
# ports, so the services of the packages that this script installs (and no others) stay stopped, now
# and after a reboot.
install_packages() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        fail "the packages could not be installed; see the error above."
    command -v systemctl >/dev/null || return 0
    for package in "$@"; do
        case $package in
            postgresql | pgbouncer | redis-server | prometheus | prometheus-redis-exporter) as_root systemctl disable --quiet "$package" ;;
            nginx-light) as_root systemctl disable --quiet nginx ;;
        esac || true
    done
}

set_up_packages() {
    missing=$("$1" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "these are missing, and this machine has no apt-get to install them with: $missing
Install them (java: 17 or later) with your package manager, then run make again."
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        fail "these packages are missing, and there is no sudo to install them with: $missing
Install them as root with apt-get install, then run make again."
    fi
    as_root apt-get update -q
    packages=$(for name in $missing; do
        if [ "$name" = java ]; then recent_java_package; else echo "$name"; fi
    done | tr '\n' ' ')
    say "installing with apt-get: $packages"
    # shellcheck disable=SC2086 # one word for each package
    install_packages $packages
}

# --- Kafka's jars ---------------------------------------------------------------------------

version_of() { sed -n "s:.*<$1.version>\(.*\)</$1.version>.*:\1:p" local/kafka/pom.xml; }
kafka_version=$(version_of kafka)
jars=.local/cache/kafka-$kafka_version
reporter=metrics-reporter-$(version_of reporter).jar

set_up_kafka() {
    [ -e "$jars/$reporter" ] && return 0
    say "fetching Kafka $kafka_version with Maven"
    rm -rf "$jars.draft"
    mvn --batch-mode --quiet -Dstyle.color=never --file local/kafka/pom.xml dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$jars.draft" ||
        fail "Maven could not fetch Kafka's jars; see the error above. Run make again to retry."
    # One by one, because a platform may be running from that folder. The reporter comes last: if it
    # is there, all jars are.
    mkdir -p "$jars"
    mv "$jars.draft/$reporter" "$jars.$reporter"
    mv -f "$jars.draft"/* "$jars/"
    mv "$jars.$reporter" "$jars/$reporter"
    rmdir "$jars.draft"
}

# --- Python ---------------------------------------------------------------------------------

members="services/core services/api services/worker services/tools local loadtest operator deploy"

python_state() {
    {
        .venv/bin/python --version 2>&1
        pwd
        cat requirements.txt images/build.txt pyproject.toml local/setup.sh
        for member in $members; do cat "$member/pyproject.toml"; done
    } | sha256sum
}

set_up_python() {
    if [ ! -x .venv/bin/python ]; then
        is_recent "$python" ||
            fail "microfin needs Python 3.11 or later; $python is $("$python" --version 2>&1). Name another by MICROFIN_PYTHON."
        say "making .venv with $python"
        "$python" -m venv .venv
    fi
    stamp=.venv/microfin-setup
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$(python_state)" ]; then return 0; fi
    say "installing Python packages into .venv"
    # The uv of the images, with its hashes.
    pinned=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' images/build.txt)
    .venv/bin/python -m uv --version 2>/dev/null | grep -qF "uv $pinned" ||
        .venv/bin/python -m pip install --quiet --require-hashes --requirement images/build.txt
    uv() { VIRTUAL_ENV="$PWD/.venv" .venv/bin/python -m uv "$@"; }
    uv pip sync --quiet --require-hashes requirements.txt
    editable=
    for member in $members; do editable="$editable --editable $member"; done
    # shellcheck disable=SC2086 # one word for each member
    uv pip install --quiet --no-deps --no-build-isolation $editable
    python_state >"$stamp"
}

if [ "${1:-}" = python ]; then
    set_up_packages missing_for_python
else
    set_up_packages missing_packages
    set_up_kafka
fi
set_up_python
