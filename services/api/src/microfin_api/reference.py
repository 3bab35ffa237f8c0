"""`python -m microfin_api.reference FOLDER`: writes errors.md and openapi.json, as committed."""

import sys
from pathlib import Path

from microfin_api.documentation import Documents, problems_markdown
from microfin_api.routes import ENDPOINTS


def reference_files() -> dict[str, bytes]:
    """Return the reference documents that are made from the code, by file name."""
    return {
        "errors.md": problems_markdown().encode(),
        "openapi.json": Documents.of(ENDPOINTS).openapi,
    }


def main() -> None:
    """Write the files into the folder that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m microfin_api.reference docs/reference")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in reference_files().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
