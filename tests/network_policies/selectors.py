"""Label selectors, as NetworkPolicies use them."""

from collections.abc import Mapping
from typing import Any, Final

Labels = Mapping[str, str]

_UNKNOWN: Final = "{} is no operator of a label selector"


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a selector selects what has these labels; an empty one selects everything."""
    wanted = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def _holds(expression: Mapping[str, Any], labels: Labels) -> bool:
    has, value = expression["key"] in labels, labels.get(expression["key"])
    values = expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return has and value in values
        case "NotIn":
            return not has or value not in values
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
        case operator:
            raise ValueError(_UNKNOWN.format(operator))
