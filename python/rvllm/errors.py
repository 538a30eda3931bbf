"""Errors that a user can act on: one sentence that names the thing."""


class RvllmError(Exception):
    """Base of all errors whose text is meant for the user; the command line prints it without a traceback."""


class ModelError(RvllmError):
    """A model directory, configuration or weight file cannot be used."""


class ConfigError(RvllmError):
    """A flag or engine setting cannot be obeyed."""


class CapacityError(RvllmError):
    """The plan does not fit the memory it was given."""


class QueueFullError(RvllmError):
    """The queue of waiting requests is at its limit; try again later (HTTP 429)."""


class InvalidRequestError(RvllmError):
    """A request cannot be served as asked (HTTP 400).

    `param` names the offending field where there is one.
    """

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.param = param
