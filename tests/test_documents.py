"""The tutorials of docs/ keep their word: their Python runs as it stands, block after block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ACCURACY = re.compile(r"accuracy ([\d.]+)")


@pytest.mark.skipif(not DOCUMENTS, reason="the tutorials are not part of this distribution")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_code_of_a_tutorial_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("numba", reason="the tutorials need the deepmotion extra")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = _BLOCK.findall(path.read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, path.name, "exec"), names)
    shown = capsys.readouterr().out
    (accuracy,) = _ACCURACY.findall(shown)
    assert float(accuracy) > 0.8
    assert list(tmp_path.glob("*.gesda"))


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert link.startswith("http") or (path.parent / link).exists(), (path.name, link)
