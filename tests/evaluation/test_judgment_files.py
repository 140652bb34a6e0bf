"""Judgments and rankings in the forms of other tools, in and out."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from estudio_core.cli import app
from estudio_core.errors import DataError
from estudio_core.evaluation import judgment_files
from estudio_core.evaluation.judgment_files import (
    FORMS,
    Form,
    read_judgments,
    read_run,
    write_judgments,
    write_run,
)
from estudio_core.evaluation.judgments import Judgments

USB = {"usb cable": {"7": 3.0, "8": 0.0}, "mouse": {"7": 1.5}}

FILES: dict[str, tuple[str | bytes, dict[str, dict[str, float]]]] = {
    "quepid.csv": ("query,docid,rating\nusb cable,7,3\nusb cable,8,0\nmouse,7,1.5\n", USB),
    "quepid case.csv": (
        "Team Name,Case Name,Case ID,Query Text,Doc ID,Doc Position,Title,Rating\n"
        'T,"a, b",1,usb cable,7,1,Cable,3\nT,"a, b",1,usb cable,8,2,Old,0\nT,"a, b",1,mouse,7,1,Cable,1.5\n',
        USB,
    ),
    "spreadsheet.csv": ("\ufeffquery;docid;rating\r\nusb cable;7;3\r\nusb cable;8;0\r\nmouse;7;1,5\r\n".encode(), USB),
    "without a header.csv": ('"usb cable",7,3\n"usb cable",8,0\nmouse,7,1.5\n', USB),
    "tabs.tsv": ("query\tdocument_id\tgrade\nusb cable\t7\t3\nusb cable\t8\t0\nmouse\t7\t1.5\n", USB),
    "utf-16.csv": ("query,docid,rating\nKäse,7,3\n".encode("utf-16"), {"Käse": {"7": 3.0}}),
    "workbench.json": (
        json.dumps(
            {
                "name": "n",
                "type": "IMPORT_JUDGMENT",
                "judgmentRatings": [
                    {
                        "query": "usb cable",
                        "ratings": [{"docId": "7", "rating": "3.000"}, {"docId": "8", "rating": "0.0"}],
                    },
                    {"query": "mouse", "ratings": [{"docId": "7", "rating": 1.5}]},
                ],
            }
        ),
        USB,
    ),
    "workbench answer.json": (
        json.dumps(
            {
                "took": 1,
                "hits": {
                    "hits": [
                        {
                            "_id": "x",
                            "_source": {
                                "judgmentRatings": [{"query": "mouse", "ratings": [{"docId": 7, "rating": "2"}]}]
                            },
                        }
                    ]
                },
            }
        ),
        {"mouse": {"7": 2.0}},
    ),
    "quepid case.json": (
        json.dumps({"case_name": "c", "queries": [{"query_text": "mouse", "ratings": {"7": "3", "8": 0}}]}),
        {"mouse": {"7": 3.0, "8": 0.0}},
    ),
    "quepid book.json": (
        json.dumps(
            {
                "name": "b",
                "query_doc_pairs": [
                    {
                        "query_text": "mouse",
                        "doc_id": "7",
                        "judgements": [{"rating": 3.0, "user": "a"}, {"rating": 2.0, "user": "b"}],
                    }
                ],
            }
        ),
        {"mouse": {"7": 2.5}},
    ),
    "rated ranking evaluator.json": (
        json.dumps(
            {
                "queries": [
                    {
                        "placeholders": {"$query": "mouse"},
                        "relevant_documents": {"3": ["7"], "0": ["8", "9"]},
                    }
                ]
            }
        ),
        {"mouse": {"7": 3.0, "8": 0.0, "9": 0.0}},
    ),
    "list.json": (json.dumps([{"query": "mouse", "object_id": 7, "grade": 2}]), {"mouse": {"7": 2.0}}),
    "lines.ndjson": ('{"query": "mouse", "doc_id": "7", "score": 2}\n\n', {"mouse": {"7": 2.0}}),
    "qrels": ("301 0 FR940202-2-00150 1\n301\t0\tFR2 -1\n302 Q0 FR3 2\n\n", {
        "301": {"FR940202-2-00150": 1.0, "FR2": 0.0}, "302": {"FR3": 2.0}}),
    "several raters.csv": (
        "query,docid,rater,rating\nmouse,7,ann,3\nmouse,7,bob,1\nmouse,8,ann,\n",
        {"mouse": {"7": 2.0}},
    ),
    "raters without a name.csv": ("query,docid,rater,rating\nmouse,7,,3\nmouse,7,,1\n", {"mouse": {"7": 2.0}}),
    "line separators.ndjson": (
        '{"query": "a\u2028b", "doc_id": "7", "score": 2}\n{"query": "mouse\u2029", "doc_id": "7", "score": 1}\n',
        {"a\u2028b": {"7": 2.0}, "mouse\u2029": {"7": 1.0}},
    ),
}  # fmt: skip


def read(path: Path) -> dict[str, dict[str, float]]:
    return {query: dict(grades) for query, grades in Judgments(read_judgments(path).grades).items()}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_form_is_read(tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read(path) == expected


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("query,docid,rating\nmouse,7,3\nmouse,8,\nmouse,9,NULL\nlamp,7,-2\n")
    found = read_judgments(path)
    assert (found.unrated, found.negative, found.averaged) == (2, 1, 0)
    assert found.grades == {"mouse": {"7": 3.0}, "lamp": {"7": 0.0}}
    answer = CliRunner().invoke(app, ["judgments", "read", str(path)])
    assert "2 pairs have no grade and were left out." in answer.output
    assert "1 grades are negative and count as 0." in answer.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "query,docid,rating\nmouse,7,3\ncable, usb,7,3\n",
            r"line 3 has 4 columns where the first line has 3: 'cable, usb",
        ),
        ("query,docid,rating\nmouse,7\n", "line 2 has 2 columns"),
        ('query,docid,rating\n"a\nb",7,3\nmouse,7,3,\n', "line 4 has 4 columns"),
        ("query,docid,rating\nmouse,7,good\n", "line 2: the grade 'good' is no number"),
        ("query,docid,rating\nmouse,7,inf\n", "line 2: the grade 'inf' is not finite"),
        ("query,docid,rating\n  ,7,1\n", "line 2: the query is '  '"),
        ("query,docid,rating\nmouse,,1\n", "line 2: the object id is ''"),
        ("query,docid,rating\nmouse,7,1\nmouse,7,2\n", "line 3: .* is judged 1 and 2"),
        ("query,docid,note\nmouse,7,1\n", "no column that is known as grade"),
        ('query,docid,rating\n"5" nail",7,3\n', "line 2: ',' expected after"),
        ('query,docid,rating\n"usb cable,7,3\nmouse,7,3\n', "line 2: unexpected end of data"),
        ('[{"query": "\\ud800", "doc_id": "7", "grade": 1}]', "half of a surrogate pair"),
        ("query,docid,rater,rating\nmouse,7,ann,1\nmouse,7,ann,2\n", "line 3: .* is judged 1 and 2 by 'ann'"),
        ("mouse,cable,lamp\nmouse,7,1\n", "no column that is known as query and object id and grade"),
        ("301 0 D1 1\n301 0 D2\n", "line 2 is not of qrels"),
        ('[{"query": "mouse", "title": "x"}]', "document 1 holds no judgments"),
        ('{"query": "mouse"\n', "line 2 is no JSON"),
        (
            '[\n{"query": "mouse", "doc_id": "7", "grade": 1}\n{"query": "mouse"}]',
            r"line 3 is no JSON: ',' or '\]' exp",
        ),
        ('[{"query": "mouse", "doc_id": "7", "grade": 1},\n', "line 2 is no JSON: Expecting value"),
        (
            '{"query": "mouse", "doc_id": "7", "grade": 1}\n\n{"query": mouse}',
            "line 3 is no JSON: Expecting value: 'mouse}",
        ),
        ("[" * 100_000, "nested too deeply"),
        ("", "are empty"),
    ],
)
def test_a_row_of_another_shape_refuses_the_file_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_judgments(path)
    assert str(path) in str(caught.value)


def test_the_same_holds_for_a_plugin_s_csv(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("query,object_id,grade\nmouse,7,3\nmouse,8,\n")
    assert dict(Judgments.from_csv(path)) == {"mouse": {"7": 3.0}}
    path.write_text("query,object_id,grade\ncable, usb,7,3\n")
    with pytest.raises(DataError, match="line 2 has 4 columns"):
        Judgments.from_csv(path)


_GRADES = st.one_of(st.integers(0, 4).map(float), st.floats(0, 5))
"""Whole ones, and means of several raters."""


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    grades=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text.strip()),
        st.dictionaries(st.text("abc019-", min_size=1), _GRADES, min_size=1),
        min_size=1,
        max_size=4,
    ),
    form=st.sampled_from(FORMS),
)
def test_what_is_written_is_read_again(tmp_path: Path, grades: dict[str, dict[str, float]], form: Form) -> None:
    path = tmp_path / "written"
    if form == "qrels" and any(not grade.is_integer() for of in grades.values() for grade in of.values()):
        with pytest.raises(DataError, match="grades are whole numbers"):
            write_judgments(Judgments(grades), path, form)
        return
    write_judgments(Judgments(grades), path, form)
    expected = {" ".join(q.split()) if form == "qrels" else q: of for q, of in grades.items()}
    if len(expected) == len(grades):
        assert read(path) == expected


def test_runs_go_out_and_come_back_and_agree_with_qrels(tmp_path: Path) -> None:
    run = {"usb cable": [("7", 0.9), ("8", 0.5)], "mouse": [("9", 1.25)]}
    write_run(run, tmp_path / "run", "shop 3")
    assert (tmp_path / "run").read_text().splitlines()[2] == "mouse Q0 9 1 1.25 shop-3"
    assert read_run(tmp_path / "run") == run
    write_judgments(Judgments({"usb cable": {"7": 3}, "mouse": {"9": 1}}), tmp_path / "qrels", "qrels")
    topics = {line.split()[0] for line in (tmp_path / "qrels").read_text().splitlines()}
    assert topics == {line.split()[0] for line in (tmp_path / "run").read_text().splitlines()}
    with pytest.raises(DataError, match="it has a blank"):
        write_run({"mouse": [("a b", 1.0)]}, tmp_path / "run", "t")
    with pytest.raises(DataError, match=r"grade 1\.5"):
        write_judgments(Judgments({"mouse": {"9": 1.5}}), tmp_path / "qrels", "qrels")
    (tmp_path / "run").write_text("1 Q0 d 1 0.5\n")
    with pytest.raises(DataError, match="line 1 is not of a run"):
        read_run(tmp_path / "run")


def test_judgments_are_converted_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("query,docid,rating\nusb cable,7,3\n")
    command = ["judgments", "convert", str(tmp_path / "in.csv"), str(tmp_path / "out.json"), "--to"]
    answer = CliRunner().invoke(app, [*command, "workbench"])
    assert answer.exit_code == 0, answer.output
    assert read(tmp_path / "out.json") == {"usb cable": {"7": 3.0}}
    answer = CliRunner().invoke(app, [*command, "work bench"])
    assert (answer.exit_code, "Did you mean 'workbench'" in answer.output) == (1, True)


def test_a_file_that_cannot_be_written_is_named_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("query,docid,rating\nmouse,7,3\n")
    answer = CliRunner().invoke(app, ["judgments", "convert", str(path), str(tmp_path / "absent" / "out.csv")])
    assert (answer.exit_code, type(answer.exception)) == (1, SystemExit)
    assert "FileNotFoundError" in answer.output
    assert "absent/out.csv" in answer.output


@pytest.mark.parametrize("form", ["csv", "json lines", "a list"])
def test_a_file_is_read_as_it_comes(tmp_path: Path, form: str) -> None:
    path, rows, comment = tmp_path / "judgments", 1_000, "y" * 20_000
    with path.open("w", encoding="utf-8") as file:
        if form == "csv":
            file.write("query,object_id,grade,comment\n")
        if form == "a list":
            file.write("[")
        for row in range(rows):
            judged = {"query": f"q{row % 10}", "object_id": str(row), "grade": row % 4, "comment": comment}
            one = ",".join(map(str, judged.values())) if form == "csv" else json.dumps(judged)
            file.write(one if form == "a list" else f"{one}\n")
            if form == "a list":
                file.write("," if row < rows - 1 else "]")
    tracemalloc.start()
    found = read_judgments(path).grades
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, found.values())) == rows
    assert found["q3"]["13"] == 1.0
    assert peak < path.stat().st_size / 10


def test_json_is_read_as_it_comes_wherever_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rated = [{"query": f"lamp \\u00e9 {i}", "doc_id": "7" * (i % 90 + 1), "grade": i % 4 + 0.25} for i in range(300)]
    expected = {one["query"]: {one["doc_id"]: one["grade"]} for one in rated}
    thirds = [json.dumps(rated[i : i + 100], indent=1) for i in (0, 100, 200)]
    forms = [json.dumps(rated), json.dumps(rated, indent=2), json.dumps({"judgments": rated}), "[]" + json.dumps(rated)]
    forms += ["\n".join(map(json.dumps, rated)), "\n\n".join(thirds)]
    for chunk in (1, 7, 64, 1 << 16):
        monkeypatch.setattr(judgment_files, "_CHUNK", chunk)
        for form in forms:
            (tmp_path / "ratings.json").write_text(form)
            assert read_judgments(tmp_path / "ratings.json").grades == expected
