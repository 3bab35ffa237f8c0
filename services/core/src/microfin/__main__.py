"""`python -m microfin`: the command line."""

from microfin.cli import main

main()
