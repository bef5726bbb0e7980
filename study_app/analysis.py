"""What the votes say: every statistic of Figure 5 and of the tables beside it, in one JSON, from exported votes.

python -m study_app.analysis --votes votes.csv --model wuerstchen --seed 0 --out results/emoji/study/votes.json
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features import library_versions
from study_app import clusters
from study_app.agreement import agreement, repeats, units
from study_app.ballots import KINDS, Study, checked_digest, read_ballots, studies
from study_app.careless import RULES, flags
from study_app.davidson import METHOD, davidson, position_test
from study_app.mixed import mixed_model
from study_app.views import by_users, overall, sweep
from wuerstchen.files import write_json


def analyse(study: Study, seed: int) -> dict[str, Any]:
    """The JSON of one study; what its votes do not allow is null. Raises ValueError without a comparison."""
    counts = study.counts()
    if not counts.sum():
        raise ValueError(f"study {study.name}: has no comparison; the analysis needs one")
    votes = counts.sum(1)
    fitted = davidson(counts)
    left, decisive = counts[:, 0, 0] + counts[:, 1, 2], counts[:, :, 0].sum(-1) + counts[:, :, 2].sum(-1)
    position = position_test(counts)
    return {
        "models": list(study.models),
        "kinds": {kind: sum(ballot.kind == kind for ballot in study.ballots) for kind in KINDS},
        "participants": len(votes),
        "overall": overall(votes),
        "by_users": by_users(votes),
        "sweep": sweep(votes),
        "davidson": fitted and {"interval_method": METHOD, **fitted.record()},
        "position": position and position | {"left_interval": clusters.share_interval(left, decisive)},
        "mixed_model": mixed_model(counts),
        "agreement": agreement(units(study), seed),
        "repeats": repeated(study),
        "careless": careless(study),
    }


def repeated(study: Study) -> dict[str, Any] | None:
    """How often people gave the same answer again with the sides swapped; None without repeats."""
    rows = np.array(list(repeats(study).values())).reshape(-1, 3)
    if not len(rows):
        return None
    return {
        "users": len(rows),
        "repeats": int(rows.sum()),
        "same": int(rows[:, 0].sum()),
        "to_or_from_equal": int(rows[:, 1].sum()),
        "turned": int(rows[:, 2].sum()),
        "same_interval": clusters.share_interval(rows[:, 0], rows.sum(-1)),
    }


def careless(study: Study) -> dict[str, Any]:
    """Who is flagged by each rule, as counts, and both views without everyone who is flagged."""
    flagged = flags(study)
    everyone = set().union(*flagged.values())
    rules = []
    for rule in RULES:
        rest = study.without(sorted(flagged[rule.name])).counts()
        rules.append(
            {
                "name": rule.name,
                "says": rule.says,
                "flagged": len(flagged[rule.name]),
                "users_after": len(rest),
                "votes_after": int(rest.sum()),
            }
        )
    votes = study.without(sorted(everyone)).counts().sum(1)
    return {
        "users_before": len(study.participants),
        "votes_before": int(study.counts().sum()),
        "rules": rules,
        "flagged": len(everyone),
        "users_after": len(votes),
        "votes_after": int(votes.sum()),
        "overall": overall(votes) if len(votes) else None,
        "by_users": by_users(votes) if len(votes) else None,
    }


def overlap(found: Sequence[Study]) -> list[dict[str, Any]]:
    """How many people took part in exactly these studies and no others, for each set of studies that somebody did."""
    people = {study.name: set(study.participants) for study in found}
    everyone = set().union(*people.values())
    places = Counter(tuple(study for study, names in people.items() if name in names) for name in everyone)
    return [{"studies": list(key), "participants": places[key]} for key in sorted(places)]


def record(votes: Sequence[Path], model: str, seed: int) -> dict[str, Any]:
    """The JSON of some exports: all their studies, who took part in which, and where they come from."""
    digests = {path.name: checked_digest(path) for path in votes}
    ballots = read_ballots(votes)
    found = studies(ballots, model)
    return {
        "schema": 1,
        "metric": "human-preference",
        "protocol": "a vote for the left picture, the right one or both equal; pairs and anchors count, repeats and "
        "controls do not",
        "votes": {"rows": len(ballots), "sha256": digests},
        "studies": {study.name: analyse(study, seed) for study in found},
        "overlap": overlap(found),
        "interval_method": clusters.METHOD,
        "interval_covers": clusters.COVERS,
        "seed": seed,
        "versions": library_versions("numpy", "scipy"),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m study_app.analysis", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--votes", type=Path, required=True, nargs="+", metavar="CSV", help="exports, each with CSV.sha256 beside it"
    )
    parser.add_argument("--model", required=True, help="model A: the one under study")
    parser.add_argument("--seed", type=int, required=True, help="of the resampling")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON")
    options = parser.parse_args(argv)
    try:
        write_json(options.out, record(options.votes, options.model, options.seed))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
