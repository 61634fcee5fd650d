"""The exceptions that users see; each carries the exit status of the command that it ends."""


class PretrainMLIPError(Exception):
    """Base of all errors raised on purpose. The message names the file, the frame or key, and what to do."""

    exit_status = 1


class InputError(PretrainMLIPError, ValueError):
    """A file, a structure, a setting or an argument that cannot be used as it is."""

    exit_status = 2


class ComputationError(PretrainMLIPError, RuntimeError):
    """A computation that was asked for correctly and failed all the same."""
