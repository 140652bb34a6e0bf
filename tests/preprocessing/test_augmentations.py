from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.errors import ConfigurationError
from estudio_core.preprocessing.augmentations import (
    AugmentationsComposition,
    AugmentationWithRandomSelection,
    ChangeCases,
    ClickstreamQueryAugmentationApplier,
    ItemsSetAugmentationApplier,
    Misspellings,
)


class SynonymReplacement(AugmentationWithRandomSelection):
    """As the plugin tutorial has it, step 10.1."""

    def __init__(self, selection_size: float = 1.0) -> None:
        super(SynonymReplacement, self).__init__(selection_size)  # noqa: UP008 (the tutorial's own line)
        self.synonyms = {
            "good": ["great", "excellent", "fine", "positive"],
            "bad": ["poor", "terrible", "awful", "negative"],
        }

    def _raw_transform(self, object: str) -> list[str]:
        import random

        results = [object]
        for _ in range(3):
            text = object
            for word, synonyms in self.synonyms.items():
                if word in text and random.random() < 0.7:
                    text = text.replace(word, random.choice(synonyms))
            results.append(text)
        return results


class Numbered(AugmentationWithRandomSelection):
    def _raw_transform(self, object: str) -> list[str]:
        return [object, *(f"{object} {i}" for i in range(10)), f"{object} 3", f" {object}", "", " "]


TEXT = "A good lamp is never a bad idea"


@pytest.mark.parametrize(
    ("selection_size", "count"), [(1.0, 10), (10, 10), (50, 10), (3, 3), (5.0, 5), (0.5, 5), (0.25, 2), (0.01, 1)]
)
def test_selection_size_is_a_fraction_or_a_count(selection_size: float, count: int) -> None:
    variants = Numbered(selection_size).transform("lamp")
    assert len(variants) == len(set(variants)) == count
    assert set(variants) <= {f"lamp {i}" for i in range(10)}


@pytest.mark.parametrize("wrong", [0, -1, 2.5, float("nan")])
def test_a_selection_size_that_means_nothing_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigurationError, match="selection_size"):
        ChangeCases(wrong)


def test_the_tutorials_own_augmentation_works_as_written() -> None:
    variants = SynonymReplacement(5).transform(TEXT)
    assert 1 <= len(variants) <= 3
    assert TEXT not in variants
    assert len(set(variants)) == len(variants)
    assert SynonymReplacement().transform("lamp") == []


