"""The vote store, in SQLite and in PostgreSQL: one vote a pair shown, append-only, nothing lost."""

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import postgresql
import pytest
import small_study
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from study_app import database, names, records, schema, tokens
from study_app.assignments import Shown
from study_app.manifest import Study
from study_app.pairs import Trial, sequence
from study_app.votes import Store

CONSENT = "1"


@pytest.fixture(scope="module")
def server():
    if (reason := postgresql.missing()) is not None:
        pytest.skip(reason)
    with postgresql.server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path) -> str | Path:
    if request.param == "sqlite":
        return tmp_path / "votes.sqlite"
    server = request.getfixturevalue("server")
    server.empty()
    return server.url


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study.study(tmp_path_factory.mktemp("study"), alias_min_votes=3)


@pytest.fixture
def store(address, study):
    store = Store(address)
    records.add_study(store, study)
    records.set_state(store, study.name, "open")
    yield store
    store.engine.dispose()


def join(store: Store, **facts) -> str:
    return store.join(tokens.random_id(), CONSENT, **facts).id


def shown(store: Store, study: Study, person: str) -> Shown:
    found = store.current(study, person)
    assert found is not None
    return found


def rows(store: Store, query: str, **values):
    return store.read(lambda c: c.execute(text(query), values).all())


def vote(store: Store, study: Study, person: str, count: int, choice: str = "left") -> None:
    for _ in range(count):
        assert store.record_vote(study, person, shown(store, study, person).token, choice) == "counted"


def test_a_vote_counts_once_and_brings_the_next_pair(store, study):
    person = join(store)
    first = shown(store, study, person)
    assert first == shown(store, study, person)  # a reload, a second tab
    assert store.record_vote(study, person, first.token, "left", response_ms=0) == "counted"
    second = shown(store, study, person)
    assert second.token != first.token and second.votes == 1
    assert store.record_vote(study, person, first.token, "right") == "stale"  # a replay
    assert shown(store, study, person) == second
    assert [tuple(row) for row in rows(store, "SELECT choice, input FROM vote")] == [("left", "mouse")]


def test_the_rows_are_the_trials_that_a_replay_draws(store, study):
    person = join(store)
    vote(store, study, person, 40)
    found = rows(store, "SELECT kind, prompt_id, left_model, left_image, right_image FROM assignment ORDER BY seq")
    expected = sequence(study.pool(set()), study.seed, person, 41)
    drawn = []
    for row, trial in zip(found, expected, strict=True):
        first = study.entries[row.prompt_id].control[1] if row.kind == "control" else study.models[0]
        drawn.append(Trial(row.kind, row.prompt_id, row.left_model == first))
        (_, left), (_, right) = study.sides(trial)
        assert (row.left_image, row.right_image) == (left, right)
    assert drawn == expected
    assert {trial.kind for trial in drawn} == set(schema.KINDS)


def test_a_forged_or_foreign_token_never_counts(store, study):
    anna, bert = join(store), join(store)
    mine, other = shown(store, study, anna), shown(store, study, bert)
    name = mine.token.partition(".")[0]
    bad = [
        other.token,
        name,
        f"{name}.",
        f"{name}.{'0' * 32}",
        mine.token + "0",
        mine.token.upper(),
        f"{name}.{tokens.signature('00' * 32, 'pair', name, study.name, anna)}",  # another server's
        tokens.seal(store.secret, "identity", name, study.name, anna),  # signed for another purpose
        tokens.seal(store.secret, "pair", tokens.random_id(), study.name, anna),  # no such pair
        "é" * 40,
        "'; DROP TABLE vote; --",
        "x" * 10_000,
        "",
        None,
        7,
        ["a"],
        {"token": mine.token},
    ]
    for token in bad:
        assert store.record_vote(study, anna, token, "left") == "forged", token
    assert store.record_vote(study, bert, mine.token, "left") == "forged"
    for choice in ("both", "", None, 3, ["left"], {"left": 1}, "LEFT", "left\x00"):
        assert store.record_vote(study, anna, mine.token, choice) == "malformed"
    assert rows(store, "SELECT * FROM vote") == []
    refused = rows(store, "SELECT reason, COUNT(*) FROM refusal WHERE participant = :p GROUP BY reason", p=anna)
    assert {row[0]: row[1] for row in refused} == {"forged": len(bad), "malformed": 8}
    assert store.record_vote(study, anna, mine.token, "left") == "counted"


