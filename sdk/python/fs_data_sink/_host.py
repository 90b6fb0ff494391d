"""What the world of the component imports, which depends on what the plugin uses; `None` in unit tests of a plugin's own."""

import importlib


def imported(*names):
    """A module of the bindings, by the first of its possible names: componentize-py makes them longer where two would be the same."""
    for name in names:
        try:
            return importlib.import_module(f"wit_world.imports.{name}")
        except ImportError:
            pass
    return None
