"""State that is recorded with the offsets. A plugin that imports this module is a plugin with state.

    from fs_data_sink.state import StatefulPlugin

    class CountRows(StatefulPlugin):
        rows = 0

        def process(self, batch):
            self.rows += len(batch)

        def snapshot(self):
            return str(self.rows).encode()

        def restore(self, snapshot):
            self.rows = int(snapshot)

Each source partition has an instance for itself; `wit/README.md` says under "State" what the host promises.
"""

from . import Plugin

__all__ = ["StatefulPlugin"]


class StatefulPlugin(Plugin):
    """A plugin that goes on after a restart with what it had made of what is committed."""

    def snapshot(self):
        """Before a commit, right after `flush`: all that was not given out and is still needed, as bytes."""
        raise NotImplementedError

    def restore(self, snapshot):
        """Right after `open`: goes on from there. An exception stops the pipeline with its words."""
        raise NotImplementedError
