"""The analysis of an export from end to end: made-up votes of known parameters, and real votes of an arena."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_folder import published
from simulated_votes import MODELS, row, rows_of, simulated_counts, write_export
from statsmodels.discrete.conditional_models import ConditionalLogit
from statsmodels.stats.proportion import binom_test, proportion_confint

from study_app.analysis import main, record
from study_app.davidson import DESIGN

TRUE = (0.6, 0.2, -0.5)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies; the first five people of the second are people of the first."""
    rows = rows_of(simulated_counts(61, 55, TRUE, 0.5, seed=1))
    rows += rows_of(simulated_counts(30, 60, (0.0, 0.0, -0.5), 0.5, seed=2), study="coco", prefix="other")
    rows = [{**given, "participant": _shared(given)} for given in rows]
    return write_export(tmp_path_factory.mktemp("votes") / "votes.csv", rows)


def _shared(given: dict) -> str:
    name, number = given["participant"].split("-")
    return f"user-{number}" if name == "other" and int(number) < 5 else given["participant"]


@pytest.fixture(scope="module")
def found(export: Path) -> dict:
    return record([export], "wuerstchen", seed=0)


def test_parameters_behind_the_votes_are_found_again(found: dict) -> None:
    parti, coco = found["studies"]["parti"], found["studies"]["coco"]
    for name, truth in zip(("strength", "side", "log_ties"), TRUE, strict=True):
        low, high = parti["davidson"][name]["interval"]
        assert low - 0.15 < truth < high + 0.15 and low < parti["davidson"][name]["value"] < high
    assert parti["overall"]["preferred"]["interval"][0] > 0.5
    low, high = coco["overall"]["preferred"]["interval"]
    assert low < 0.5 < high
    assert parti["by_users"]["from_median"]["sign_test_p"] < 0.01
    assert parti["mixed_model"]["spread_p"] < 0.01
    assert parti["position"]["p"] < 0.05 and parti["position"]["left"] > parti["position"]["right"]


