"""Errors that the user can correct.

Whatever the library refuses raises an :class:`InputError`, which is a ``ValueError``. Its message
names the argument, its value, the allowed values and what to do. The command line turns it into
exit code 2. Any other exception is a failure of hilbound or of the machine, with exit code 1.
"""


class InputError(ValueError):
    """An argument, option or file cannot be used. The message gives the reason and the remedy."""


class DataError(InputError):
    """A data set is missing, damaged or unfit for a density model."""
