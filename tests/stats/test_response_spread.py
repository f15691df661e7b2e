"""The Normal hierarchy of curves against Normals of many dimensions (scipy's), with nothing integrated out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate
from scipy.stats import multivariate_normal, norm

from closedloop.stats.response import HILL, POWER, ResponsePrior
from closedloop.stats.response_spread import Spread

THETA, SCORE = np.array([0.4, -0.5, 1.1]), np.array([1.5, -0.7, 2.0])
INFORMATION = np.array([4.0, 1.2, 9.0])
PRIOR = ResponsePrior(power=(0.7, 1.3), shared=0.3)
PEAK, NOISE = THETA + SCORE / INFORMATION, 1.0 / INFORMATION


def test_the_prior_of_the_spread_has_the_stated_mean():
    """The variances that are considered average to the prior's own part, lie powers of two apart, and are log-Normal around a fourth."""
    spread = Spread.of(PRIOR, POWER)
    assert spread.weight @ spread.own == pytest.approx(1.69 * 0.7)
    np.testing.assert_allclose(np.diff(np.log2(spread.own)), 1.0)
    log = np.arange(-1, 6) * np.log(2)
    density = norm.pdf(log, -2.0, 1.4)
    np.testing.assert_allclose(spread.weight, density / density.sum())
    assert spread.common2 == pytest.approx(1.69 * 0.3)
    assert spread.centre == pytest.approx(0.7)
    assert 1 / spread.own2 == pytest.approx(spread.weight @ (1 / spread.own))
    assert Spread.of(ResponsePrior(hill=(0.2, 1.0)), HILL).location == 0.2
    alike = Spread.of(ResponsePrior(power=(0.0, 3.0), shared=1.0), POWER)  # but not to the last bit
    assert alike.weight @ alike.own == pytest.approx(9e-9)


def joint(own, common2):
    """Mean and covariance of the three arms' parameters before data."""
    return np.full(3, 0.7), common2 + own * np.eye(3)


@pytest.mark.parametrize("shared", [0.3, 0.0])
def test_what_the_arms_say_is_the_density_of_their_peaks(shared):
    """Weights of the variances are those of the joint density of the peaks; each centre is its Normal posterior."""
    prior = Spread.of(ResponsePrior(power=(0.7, 1.3), shared=shared), POWER)
    found = prior.given(THETA, SCORE, INFORMATION)
    density = []
    for g, own in enumerate(prior.own):
        mean, covariance = joint(own, prior.common2)
        covariance = covariance + np.diag(NOISE)
        density.append(multivariate_normal(mean, covariance).pdf(PEAK))
        gain = prior.common2 * np.ones(3) @ np.linalg.inv(covariance)
        assert found.centres[g] == pytest.approx(0.7 + gain @ (PEAK - mean))
        assert found.centres2[g] == pytest.approx(prior.common2 - gain @ np.full(3, prior.common2), abs=1e-12)
    wanted = prior.weight * np.array(density)
    np.testing.assert_allclose(found.weight, wanted / wanted.sum(), rtol=1e-9)


def test_arms_that_say_nothing_change_nothing():
    """An arm without information is left out of what is known of the others, whatever its score."""
    some = Spread.of(PRIOR, POWER).given(THETA, SCORE, INFORMATION)
    more = Spread.of(PRIOR, POWER).given(np.append(THETA, 3.0), np.append(SCORE, 0.5), np.append(INFORMATION, 1e-12))
    np.testing.assert_allclose(more.weight, some.weight)
    np.testing.assert_allclose(more.centres, some.centres)


def test_the_posterior_of_each_arm_is_that_of_the_joint_normal():
    """Mean and variance are those of the mixture over variances of the conditional Normal; what arms share is what the centre moves."""
    known = Spread.of(PRIOR, POWER).given(THETA, SCORE, INFORMATION)
    mean, square, common = known.posterior(THETA, SCORE, INFORMATION)
    first, second = np.zeros(3), np.zeros(3)
    for w, own in zip(known.weight, known.own, strict=True):
        prior_mean, covariance = joint(own, known.common2)
        gain = covariance @ np.linalg.inv(covariance + np.diag(NOISE))
        place = prior_mean + gain @ (PEAK - prior_mean)
        first += w * place
        second += w * (np.diag(covariance - gain @ covariance) + place**2)
    np.testing.assert_allclose(mean, first, rtol=1e-9)
    np.testing.assert_allclose(square, second - first**2, rtol=1e-8)
    pull = (1 / known.own[:, None]) / (1 / known.own[:, None] + INFORMATION)
    np.testing.assert_allclose(common, known.weight @ (pull * np.sqrt(known.centres2)[:, None]))


@pytest.mark.parametrize("shared", [0.3, 0.0])
def test_what_the_others_say_leaves_the_arm_itself_out(shared):
    """The log density of one arm by the others is, up to a constant, that of the joint Normal without that arm's own peak."""
    prior = Spread.of(ResponsePrior(power=(0.7, 1.3), shared=shared), POWER)
    known = prior.given(THETA, SCORE, INFORMATION)
    at = np.array([-0.8, 0.1, 0.9, 1.7])
    found = np.array([known.log_prior(np.full(3, t), THETA, SCORE, INFORMATION) for t in at])
    for arm in range(3):
        others = [i for i in range(3) if i != arm]
        density = np.zeros(len(at))
        for w, own in zip(known.weight, known.own, strict=True):
            mean, covariance = joint(own, prior.common2)
            covariance = covariance + np.diag(NOISE)
            k = covariance[others][:, others]
            to = np.full(2, prior.common2)
            centre = 0.7 + to @ np.linalg.solve(k, PEAK[others] - mean[others])
            variance = own + prior.common2 - to @ np.linalg.solve(k, to)
            density += w * norm.pdf(at, centre, np.sqrt(variance))
        wanted = np.log(density)
        np.testing.assert_allclose(found[:, arm] - found[0, arm], wanted - wanted[0], atol=1e-6)


def test_an_arm_alone_has_the_posterior_of_quadrature():
    """One arm, a Normal likelihood: its moments under the mixture prior, by scipy's quadrature."""
    spread = Spread.of(PRIOR, POWER)
    known = spread.given(np.array([1.4]), np.array([0.8]), np.array([2.5]))
    mean, square, _ = known.posterior(np.array([1.4]), np.array([0.8]), np.array([2.5]))
    peak = 1.4 + 0.8 / 2.5

    def density(t, power=0):
        prior = spread.weight @ norm.pdf(t, 0.7, np.sqrt(spread.own + spread.common2))
        return t**power * prior * norm.pdf(t, peak, 2.5**-0.5)

    parts = [integrate.quad(density, -8, 10, args=(p,), limit=200)[0] for p in (0, 1, 2)]
    assert mean[0] == pytest.approx(parts[1] / parts[0], rel=1e-6)
    assert square[0] == pytest.approx(parts[2] / parts[0] - (parts[1] / parts[0]) ** 2, rel=1e-6)
