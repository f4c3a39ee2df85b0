"""What a trainer is given beside the module."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dvp.build import encode_pictures
from dvp.kinds import KINDS, classified, written
from dvp.tasks import TASKS


def test_kinds_that_prepare_pictures_otherwise_share_no_cache(
    configure: Callable[..., dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = configure("dvp_search_bert_vqa")
    (tmp_path / "data").mkdir()
    for table in Path(own["data_root"]).glob(f"{TASKS['vqa'].files}_*"):
        (tmp_path / "data" / table.name).symlink_to(table)
    config = own | {"data_root": str(tmp_path / "data")}

    def caches() -> int:
        encode_pictures(config)
        return len({path.parent for path in (tmp_path / "data" / "image_tokens").glob("*/*.tokens")})

    assert (caches(), caches()) == (1, 1)
    others = SimpleNamespace(**vars(classified) | {"prepared": written.prepared})
    monkeypatch.setitem(KINDS, "classified", others)
    assert caches() == 2
