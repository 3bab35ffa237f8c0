"""The error that is shown to a person as a sentence, without a traceback."""


class PlatformError(Exception):
    """An error that a person can act on; the message says what is wrong and what to do."""
