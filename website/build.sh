#!/bin/sh
# Builds the documentation into build/site. A dead link or a page without its place is an error.
set -eu
cd "$(dirname "$0")/.."
tools=.local/cache/site
pins=$(sha256sum <website/requirements.txt)
if [ "$(cat "$tools/pins" 2>/dev/null)" != "$pins" ]; then
    rm -rf "$tools"
    .venv/bin/python -m venv --without-pip "$tools"
    .venv/bin/python -m uv pip sync --quiet --python "$tools/bin/python" --require-hashes website/requirements.txt
    echo "$pins" >"$tools/pins"
fi
# Not --quiet: it hides the warnings from --strict.
NO_MKDOCS_2_WARNING=1 "$tools/bin/mkdocs" build --strict --config-file website/mkdocs.yml
# Nothing is loaded from elsewhere, so that it works without a network.
if grep -rE --include='*.html' '<(script|link|img)[^>]*(src|href)="?(https?:)?//' build/site; then
    echo "build/site loads the above from elsewhere" >&2
    exit 1
fi
