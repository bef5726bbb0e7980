"""What the researcher does: create, screen, open, export, erase."""

import csv
import hashlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import small_study
from streamlit.testing.v1 import AppTest
from trees import ROOT

from study_app import admin, records, review, service, tokens
from study_app.__main__ import prepare
from study_app.pairs import sequence
from study_app.votes import Store
from wuerstchen.files import read_json
from wuerstchen.shards import read_shard, write_shard

MODELS = list(small_study.MODELS)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with results of two sets of prompts, as the working directory."""
    small_study.results(tmp_path / "results" / "mini", ("names", "compositions"), count=30)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> None:
    command, *rest = words
    admin.main([command, "--study", "results/mini", *rest])


def create(*prompts: str, **settings: str) -> Store:
    for name in prompts:
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        run("create", "--models", *MODELS, "--prompts", name, "--exposure", "0", *options)
        run("open", "--prompts", name)
    return Store("study_data/mini.sqlite")


def vote(store: Store, name: str, person: str, count: int, choice: str = "left") -> None:
    study = admin.load(Path("study_data/mini") / name)
    for _ in range(count):
        pair = store.current(study, person)
        assert pair and store.record_vote(study, person, pair.token, choice) == "counted"


def join(store: Store, **facts):
    return store.join(tokens.random_id(), "1", **facts)


def exported(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_from_pictures_to_an_export_that_the_analysis_takes(place, capsys):
    store = create("names")
    anna, bert = join(store), join(store, burst=True)
    vote(store, "names", anna.id, 20)
    vote(store, "names", bert.id, 3, "equal")
    run("export", "--prompts", "names", "--out", "votes")
    path = place / "votes" / "names-0001.csv"
    rows = exported(path)
    assert list(rows[0]) == [
        *("study", "participant", "seq", "kind", "prompt_id", "left_model", "right_model", "choice"),
        *("issued_at", "decided_at", "response_ms", "app_version"),
    ]
    assert len(rows) == 23 and {row["study"] for row in rows} == {"names"}
    drawn = [r for r in rows if r["participant"] == tokens.export_name(store.secret, anna.id)]
    study = admin.load(Path("study_data/mini/names"))
    expected = sequence(study.pool(set()), study.seed, anna.id, 20)
    assert [(r["kind"], r["prompt_id"]) for r in drawn] == [(t.kind, t.prompt) for t in expected]
    assert [r["left_model"] for r in drawn] == [study.sides(t)[0][0] for t in expected]
    for row in rows:
        sides = {row["left_model"], row["right_model"]}
        assert len(sides & {"control"}) == (row["kind"] == "control") and len(sides) == 2
        assert row["decided_at"].endswith("Z") and row["issued_at"] <= row["decided_at"]
    # nothing in any file says who they are
    text = "".join(file.read_bytes().decode("latin-1") for file in (place / "votes").iterdir())
    for person in (anna, bert):
        assert person.pseudonym not in text and person.id not in text
    # sha256sum agrees, Parquet has the same rows
    subprocess.run(["sha256sum", "--check", "--strict", f"{path.name}.sha256"], cwd=path.parent, check=True)
    frame = pd.read_parquet(path.with_suffix(".parquet"))
    assert frame.astype(str).to_dict("records") == rows
    facts = read_json(path.with_suffix(".json"))
    assert (facts["votes"], facts["participants"], facts["manifest_sha256"]) == (23, 2, study.sha256)
    assert facts["joined_in_a_burst"] == [tokens.export_name(store.secret, bert.id)]
    assert hashlib.sha256(path.read_bytes()).hexdigest() in capsys.readouterr().out


def test_exports_are_never_written_over(place):
    store = create("names")
    person = join(store)
    vote(store, "names", person.id, 2)
    for _ in range(2):
        run("export", "--prompts", "names", "--out", "votes")
        vote(store, "names", person.id, 1)
    first, second = place / "votes" / "names-0001.csv", place / "votes" / "names-0002.csv"
    assert (len(exported(first)), len(exported(second))) == (2, 3)
    assert all(file.stat().st_mode & 0o222 == 0 for file in (place / "votes").iterdir())
    (place / "votes" / "names-0003.csv").write_text("somebody's")
    with pytest.raises(SystemExit, match="names-0003.csv exists"):
        run("export", "--prompts", "names", "--out", "votes")
    assert (place / "votes" / "names-0003.csv").read_text() == "somebody's"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start):
    assert records.neutral(f"{start}1+1") == f"'{start}1+1"
    assert records.neutral("names-001") == "names-001"
    assert records.neutral(-5) == -5


def test_a_prompt_id_that_looks_like_a_formula_is_neutralised(place):
    names = place / "results" / "mini" / "prompts" / "names.jsonl"
    names.write_text(names.read_text().replace('"names-', '"-names-'))
    for model in MODELS:
        for shard in (place / "results" / "mini" / "images" / model / "names").glob("*.zip"):
            write_shard(shard, {f"-{name}": png for name, png in read_shard(shard)[1].items()}, {})
    store = create("names")
    vote(store, "names", join(store).id, 3)
    run("export", "--prompts", "names", "--out", "votes")
    rows = exported(place / "votes" / "names-0001.csv")
    assert all(row["prompt_id"].startswith("'-names-") for row in rows)


def test_erasing_leaves_a_counted_tombstone_and_names_exports(place, capsys):
    store = create("names", "compositions")
    anna, bert = join(store), join(store)
    vote(store, "names", anna.id, 5)
    vote(store, "compositions", anna.id, 2)
    vote(store, "names", bert.id, 4)
    for name in ("names", "compositions"):
        run("export", "--prompts", name, "--out", "votes")
    vote(store, "compositions", bert.id, 1)
    run("export", "--prompts", "compositions", "--out", "votes")
    capsys.readouterr()
    run("erase", "--participant", bert.pseudonym)
    said = capsys.readouterr().out
    assert "5 votes" in said and "names-0001.csv" in said and "compositions-0002.csv" in said
    assert "compositions-0001.csv" not in said
    run("status")
    said = capsys.readouterr().out
    assert "1 participants were erased, and 5 votes with them" in said and "names-0001.csv" in said
    # nothing of theirs is left in the file, not even in pages that SQLite has freed
    store.engine.dispose()
    with sqlite3.connect(place / "study_data" / "mini.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        dump = str([connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables])
    assert bert.id not in dump and bert.pseudonym not in dump and anna.id in dump
    assert bert.id.encode() not in (place / "study_data" / "mini.sqlite").read_bytes()
    store = Store("study_data/mini.sqlite")
    study = admin.load(Path("study_data/mini/names"))
    with pytest.raises(ValueError, match="no such participant"):  # their open tab
        store.current(study, bert.id)
    run("export", "--prompts", "names", "--out", "votes")
    assert len(exported(place / "votes" / "names-0002.csv")) == 5
    with pytest.raises(SystemExit, match="nobody is called"):
        run("erase", "--participant", bert.pseudonym)
    store.engine.dispose()


def test_the_overlap_of_two_studies_is_printed(place, capsys):
    """Appendix C's way: how many in the first only, in the second only, in both."""
    store = create("names", "compositions")
    people = [join(store).id for _ in range(6)]
    for person in people[:4]:
        vote(store, "names", person, 1)
    for person in people[3:]:
        vote(store, "compositions", person, 1)
    capsys.readouterr()
    run("status")
    said = capsys.readouterr().out
    for line in (
        "6 participants have voted",
        "3 participants in names only",
        "2 participants in compositions only",
        "1 participants in compositions and names only",
        "1 participants in both compositions and names",
    ):
        assert line in said.splitlines()
    store.engine.dispose()


