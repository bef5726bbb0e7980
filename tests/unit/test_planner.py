"""The planner against statsmodels, simulated studies and its own inverse."""

import numpy as np
import pytest
from scipy.special import expit
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import samplesize_confint_proportion

from study_app.coverage import simulate
from study_app.mixed import population_share
from study_app.planner import Plan, icc_of_spread, main

ONE_VOTE_EACH = Plan(share=0.6, equal=0.0, icc=0.0, votes_per_user=1, variation=0.0)


def test_one_vote_each_is_statsmodels() -> None:
    needed = samplesize_confint_proportion(0.6, 0.05)
    assert ONE_VOTE_EACH.users_for_margin(0.05) == pytest.approx(needed, rel=0.02)
    effect = 0.1 / np.sqrt(0.6 * 0.4)
    assert ONE_VOTE_EACH.users_for_power(0.8) == pytest.approx(
        NormalIndPower(ddof=0).solve_power(effect, power=0.8, alpha=0.05, ratio=0), rel=0.02
    )


def test_the_fewest_users_are_the_fewest() -> None:
    plan = Plan(share=0.6, equal=0.1, icc=0.05, votes_per_user=50, variation=1.0)
    users = plan.users_for_margin(0.04)
    assert plan.margin(users) <= 0.04 < plan.margin(users - 1)
    assert plan.design_effect == pytest.approx(1 + (45 * 2 - 1) * 0.05)
    with pytest.raises(ValueError, match="more than 1,000,000 participants"):
        plan.users_for_margin(1e-5)


def test_spread_as_correlation_of_two_votes_of_one_person() -> None:
    assert icc_of_spread(0, 0.6) == 0
    random = np.random.default_rng(0)
    shares = expit(1.0 + 0.9 * random.standard_normal(1_000_000))
    mean = shares.mean()
    assert icc_of_spread(0.9, float(mean)) == pytest.approx(shares.var() / (mean * (1 - mean)), rel=0.01)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_simulated_studies_vary_as_planned(spread: float) -> None:
    random = np.random.default_rng(1)
    votes = np.repeat([5, 20, 50, 60, 160], 12)
    shares = (random.binomial(votes, expit(0.4 + spread * random.standard_normal((6000, 60))))).sum(-1) / votes.sum()
    truth = population_share(0.4, spread)
    plan = Plan(truth, 0.0, icc_of_spread(spread, truth), votes.mean(), votes.std() / votes.mean())
    assert shares.mean() == pytest.approx(truth, abs=4 * plan.error(60) / 6000**0.5)
    assert plan.error(60) == pytest.approx(shares.std(), rel=0.04)


def test_a_long_tail_is_planned_with_care() -> None:
    wins, votes, truth = simulate(61, 0.5, 0.6, 4000, np.random.default_rng(1))
    plan = Plan(truth, 0.0, icc_of_spread(0.5, truth), votes.mean(), votes.std() / votes.mean())
    assert 1 < plan.error(61) / (wins.sum(-1) / votes.sum(-1)).std() < 1.2


def test_it_prints_what_a_margin_takes(capsys: pytest.CaptureFixture) -> None:
    main(["--margin", "0.05", "--share", "0.6", "--spread", "0.5"])
    said = capsys.readouterr().out
    plan = Plan(0.6, 0.1, icc_of_spread(0.5, 0.6), 50, 1.0)
    assert f"takes {plan.users_for_margin(0.05)} participants" in said and "| 320 |" in said
    main(["--margin", "0.05", "--icc", "0"])
    assert "design effect 1.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--margin", "0"], ["--margin", "0.1", "--share", "1"], ["--margin", "0.1", "--variation", "-1"]]
)
def test_what_cannot_be_planned_is_refused(flags: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(flags)
    assert "should be" in capsys.readouterr().err
