from __future__ import annotations

from collections.abc import Callable

import pytest

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet
from estudio_core.errors import DataError, NotEnoughDataError
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.batches import BatchBuilder, SessionBatch
from lightning_modules.config import TrainingConfig
from lightning_modules.data_module import SessionBatches
from lightning_modules.text_bank import TextBank

from .conftest import session

ITEMS = ItemsSet(
    {i: [f"red {t}"] for i, t in zip("abcdef", ["lamp", "chair", "table", "shelf", "rug", "lamp"], strict=True)}
)
LAMP = session("1", "lamp", ["a", "b", "c"], [1, 0, 0])
LAMP_AGAIN = session("2", "lamp", ["a", "b", "c"], [0, 1, 0])
RUG = session("3", "rug", ["e", "d"], [1, 0])
LAMP_REJECTED = session("4", "lamp", ["d", "b"], [0, 0])


class Case:
    """A builder and the names of the columns of its batches."""

    def __init__(self, model: EmbeddingModel, sessions: list[FineTuningInput], items: ItemsSet, **config: object):
        self.bank = TextBank(model, sessions, items)
        self.sessions = sessions
        self.builder = BatchBuilder(self.bank, sessions, TrainingConfig(**{"max_negatives": 6} | config))
        self.by_rows = {tuple(v): k for k, vs in self.bank.objects.items() for v in vs}

    def build(self, epoch: int = 0) -> SessionBatch:
        return self.builder.build([s for s in self.sessions if not s.is_clickless], epoch)

    def names(self, batch: SessionBatch, mask_name: str) -> list[set[str]]:
        order: list[str] = []
        for s in self.sessions:
            order += [r for r in s.results if r not in order]
        rows = [batch.part_rows[i] for i in batch.table.index[:, 0].tolist()]
        columns = [next(k for k in order if self.bank.objects[k][0][0] == row) for row in rows]
        return [{columns[j] for j, x in enumerate(line) if x} for line in getattr(batch, mask_name).tolist()]


@pytest.fixture
def model(new_model: Callable[[], EmbeddingModel]) -> EmbeddingModel:
    return new_model()


def test_every_distinct_text_stands_once_in_the_bank_and_in_a_batch(model: EmbeddingModel) -> None:
    case = Case(model, [LAMP, LAMP_AGAIN, session("5", "rug", ["f", "a"], [1, 0])], ITEMS)
    assert len(case.bank) == 2 + 3  # a and f have the same text
    batch = case.build()
    assert len(set(batch.query_rows)) == len(batch.query_rows) == 2
    assert len(set(batch.part_rows)) == len(batch.part_rows) == 3


def test_in_batch_negatives_are_other_sessions_items_never_clicked_for_the_query(
    model: EmbeddingModel,
) -> None:
    case = Case(model, [LAMP, LAMP_AGAIN, RUG], ITEMS)
    batch = case.build()
    assert case.names(batch, "clicked") == [{"a"}, {"b"}, {"e"}]
    assert case.names(batch, "negatives") == [{"b", "c"}, {"a", "c"}, {"d"}]
    assert case.names(batch, "batch_negatives") == [{"d", "e"}, {"d", "e"}, {"a", "b", "c"}]


def test_an_item_clicked_for_the_query_in_a_session_outside_of_the_batch_is_no_negative(
    model: EmbeddingModel,
) -> None:
    elsewhere = session("9", "lamp", ["e"], [1])
    bank = TextBank(model, [LAMP, RUG, elsewhere], ITEMS)
    batch = BatchBuilder(bank, [LAMP, RUG, elsewhere], TrainingConfig()).build([LAMP, RUG], 0)
    case = Case(model, [LAMP, RUG, elsewhere], ITEMS)
    assert case.names(batch, "batch_negatives")[0] == {"d"}


def test_without_in_batch_negatives_only_the_sessions_own_remain(model: EmbeddingModel) -> None:
    assert not Case(model, [LAMP, RUG], ITEMS, in_batch_negatives=False).build().batch_negatives.any()


def test_clickless_sessions_of_the_query_give_negatives_only_when_asked(model: EmbeddingModel) -> None:
    sessions = [LAMP, LAMP_AGAIN, RUG, LAMP_REJECTED]
    case = Case(model, sessions, ITEMS, not_irrelevant_only=False)
    assert case.names(case.build(), "negatives") == [{"b", "c", "d"}, {"a", "c", "d"}, {"d"}]
    case = Case(model, sessions, ITEMS)
    assert case.names(case.build(), "negatives")[0] == {"b", "c"}


@pytest.mark.parametrize(("share", "kept"), [(1.0, 5), (0.6, 3), (0.01, 1)])
def test_downsampling_keeps_the_share_and_at_least_one(model: EmbeddingModel, share: float, kept: int) -> None:
    wide = session("1", "lamp", list("abcdef"), [0, 0, 0, 0, 0, 1])
    items = ItemsSet(
        {i: [f"{c} lamp"] for i, c in zip("abcdef", ["red", "blue", "green", "white", "black", "grey"], strict=True)}
    )
    batch = Case(model, [wide], items, negative_downsampling=share).build()
    assert int(batch.negatives.sum()) == kept


