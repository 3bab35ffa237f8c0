"""What keeps a load run from being made, in sentences for a person."""


class LoadImpossible(Exception):
    """The run cannot be made; the message says why and what to do."""