def test_completion_codes_are_of_recruited_people_at_the_target(place, capsys):
    store = create("names", target="3")
    done, halfway, guest = join(store, recruited=True), join(store, recruited=True), join(store)
    for person, count in ((done, 3), (halfway, 2), (guest, 4)):
        vote(store, "names", person.id, count)
    capsys.readouterr()
    run("codes", "--prompts", "names")
    assert capsys.readouterr().out.split() == [tokens.completion_code(store.secret, "names", done.id)]
    store.engine.dispose()


def test_a_study_whose_pictures_have_changed_is_not_opened(place):
    create("names").engine.dispose()
    run("close", "--prompts", "names")
    picture = next((place / "study_data" / "mini" / "names" / "pictures").iterdir())
    picture.write_bytes(b"other")
    with pytest.raises(SystemExit, match=picture.stem):
        run("open", "--prompts", "names")
    assert records.studies(Store("study_data/mini.sqlite")) == {"names": "closed"}


def test_a_backup_of_a_store_in_use_is_whole(place):
    store = create("names")
    person = join(store)
    vote(store, "names", person.id, 4)
    run("backup", "--out", "copy.sqlite")
    copy = Store("copy.sqlite")
    assert copy.votes("names", person.id) == 4 and copy.secret == store.secret
    with pytest.raises(SystemExit, match="copy.sqlite exists"):
        run("backup", "--out", "copy.sqlite")