def test_a_flood_of_false_tokens_does_not_fill_the_disk(store, study, monkeypatch):
    monkeypatch.setattr("study_app.votes.MAX_REFUSALS", 5)
    person = join(store)
    for _ in range(9):
        store.record_vote(study, person, "x", "left")
    assert rows(store, "SELECT COUNT(*) FROM refusal")[0][0] == 5


@pytest.mark.parametrize("sent, kept", [(-1, 0), ("7", 0), (True, 0), (2.5, 0), (None, 0), (10**12, 0), (390, 390)])
def test_what_the_browser_says_of_itself_is_kept_only_where_it_can_be(store, study, sent, kept):
    person = join(store)
    token = shown(store, study, person).token
    assert store.record_vote(study, person, token, "equal", response_ms=sent, input_=sent, viewport=sent) == "counted"
    [row] = rows(store, "SELECT v.*, a.issued_at FROM vote v JOIN assignment a ON a.id = v.assignment")
    assert row.viewport == kept and row.input == "mouse"
    assert 0 <= row.response_ms <= milliseconds(row.issued_at, row.decided_at)


def milliseconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000 + 1


def test_a_vote_before_the_minimum_exposure_does_not_count(address, tmp_path):
    study = small_study.study(tmp_path, count=10, min_exposure_ms=60_000)
    store = Store(address)
    records.add_study(store, study)
    records.set_state(store, study.name, "open")
    person = join(store)
    pair = shown(store, study, person)
    assert store.record_vote(study, person, pair.token, "left") == "early"
    assert shown(store, study, person) == pair
    store.engine.dispose()


def test_many_clicks_on_one_pair_at_once_give_one_vote(store, study):
    person = join(store)
    for _ in range(5):
        token = shown(store, study, person).token
        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(lambda c, t=token: store.record_vote(study, person, t, c), ["left"] * 8))
        assert sorted(outcomes) == ["counted"] + ["stale"] * 7
    assert rows(store, "SELECT COUNT(*) FROM vote")[0][0] == 5
    assert rows(store, "SELECT COUNT(*) FROM assignment")[0][0] == 6


def test_two_first_tabs_at_once_show_one_pair(store, study):
    for _ in range(5):
        person = join(store)
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(lambda _, p=person: store.current(study, p), range(6)))
        assert len(set(found)) == 1


def test_interleaved_tabs_reloads_and_replays_keep_one_vote_a_pair(store, study):
    """Whatever the order: no pair has two votes, all but the last are voted, and the count is that of the answers."""
    rng = random.Random(5)
    people = [join(store) for _ in range(3)]
    held: dict[str, list[str]] = {person: [] for person in people}
    counted = dict.fromkeys(people, 0)
    for _ in range(150):
        person = rng.choice(people)
        if not held[person] or rng.random() < 0.4:
            held[person].append(shown(store, study, person).token)
        else:
            outcome = store.record_vote(study, person, rng.choice(held[person]), rng.choice(schema.CHOICES))
            assert outcome in ("counted", "stale")
            counted[person] += outcome == "counted"
    for person in people:
        assert store.votes(study.name, person) == counted[person]
        voted = rows(
            store,
            "SELECT a.seq, v.choice FROM assignment a LEFT JOIN vote v ON v.assignment = a.id "
            "WHERE a.participant = :p ORDER BY a.seq",
            p=person,
        )
        assert [row.seq for row in voted] == list(range(1, len(voted) + 1))
        assert [row.choice is None for row in voted] == [False] * counted[person] + [True]


