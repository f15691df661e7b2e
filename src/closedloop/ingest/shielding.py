"""Privacy applied to typed events: ids hashed, contact details hashed or refused, before anything is checked or kept.

Law of this file: after it no raw id or refused detail is in the events; the rows it refuses are set aside with the detail withheld.
"""

from __future__ import annotations

import attrs
import numpy as np

from closedloop.ingest.privacy import Privacy, contacts_among
from closedloop.ingest.schema import TEXT_FIELDS, Failure
from closedloop.ingest.typed import TypedEvents

REASON = "holds an e-mail address or a telephone number"
MEND = "send an id without personal data, or choose contacts='hash' or 'keep'"


def shielded(events: TypedEvents, privacy: Privacy) -> tuple[TypedEvents, list[Failure]]:
    """Return the events as they may be kept, and the failures of those that are refused."""
    texts, found = dict(events.texts), []
    events = _ids_without_users(events, privacy)
    for field in TEXT_FIELDS:
        codes, distinct = events.texts[field]
        if not len(distinct):
            continue
        kept, refused = privacy.texts(distinct, user=field == "user_id")
        if refused.any():
            rows = np.flatnonzero(np.append(refused, False)[codes])
            found.append(Failure(field=field, check="no_contact", reason=REASON, mend=MEND, rows=rows))
        position: dict[str, int] = {}
        table = np.array([position.setdefault(t, len(position)) for t in kept.tolist()] + [-1], dtype=np.int32)
        merged = np.empty(len(position), dtype=object)
        merged[:] = list(position)
        texts[field] = (table[codes], merged)
    events, more = _ids(attrs.evolve(events, texts=texts), privacy)
    return events, found + more


def _ids_without_users(events: TypedEvents, privacy: Privacy) -> TypedEvents:
    """Ids of events that hold the raw id of their user hold its hash instead."""
    import pandas as pd

    codes, distinct = events.texts["user_id"]
    if events.event_id is None or privacy.key is None or not len(distinct):
        return events
    users = [*distinct.tolist(), ""]
    ids = events.event_id.to_numpy(dtype=object, na_value=None).copy()
    held = [
        i for i, (text, code) in enumerate(zip(ids.tolist(), codes.tolist(), strict=True)) if text and users[code] and users[code] in text
    ]
    if not held:
        return events
    ids[held] = [privacy.without(ids[i], users[codes[i]]) for i in held]
    return attrs.evolve(events, event_id=pd.Series(ids, dtype=object))


def _ids(events: TypedEvents, privacy: Privacy) -> tuple[TypedEvents, list[Failure]]:
    import pandas as pd

    if events.event_id is None or privacy.contacts == "keep":
        return events, []
    ids = events.event_id.to_numpy(dtype=object, na_value=None)
    given = np.flatnonzero(~pd.isna(ids))
    hits = given[contacts_among(ids[given].tolist())]
    if not len(hits):
        return events, []
    kept = ids.copy()
    kept[hits] = [privacy.detail(t) for t in ids[hits].tolist()]
    refused = [Failure(field="event_id", check="no_contact", reason=REASON, mend=MEND, rows=hits)] if privacy.contacts == "refuse" else []
    return attrs.evolve(events, event_id=pd.Series(kept, dtype=object)), refused
