"""Values of keys in a Redis or a file, as the pipeline grants them under `grants.keyvalue`.

    from fs_data_sink.keyvalue import Bucket

    customers = Bucket("customers")      # in `open`: what is not granted stops the pipeline there
    values = customers.get_many(["7", "8"])

Ask for many keys at once: a question for each row takes a batch's time many times over.
"""

from . import InvalidConfig, Retryable
from ._host import imported

_store, _batch = imported("wasi_keyvalue_store"), imported("batch")

__all__ = ["Bucket"]


class Bucket:
    """Bytes by keys, which are texts."""

    def __init__(self, name):
        self.name = name
        if _store is None:
            raise RuntimeError("there is no host: a unit test puts an object with the same functions in the place of a Bucket")
        self._handle = self._ask(_store.open, name)

    def get(self, key):
        """The value of a key, or None."""
        return self._ask(self._handle.get, key)

    def get_many(self, keys):
        """The values of keys in their order, with None where there is none."""
        pairs = self._ask(_batch.get_many, self._handle, list(keys))
        return [None if pair is None else pair[1] for pair in pairs]

    def set(self, key, value):
        """Sets the value of a key."""
        self._ask(self._handle.set, key, value)

    def delete(self, key):
        """Takes a key away."""
        self._ask(self._handle.delete, key)

    def _ask(self, function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            fault = getattr(error, "value", None)
            if isinstance(fault, _store.Error_Other):
                raise Retryable(f"the bucket {self.name!r} cannot be asked: {fault.value}") from None
            if isinstance(fault, (_store.Error_NoSuchStore, _store.Error_AccessDenied)):
                words = f"the bucket {self.name!r} is not granted, or not for this: add it to grants.keyvalue"
                raise InvalidConfig(words) from None
            raise
