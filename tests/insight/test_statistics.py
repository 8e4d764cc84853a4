"""Statistics of many filters against scipy, scikit-learn and statsmodels on the same arrays."""

from itertools import combinations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import precision_recall_curve, roc_auc_score
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.multitest import multipletests

from fastconv.insight import statistics

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(params=["continuous", "tied"])
def values(request):
    found = np.random.default_rng(0).normal(size=(61, 7)).astype(np.float32)
    return found if request.param == "continuous" else np.maximum(np.round(found * 2), 0)


@pytest.fixture
def members():
    return np.random.default_rng(1).random((3, 61)) < np.array([[0.5], [0.1], [0.9]])


def test_ranks_are_those_of_scipy(values):
    assert np.array_equal(statistics.ranks(values), stats.rankdata(values, axis=0))


def asymptotic(a, b, alternative):
    return stats.mannwhitneyu(
        a, b, alternative=alternative, use_continuity=False, method="asymptotic"
    ).pvalue


def test_auroc_and_its_p_value(values, members):
    test = statistics.rank_test(values, members)
    tied = len(np.unique(values)) < values.size
    values = values.astype(float)  # scipy computes in the dtype given
    for g, member in enumerate(members):
        expected = [roc_auc_score(member, column) for column in values.T]
        np.testing.assert_allclose(test.auroc[g], expected, **EXACT)
        both = asymptotic(values[member], values[~member], "two-sided")
        np.testing.assert_allclose(2 * stats.norm.sf(abs(test.z[g])), both, **EXACT)
        if not tied:  # the distribution is symmetric
            np.testing.assert_allclose(test.p[g], both, **EXACT)
            above = asymptotic(values[member], values[~member], "greater")
            np.testing.assert_allclose(test.p_above[g], above, **EXACT)


def test_skewness_is_that_of_all_permutations():
    values = np.array([0.0, 0, 0, 0, 0, 0, 0, 1, 3, 3])[:, None]
    member = np.arange(10) >= 7
    sums = [stats.rankdata(values)[list(chosen)].sum() for chosen in combinations(range(10), 3)]
    test = statistics.rank_test(values, member[None])
    assert test.skewness[0, 0] == pytest.approx(stats.skew(sums), abs=1e-9)
    assert np.exp(test.log_permutations[0, 0]) == pytest.approx(len(sums))
    assert test.p_above[0, 0] == pytest.approx(1 / len(sums), rel=1)  # exactly: the highest sum


def test_a_filter_that_fires_by_chance_on_few_samples_is_not_significant():
    """One firing in a stratum with one member of 41 has a probability of 1/41."""
    values, member = np.zeros((41, 1)), np.zeros((1, 41), bool)
    values[5] = member[0, 5] = 1
    assert statistics.rank_test(values, member).p_above[0, 0] == pytest.approx(1 / 41, rel=0.15)


def test_stratified_auroc_is_its_definition(values, members):
    strata = np.random.default_rng(2).integers(0, 4, len(values))
    test = statistics.rank_test(values, members, strata)
    for g, member in enumerate(members):
        for c, column in enumerate(values.astype(float).T):
            won = compared = variance = 0.0
            for s in range(4):
                a, b = column[member & (strata == s)], column[~member & (strata == s)]
                if not len(a) or not len(b):
                    continue
                weight, n = 1 / (len(a) + len(b) + 1), len(a) + len(b)
                u = stats.mannwhitneyu(a, b).statistic
                ties = np.unique(np.concatenate((a, b)), return_counts=True)[1]
                won += weight * u
                compared += weight * len(a) * len(b)
                correction = (ties**3 - ties).sum() / (n * (n - 1))
                variance += weight**2 * len(a) * len(b) / 12 * (n + 1 - correction)
            assert test.auroc[g, c] == pytest.approx(won / compared, abs=1e-9)
            z = (won - compared / 2) / np.sqrt(variance)
            assert test.z[g, c] == pytest.approx(z, abs=1e-9)


