"""The fault suite: clients that remember what they were told, and a nemesis.

`python -m faults --help` (with `tests` in PYTHONPATH, as `make faults` has it) says how to run it.
"""
