"""Write fs-data-sink plugins in Python: one class, columns as lists. No WIT and no Arrow in sight.

    from fs_data_sink import Field, Output, Plugin

    class DropNulls(Plugin):
        description = "keeps the rows that have a value in a column"

        def open(self, config, schema):
            self.column = schema.require(config["column"])

        def process(self, batch):
            return Output(keep=[value is not None for value in batch.column(self.column)])

The host makes an instance for each lane of a pipeline; an instance sees one batch at a time, in the order of its lane. There are no
files, no network and no environment; what is printed, and `log`, is in the host's log. An exception in `process` refuses the
batch with its words. The modules `fs_data_sink.state`, `fs_data_sink.keyvalue` and `fs_data_sink.http` have state, values by keys and
requests; what is not imported, the component does not ask to be granted.

Values of a column are None, bool, int, float, str or bytes; decimals are `decimal.Decimal`; dates, times and timestamps are
the whole numbers that Arrow has for them, in the unit of `Field.type`. Lists, structs and maps cannot be read by this SDK: they
pass through as they are.
"""

from ._host import imported
from .columns import Column, pack
from .schema import Field, Schema

# Here, and not where they are used: a component has no files from which it could still import something.
_logging, _metrics, _store = imported("logging"), imported("metrics"), imported("wasi_config_store", "store")

__all__ = [
    "Batch",
    "Column",
    "Field",
    "InvalidConfig",
    "Output",
    "Plugin",
    "Retryable",
    "Schema",
    "UnsupportedSchema",
    "count",
    "gauge",
    "log",
]


class InvalidConfig(Exception):
    """The configuration is wrong: the pipeline does not start. Name the key."""


class UnsupportedSchema(Exception):
    """The rows cannot be served: the pipeline does not start. Name the column."""


class Retryable(Exception):
    """Not now: the host brings the same batch again, after `after_ms` milliseconds at least."""

    def __init__(self, message, after_ms=None):
        super().__init__(message)
        self.after_ms = after_ms


class Output:
    """What becomes of the rows of a batch.

    keep:    a truth for each row, or None for all of them; the others are left out and counted as filtered
    columns: values for the columns that `open` answered, by name: one for each row of the batch
    replace: instead of both, the rows that take the place of the batch: lists by name, for all columns that `open` answered with
             `Replace`. Then dead letters cannot show the record behind a row any more
    """

    def __init__(self, keep=None, columns=None, replace=None):
        self.keep, self.columns, self.replace = keep, dict(columns or {}), replace
        self.rejected = []

    def reject(self, rows, code, message):
        """Refuses rows, by their numbers in the batch: they become dead letters. The code is of a-z, 0-9, -, _ and ."""
        rows = list(rows)
        if rows:
            self.rejected.append((code, message, rows))
        return self


class Replace(list):
    """From `open`: the rows that come out have these columns and no others."""


class Batch:
    """Rows that the host holds; only the columns that are asked for are copied."""

    def __init__(self, schema, resource):
        self.schema, self._resource = schema, resource
        self.num_rows = resource.num_rows()

    def __len__(self):
        return self.num_rows

    def column(self, name):
        """The values of a column, by its name or its field."""
        name = getattr(name, "name", name)
        return Column(self._resource.read_column(self.schema.position(name))).values()


class Plugin:
    """What a plugin is: override `open` and `process`."""

    name = None  # of the plugin; the name of its class otherwise
    version = "0.1.0"
    description = ""
    roles = ()  # of "decode", "filter", "enrich"; a hint for people
    config_schema = None  # JSON Schema of the config, as text; otherwise what is in config-schema.json beside plugin.py
    buffers_rows = False  # keeps rows from batch to batch; `flush` gives them out, and `open` answers `Replace`
    deterministic = False  # same input and config, same output; then clocks stand at 1970, and random numbers are the same

    def open(self, config, schema):
        """Once, before any row. `config` is what stands under `config:` in the pipeline. Answers the fields of the columns that
        come out besides those that came in, if there are any; a field of the same name takes the place of one. With
        `Replace([...])` nothing else comes out."""

    def process(self, batch):
        """Each batch. Answers an `Output`."""
        return Output()

    def flush(self, reason):
        """Before a commit ("checkpoint"), and at the end ("end-of-input"): gives out what was held back, as lists by name for all
        columns that `open` answered with `Replace`; None where there is nothing."""

    def close(self):
        """Once, at the end, if it comes to that."""


class _Log:
    """Lines in the host's log."""

    def _log(self, level, message):
        if _logging:
            _logging.log(getattr(_logging.Level, level), "", str(message))

    def debug(self, message):
        self._log("DEBUG", message)

    def info(self, message):
        self._log("INFO", message)

    def warning(self, message):
        self._log("WARN", message)

    def error(self, message):
        self._log("ERROR", message)


log = _Log()


def count(name, amount=1):
    """Adds to a counter among the host's metrics."""
    if _metrics:
        _metrics.count(name, amount)


def gauge(name, value):
    """Sets a gauge among the host's metrics."""
    if _metrics:
        _metrics.gauge(name, value)


def granted(key):
    """A value that the pipeline grants under `grants.config`, or None."""
    return _store.get(key) if _store else None


__all__ += ["Replace", "granted", "pack"]
