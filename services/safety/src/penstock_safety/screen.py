"""Runs the detectors over texts and fails closed.

Every text is seen by every detector or an error is raised; there is no third outcome. What a finding leads to is the
policy's matter, what an error leads to the runtime's.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from penstock.contracts.errors import BackendTimeout, BackendUnavailable, RetriableError
from penstock_safety.detector import Detector, Finding
from penstock_safety.windows import Window, WindowSettings, cut, merge


class Screener:
    """All detectors of a policy, as one function of texts. Close it to end its thread."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        windows: WindowSettings,
        timeout_seconds: float,
        batch_chars: int = 262_144,
    ) -> None:
        self._detectors = tuple(detectors)
        self._windows = windows
        self._timeout = timeout_seconds
        self._batch_chars = batch_chars
        # One thread: a detector that hangs holds it, and every later call times out too instead of passing.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="detectors")

    def close(self) -> None:
        """Takes no more work; does not wait for a detector that hangs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def screen(self, texts: Sequence[str]) -> list[list[Finding]]:
        """The findings of each text, offsets within it.

        Raises BackendTimeout where the detectors took longer than the time-out, BackendUnavailable where one failed or
        answered for something else than it was asked. Both are retriable and quote no text.
        """
        windows = cut(texts, self._windows)
        if not windows:
            return [[] for _ in texts]
        work = self._thread.submit(self._detect, windows, len(texts))
        try:
            return work.result(timeout=self._timeout)
        except FutureTimeout:
            work.cancel()
            raise BackendTimeout(
                f"the detectors did not answer for {len(windows)} windows within {self._timeout:g} s",
                code="detector_timeout",
                limit=self._timeout,
            ) from None

    def screen_each(self, groups: Sequence[Sequence[str]]) -> list[list[list[Finding]] | RetriableError]:
        """Like `screen` for several groups of texts at once: for each group its findings or the error it met.

        Groups share calls of up to `batch_chars` characters, each with its own time-out. Where a call fails, its groups
        are tried alone, so that only the one at fault gets the error. A time-out is that of all its groups: trying
        again at once would only wait again.
        """
        answers: list[list[list[Finding]] | RetriableError] = []
        batch: list[Sequence[str]] = []
        chars = 0
        for group in groups:
            size = sum(len(text) for text in group)
            if batch and chars + size > self._batch_chars:
                answers.extend(self._together(batch))
                batch, chars = [], 0
            batch.append(group)
            chars += size
        if batch:
            answers.extend(self._together(batch))
        return answers

    def _together(self, groups: Sequence[Sequence[str]]) -> list[list[list[Finding]] | RetriableError]:
        try:
            found = iter(self.screen([text for group in groups for text in group]))
        except BackendTimeout as error:
            return [error for _ in groups]
        except BackendUnavailable:
            return [self._alone(group) for group in groups]
        return [[next(found) for _ in group] for group in groups]

    def _alone(self, group: Sequence[str]) -> list[list[Finding]] | RetriableError:
        try:
            return self.screen(group)
        except RetriableError as error:
            return error

    def _detect(self, windows: Sequence[Window], count: int) -> list[list[Finding]]:
        contents = [window.content for window in windows]
        by_text: list[list[Finding]] = [[] for _ in range(count)]
        for detector in self._detectors:
            for texts, found in zip(by_text, self._ask(detector, contents, windows, count), strict=True):
                texts.extend(found)
        return by_text

    def _ask(
        self, detector: Detector, contents: Sequence[str], windows: Sequence[Window], count: int
    ) -> list[list[Finding]]:
        try:
            answer = detector.detect(contents)
            if len(answer) != len(contents):
                raise ValueError("one list of findings per window was due")
            foreign = {finding.label for found in answer for finding in found} - detector.labels
            if foreign:
                raise ValueError("a label that the detector does not declare")
            return merge(windows, answer, count)
        except Exception as error:  # noqa: BLE001  # whatever a detector raises, the text counts as unscreened
            # `from None`: a detector's own message may quote the text it failed on.
            raise BackendUnavailable(
                f"detector {detector.name} failed on {len(contents)} windows ({type(error).__name__})",
                code="detector_failed",
                field=detector.name,
            ) from None
