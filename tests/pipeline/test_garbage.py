from __future__ import annotations

import gc

from estudio_core.pipeline.items.garbage import spare_what_is_loaded


def test_what_is_loaded_is_left_out_of_collections_once():
    spare_what_is_loaded.cache_clear()
    kept = [[] for _ in range(1000)]
    try:
        spare_what_is_loaded()
        frozen = gc.get_freeze_count()
        assert frozen >= len(kept)
        later = [[] for _ in range(1000)]
        spare_what_is_loaded()
        assert len(later) == 1000
        assert gc.get_freeze_count() <= frozen, "what comes later is collected as ever"
    finally:
        gc.unfreeze()
        spare_what_is_loaded.cache_clear()