def test_variants_do_not_depend_on_order_on_the_global_random_state_or_on_the_process() -> None:
    texts = [f"good thing number {i}, not bad" for i in range(20)]
    augmentation = AugmentationsComposition([ChangeCases(5), Misspellings(5), SynonymReplacement(5)], 4)
    random.seed(1)
    first = {text: augmentation.transform(text) for text in texts}
    random.seed(2)
    assert {text: augmentation.transform(text) for text in reversed(texts)} == first
    code = (
        "from estudio_core.preprocessing.augmentations import Misspellings\n"
        "print(Misspellings(2).transform('a good lamp, größer'))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == repr(Misspellings(2).transform("a good lamp, größer"))


def test_the_global_random_state_is_put_back() -> None:
    random.seed(7)
    expected = [random.random() for _ in range(3)]
    random.seed(7)
    got = [random.random()]
    AugmentationsComposition([Misspellings(), SynonymReplacement()]).transform(TEXT)
    got.append(random.random())

    class Broken(AugmentationWithRandomSelection):
        def _raw_transform(self, object: str) -> list[str]:
            random.random()
            raise ValueError(object)

    with pytest.raises(ValueError, match=TEXT):
        Broken().transform(TEXT)
    got.append(random.random())
    assert got == expected


def test_another_seed_gives_other_variants() -> None:
    text = "several words that can be misspelt in many different ways"
    assert Misspellings(seed=1).transform(text) != Misspellings(seed=2).transform(text)


def test_cases_are_lower_and_upper_without_the_text_itself() -> None:
    assert ChangeCases(5).transform("USB Charger") == ["usb charger", "USB CHARGER"]
    assert ChangeCases(5).transform("usb") == ["USB"]
    assert ChangeCases(5).transform("今日 5") == []


def test_a_composition_applies_each_to_what_the_ones_before_made() -> None:
    class Suffix(AugmentationWithRandomSelection):
        def _raw_transform(self, object: str) -> list[str]:
            return [f"{object}!"]

    composed = AugmentationsComposition([ChangeCases(), Suffix()]).transform("Lamp")
    assert composed == ["lamp", "LAMP", "Lamp!", "lamp!", "LAMP!"]
    assert len(AugmentationsComposition([ChangeCases(), Suffix()], selection_size=2).transform("Lamp")) == 2
    assert AugmentationsComposition([]).transform("Lamp") == []


def edits(a: str, b: str) -> int:
    """Levenshtein distance with swaps of neighbours."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


@given(
    st.integers(0, 10_000), st.sampled_from(["wireless lamp", "беспроводная лампа", "λάμπα γραφείου", "מנורה שולחן"])
)
def test_a_misspelling_is_a_small_change_in_the_same_script(seed: int, text: str) -> None:
    import unicodedata

    (variant,) = Misspellings(error_rates=[0.01], seed=seed).transform(text)
    assert edits(text, variant) == 1
    script = {unicodedata.name(letter).split()[0] for letter in text if letter.isalpha()}
    assert {unicodedata.name(letter).split()[0] for letter in variant if letter.isalpha()} == script


def test_every_kind_of_typing_error_happens() -> None:
    variants = {v for seed in range(300) for v in Misspellings(error_rates=[0.01], seed=seed).transform("wire lamp")}
    assert "wirelamp" in variants
    assert {"wi re lamp", "wire la mp"} & variants
    assert {"iwre lamp", "wire lmap"} & variants
    assert {"ire lamp", "wire lam"} & variants
    assert any(len(v) == len("wire lamp") + 1 and v.count(" ") == 1 for v in variants)
    assert any(len(v) == len("wire lamp") and sorted(v) != sorted("wire lamp") for v in variants)


def test_misspellings_leave_numbers_models_and_short_words_alone() -> None:
    assert Misspellings().transform("TX100 4k of 256gb") == []
    for seed in range(50):
        for variant in Misspellings(error_rates=[1.0], seed=seed).transform("XR-500b charger of 12V"):
            assert variant.startswith("XR-500b ")
            assert variant.endswith("12V")


def test_capitals_stay_capitals() -> None:
    for seed in range(50):
        (variant,) = Misspellings(error_rates=[0.5], seed=seed).transform("CHARGER")
        assert variant == variant.upper()


def test_about_the_given_share_of_words_is_misspelt() -> None:
    text = " ".join(["lamp"] * 2000)
    low, high = (edits_of_words(text, v) for v in Misspellings(error_rates=[0.1, 0.4]).transform(text))
    assert 120 < low < 280
    assert 600 < high < 1000


def edits_of_words(text: str, variant: str) -> int:
    return len(text.split()) - sum(word == "lamp" for word in variant.split())


def test_error_rates_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"\[1.5\]"):
        Misspellings(5, error_rates=[0.1, 1.5])


def test_the_items_applier_never_returns_the_text_itself() -> None:
    variants = ItemsSetAugmentationApplier(SynonymReplacement(5)).variants(TEXT)
    assert variants
    assert TEXT not in variants


def test_the_query_applier_gives_a_query_the_same_variants_in_all_sessions() -> None:
    sessions = [FineTuningInput(str(i), q, ("a", "b"), (0, 1), (None, None), (1.0, 0.0)) for i, q in enumerate("xyx")]
    augmented = ClickstreamQueryAugmentationApplier(ChangeCases()).apply(sessions)
    assert [s.query_variants for s in augmented] == [("X",), ("Y",), ("X",)]
    assert [s.query for s in augmented] == ["x", "y", "x"]
    assert all(s.query_variants == () for s in sessions)
