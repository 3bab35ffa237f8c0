"""`python -m microfin_tools`: the command line."""

from microfin_tools.cli import main

main()
