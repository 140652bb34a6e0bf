from benchmarks.quality.attributes.corpus import GROUPS, attributes

__all__ = ["GROUPS", "attributes"]
