"""Presets: well-known exports mapped to the event table, one file each."""

from closedloop.errors import ConfigurationError
from closedloop.ingest.presets import criteo, ga4, google_ads, meta_insights, open_bandit, snowplow
from closedloop.ingest.presets.base import Events, Preset

PRESETS: dict[str, Preset] = {p.name: p for p in (m.PRESET for m in (open_bandit, ga4, snowplow, google_ads, meta_insights, criteo))}


def preset_named(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        ConfigurationError: There is none of that name; those there are listed.
    """
    if name not in PRESETS:
        raise ConfigurationError("no such preset", "preset", name, None, tuple(PRESETS))
    return PRESETS[name]


__all__ = ["PRESETS", "Events", "Preset", "preset_named"]
