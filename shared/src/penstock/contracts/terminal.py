"""Making a terminal result out of what is known of a request."""

from __future__ import annotations

from penstock.contracts.errors import Cancelled, Expired, PenstockError
from penstock.contracts.events import Event, RequestContext
from penstock.contracts.results import ErrorDetail, RequestFinished, Status


def finish(
    event: Event,
    *,
    status: Status,
    now_ms: int,
    error: ErrorDetail | None = None,
) -> RequestFinished:
    """The result of a request that ends here without an answer, with all that the stages found."""
    context, findings = event.context, event.findings
    return RequestFinished(
        id=context.request_id,
        created=now_ms // 1000,
        status=status,
        error=error,
        conversation_id=context.conversation_id,
        tenant=context.tenant,
        priority=context.priority,
        requested_priority=context.requested_priority,
        source=context.source,
        language=findings.language,
        changes=findings.changes,
        redactions=findings.redactions,
        verdicts=findings.verdicts,
        versions=context.versions,
        timings=context.timings,
        total_ms=max(0, now_ms - context.submitted_ms),
    )


def status_of(error: PenstockError) -> Status:
    """How a request ends that met this error."""
    match error:
        case Expired():
            return "expired"
        case Cancelled():
            return "cancelled"
        case _:
            return "failed"


def refuse(context: RequestContext, error: PenstockError, *, stage: str, now_ms: int) -> RequestFinished:
    """The result of a request that `stage` could not process: `expired` past its deadline, else `failed`."""
    return finish(Event(context=context), status=status_of(error), now_ms=now_ms, error=ErrorDetail.of(error, stage))
