"""Posteriors that are updated instead of refitted: only arms with restated cohorts are computed again.

Law of this file: a restated cohort replaces the earlier one, it is never added to it; the newest revision wins, so updates may come in
any order and twice. What was learned from all arms stays as given. Breaks and drift are summed over the cohorts as they stand, not by a
filter that has seen them go by, so a restatement of any age is taken in exactly. Saved without pickle.
"""

from __future__ import annotations

import io
import json
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.classify.ages import AgeWeights
from closedloop.classify.grid import AgeGrid
from closedloop.classify.rates import Counted, Learned
from closedloop.classify.recency import Groups, present
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.interval import FloatArray
from closedloop.records.posterior import GammaMixture
from closedloop.stats.gamma_poisson import GroupPriors

Key = npt.NDArray[np.int64]

_DAY = (1 << 20) - 1
_COLUMNS = ("key", "count", "squared", "exposure", "revision")
_PRIORS = ("k", "weight", "log_mu", "sd_log_mu", "informed")
_LEARNED = ("scatter", "share", "covariance")


@attrs.frozen(kw_only=True, eq=False)
class RateState:
    """Rates of numbered arms for one kind of touch, from restated cohorts; see `BayesClassifier.start`.

    Args:
        learned: What the arms have in common.
        half_life_days: Of the recency weights, None where the data say how far back the present goes.
        group: Group of each arm, shape (A,).
        mark: First day not complete of each arm, shape (A,); recency counts from it.
        key: Arm and day of each cohort as ``arm << 20 | day``, ascending, shape (N,).
        count, squared, exposure: Credit, squared credits, and exposure x maturity, shape (N,).
        revision: Revision of each cohort, shape (N,).
        oldest: Greatest age of any cohort in days: blocks of days are cut by it.
        mixture: Posterior of every arm.
    """

    learned: Learned
    half_life_days: float | None
    group: Groups
    mark: FloatArray
    key: Key
    count: FloatArray
    squared: FloatArray
    exposure: FloatArray
    revision: npt.NDArray[np.int64]
    oldest: int
    mixture: GammaMixture

    @classmethod
    def start(cls, learned: Learned, group: Groups, mark: FloatArray, *, half_life_days: float | None) -> RateState:
        """Return the state before any cohort.

        Raises:
            ConfigurationError: There is both a half-life and a probability of breaks, or neither.
        """
        if (half_life_days is None) == (learned.hazard is None):
            raise ConfigurationError("either a half-life weighs or breaks do", "half_life_days", half_life_days)
        empty = np.empty(0)
        none = np.empty(0, dtype=np.int64)
        state = cls(
            learned=learned,
            half_life_days=half_life_days,
            group=group,
            mark=mark,
            key=none,
            count=empty,
            squared=empty,
            exposure=empty,
            revision=none,
            oldest=0,
            mixture=GammaMixture(shape=np.empty((len(group), 0)), rate=np.empty((len(group), 0)), weight=np.empty((len(group), 0))),
        )
        return state._recomputed(np.arange(len(group)))

    def update(
        self,
        arm: npt.NDArray[np.integer],
        day: npt.NDArray[np.integer],
        count: FloatArray,
        exposure: FloatArray,
        *,
        revision: int,
        squared: FloatArray | None = None,
    ) -> RateState:
        """Return the state with some cohorts restated; arms without one keep their posterior.

        Args:
            arm, day: Which cohort, shape (M,), each pair once.
            count, exposure: What stands there now: credit, and exposure x maturity, shape (M,).
            revision: Of this statement; an older one than what stands is ignored.
            squared: Sum of squared credits, None for whole credits.

        Raises:
            InputError: An arm is not known, a day lies after its watermark, a pair is twice there, or a number is negative or not finite.
        """
        squared = count if squared is None else squared
        self._check(arm, day, {"count": count, "exposure": exposure, "squared": squared})
        key = (arm.astype(np.int64) << 20) | day.astype(np.int64)
        order = np.argsort(key)
        revisions = np.full(len(key), revision, dtype=np.int64)
        count, squared, exposure = (np.asarray(column, dtype=np.float64)[order] for column in (count, squared, exposure))
        return self._replaced(key[order], count, squared, exposure, revisions)

    def merge(self, other: RateState) -> RateState:
        """Return the state of both: of cohorts in both the newer revision (of equal revisions, the larger exposure, then count).

        Raises:
            ConfigurationError: The two were started differently.
        """
        ours, theirs = self._head(), other._head()
        if not (ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)):
            raise ConfigurationError("states merge when they were started alike", "other", "started with other groups, priors or days")
        return self._replaced(other.key, other.count, other.squared, other.exposure, other.revision)

    def _head(self) -> dict[str, npt.NDArray[Any]]:
        """Return what stays as it was at the start, as arrays."""
        numbers = json.dumps({"format": 3, "half_life_days": self.half_life_days, "hazard": self.learned.hazard})
        return {
            "head": np.frombuffer(numbers.encode(), dtype=np.uint8),
            "group": self.group,
            "mark": self.mark,
            **{name: getattr(self.learned, name) for name in _LEARNED},
            **{f"priors_{name}": getattr(self.learned.priors, name) for name in _PRIORS},
        }

    def _check(self, arm: npt.NDArray[np.integer], day: npt.NDArray[np.integer], numbers: dict[str, FloatArray]) -> None:
        if len(arm) and not (int(arm.min()) >= 0 and int(arm.max()) < len(self.group)):
            raise InputError("an arm is not known", "arm", int(arm.max()), f"arms are numbered below {len(self.group)}")
        late = np.flatnonzero((day < 0) | (day > self.mark[arm]))
        if len(late):
            mark = int(self.mark[arm[late[0]]])
            raise InputError("a cohort lies in the future", "day", int(day[late[0]]), f"the watermark of its arm is day {mark}")
        for name, values in numbers.items():
            wrong = np.flatnonzero(~(np.isfinite(values) & (np.asarray(values) >= 0)))
            if len(wrong):
                raise InputError("must be zero or more and finite", name, float(values[wrong[0]]))
        pairs = np.sort((arm.astype(np.int64) << 20) | day.astype(np.int64))
        if bool((pairs[1:] == pairs[:-1]).any()):
            raise InputError("a cohort is restated twice in one update", "arm", None, "sum or choose before")

    def _replaced(
        self, key: Key, count: FloatArray, squared: FloatArray, exposure: FloatArray, revision: npt.NDArray[np.int64]
    ) -> RateState:
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
            squared=merged(self.squared, squared),
            exposure=merged(self.exposure, exposure),
            revision=merged(self.revision, revision),
            oldest=max(self.oldest, int((self.mark[key >> 20] - (key & _DAY)).max(initial=0))),
        )
        before, after = (AgeWeights.of(np.zeros(0), float(oldest), None, 1.0).ends for oldest in (self.oldest, state.oldest))
        return state._recomputed(changed if np.array_equal(before, after) else np.arange(len(self.group)))

    def _recomputed(self, arms: npt.NDArray[np.int64]) -> RateState:
        """Return the state with the posteriors of some arms computed from their cohorts."""
        if not len(arms):
            return self
        first, end = np.searchsorted(self.key, arms << 20), np.searchsorted(self.key, (arms + 1) << 20)
        length = end - first
        rows = np.repeat(first - np.append(0, np.cumsum(length)[:-1]), length) + np.arange(length.sum())
        unit, day, group = np.repeat(np.arange(len(arms)), length), self.key[rows] & _DAY, self.group[arms]
        counted = self._counted(AgeGrid.of(unit, day, self.mark[arms], None), rows, len(arms))
        known = self.learned
        blocks = counted.blocks(group, known.scatter, known.covariance, whole=known.hazard is None)
        found = present(blocks, known.priors, known.share, known.hazard or 0.0).mixture
        if len(arms) == len(self.group):
            return attrs.evolve(self, mixture=found)
        new = {name: getattr(self.mixture, name).copy() for name in ("shape", "rate", "weight")}
        for name, column in new.items():
            column[arms] = getattr(found, name)
        return attrs.evolve(self, mixture=GammaMixture(**new))

    def _counted(self, grid: AgeGrid, rows: npt.NDArray[np.intp], n: int) -> Counted:
        w = AgeWeights.of(grid.ages, float(self.oldest), self.half_life_days, 1.0)
        columns = (self.count[rows], self.exposure[rows], self.squared[rows])
        blocks, n_ages = len(w.ends), len(self.learned.covariance)
        by = np.concatenate([w.member, w.recency[:, None], np.ones((len(w.age), 1))], axis=1)
        young = w.recency[:, None] * (np.clip(w.age, 1, n_ages + 1)[:, None] == np.arange(1, n_ages + 1))
        sums = [np.empty((n, blocks + 2)) for _ in columns]
        of_age = np.empty((n, n_ages))
        for at, cut in grid.cuts(np.arange(n)):
            for out, column in zip(sums, columns, strict=True):
                out[at] = cut.table(column) @ by
            of_age[at] = cut.table(columns[1]) @ young
        credit, mature, squared = sums
        raw, squares = credit[:, blocks + 1], squared[:, blocks + 1]
        return Counted(
            counts=credit[:, :blocks],
            exposures=mature[:, :blocks],
            count=credit[:, blocks],
            exposure=mature[:, blocks],
            credit_dispersion=np.where((raw > 0) & (squares > 0), squares / np.where(raw > 0, raw, 1.0), 1.0),
            block_days=-np.diff(np.append(w.ends, 0.0)),
            block_age=w.ends,
            young=of_age if n_ages else None,
        )

    def to_bytes(self) -> bytes:
        """Return the state as an npz file without pickled objects; posteriors are computed again on loading."""
        out = io.BytesIO()
        columns: dict[str, Any] = {**self._head(), **{name: getattr(self, name) for name in _COLUMNS}, "oldest": np.array(self.oldest)}
        np.savez(out, **columns)
        return out.getvalue()

    @classmethod
    def load(cls, data: bytes) -> RateState:
        """Return the state saved by `to_bytes`.

        Raises:
            InputError: These bytes are no such state.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            head: dict[str, Any] = json.loads(bytes(arrays["head"]).decode())
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise InputError("these bytes are no saved rates", "data", len(data), "load what to_bytes returned") from error
        if head.get("format") != 3:
            raise InputError("the saved rates have an unknown format", "format", head.get("format"), None, ("3",))
        priors = GroupPriors(**{name: arrays[f"priors_{name}"] for name in _PRIORS})
        learned = Learned(hazard=head["hazard"], priors=priors, **{name: arrays[name] for name in _LEARNED})
        empty = cls.start(learned, arrays["group"], arrays["mark"], half_life_days=head["half_life_days"])
        state = attrs.evolve(empty, **{name: arrays[name] for name in _COLUMNS}, oldest=int(arrays["oldest"]))
        return state._recomputed(np.arange(len(state.group)))


def _distinct(ascending: Key) -> Key:
    """Return the distinct values of an ascending array (a hash table is slow on keys that differ in their high bits only)."""
    return ascending[np.append(True, ascending[1:] != ascending[:-1])] if len(ascending) else ascending
