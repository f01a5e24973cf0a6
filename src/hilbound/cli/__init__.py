"""The command line: words in, exit codes out."""

from hilbound.cli.commands import app, main

__all__ = ["app", "main"]
