import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("LIGHTNING_ATTN_DATA")
    if not folder:
        pytest.skip("LIGHTNING_ATTN_DATA does not name the folder of the public data sets")
    return Path(folder)
