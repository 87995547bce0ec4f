"""Files that a network opens by itself: whose they are."""

from __future__ import annotations

from pathlib import Path

from pipeline.sources.read_files import unseen


def test_what_a_program_keeps_for_itself_is_not_the_user_s(tmp_path: Path) -> None:
    """torch.compile's own caches lie in the temporary folder, and were warned of."""
    paths = [
        tmp_path / "torchinductor_me" / "aotautograd" / "entry",
        tmp_path / ".cache" / "x",
        tmp_path / "w.txt",
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert unseen([str(path) for path in paths], []) == [tmp_path / "w.txt"]
    assert unseen([str(path) for path in paths], [tmp_path / "w.txt"]) == []
