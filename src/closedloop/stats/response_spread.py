"""How curves of one account differ: a Normal hierarchy whose spread is not known.

Law of this file: arrays in, arrays out, closed form. Each arm's likelihood is Normal around its own peak (Laplace); the arms' parameters
are Normal around a common centre, the centre is Normal around the prior's. How far arms lie apart is learned too: it is integrated over a
grid around the prior's own part, because a spread that is taken too small makes every interval too narrow, and one that is taken too
large learns nothing from the other arms.

References:
    Gelman et al. (2013), Bayesian Data Analysis, ch. 5 (Normal hierarchy, its spread integrated out).
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from closedloop.stats.response import ResponsePrior

FloatArray = npt.NDArray[np.float64]

NOTHING = 1e-9  # less information than this is rounding
# Factors on the prior's own variance, and their prior: log-Normal of that spread, of mean 1, so that an arm that knows nothing has the
# prior's variance. Small factors are left out: tempered likelihoods scatter less than they say, and would feign that all arms are alike.
_DOUBT = 1.4
_WEIGHT = np.exp(-0.5 * ((np.arange(-1, 6) * np.log(2.0) + 2.0) / _DOUBT) ** 2)
_WEIGHT /= _WEIGHT.sum()
_FACTORS: FloatArray = np.asarray(2.0 ** np.arange(-1, 6) / float(_WEIGHT @ 2.0 ** np.arange(-1, 6)), dtype=np.float64)


@attrs.frozen(kw_only=True, eq=False)
class Spread:
    """What is known of the centre and of the spread of the arms' parameters.

    Args:
        location, common2: Prior of the centre.
        own: Variances of arms around the centre that are considered, shape (G,).
        weight: Their probabilities, shape (G,).
        centres, centres2: Posterior of the centre for each of them, shape (G,).
    """

    location: float
    common2: float
    own: FloatArray
    weight: FloatArray
    centres: FloatArray
    centres2: FloatArray

    @classmethod
    def of(cls, prior: ResponsePrior, shape: int) -> Spread:
        """Return the prior."""
        location, scale = prior.of(shape)
        common2 = scale**2 * prior.shared
        own = max(scale**2 - common2, 1e-9 * scale**2) * _FACTORS
        none = np.zeros(len(own))
        return cls(location=location, common2=common2, own=own, weight=_WEIGHT, centres=none + location, centres2=none + common2)

    @property
    def centre(self) -> float:
        """Expected centre."""
        return float(self.weight @ self.centres)

    @property
    def own2(self) -> float:
        """Expected precision of an arm around the centre, as a variance."""
        return float(1.0 / (self.weight @ (1.0 / self.own)))

    def given(self, theta: FloatArray, score: FloatArray, information: FloatArray) -> Spread:
        """Return what is known after the arms' likelihoods.

        Args:
            theta: Where each likelihood was expanded, shape (A,).
            score, information: Its slope and curvature there, shape (A,).
        """
        has = information > NOTHING
        noise = 1.0 / information[has]
        peak = theta[has] + score[has] * noise
        total = self.own[:, None] + noise  # shape (G, A)
        precision = 1.0 / total
        if self.common2 > 0.0:
            whole = 1.0 / self.common2 + precision.sum(axis=1)
            centres = (self.location / self.common2 + precision @ peak) / whole
            centres2 = 1.0 / whole
        else:
            whole, centres, centres2 = np.ones(len(self.own)), np.full(len(self.own), self.location), np.zeros(len(self.own))
        # log density of all peaks, the centre integrated out
        fit = -0.5 * (np.log(total).sum(axis=1) + (precision * (peak - centres[:, None]) ** 2).sum(axis=1))
        if self.common2 > 0.0:
            fit -= 0.5 * ((centres - self.location) ** 2 / self.common2 + np.log(whole))
        weight = _WEIGHT * np.exp(fit - fit.max())
        return attrs.evolve(self, weight=weight / weight.sum(), centres=centres, centres2=centres2)

    def log_prior(self, t: FloatArray, theta: FloatArray, score: FloatArray, information: FloatArray) -> FloatArray:
        """Return the log density of each arm's parameter at ``t`` by what all *other* arms say, up to a constant; shape (A,)."""
        has = information > NOTHING
        noise = 1.0 / np.where(has, information, 1.0)
        peak = theta + np.where(has, score, 0.0) * noise
        precision = np.where(has, 1.0 / (self.own[:, None] + noise), 0.0)  # shape (G, A)
        whole = 1.0 / np.maximum(self.centres2, 1e-12)[:, None]
        rest = np.maximum(whole - precision, 1e-9 * whole)
        centre = np.where(self.common2 > 0.0, (whole * self.centres[:, None] - precision * peak) / rest, self.location)
        variance = self.own[:, None] + (1.0 / rest if self.common2 > 0.0 else 0.0)
        logs = np.log(self.weight + 1e-300)[:, None] - 0.5 * (np.log(variance) + (t - centre) ** 2 / variance)
        return np.asarray(logsumexp(logs, axis=0))

    def posterior(self, theta: FloatArray, score: FloatArray, information: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return mean and variance of each arm's parameter, and the part of its spread that moves all arms together; shape (A,) each.

        An arm whose data say nothing keeps the prior, as long as no other arm says anything either.
        """
        mean, square, common = np.zeros(len(theta)), np.zeros(len(theta)), np.zeros(len(theta))
        for w, own, centre, centre2 in zip(self.weight, self.own, self.centres, self.centres2, strict=True):
            rest = 1.0 / (1.0 / own + information)
            pull = rest / own
            place = rest * (centre / own + information * theta + score)
            mean += w * place
            square += w * (rest + pull**2 * centre2 + (place - self.location) ** 2)
            common += w * pull * np.sqrt(centre2)
        return mean, square - (mean - self.location) ** 2, common
