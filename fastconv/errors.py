"""Every error of the project: what was wrong, what was got, what would do - in one line."""


class FastconvError(Exception):
    """Base of all errors raised on purpose by fastconv."""


class InputError(FastconvError, ValueError):
    """An argument, a model or a data set that cannot be used as given."""


class LayerError(InputError):
    """A layer selection that names nothing, or something without channels."""


class UnknownLayerError(LayerError, KeyError):
    """A name that is no layer of a run; the message lists near matches."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class DataError(InputError):
    """A sample that cannot be read, or that does not fit the others."""


class BackendUnavailableError(FastconvError, RuntimeError):
    """A backend asked for by name that cannot run this call; the message says why."""


class FileFormatError(FastconvError):
    """A file that is not a complete, undamaged fastconv file of a known version."""


class FingerprintError(FastconvError):
    """Existing results made by another model, data set or options; the message names them."""


class OutputError(FastconvError, OSError):
    """An output that cannot be written: it exists, the disk is full, the folder is read-only."""
