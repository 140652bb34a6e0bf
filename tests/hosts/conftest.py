"""The small shop's model, which is put on the hosts."""

from tests.pipeline.conftest import small_entry, small_model_folder

__all__ = ["small_entry", "small_model_folder"]
