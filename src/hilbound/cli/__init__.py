"""The command line: it parses arguments, runs commands and returns exit codes."""

from hilbound.cli.base import app
from hilbound.cli.commands import main

__all__ = ["app", "main"]
