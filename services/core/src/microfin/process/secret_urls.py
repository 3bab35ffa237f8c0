"""URLs that hold a password: check that they can be read, and never show them.

A library's error shows the text that the library could not read. In a password with a `/` or a `#`
that text is a piece of the password. So URLs are checked here before any library sees them.
"""

import re
from typing import Final

DATABASE: Final = ("postgresql", "postgres")
REDIS: Final = ("redis", "rediss")

# Hosts separated by commas, each with a port or without; an IPv6 address is in brackets.
_HOST: Final = r"(?:\[[0-9A-Fa-f:.%]*\]|[^\[\]:,/?#@\s]*)(?::[0-9]{1,5})?"
_URL: Final = re.compile(
    rf"(?P<scheme>[a-z]+)://(?:[^/?#@\s]*@)?{_HOST}(?:,{_HOST})*(?:/[^?#@\s]*)?(?:\?[^#\s]*)?",
    re.ASCII,
)


def check_urls(urls: str, schemes: tuple[str, ...], example: str) -> str:
    """Return `urls`, a text of URLs separated by spaces, unchanged.

    Raises `ValueError`, which names the place of the first unreadable URL and shows nothing of it.
    """
    places = urls.split()
    for place, url in enumerate(places, start=1):
        match = _URL.fullmatch(url)
        if match is None or match["scheme"] not in schemes:
            raise ValueError(
                f"URL {place} of {len(places)} cannot be read: write {example}, and in the user "
                "and the password each character but letters and digits as % and two hexadecimal "
                "digits (%23 for #)"
            )
    return urls
