"""Every program there is, bundled (programs/) and of tests/peer, as entries that a guest can load one by one.

tests/matrix/programs/config.yaml is checked by numbers; these are loaded by the exporter's own choice of variant, and
what became of them is a row of the table.
"""

from __future__ import annotations

from exporter import config
from exporter.config import bundled, model
from tests.peer import specs


def programs() -> tuple[dict[str, model.Program], dict[str, str]]:
    """("programs/NAME" or "peer/NAME" -> program; the same -> why the configuration is refused). By name.

    Each is read alone: some count the same thing under the same metric name.
    """
    accepted: dict[str, model.Program] = {}
    refused: dict[str, str] = {}
    for name in bundled.names(config.bundled_dir()):
        accepted[f"programs/{name}"] = config.load_bundled(name).config.programs[0]
    for name in specs.NAMES:
        try:
            accepted[f"peer/{name}"] = specs.spec(name)
        except config.ConfigErrors as error:
            refused[f"peer/{name}"] = str(error)
    return accepted, refused
