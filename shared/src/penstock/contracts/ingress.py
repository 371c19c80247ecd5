"""The context of a raw request, from what its record offers: a pure function, so that a replay agrees."""

from __future__ import annotations

import re
import uuid

from penstock.contracts.events import RequestContext, Source
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.lanes import lane_of
from penstock.contracts.request import IDENTIFIER_PATTERN

_NAMESPACE = uuid.UUID("6f1c3ed4-5a53-5d1c-9f0e-5b1f8f6f7a11")
_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)


def request_id_of(source: Source) -> str:
    """The id of a request that brought none: derived from where it stands, so the same at each reading."""
    return str(uuid.uuid5(_NAMESPACE, source.place))


def context_of(
    headers: RequestHeaders,
    source: Source,
    submitted_ms: int,
    *,
    key: bytes | None = None,
    body_request_id: str | None = None,
    body_conversation_id: str | None = None,
    body_tenant: str | None = None,
    default_tenant: str = "default",
) -> RequestContext:
    """Headers win over the body, the body over the record key, the key over what can be derived.

    What was published to the bulk lane stays in it: a header cannot raise its priority.
    """
    request_id = headers.request_id or body_request_id or request_id_of(source)
    conversation_id = headers.conversation_id or body_conversation_id or _identifier(key) or request_id
    return RequestContext(
        request_id=request_id,
        conversation_id=conversation_id,
        tenant=headers.tenant or body_tenant or default_tenant,
        priority="bulk" if lane_of(source.topic) == "bulk" else headers.priority or "interactive",
        deadline_ms=headers.deadline_ms,
        submitted_ms=max(0, submitted_ms),
        source=source,
    )


def _identifier(key: bytes | None) -> str | None:
    text = (key or b"").decode("utf-8", "replace")
    return text if _IDENTIFIER.fullmatch(text) else None
