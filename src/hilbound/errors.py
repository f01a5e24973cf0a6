"""Errors that are the user's to mend.

Everything the library refuses is an :class:`InputError`, a ``ValueError``: its message names the
argument, what came, what is allowed and what to do. The command line turns it into exit code 2;
any other exception is a failure of ours or of the machine and ends with exit code 1.
"""


class InputError(ValueError):
    """An argument, option or file that cannot be used, with the reason and the remedy."""


class DataError(InputError):
    """A data set that is missing, damaged or unfit for a density model."""
