"""`python -m server`: the same as `mass-serve`."""

from server.cli import main

main()
