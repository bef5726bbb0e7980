"""Davidson's model and the mixed model: hand-computed values, known parameters, and statsmodels."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import integrate, stats
from scipy.special import comb
from simulated_votes import simulated_counts
from statsmodels.discrete.conditional_models import ConditionalLogit
from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM
from statsmodels.stats.proportion import binom_test

from study_app.clusters import cr2
from study_app.davidson import DESIGN, davidson, fit, position_test, probabilities, robust
from study_app.mixed import log_likelihood, mixed_model, population_share

TRUE = (0.6, 0.2, -0.5)


def test_values_by_hand() -> None:
    """Forty for A, twenty equal and twenty for B on either side: odds of 2, ties 20 / sqrt(40 x 20), no side."""
    counts = np.array([[40, 20, 20], [40, 20, 20]])
    assert fit(counts) == pytest.approx([np.log(2), 0, np.log(20 / np.sqrt(800))], abs=1e-9)
    # A wins 30 : 10 on the left and 10 : 10 on the right: log odds 1.10 and 0, their mean the strength
    assert fit(np.array([[30, 0, 10], [10, 0, 10]]) + 1e-9)[:2] == pytest.approx([np.log(3) / 2] * 2, abs=1e-6)


def test_known_parameters_are_found_again() -> None:
    fits = np.array([fit(simulated_counts(60, 55, TRUE, 0, seed).sum(0)) for seed in range(60)])
    error = fits.std(0, ddof=1) / np.sqrt(len(fits))
    assert (np.abs(fits.mean(0) - TRUE) < 4 * error).all() and (error < 0.02).all()


def test_it_is_statsmodels_conditional_logit() -> None:
    """Every vote as a choice among three things with the same covariates: value and standard error."""
    counts = simulated_counts(12, 40, TRUE, 0, 1).sum(0)
    chosen, rows, groups = [], [], []
    for side in (0, 1):
        for outcome in range(3):
            for _ in range(counts[side, outcome]):
                chosen += [int(other == outcome) for other in range(3)]
                rows.append(DESIGN[side])
                groups += [len(rows)] * 3
    theirs = ConditionalLogit(np.array(chosen), np.concatenate(rows), groups=np.array(groups)).fit(disp=False)
    ours = fit(counts)
    assert ours == pytest.approx(theirs.params, abs=1e-4)


def test_robust_errors_are_those_of_leaving_users_out() -> None:
    counts = simulated_counts(150, 40, TRUE, 0.7, 2)
    whole = fit(counts.sum(0))
    without = fit(counts.sum(0) - counts)
    jackknife = np.sqrt(((without - without.mean(0)) ** 2).sum(0) * 149 / 150)
    assert robust(counts, whole)[0] == pytest.approx(jackknife, rel=0.05)


@pytest.mark.parametrize("place, half", [(2, [[3, 4, 3], [10, 2, 10], [1, 9, 1], [7, 7, 7]]),
                                         (0, [[6, 2, 2], [3, 4, 13], [4, 1, 0], [6, 3, 6]])])  # fmt: skip
def test_where_one_parameter_is_a_share_it_has_the_shares_variance_and_freedom(place: int, half: list) -> None:
    """Of users who vote on both sides alike: ties, where none prefers a model; strength, where all together do not."""
    counts = np.repeat(np.array(half, dtype=float)[:, None], 2, 1)
    error, freedom = robust(counts, fit(counts.sum(0)))
    trials = counts.sum((1, 2)) if place == 2 else counts[:, :, [0, 2]].sum((1, 2))
    chosen = counts[:, :, 1 if place == 2 else 0].sum(1)
    share, (variance, expected) = chosen.sum() / trials.sum(), cr2(chosen, trials)
    assert error[place] == pytest.approx(np.sqrt(variance) / (share * (1 - share)))
    assert freedom[place] == pytest.approx(expected) and expected < 3


def test_the_variance_is_right_on_average_for_independent_votes_of_few_people() -> None:
    """As the uncorrected one is not: of seven people, two of whom give most votes."""
    votes = np.array([200, 150, 30, 30, 20, 20, 10])
    random = np.random.default_rng(3)
    sides = random.binomial(votes, 0.5, (2000, 7))
    counts = random.multinomial(np.stack([sides, votes - sides], -1), probabilities(np.array(TRUE)))
    fits = fit(counts.sum(1))
    mean = (robust(counts.astype(float), fits)[0] ** 2).mean(0)
    assert mean == pytest.approx(fits.var(0), rel=0.12)  # the uncorrected one: 0.7 of it


def test_swapping_labels_or_sides_changes_signs_alone() -> None:
    counts = simulated_counts(30, 30, TRUE, 0.5, 4)
    value = fit(counts.sum(0))
    labels, sides = fit(counts[:, ::-1, ::-1].sum(0)), fit(counts[:, ::-1].sum(0))
    assert labels == pytest.approx(value * [-1, 1, 1]) and sides == pytest.approx(value * [1, -1, 1])


def test_intervals_hold_the_truth_and_users_make_them_wide() -> None:
    alike, different = (davidson(simulated_counts(61, 50, TRUE, spread, 7)) for spread in (0.0, 1.0))
    for model, truth in ((alike, TRUE), (different, (None, 0.2, None))):
        for place, value in enumerate(truth):
            assert value is None or model.interval[place, 0] < value < model.interval[place, 1]
    widths = [np.diff(model.interval[0])[0] for model in (alike, different)]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("column", [0, 1, 2])
def test_without_one_of_the_answers_there_is_no_model(column: int) -> None:
    counts = simulated_counts(10, 20, TRUE, 0, 5)
    counts[:, :, column] = 0
    assert davidson(counts) is None
    assert davidson(simulated_counts(1, 90, TRUE, 0, 5)) is None


def test_people_who_all_voted_alike_have_no_interval() -> None:
    assert davidson(np.tile([[12, 3, 8], [9, 1, 11]], (20, 1, 1))).interval is None


def test_position_is_an_exact_binomial_test() -> None:
    counts = np.zeros((2, 2, 3), dtype=int)
    counts[0, 0], counts[1, 1] = (9, 4, 1), (2, 0, 6)
    assert position_test(counts) == {"left": 15, "right": 3, "p": pytest.approx(binom_test(15, 18))}
    assert position_test(np.zeros((2, 2, 3))) is None


def test_the_integral_is_scipys() -> None:
    wins, votes = np.array([[3.0, 40], [0, 2], [120, 7]]), np.array([[10.0, 45], [0, 3], [300, 9]])
    strength, side, spread = 0.3, -0.2, 1.4

    def chance(z: float, user: int) -> float:
        share = 1 / (1 + np.exp(-(strength + np.array([side, -side]) + spread * z)))
        return float(np.prod(stats.binom.pmf(wins[user], votes[user], share)) * stats.norm.pdf(z))

    expected = sum(
        np.log(integrate.quad(chance, -8, 8, args=(user,), points=np.linspace(-4, 4, 33), limit=400)[0])
        - np.log(comb(votes[user], wins[user])).sum()
        for user in range(3)
    )
    assert log_likelihood(np.array([strength, side, spread]), wins, votes) == pytest.approx(expected, abs=1e-6)


def decisive(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisive votes one by one: A or not, the side, and the user."""
    rows = [
        (won, sign, user)
        for user, sides in enumerate(counts)
        for sign, outcomes in zip((1, -1), sides, strict=True)
        for won, number in ((1, outcomes[0]), (0, outcomes[2]))
        for _ in range(number)
    ]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def test_mixed_model_finds_known_parameters_and_agrees_with_statsmodels() -> None:
    """Davidson's strength is that of the decisive votes; its side is a whole difference, here half of one."""
    counts = simulated_counts(150, 40, (0.5, 0.3, -2.0), 0.8, 11)
    found = mixed_model(counts)
    for name, truth in (("strength", 0.5), ("side", 0.3), ("spread", 0.8)):
        entry = found[name]
        assert abs(entry["value"] - truth) < 3 * entry["standard_error"] < 0.3
        assert entry["interval"][0] < entry["value"] < entry["interval"][1]
    won, side, user = decisive(counts)
    terms = np.column_stack([np.ones(len(won)), side])
    theirs = BinomialBayesMixedGLM(won, terms, np.eye(150)[user], np.zeros(150, dtype=int), vcp_p=10, fe_p=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = theirs.fit_map()
    assert theirs.fe_mean == pytest.approx([found["strength"]["value"], found["side"]["value"]], abs=0.05)
    marginal = sm.GEE(won, np.ones(len(won)), groups=user, family=sm.families.Binomial()).fit()
    assert found["population"] == pytest.approx(1 / (1 + np.exp(-marginal.params[0])), abs=0.03)
    assert found["spread_p"] < 1e-10 and found["icc"] == pytest.approx(0.8**2 / (0.8**2 + np.pi**2 / 3), abs=0.06)


def test_mixed_model_of_people_who_are_all_alike_is_a_plain_logit() -> None:
    counts = np.tile([[12, 3, 8], [9, 1, 11]], (20, 1, 1))
    found = mixed_model(counts)
    won, side, _ = decisive(counts)
    theirs = sm.Logit(won, np.column_stack([np.ones(len(won)), side])).fit(disp=False)
    values, errors = zip(*((found[n]["value"], found[n]["standard_error"]) for n in ("strength", "side")), strict=True)
    assert values == pytest.approx(theirs.params, abs=1e-4) and errors == pytest.approx(theirs.bse, rel=1e-3)
    assert found["spread"] == {"value": 0.0, "standard_error": None, "interval": None} and found["spread_p"] == 0.5
    assert mixed_model(np.tile([[12, 3, 0], [9, 1, 0]], (20, 1, 1))) is None


def test_population_share_is_the_mean_over_people() -> None:
    draws = 1 / (1 + np.exp(-np.random.default_rng(0).normal(0.7, 1.3, 400_000)))
    assert population_share(0.7, 1.3) == pytest.approx(draws.mean(), abs=2e-3)