def test_make_app_creates_and_opens_once(place):
    store = Store("study_data/mini.sqlite")
    results, data = Path("results/mini"), Path("study_data/mini")
    first = prepare(results, small_study.MODELS, ["names", "compositions"], store, data)
    assert records.studies(store) == {"compositions": "open", "names": "open"}
    records.set_state(store, "names", "closed")
    assert prepare(results, small_study.MODELS, ["names", "compositions"], store, data) == first
    assert records.studies(store)["names"] == "closed"  # what the researcher closed stays closed
    with pytest.raises(ValueError, match="compares wuerstchen baseline-ldm"):
        prepare(results, ("wuerstchen", "sd-2.1"), ["names"], store, data)


@pytest.fixture
def page(place, monkeypatch):
    """The screening page, run without a browser."""
    store = create("names")
    study = admin.load(Path("study_data/mini/names"))
    monkeypatch.setattr(review, "_running", [review.Review(store, study, "key")])
    app = AppTest.from_string("from study_app.review import main\n\nmain()\n", default_timeout=60)
    app.query_params["key"] = "key"
    return app, store, study


def test_screening_marks_pictures_that_are_then_not_drawn(page):
    app, store, study = page
    app.run()
    assert not app.exception
    everything = review.pages(study, ())
    assert sum(map(len, everything)) == 60 and len(app.checkbox) == review.PER_PAGE
    name = everything[0][2]
    app.checkbox(key=f"unfit-{name}").check()
    app.button[0].click().run()
    assert not app.exception
    assert records.unfit_pictures(store, "names") == {name}
    assert app.number_input[0].value == 2  # it went on to the next page
    assert study.owners[name] not in study.pool({name}).prompts
    app.number_input[0].set_value(1).run()
    assert app.checkbox(key=f"unfit-{name}").value
    app.checkbox(key=f"unfit-{name}").uncheck()
    app.button[0].click().run()
    assert records.unfit_pictures(store, "names") == set()


def test_screening_needs_the_key_of_its_address(page):
    app, store, study = page
    for key in ("", "wrong", "kéy"):
        app.query_params["key"] = key
        app.run()
        assert not app.checkbox and "key" in app.error[0].value


def test_the_participants_server_imports_nothing_of_the_researchers_pages():
    theirs = {f"study_app.{name}" for name in ("review", "admin", "detector")}
    code = f"import sys, study_app.app, study_app.server; print({theirs} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "set()"


def test_many_arrivals_from_one_address_are_flagged_and_others_are_not():
    arrivals = service.Arrivals()
    flagged = [arrivals.add("192.0.2.1", at=float(i)) for i in range(15)]
    assert flagged == [False] * 10 + [True] * 5
    assert not arrivals.add("192.0.2.2", at=15.0)
    assert not arrivals.add("192.0.2.1", at=700.0)
    assert not arrivals.add(None, at=700.0)