def test_votes_are_append_only(store, study):
    person = join(store)
    vote(store, study, person, 2)
    records.mark(store, study, next(iter(study.owners)), True)
    for statement in (
        "UPDATE vote SET choice = 'right'",
        "DELETE FROM vote",
        "UPDATE assignment SET left_model = right_model",
        "DELETE FROM assignment",
        "UPDATE screening SET unfit = 0",
        "DELETE FROM screening",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            store.write(lambda c, s=statement: c.execute(text(s)))
    assert store.votes(study.name, person) == 2


def test_a_closed_study_takes_no_vote_and_an_open_one_goes_on(store, study):
    person = join(store)
    pair = shown(store, study, person)
    records.set_state(store, study.name, "closed")
    assert store.record_vote(study, person, pair.token, "left") == "closed"
    for who in (person, join(store)):
        with pytest.raises(ValueError, match="not open"):
            store.current(study, who)
    records.set_state(store, study.name, "open")
    assert shown(store, study, person) == pair
    with pytest.raises(ValueError, match="nothing.*names"):
        records.set_state(store, "nothing", "open")


def test_a_picture_that_becomes_unfit_is_taken_from_the_screen(store, study):
    person = join(store)
    pair = shown(store, study, person)
    records.mark(store, study, pair.left, True)
    following = shown(store, study, person)
    assert {following.left, following.right}.isdisjoint({pair.left, pair.right})
    assert store.record_vote(study, person, pair.token, "left") == "stale"
    records.mark(store, study, pair.left, False)
    assert shown(store, study, person) == following
    assert records.unfit_pictures(store, study.name) == set()
    assert store.record_vote(study, person, following.token, "left") == "counted"


def test_when_every_pair_was_seen_there_is_none(store, tmp_path):
    small = small_study.study(tmp_path, "few", count=4)
    records.add_study(store, small)
    records.set_state(store, "few", "open")
    person = join(store)
    vote(store, small, person, 4)
    assert store.current(small, person) is None
    assert store.votes("few", person) == 4


def test_an_identity_joins_once(store):
    identity = tokens.random_id()
    assert store.participant(identity) is None
    with ThreadPoolExecutor(6) as threads:
        people = set(threads.map(lambda _: store.join(identity, "1"), range(6)))
    [person] = people
    assert store.participant(identity) == person
    again = store.join(identity, "2", recruited=True)
    assert again.id == person.id
    assert store.participant(identity).consent == "2"
    dump = rows(store, "SELECT * FROM participant")
    assert identity not in str(dump)  # the store cannot be used to pose as somebody


HOSTILE = {
    "<script>alert(1)</script>": None,
    "Robert'); DROP TABLE vote;--": None,
    "../../etc/passwd": None,
    "a\u202egnp.exe": None,
    "zero\u200bwidth": None,
    "null\x00byte": None,
    "=cmd|'/c calc'!A1": None,
    "@name": None,
    "-1+1": None,
    "x" * 10_000: None,
    "Z\u0351\u036b\u0343\u036a\u0302\u036ba": None,
    "ab": None,
    "   ": None,
    "12345": None,
    "[a](https://example.org)": None,
    "**bold**": None,
    ":material/bug_report:": None,
    "Wuerstchen": None,
    "baseline LDM": None,
    "The Admin": None,
    "two  spaces": None,
    "  Ada  ": "Ada",
    "Åsa-Lena O'Neill": "Åsa-Lena O'Neill",
    "ﬁsh": "fish",
    "अनुष्का": "अनुष्का",
    "猫猫猫": "猫猫猫",
}


@pytest.mark.parametrize("wish, expected", HOSTILE.items(), ids=range(len(HOSTILE)))
def test_aliases(store, study, wish, expected):
    person = join(store)
    vote(store, study, person, 3)
    if expected is None:
        with pytest.raises(ValueError):
            store.set_alias(study, person, wish)
        assert rows(store, "SELECT alias FROM participant")[0][0] is None
    else:
        assert store.set_alias(study, person, wish) == expected
        assert [line.name for line in store.leaderboard(study.name, person)] == [expected]


def test_an_alias_is_earned_and_unique(store, study):
    anna, bert = join(store), join(store)
    with pytest.raises(ValueError, match="takes 3 votes"):
        store.set_alias(study, anna, "Ada")
    for person in (anna, bert):
        vote(store, study, person, 3)
    store.set_alias(study, anna, "Ada Byron")
    for wish in ("Ada Byron", "ADA BYRON", "ada-byron", "Àda Byron"):
        with pytest.raises(ValueError, match="taken"):
            store.set_alias(study, bert, wish)
    assert store.set_alias(study, anna, "Ada-Byron") == "Ada-Byron"  # one's own may be written otherwise


def test_the_leaderboard_ranks_people_and_shows_ones_own_line(store, study):
    people = [join(store) for _ in range(5)]
    for person, count in zip(people, (5, 2, 2, 1, 1), strict=True):
        vote(store, study, person, count)
    lines = store.leaderboard(study.name, people[4], length=3)
    assert [(line.rank, line.votes) for line in lines[:3]] == [(1, 5), (2, 2), (2, 2)]
    assert sum(line.own for line in lines) == 1 and lines[-1].own and lines[-1].rank == 4
    assert not any(model in str(lines) for model in study.models)


def test_a_store_remembers_its_secret_and_its_votes(address, study):
    first = Store(address)
    records.add_study(first, study)
    records.set_state(first, study.name, "open")
    person = join(first)
    pair = shown(first, study, person)
    first.engine.dispose()
    second = Store(address)
    assert second.record_vote(study, person, pair.token, "left") == "counted"
    records.add_study(second, study)
    assert records.studies(second) == {study.name: "open"}
    second.engine.dispose()


def test_another_manifest_of_the_same_name_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="not the manifest"):
        records.add_study(store, small_study.study(tmp_path, count=12))


