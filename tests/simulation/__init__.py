"""The deterministic simulation: real decision core, worker, API waiting logic and growth, on
simulated edges, in one process and in virtual time. `python -m simulation --help` says more."""