def test_everything_is_counted_once(found: dict, export: Path) -> None:
    with open(export, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("parti", "coco"):
        mine = [given for given in rows if given["study"] == name]
        study = found["studies"][name]
        assert study["overall"]["votes"] == len(mine) == sum(study["by_users"]["comparisons"])
        expected = Counter(given["left_model"] if given["choice"] == "left" else given["right_model"]
                           for given in mine if given["choice"] != "equal")  # fmt: skip
        assert study["overall"]["shares"]["a"]["votes"] == expected[MODELS[0]]
        assert study["overall"]["shares"]["b"]["votes"] == expected[MODELS[1]]
        assert study["participants"] == len({given["participant"] for given in mine})
    people = {tuple(entry["studies"]): entry["participants"] for entry in found["overlap"]}
    assert people == {("coco",): 25, ("coco", "parti"): 5, ("parti",): 56}
    assert found["votes"]["rows"] == len(rows)


def test_names_of_models_and_sides_do_not_matter(found: dict, export: Path) -> None:
    swapped = record([export], MODELS[1], seed=0)["studies"]["parti"]
    ours = found["studies"]["parti"]
    assert swapped["models"] == ours["models"][::-1]
    low, high = ours["overall"]["preferred"]["interval"]
    assert swapped["overall"]["preferred"]["interval"] == pytest.approx([1 - high, 1 - low])
    assert swapped["davidson"]["strength"]["value"] == pytest.approx(-ours["davidson"]["strength"]["value"])
    assert swapped["mixed_model"]["spread"]["value"] == pytest.approx(ours["mixed_model"]["spread"]["value"], abs=1e-3)
    assert swapped["position"] == ours["position"]


def test_flagged_people_are_left_out_beside_and_never_before(tmp_path: Path) -> None:
    rows = rows_of(simulated_counts(20, 40, TRUE, 0.3, seed=3))
    rows += [row(participant="lefty", seq=seq, prompt_id=f"q{seq}") for seq in range(1, 101)]
    careless = record([write_export(tmp_path / "votes.csv", rows)], "wuerstchen", 0)["studies"]["parti"]["careless"]
    assert careless["flagged"] == 1 and careless["votes_before"] - careless["votes_after"] == 100
    assert {rule["name"]: rule["flagged"] for rule in careless["rules"]}["one-side"] == 1
    assert careless["users_before"] == 21 and careless["users_after"] == 20


def test_one_person_and_one_vote_are_not_too_few(tmp_path: Path) -> None:
    found = record([write_export(tmp_path / "votes.csv", [row()])], "wuerstchen", 0)["studies"]["parti"]
    assert found["overall"]["preferred"] == {"votes": 1, "share": 1.0, "interval": None}
    assert found["davidson"] is found["mixed_model"] is found["agreement"] is found["repeats"] is None


def test_program_writes_the_same_twice_and_refuses_an_edited_export(export: Path, tmp_path: Path, found: dict) -> None:
    flags = ["--votes", str(export), "--model", "wuerstchen", "--seed", "0", "--out"]
    main([*flags, str(tmp_path / "votes.json")])
    assert json.loads((tmp_path / "votes.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    edited = tmp_path / "edited.csv"
    edited.write_text(export.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="error: votes: .*there is no edited.csv.sha256"):
        main(["--votes", str(edited), *flags[2:], str(tmp_path / "none.json")])
    assert not (tmp_path / "none.json").exists()


def arena(tmp_path: Path, models: tuple[str, str]) -> Path:
    """An arena's votes for a pair of models. It names no judges, so that each vote is another person's."""
    battles = json.loads(published("votes_genai_arena/clean_battle_20240220.json").read_text(encoding="utf-8"))
    choices = {"model_a": "left", "model_b": "right"}
    rows = [
        row(study="arena", participant=f"judge-{at}", choice=choices.get(vote["winner"], "equal"))
        | {"left_model": vote["model_a"], "right_model": vote["model_b"]}
        for at, vote in enumerate(battles)
        if {vote["model_a"], vote["model_b"]} == set(models)
    ]
    assert len(rows) > 60
    return write_export(tmp_path / "arena.csv", rows)


@pytest.mark.parametrize("rival", ["OpenJourney", "LCM", "SDXL"])
def test_real_votes_of_an_arena_agree_with_statsmodels(tmp_path: Path, rival: str) -> None:
    models = ("imagenhub_PlayGroundV2_generation", f"imagenhub_{rival}_generation")
    path = arena(tmp_path, models)
    found = record([path], models[0], seed=0)["studies"]["arena"]
    shares = found["overall"]["shares"]
    votes, decisive = found["overall"]["votes"], found["overall"]["preferred"]["votes"]
    # independent votes: the interval over users is that of a binomial share
    wilson = proportion_confint(shares["a"]["votes"], decisive, method="wilson")
    assert found["overall"]["preferred"]["interval"] == pytest.approx(wilson, abs=0.01)
    assert found["by_users"]["everyone"]["sign_test_p"] == pytest.approx(binom_test(shares["a"]["votes"], decisive))
    assert found["position"]["p"] == pytest.approx(binom_test(found["position"]["left"], decisive))
    assert found["mixed_model"] is None  # whose votes are alike cannot be told
    # Davidson's model as a choice among three things
    with open(path, encoding="utf-8", newline="") as file:
        rows = [(int(given["left_model"] != models[0]), given["choice"]) for given in csv.DictReader(file)]
    places = [{"left": 2 * side, "equal": 1, "right": 2 - 2 * side}[choice] for side, choice in rows]
    terms = DESIGN[[side for side, _ in rows]].reshape(-1, 3)
    theirs = ConditionalLogit(np.eye(3)[places].ravel(), terms, groups=np.repeat(np.arange(votes), 3)).fit(disp=False)
    ours = [found["davidson"][name]["value"] for name in ("strength", "side", "log_ties")]
    assert ours == pytest.approx(theirs.params, abs=1e-3)
