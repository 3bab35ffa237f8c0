"""`python -m microfin_operator`: run the operator until SIGTERM or SIGINT."""

import os
import sys

import kopf
from pydantic import ValidationError

import microfin_operator.handlers  # noqa: F401 - registers them with kopf
from microfin_operator.logs import configure_logs
from microfin_operator.names import FIELD_MANAGER
from microfin_operator.settings import OperatorSettings


def main() -> int:
    """Read the settings and run. Return 2 if the settings are not valid."""
    try:
        settings = OperatorSettings()
    except ValidationError as error:
        print(f"microfin operator: {error}", file=sys.stderr)  # noqa: T201 - logs are not set up yet
        return 2
    configure_logs(settings)
    # kopf uses the user's name as its own, and a pod's user has no name.
    os.environ.setdefault("LOGNAME", FIELD_MANAGER)
    namespaces = settings.namespaces.split()
    kopf.run(namespaces=namespaces, clusterwide=not namespaces, standalone=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
