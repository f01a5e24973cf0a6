"""The command line: it parses arguments, runs commands and returns exit codes."""

from hilbound.cli.commands import app, main

__all__ = ["app", "main"]
