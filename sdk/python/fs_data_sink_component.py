"""The way from the component's exports to the class in `plugin.py`. componentize-py starts here."""

import json
import pathlib
import traceback

import plugin as module
from componentize_py_types import Err
from fs_data_sink import Batch, InvalidConfig, Output, Plugin, Replace, Retryable, Schema, UnsupportedSchema
from fs_data_sink._host import imported
from fs_data_sink.columns import bitmap, pack
from wit_world import exports

types = imported("fs_data_sink_plugin_types", "types")
_REASONS = {types.FlushReason.CHECKPOINT: "checkpoint", types.FlushReason.TIMER: "timer", types.FlushReason.END_OF_INPUT: "end-of-input"}


def _find():
    """The one plugin that `plugin.py` defines."""
    found = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Plugin) and one.__module__ == "plugin"]
    if len(found) != 1:
        raise TypeError(f"plugin.py has to define one subclass of Plugin; it defines {len(found)}")
    return found[0]


def _config_schema():
    """The JSON Schema of the config. Files are there while the plugin is built, which is when this module is run."""
    beside = pathlib.Path(module.__file__).with_name("config-schema.json")
    return _plugin.config_schema or (beside.read_text() if beside.is_file() else None)


_plugin = _find()()
_schema_text = _config_schema()
_state = {"input": None, "added": [], "replaces": False}


def _own_words(error):
    """An exception of the plugin with the line where it was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "fs_data_sink" not in frame.filename]
    place = f" (line {frames[-1].lineno} of {frames[-1].filename.rsplit('/', 1)[-1]})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _error(error):
    """An exception as the interface has it."""
    if isinstance(error, InvalidConfig):
        return Err(types.Error_InvalidConfig(str(error)))
    if isinstance(error, UnsupportedSchema):
        return Err(types.Error_UnsupportedSchema(str(error)))
    if isinstance(error, Retryable):
        return Err(types.Error_Retryable((str(error), error.after_ms)))
    return Err(types.Error_Failed(_own_words(error)))


def _column(field, values):
    """Values as the interface has them."""
    form, length, nulls, validity, offsets, data = pack(field, values)
    return types.Column(field.name, form, length, nulls, validity, offsets, data)


def _replaced(made):
    """Rows in the place of others, as the interface has them."""
    batches = [[_column(field, list(made[field.name])) for field in _state["added"]]] if made else []
    if batches and len({column.length for column in batches[0]}) > 1:
        raise ValueError("the columns have different numbers of values")
    return types.Payload_ReplaceColumns(batches)


def _answer(output, rows):
    """An Output as the interface has it."""
    if output is None:
        output = Output()
    rejected = [types.Rejection(code, message, refused) for code, message, refused in output.rejected]
    keep = [True] * rows if output.keep is None else [bool(one) for one in output.keep]
    if len(keep) != rows:
        raise ValueError(f"keep has {len(keep)} values for {rows} rows")
    refused = {row for _, _, numbers in output.rejected for row in numbers}
    alive = [keep[row] and row not in refused for row in range(rows)]
    if _state["replaces"]:
        return types.Output(types.Selection_All(), _replaced(output.replace), rejected)
    selection = types.Selection_All() if all(keep) else types.Selection_Bitmap(bitmap(keep))
    if not _state["added"]:
        return types.Output(selection, types.Payload_Unchanged(), rejected)
    columns = []
    for field in _state["added"]:
        values = list(output.columns[field.name])
        if len(values) != rows:
            raise ValueError(f"column {field.name!r} has {len(values)} values for {rows} rows")
        columns.append(_column(field, [value for value, is_alive in zip(values, alive) if is_alive]))
    return types.Output(selection, types.Payload_ExtendColumns(columns), rejected)


class Transform(exports.Transform):
    def describe(self):
        roles = types.Roles(0)
        for role in _plugin.roles:
            roles |= types.Roles[role.upper()]
        return types.Descriptor(
            _plugin.name or type(_plugin).__name__,
            _plugin.version,
            _plugin.description,
            roles,
            _schema_text,
            _plugin.buffers_rows,
            _plugin.deterministic,
            [("sdk", "python/0.1.0")],
        )

    def open(self, context):
        try:
            schema = Schema.read(context.input_schema)
            answered = _plugin.open(json.loads(context.config), schema)
        except Exception as error:
            raise _error(error) from error
        _state.update(input=schema, added=list(answered or []), replaces=isinstance(answered, Replace))
        if not _state["added"]:
            return types.Opened(None, [])
        output = Schema(_state["added"]) if _state["replaces"] else schema.extended(_state["added"])
        return types.Opened(output.write(), [])

    def process(self, input, info):
        try:
            return _answer(_plugin.process(Batch(_state["input"], input)), input.num_rows())
        except Exception as error:
            raise _error(error) from error

    def flush(self, reason):
        try:
            made = _plugin.flush(_REASONS[reason])
            if made and not _state["replaces"]:
                raise ValueError("rows can be held only where `open` answered `Replace`")
            return _replaced(made) if made else types.Payload_Unchanged()
        except Exception as error:
            raise _error(error) from error

    def close(self):
        _plugin.close()


class State:
    """Of a component that exports it: one whose plugin imports `fs_data_sink.state`."""

    def snapshot(self):
        try:
            return bytes(_plugin.snapshot())
        except Exception as error:
            raise _error(error) from error

    def restore(self, snapshot):
        try:
            _plugin.restore(snapshot)
        except Exception as error:
            raise _error(error) from error