@pytest.mark.parametrize(("share", "ever"), [(1.0, 5), (0.6, 3)])
def test_epochs_draw_from_the_share_of_skipped_results(model: EmbeddingModel, share: float, ever: int) -> None:
    wide = session("1", "lamp", list("abcdef"), [0, 0, 0, 0, 0, 1])
    items = ItemsSet({letter: [f"{letter} lamp"] for letter in "abcdef"})
    case = Case(model, [wide], items, max_negatives=1, negative_downsampling=share)
    builder = case.builder
    drawn = {tuple(builder._sample(wide, epoch).negatives) for epoch in range(60)}
    assert len(drawn) == ever


def test_a_variant_that_is_another_query_has_that_one_s_clicks_for_no_negatives(
    model: EmbeddingModel,
) -> None:
    varied = session("1", "red lamp", ["a", "b"], [1, 0], variants=("lamp",))
    case = Case(model, [varied, session("2", "lamp", ["c", "d"], [1, 0]), RUG], ITEMS)
    by_text = {}
    for epoch in range(20):
        batch = case.build(epoch)
        text = "lamp" if len(batch.query_rows) == 2 else "red lamp"  # one row for the two queries, or one for each
        by_text[text] = case.names(batch, "batch_negatives")[0]
    assert by_text == {"red lamp": {"c", "d", "e"}, "lamp": {"d", "e"}}


def test_caps_bound_the_items_that_are_encoded(model: EmbeddingModel) -> None:
    wide = session("1", "lamp", list("abcde"), [0, 1, 0, 1, 1])
    batch = Case(model, [wide], ITEMS, max_negatives=1, max_positives=2).build()
    assert (int(batch.negatives.sum()), int(batch.clicked.sum())) == (1, 2)


