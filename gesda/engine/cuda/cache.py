"""What was found out about a GPU, kept in a file of the user's cache folder. Imports nothing of gesda."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def cache_file() -> Path:
    """``gesda/gpu.json`` in the user's cache folder (``XDG_CACHE_HOME``, or ``.cache`` in the home folder)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gesda" / "gpu.json"


def recall(*key: Any) -> Any:
    """What was kept under a key; None if nothing was."""
    return _read().get(json.dumps(key))


def keep(value: Any, *key: Any) -> None:
    """Keep something, atomically. Where the folder cannot be written it is found out again next time."""
    target, known = cache_file(), _read()
    known[json.dumps(key)] = value
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False, encoding="utf-8") as file:
            json.dump(known, file, indent=1)
        os.replace(file.name, target)
    except OSError:
        pass


def _read() -> dict[str, Any]:
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