def test_effect_is_cohens_d(values, members):
    found = statistics.effect(values, members)
    for g, member in enumerate(members):
        a, b = values[member].astype(float), values[~member].astype(float)
        t = stats.ttest_ind(a, b).statistic
        np.testing.assert_allclose(found.size[g], t * np.sqrt(1 / len(a) + 1 / len(b)), **EXACT)
        variance = 1 / len(a) + 1 / len(b) + found.size[g] ** 2 / (2 * (len(values) - 2))
        margin = stats.norm.ppf(0.975) * np.sqrt(variance)
        np.testing.assert_allclose(found.high[g] - found.size[g], margin, **EXACT)
        np.testing.assert_allclose(found.size[g] - found.low[g], margin, **EXACT)


def test_stratified_effect_is_the_coefficient_of_a_regression(values, members):
    strata = np.random.default_rng(2).integers(0, 4, len(values))
    found = statistics.effect(values, members, strata)
    dummies = (strata[:, None] == np.arange(4)).astype(float)
    for g, member in enumerate(members):
        for c, column in enumerate(values.T.astype(float)):
            fit = sm.OLS(column, np.column_stack((member, dummies))).fit()
            assert found.size[g, c] == pytest.approx(
                fit.params[0] / np.sqrt(fit.mse_resid), abs=1e-9
            )


def test_effect_without_spread_is_infinite_not_nan():
    values = np.array([[0.0], [0], [1], [1]])
    found = statistics.effect(values, values.T == 1)
    assert found.size == found.low == found.high == np.inf


def test_correlations(values):
    other = np.random.default_rng(3).normal(size=values.shape) + values
    expected = [stats.pearsonr(a, b).statistic for a, b in zip(values.T, other.T, strict=True)]
    np.testing.assert_allclose(statistics.correlation(values, other), expected, **EXACT)
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(values.T, other.T, strict=True)]
    ranked = statistics.correlation(statistics.ranks(values), statistics.ranks(other))
    np.testing.assert_allclose(ranked, expected, **EXACT)
    one = other[:, 0]
    expected = [stats.pearsonr(a, one).statistic for a in values.T]
    np.testing.assert_allclose(statistics.correlation(values, one), expected, **EXACT)


def test_paired_change_and_its_interval(values):
    after = values + np.random.default_rng(3).normal(size=values.shape)
    mean, low, high = statistics.paired_change(values, after)
    expected = stats.ttest_rel(after, values.astype(float))
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose(mean, (after - values).mean(0), **EXACT)
    np.testing.assert_allclose(low, interval.low, **EXACT)
    np.testing.assert_allclose(high, interval.high, **EXACT)


def test_concordance_falls_with_order_scale_and_level():
    a = np.random.default_rng(0).normal(size=(500, 1))
    shuffled = np.random.default_rng(1).permutation(a)
    changed = np.concatenate((a, a + 1, a * 3, -a, shuffled), 1)
    same, level, scale, turned, other = statistics.concordance(np.tile(a, 5), changed)
    assert same == 1 and turned == 0 and other < 0.1
    assert 0.5 < level < 0.8 and 0.5 < scale < 0.7
    expected = 2 * np.cov(a.T, 3 * a.T, ddof=0)[0, 1] / (10 * a.var() + 4 * a.mean() ** 2)
    assert scale == pytest.approx(expected, abs=1e-9)


def test_benjamini_hochberg():
    p = np.random.default_rng(0).random(100) ** 2
    expected = multipletests(p, method="fdr_bh")[1]
    np.testing.assert_allclose(statistics.benjamini_hochberg(p), expected, **EXACT)


def test_best_detector_has_the_largest_f1(values):
    positive = np.random.default_rng(4).random(len(values)) < 0.3
    found = statistics.best_detector(values, positive)
    for c, column in enumerate(values.T):
        precision, recall, thresholds = precision_recall_curve(positive, column)
        f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12))[:-1]
        best = len(f1) - 1 - f1[::-1].argmax()
        assert found.threshold[c] == thresholds[best]
        assert found.precision[c] == pytest.approx(precision[best], abs=1e-9)
        assert found.recall[c] == pytest.approx(recall[best], abs=1e-9)


def test_risk_ratio_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    tables = [(rng.integers(1, 9, 3), 9, rng.integers(1, 20, 3), 20 + s) for s in range(4)]
    for c in range(3):
        two_by_two = [
            np.array([[a[c], n - a[c]], [b[c], m - b[c]]], float) for a, n, b, m in tables
        ]
        expected = StratifiedTable(two_by_two).riskratio_pooled
        assert statistics.risk_ratio(tables)[c] == pytest.approx(expected, abs=1e-9)