def test_sampling_repeats_for_the_same_epoch_and_differs_between_epochs(model: EmbeddingModel) -> None:
    wide = session("1", "lamp", list("abcde"), [1, 0, 0, 0, 0])
    case = Case(model, [wide], ITEMS, max_negatives=2)
    drawn = [case.names(case.build(epoch), "negatives")[0] for epoch in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({frozenset(d) for d in drawn}) > 1


def test_propensity_times_importance_weighs_clicks_and_confidence_is_passed_on(
    model: EmbeddingModel,
) -> None:
    double = session("1", "lamp", ["a", "b"], [2, 0])
    bank = TextBank(model, [double], ITEMS)
    builder = BatchBuilder(bank, [double], TrainingConfig(), {"1": (3.0, 1.0)}, {"1": (0.5, 0.25)})
    batch = builder.build([double], 0)
    assert batch.click_weight.tolist() == [[6.0, 1.0]]
    assert batch.confidence.tolist() == [[0.5, 0.25]]


def test_weights_of_the_wrong_length_are_refused(model: EmbeddingModel) -> None:
    bank = TextBank(model, [LAMP], ITEMS)
    with pytest.raises(DataError, match="2 numbers for 3 results"):
        BatchBuilder(bank, [LAMP], TrainingConfig(), {"1": (1.0, 1.0)})


def test_items_without_text_are_refused(model: EmbeddingModel) -> None:
    with pytest.raises(NotEnoughDataError, match="zzz"):
        TextBank(model, [session("1", "lamp", ["zzz"], [1])], ITEMS)


def test_variants_of_query_and_item_are_drawn_one_at_a_time(model: EmbeddingModel) -> None:
    items = ItemsSet({"a": ["red lamp"], "b": ["rug"]}, {"a": [["old lamp"], ["good lamp"]]})
    varied = session("1", "lamp", ["a", "b"], [1, 0], variants=("old lamp", "good lamp"))
    case = Case(model, [varied], items)
    batches = [case.build(epoch) for epoch in range(12)]
    assert len({b.query_rows[0] for b in batches}) == 3
    assert len({tuple(b.part_rows) for b in batches}) == 3
    assert all(len(b.part_rows) == 2 and len(b.query_rows) == 1 for b in batches)


def test_an_epoch_holds_every_session_once(model: EmbeddingModel) -> None:
    sessions = [session(str(n), "lamp", ["a", "b"], [1, 0]) for n in range(7)]
    bank = TextBank(model, sessions, ITEMS)
    config = TrainingConfig(batch_size=4, sessions_per_query=1)
    builder = BatchBuilder(bank, sessions, config)
    whole = SessionBatches(sessions, builder, config)
    assert len(whole) == 2
    assert [len(b.session_query) for b in whole] == [4, 3]


def test_sessions_of_a_query_come_together_and_each_once(model: EmbeddingModel) -> None:
    sessions = [session(f"{q}{n}", q, ["a", "b", "c"], [1, 0, 0]) for q in ("lamp", "chair") for n in range(5)]
    bank = TextBank(model, sessions, ITEMS)
    config = TrainingConfig(batch_size=2, sessions_per_query=3)
    batches = SessionBatches(sessions, BatchBuilder(bank, sessions, config), config)
    assert len(batches) == 2  # groups of 3, 2, 3, 2
    orders = []
    for _ in range(4):
        epoch = list(batches)
        assert sum(len(b.session_query) for b in epoch) == 10
        assert all(len(set(b.session_query.tolist())) <= 2 for b in epoch)
        orders.append([len(b.session_query) for b in epoch])
    assert len({tuple(order) for order in orders}) > 1  # put together anew in every epoch


def test_what_another_session_of_the_batch_brought_counts_for_all_that_showed_it(
    model: EmbeddingModel,
) -> None:
    shown = ["a", "b", "c", "d", "e"]
    sessions = [session("1", "lamp", shown, [1, 0, 0, 0, 0]), session("2", "lamp", shown, [0, 0, 0, 0, 1])]
    bank = TextBank(model, sessions, ITEMS)
    batch = BatchBuilder(bank, sessions, TrainingConfig(max_negatives=1, max_positives=1)).build(sessions, 0)
    # Drawn: a and e as clicked ones, and a negative of each session; both sessions showed all of them.
    held = batch.clicked | batch.negatives
    assert held.all()
    assert batch.clicked.sum() == 2
    assert not batch.batch_negatives.any()


def test_spellings_of_a_query_are_one_query(model: EmbeddingModel) -> None:
    case = Case(model, [session("1", "USB C", ["a", "b"], [1, 0]), session("2", "usb  c", ["c", "b"], [1, 0])], ITEMS)
    assert case.names(case.build(), "batch_negatives") == [set(), set()]
    assert case.builder.shown_for_query == {"USB C": {"a", "b", "c"}, "usb  c": {"a", "b", "c"}}


def test_what_other_sessions_of_the_query_showed_is_as_doubtful_as_it_is_there(model: EmbeddingModel) -> None:
    sessions = [session("1", "lamp", ["a", "b"], [1, 0]), session("2", "lamp", ["a", "c"], [1, 0]), RUG]
    bank = TextBank(model, sessions, ITEMS)
    known = {"1": [1.0, 0.5], "2": [1.0, 0.02], "3": [1.0, 0.3]}
    batch = BatchBuilder(bank, sessions, TrainingConfig(), confidences=known).build(sessions, 0)
    case = Case(model, sessions, ITEMS)
    assert case.names(batch, "batch_negatives")[0] == {"c", "d", "e"}
    by_name = dict(zip(("a", "b", "c", "e", "d"), batch.confidence[0].tolist(), strict=True))
    assert by_name == pytest.approx({"a": 1.0, "b": 0.5, "c": 0.02, "e": 1.0, "d": 1.0})


def test_results_of_sessions_without_clicks_keep_their_confidence(model: EmbeddingModel) -> None:
    sessions = [LAMP, LAMP_REJECTED]
    bank = TextBank(model, sessions, ITEMS)
    known = {"1": [1.0, 0.5, 0.4], "4": [0.1, 0.3]}
    batch = BatchBuilder(
        bank, sessions, TrainingConfig(not_irrelevant_only=False, max_negatives=6), confidences=known
    ).build([LAMP], 0)
    assert sorted(batch.confidence[0].tolist()) == pytest.approx([0.1, 0.4, 0.5, 1.0])


def test_an_object_of_a_clicked_text_is_no_negative_of_other_sessions(model: EmbeddingModel) -> None:
    twin_elsewhere = session("2", "rug", ["e", "f"], [1, 0])  # f has the text of a
    case = Case(model, [session("1", "lamp", ["a", "b"], [1, 0]), twin_elsewhere], ITEMS)
    assert case.names(case.build(), "batch_negatives") == [{"e"}, {"a", "b"}]
    assert case.builder.shown_for_query["lamp"] == {"a", "b", "f"}, "nor is it mined"


def test_a_skipped_result_of_a_clicked_text_is_no_negative_of_its_session(model: EmbeddingModel) -> None:
    sessions = [session("1", "lamp", ["f", "a", "b"], [0, 1, 0])]  # f has the text of a
    case = Case(model, sessions, ITEMS, max_negatives=1)
    for epoch in range(8):
        batch = case.build(epoch)
        assert case.names(batch, "negatives") == [{"b"}]
        assert len(batch.part_rows) == 2


def test_what_sessions_without_clicks_showed_is_known_where_it_is_trained_on(model: EmbeddingModel) -> None:
    sessions = [LAMP, LAMP_AGAIN, LAMP_REJECTED]
    assert not Case(model, sessions, ITEMS).build().rejected.any()
    trained = Case(model, sessions, ITEMS, not_irrelevant_only=False)
    assert trained.names(trained.build(), "rejected") == [{"d"}, {"d"}], "b was clicked in another session"
