"""Which tags make an arm, and which kind of event must carry them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from closedloop.errors import ConfigurationError
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.batch import EVENT_KINDS, EventKind


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class TagSchema:
    """The tag columns of an arm, and the tags that each kind of event needs to be ranked.

    Args:
        arm: Tag columns, a non-empty part of platform, campaign, audience, creative, placement.
        required: By kind of event, the tags without which an event is *untagged*. By default impressions, clicks and spend need the
            columns of the arm and conversions need none (they are matched by user, or carry the tags of their touch).

    >>> TagSchema(arm=("platform", "campaign")).needed("click")
    ('platform', 'campaign')
    """

    arm: tuple[str, ...] = attrs.field(default=TAG_COLUMNS, converter=_names)
    required: Mapping[EventKind, tuple[str, ...]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not self.arm or len(set(self.arm)) != len(self.arm):
            raise ConfigurationError("an arm needs distinct tag columns", "arm", self.arm, None, TAG_COLUMNS)
        for name in (*self.arm, *(t for tags in self.required.values() for t in tags)):
            if name not in (*TAG_COLUMNS, "conversion_type"):
                raise ConfigurationError("not a tag column", "arm", name, None, TAG_COLUMNS)
        for kind in self.required:
            if kind not in EVENT_KINDS:
                raise ConfigurationError("not a kind of event", "required", kind, None, EVENT_KINDS)

    def needed(self, kind: EventKind) -> tuple[str, ...]:
        """Return the tags that an event of this kind needs."""
        default = () if kind == "conversion" else self.arm
        return tuple(self.required.get(kind, default))
