"""The errors a user can mend: each names the cause, the place and the remedy."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in what the user gave; the command line prints it and exits with status 2.

    All findings are reported at once, one line each.
    """

    def __init__(self, findings: str | Sequence[str]):
        self.findings = [findings] if isinstance(findings, str) else list(findings)
        super().__init__("\n".join(self.findings))


class JobError(Exception):
    """A job that could not go on: the disk, the memory or the device gave out. Exit status 1."""


class ConfigError(UserError):
    """A configuration key or value that cannot be used."""


class DataError(UserError):
    """Price data that is missing, malformed or too short."""


class RunError(UserError):
    """A run directory that cannot be created, read or continued."""


class FormatError(RunError, ValueError):
    """A file of a run that is of another format, another run or another architecture."""
