"""The demonstration: stack up, samples through it, every result shown and compared, and where to look next."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from penstock.cli.errors import CommandError
from penstock.cli.expectations import compare, load
from penstock.cli.message_commands import new_run, run_sending
from penstock.cli.options import reporting
from penstock.cli.records import Stamp
from penstock.cli.render import out, result_line, summary
from penstock.cli.sending import Sending
from penstock.cli.sent import Sent
from penstock.cli.stack import Stack, UpReport, Wanted
from penstock.cli.state import StackState, StateFolder
from penstock.cli.target import Target, settings_for
from penstock.cli.tracer import traced
from penstock.cli.viewer import Viewer
from penstock.contracts.results import RequestFinished
from penstock.local.errors import ProjectRootError
from penstock.local.root import project_root

_SHOWN_AT_MOST = 10


def run(*, docker: bool, folder: Path | None, wait_s: float, say_up: Callable[[UpReport], None]) -> bool:
    """The whole demonstration; True where every sample ended as it should."""
    samples = folder if folder is not None else _samples()
    expectations = load(samples / "expectations.json")
    state_folder = StateFolder.configured()
    began = time.monotonic()
    with reporting() as report:
        done = Stack(state_folder, report).up(Wanted(docker=docker))
    say_up(done)
    if done.was_up:
        out.print("only sending the samples again", markup=False)
    target = Target(settings_for(done.state.broker.address, done.state.prefix))
    stamp = Stamp(stem="sample-line", run=new_run(), unique_ids=True)
    sent = _send(target, stamp, samples / "requests.jsonl", wait_s)
    out.print("")
    for line in summary(sent, waited=True):
        out.print(line)
    wrong = compare(expectations, sent, stamp.run)
    for sentence in wrong[:_SHOWN_AT_MOST]:
        out.print(f"not as expected: {sentence}", markup=False, style="red")
    if len(wrong) > _SHOWN_AT_MOST:
        out.print(f"and {len(wrong) - _SHOWN_AT_MOST} more", markup=False, style="red")
    ok = sent.ok and not wrong
    if ok:
        out.print(f"every sample ended as expected; {time.monotonic() - began:.0f} s in all", style="green")
    _where_to_look(state_folder, done.state, sent)
    return ok


def _samples() -> Path:
    try:
        return project_root() / "deploy" / "samples"
    except ProjectRootError:
        raise CommandError(
            "the samples are in a checkout of Penstock: run this inside one, or give their folder with --samples"
        ) from None


def _send(target: Target, stamp: Stamp, file: Path, wait_s: float) -> Sent:
    def show(result: RequestFinished, _: int) -> None:
        out.print(result_line(result, answer=True))

    try:
        stream = file.open("rb")
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None
    with stream, traced(target), Sending(target, stamp, wait=True, on_result=show) as sending:
        run_sending(sending, stream, file.stat().st_size, wait_s=wait_s)
    return sending.sent


def _where_to_look(folder: StateFolder, state: StackState, sent: Sent) -> None:
    completed = [result for result in sent.results.values() if result.status == "completed" and result.trace_id]
    # the longest way through the stages is the one worth looking at
    example = max(completed, key=lambda result: len(result.redactions), default=None)
    out.print("\nwhere to look", style="bold")
    if example is not None and example.trace_id is not None and state.viewer is not None:
        viewer = Viewer(state.viewer.address, state.viewer.viewer)
        out.print(f"  one request's trace   {viewer.link(example.trace_id)}", markup=False)
        out.print(f"  the same here         penstock trace {example.id}", markup=False)
    out.print("  results               penstock results --show-answers", markup=False)
    out.print("  refused requests      penstock dlq list", markup=False)
    out.print(f"  topics                penstock topics list   (broker at {state.broker.address})", markup=False)
    out.print(f"  services              penstock status   (logs in {folder.path / 'logs'})", markup=False)
    out.print("  end the stack         make stop", markup=False)
