"""The error of a load run that cannot be made, with a sentence for a person."""


class LoadImpossible(Exception):
    """The run cannot be made; the message says why and what to do."""
