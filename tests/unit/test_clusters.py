"""Intervals of a share over users: against the definition in matrices, other packages, and how often they hold."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import linalg, stats
from statsmodels.stats.proportion import proportion_confint

from study_app import coverage
from study_app.clusters import cr2, share_interval

TRIALS = np.array([1, 2, 9, 30, 4, 61, 12.0])
WINS = np.array([1, 0, 6, 11, 4, 40, 5.0])


def votes_of(wins: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every vote as 0 or 1, and whose it is."""
    votes = [[1.0] * int(won) + [0.0] * int(n - won) for won, n in zip(wins, trials, strict=True)]
    return np.concatenate(votes), np.repeat(np.arange(len(trials)), trials.astype(int))


def test_cr2_is_its_definition_by_matrices() -> None:
    """Bell and McCaffrey's: residuals of a user times (I - H)^(-1/2), and Satterthwaite's freedom of that."""
    votes, users = votes_of(WINS, TRIALS)
    n = len(votes)
    residuals = votes - votes.mean()
    annihilator = np.eye(n) - np.full((n, n), 1 / n)
    variance, vectors = 0.0, []
    for user in range(len(TRIALS)):
        mine = users == user
        adjust = linalg.inv(linalg.sqrtm(annihilator[np.ix_(mine, mine)]).real)
        ones = np.ones(mine.sum()) / n
        variance += float(ones @ adjust @ residuals[mine]) ** 2
        vectors.append(annihilator[:, mine] @ adjust @ ones)
    gram = np.array(vectors) @ np.array(vectors).T
    freedom = np.trace(gram) ** 2 / (gram**2).sum()
    assert cr2(WINS, TRIALS) == (pytest.approx(variance), pytest.approx(freedom))


def test_equal_users_give_the_t_interval_of_their_means() -> None:
    wins = np.array([3, 5, 8, 6, 2, 7.0])
    variance, freedom = cr2(wins, np.full(6, 10.0))
    assert freedom == pytest.approx(5) and variance == pytest.approx(stats.sem(wins / 10) ** 2)


def test_one_vote_each_is_nearly_the_interval_of_independent_votes() -> None:
    wins = np.repeat([1.0, 0.0], [120, 80])
    expected = proportion_confint(120, 200, method="wilson")
    assert share_interval(wins, np.ones(200)) == pytest.approx(expected, abs=2e-3)


def test_uncorrected_variance_is_statsmodels() -> None:
    votes, users = votes_of(WINS, TRIALS)
    fit = sm.OLS(votes, np.ones(len(votes))).fit(
        cov_type="cluster", cov_kwds={"groups": users, "use_correction": False}
    )
    assert coverage.residual_variance(WINS, TRIALS) == pytest.approx(fit.cov_params()[0, 0])


def test_wilson_is_statsmodels() -> None:
    low, high = coverage.wilson_over_votes(WINS[None], TRIALS[None], np.random.default_rng(0))
    assert (low[0], high[0]) == pytest.approx(proportion_confint(WINS.sum(), TRIALS.sum(), method="wilson"))


def test_who_did_not_vote_does_not_count_and_sides_swap() -> None:
    low, high = share_interval(WINS, TRIALS)
    padded = share_interval(np.append(WINS, [0, 0]), np.append(TRIALS, [0, 0]))
    assert padded == (low, high)
    assert share_interval(TRIALS - WINS, TRIALS) == pytest.approx((1 - high, 1 - low))
    assert share_interval(WINS[:1], TRIALS[:1]) is None


def test_coverage_holds_in_all_six_cells(capsys: pytest.CaptureFixture) -> None:
    """2,000 simulated studies in each: what is reported holds in 92 to 97 %, votes taken as independent do not."""
    coverage.main([])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[3:9]]
    assert [(row[0], row[1]) for row in rows] == [(n, s) for n in ("36", "61") for s in ("0", "0.5", "1")]
    held = {method: [float(row[2 + at].split()[0]) for row in rows] for at, method in enumerate(coverage.METHODS)}
    assert 0.92 <= min(held[coverage.CHOSEN]) <= max(held[coverage.CHOSEN]) <= 0.97
    assert max(held["Wilson over votes"][1:3]) < 0.6
    assert min(held["user bootstrap, percentiles"]) < 0.92


def test_coverage_says_when_the_chosen_interval_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "CHOSEN", "Wilson over votes")
    with pytest.raises(SystemExit, match="92% to 97%"):
        coverage.main(["--simulations", "100"])


def test_davidsons_interval_holds_the_truth(capsys: pytest.CaptureFixture) -> None:
    """In the cell that was worst for a bootstrap; `--of davidson` measures all of them."""
    held, number = coverage.davidson_coverage(36, 1.0, 0.6, 200, 0)
    assert number == 200 and 0.9 < held.min() <= held.max() < 0.99
    coverage.main(["--of", "davidson", "--simulations", "2"])
    assert capsys.readouterr().out.count("| 2 |\n") == 6
