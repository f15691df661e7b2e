"""Posteriors that are updated instead of refitted: only arms with restated cohorts are computed again.

Law of this file: a restated cohort replaces the earlier one, it is never added to it; the newest revision wins, so updates may come in
any order and twice. Hyper-parameters (group priors, dispersion) stay as given. Saved without pickle.
"""

from __future__ import annotations

import io
import json
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError, InputError
from closedloop.records.interval import FloatArray
from closedloop.records.signal import GammaMixture
from closedloop.stats.gamma_poisson import GroupPriors, posterior_mixture, totals

Key = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class RateState:
    """Rates of numbered arms from restated cohorts, weighed by a half-life, at fixed hyper-parameters.

    Args:
        half_life: In days; infinite forgets nothing.
        day: The watermark's day; recency counts from it.
        group: Group of each arm, shape (A,).
        priors: The groups' priors, shape (G, R).
        tempering: Variance of counts over their mean, per group, shape (G,).
        key: Arm and day of each cohort as ``arm << 20 | day``, ascending, shape (N,).
        count, exposure: Credit, and exposure x maturity, shape (N,).
        revision: Revision of each cohort, shape (N,).
        mixture: Posterior of every arm.
    """

    half_life: float
    day: int
    group: npt.NDArray[np.int32]
    priors: GroupPriors
    tempering: FloatArray
    key: Key
    count: FloatArray
    exposure: FloatArray
    revision: npt.NDArray[np.int64]
    mixture: GammaMixture

    @classmethod
    def start(
        cls, group: npt.NDArray[np.int32], priors: GroupPriors, tempering: FloatArray, *, day: int, half_life: float = np.inf
    ) -> RateState:
        """Return the state before any cohort.

        Raises:
            ConfigurationError: The half-life is not above zero.
        """
        if not half_life > 0:
            raise ConfigurationError("a half-life is above zero", "half_life", half_life)
        empty, n = np.empty(0), len(group)
        none = np.empty(0, dtype=np.int64)
        shape, rate, weight, _ = posterior_mixture(np.zeros(n), np.zeros(n), group, priors)
        return cls(
            half_life=half_life,
            day=day,
            group=group,
            priors=priors,
            tempering=tempering,
            key=none,
            count=empty,
            exposure=empty,
            revision=none,
            mixture=GammaMixture(shape=shape, rate=rate, weight=weight),
        )

    def update(
        self, arm: npt.NDArray[np.integer], day: npt.NDArray[np.integer], count: FloatArray, exposure: FloatArray, *, revision: int
    ) -> RateState:
        """Return the state with some cohorts restated; arms without one keep their posterior.

        Args:
            arm, day: Which cohort, shape (M,), each pair once.
            count, exposure: What stands there now, shape (M,).
            revision: Of this statement; an older one than what stands is ignored.

        Raises:
            InputError: An arm is not known, a day lies after the watermark, a pair is twice there, or a number is negative or not finite.
        """
        self._check(arm, day, count, exposure)
        key = (arm.astype(np.int64) << 20) | day.astype(np.int64)
        order = np.argsort(key)
        revisions = np.full(len(key), revision, dtype=np.int64)
        return self._replaced(
            key[order], np.asarray(count, dtype=np.float64)[order], np.asarray(exposure, dtype=np.float64)[order], revisions
        )

    def merge(self, other: RateState) -> RateState:
        """Return the state of both: of cohorts in both the newer revision (of equal revisions, the larger exposure, then count).

        Raises:
            ConfigurationError: The two were started differently.
        """
        same = (
            self.half_life == other.half_life
            and self.day == other.day
            and np.array_equal(self.group, other.group)
            and np.array_equal(self.tempering, other.tempering)
            and all(np.array_equal(getattr(self.priors, f), getattr(other.priors, f)) for f in ("k", "weight", "log_mu", "sd_log_mu"))
        )
        if not same:
            raise ConfigurationError("states merge when half-life, day, groups and priors are the same", "other", other.half_life)
        return self._replaced(other.key, other.count, other.exposure, other.revision)

    def _check(self, arm: npt.NDArray[np.integer], day: npt.NDArray[np.integer], count: FloatArray, exposure: FloatArray) -> None:
        if len(arm) and not (int(arm.min()) >= 0 and int(arm.max()) < len(self.group)):
            raise InputError("an arm is not known", "arm", int(arm.max()), f"arms are numbered below {len(self.group)}")
        if len(day) and not (int(day.min()) >= 0 and int(day.max()) <= self.day):
            raise InputError("a cohort lies in the future", "day", int(day.max()), f"the watermark is day {self.day}")
        for name, values in (("count", count), ("exposure", exposure)):
            wrong = np.flatnonzero(~(np.isfinite(values) & (np.asarray(values) >= 0)))
            if len(wrong):
                raise InputError("must be zero or more and finite", name, float(values[wrong[0]]))
        pairs = np.sort((arm.astype(np.int64) << 20) | day.astype(np.int64))
        if bool((pairs[1:] == pairs[:-1]).any()):
            raise InputError("a cohort is restated twice in one update", "arm", None, "sum or choose before")

    def _replaced(self, key: Key, count: FloatArray, exposure: FloatArray, revision: npt.NDArray[np.int64]) -> RateState:
        at = np.searchsorted(self.key, key)
        known = np.zeros(len(key), dtype=bool)
        inside = at < len(self.key)
        known[inside] = self.key[at[inside]] == key[inside]
        old = at[known]
        newer = revision[known] > self.revision[old]
        tie = revision[known] == self.revision[old]
        larger = (exposure[known] > self.exposure[old]) | ((exposure[known] == self.exposure[old]) & (count[known] > self.count[old]))
        take = newer | (tie & larger)
        fresh = ~known

        def merged(old_values: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            out = old_values.copy()
            out[old[take]] = values[known][take]
            return np.insert(out, at[fresh], values[fresh]) if fresh.any() else out

        keys = np.insert(self.key, at[fresh], key[fresh]) if fresh.any() else self.key
        changed = _distinct(np.sort(np.concatenate([key[known][take], key[fresh]]) >> 20))
        state = attrs.evolve(
            self,
            key=keys,
            count=merged(self.count, count),
            exposure=merged(self.exposure, exposure),
            revision=merged(self.revision, revision),
        )
        return state._recomputed(changed)

    def _recomputed(self, arms: npt.NDArray[np.int64]) -> RateState:
        """Return the state with the posteriors of some arms computed from their cohorts."""
        if not len(arms):
            return self
        first, end = np.searchsorted(self.key, arms << 20), np.searchsorted(self.key, (arms + 1) << 20)
        length = end - first
        rows = np.repeat(first - np.append(0, np.cumsum(length)[:-1]), length) + np.arange(length.sum())
        unit = np.repeat(np.arange(len(arms)), length)
        weight = np.exp2(-(self.day - (self.key[rows] & 0xFFFFF)) / self.half_life)
        group = self.group[arms]
        t = self.tempering[group]
        c, x = totals(unit, weight * self.count[rows], len(arms)) / t, totals(unit, weight * self.exposure[rows], len(arms)) / t
        shape, rate, mix, _ = posterior_mixture(c, x, group, self.priors)
        new = [self.mixture.shape.copy(), self.mixture.rate.copy(), self.mixture.weight.copy()]
        for column, values in zip(new, (shape, rate, mix), strict=True):
            column[arms] = values
        return attrs.evolve(self, mixture=GammaMixture(shape=new[0], rate=new[1], weight=new[2]))

    def to_bytes(self) -> bytes:
        """Return the state as an npz file without pickled objects; posteriors are computed again on loading."""
        priors = {f"priors_{f}": getattr(self.priors, f) for f in ("k", "weight", "log_mu", "sd_log_mu", "informed")}
        head = np.frombuffer(json.dumps({"format": 1, "half_life": repr(self.half_life), "day": self.day}).encode(), dtype=np.uint8)
        out = io.BytesIO()
        columns = {name: getattr(self, name) for name in ("group", "tempering", "key", "count", "exposure", "revision")}
        np.savez(out, head=head, **columns, **priors)
        return out.getvalue()

    @classmethod
    def load(cls, data: bytes) -> RateState:
        """Return the state saved by `to_bytes`.

        Raises:
            InputError: These bytes are no such state.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                head: dict[str, Any] = json.loads(bytes(file["head"]).decode())
                arrays = {name: file[name] for name in file.files if name != "head"}
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise InputError("these bytes are no saved rates", "data", len(data), "load what to_bytes returned") from error
        if head.get("format") != 1:
            raise InputError("the saved rates have an unknown format", "format", head.get("format"), None, ("1",))
        priors = GroupPriors(**{k.removeprefix("priors_"): arrays.pop(k) for k in list(arrays) if k.startswith("priors_")})
        empty = cls.start(arrays["group"], priors, arrays["tempering"], day=int(head["day"]), half_life=float(head["half_life"]))
        state = attrs.evolve(empty, **{k: arrays[k] for k in ("key", "count", "exposure", "revision")})
        return state._recomputed(_distinct(state.key >> 20))


def _distinct(ascending: Key) -> Key:
    """Return the distinct values of an ascending array (a hash table is slow on keys that differ in their high bits only)."""
    return ascending[np.append(True, ascending[1:] != ascending[:-1])] if len(ascending) else ascending