def test_an_older_store_is_migrated_and_a_newer_one_refused(address, monkeypatch):
    Store(address).engine.dispose()

    def second(dialect: str) -> list[str]:
        return ["ALTER TABLE participant ADD COLUMN note TEXT NOT NULL DEFAULT ''"]

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, second])
        newer = Store(address)
        join(newer)
        assert rows(newer, "SELECT note FROM participant")[0][0] == ""
        assert newer.read(schema.version) == 2
        newer.engine.dispose()
        Store(address).engine.dispose()  # nothing left to do
    with pytest.raises(ValueError, match="schema version 2, this program knows 1"):
        Store(address)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "votes.sqlite"
    Store(path).engine.dispose()
    with monkeypatch.context() as patch:
        broken = ["ALTER TABLE participant ADD COLUMN note TEXT", "NOT SQL"]
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, lambda dialect: broken])
        patch.setattr(database, "RETRY_SECONDS", 0)
        with pytest.raises(DBAPIError):
            Store(path)
    store = Store(path)
    assert store.read(schema.version) == 1
    join(store)
    store.engine.dispose()


def test_sqlite_is_as_safe_as_it_can_be(tmp_path):
    store = Store(tmp_path / "votes.sqlite")
    pragmas = {name: rows(store, f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    store.engine.dispose()


def test_network_file_systems_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "file_system", lambda path: "nfs4")
    with pytest.raises(ValueError, match=r"network file system \(nfs4\).*PostgreSQL"):
        Store(tmp_path / "votes.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_of_a_path_is_the_one_findmnt_names(tmp_path):
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", tmp_path]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert database.file_system(tmp_path / "not" / "yet") == found


def test_other_databases_are_refused():
    with pytest.raises(ValueError, match="mysql"):
        Store("mysql://somewhere/votes")


def test_pseudonyms_are_many_and_harmless():
    made = {names.pseudonym() for _ in range(2000)}
    assert len(made) > 1990
    assert all(name.replace(" ", "").isalnum() for name in made)
