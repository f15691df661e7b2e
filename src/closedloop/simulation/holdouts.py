"""Who is held out of an arm: a hash of user, arm and seed, so that a user stays in his group for as long as the share stays.

Law of this file: membership depends on nothing that was drawn or shown; with a larger share those held out before stay held out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray

Int64 = npt.NDArray[np.int64]


def held_out(users: Int64, arm: Int64, shares: FloatArray, seed: int) -> npt.NDArray[np.bool_]:
    """Return which users are held out of which arm (shape (N,)).

    Args:
        users: User numbers, shape (N,).
        arm: Arm of each, shape (N,).
        shares: Held-out share by arm, shape (A,).
        seed: The market's seed.

    References:
        Steele, Lea & Flood (2014), Fast splittable pseudorandom number generators, OOPSLA (the mixing function).
    """
    if not shares.any():
        return np.zeros(len(users), dtype=bool)
    with np.errstate(over="ignore"):
        x = users.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + arm.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
        x += np.uint64(seed % 2**63) * np.uint64(0x8CB92BA72F3D8DD7)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return np.asarray(x / 2.0**64 < shares[arm])
