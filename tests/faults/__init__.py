"""The fault suite: clients that remember all answers, and a nemesis.

`python -m faults --help` (with `tests` in PYTHONPATH, as `make faults` has it) says how to run it.
"""
