"""`python -m microfin_api.people.hashing_process MEMORY TIME LANES`: computes argon2id's hashes.

An API process starts it, asks on its stdin and reads the answers from its stdout, one line of JSON
each:

    [1, null, ["correct horse"]]              ->  [1, "$argon2id$..."]     the hash to store
    [2, "$argon2id$...", ["one", "another"]]  ->  [2, true]                whether one of them fits

Questions may be asked ahead: they are answered in their order. It ends when its stdin does, so it
never outlives the API process. It imports little, because there may be several.
"""

import json
import os
import signal
import sys
from typing import Any, Final

_NICENESS: Final = 5
"""The kernel gives a core to the event loop first. A nicer process still gets a quarter of one."""

_SIGNALS_FOR_THE_API: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal and systemd send them to every process. The API process finishes requests first."""

_ARGON2_MEMORY_ALLOCATION_ERROR: Final = -22  # in argon2.h


def main() -> None:
    """Answer until stdin ends. Any failure ends the process, and the API process starts another."""
    for number in _SIGNALS_FOR_THE_API:
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    answer = _answerer(*map(int, sys.argv[1:4]))
    try:
        for line in sys.stdin.buffer:
            number, stored, texts = json.loads(line)
            reply = json.dumps([number, answer(stored, texts)])
            sys.stdout.buffer.write(reply.encode() + b"\n")
            sys.stdout.buffer.flush()
    except BrokenPipeError:  # nobody reads the answer
        os._exit(0)


def _answerer(memory: int, time: int, lanes: int) -> Any:
    # Imported at low priority: only the lines above compete with the event loop.
    from argon2 import PasswordHasher  # noqa: PLC0415
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415
    from argon2.low_level import error_to_str  # noqa: PLC0415

    hasher = PasswordHasher(time_cost=time, memory_cost=memory, parallelism=lanes)
    out_of_memory = error_to_str(_ARGON2_MEMORY_ALLOCATION_ERROR)

    def fits(stored: str, text: str) -> bool:
        try:
            return hasher.verify(stored, text)
        except InvalidHashError:
            return False
        except VerificationError as error:
            if str(error) == out_of_memory:  # that says nothing about the password
                raise
            return False

    def answer(stored: str | None, texts: list[str]) -> str | bool:
        if stored is None:
            return hasher.hash(texts[0])
        # All of them for everybody: an unknown user's password must take as long as another's.
        each = [fits(stored, text) for text in texts]
        return any(each)

    return answer


if __name__ == "__main__":
    main()
