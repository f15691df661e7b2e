"""What an arm's past says of its credited rate under one assumption of how the past is to be read.

Law of this file: Gamma mixtures with the evidence of their assumption; what is assumed is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from scipy import special

from closedloop.records.interval import FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Reading:
    """Posterior of the credited rate of A arms under one assumption, a Gamma mixture under a Gamma(k, k / mu) prior.

    Args:
        shape, rate, weight: Shape (A, R).
        share: The background's share of the rate that is assumed; None where the assumption does not speak of it.
        evidence: Log evidence of the assumption with its prior probability, shape (A,), or a number.
    """

    shape: FloatArray
    rate: FloatArray
    weight: FloatArray
    share: float | None = None
    evidence: FloatArray | float = 0.0

    def log_density(self, log_g: FloatArray) -> FloatArray:
        """Log density of the logarithm of the credited rate at some nodes, shape (A, G)."""
        s, r, w = self.shape[:, None, :], self.rate[:, None, :], self.weight[:, None, :]
        x = log_g[:, :, None]
        parts = s * (x + np.log(r)) - r * np.exp(x) - special.gammaln(s) + np.log(np.maximum(w, 1e-300))
        return np.asarray(special.logsumexp(parts, axis=2))


def mean_rate(readings: Sequence[Reading]) -> FloatArray:
    """Return the posterior mean of the credited rate over all assumptions, shape (A,)."""
    means = np.stack([(r.weight * r.shape / r.rate).sum(axis=1) for r in readings])
    weight = special.softmax(np.stack([np.broadcast_to(r.evidence, means[0].shape) for r in readings]), axis=0)
    return np.asarray((weight * means).sum(axis=0))
