"""`make bench-inference` in short: the workload, the notes taken of it, the arithmetic, and our engine measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tests.benchmarks.inference import gpu, limits, report
from tests.benchmarks.inference.limits import Asked, Machine, prefill_operations
from tests.benchmarks.inference.measuring import PROMPT, Measured, Work, passes, take_turns
from tests.benchmarks.inference.peers.ours import Ours
from tests.benchmarks.inference.report import GENAI, LLAMACPP, OURS, figures, missed, quantile, shares
from tests.benchmarks.inference.seats import Seat, SeatError
from tests.benchmarks.inference.serving import Desk, Run, Served
from tests.benchmarks.inference.workload import Request, alone, poisson, requests, total_tokens

from penstock_inference.layout import ModelLayout

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "fixtures" / "tiny-lm"
VOCABULARY = 352


class Clock:
    """Stands still unless it is moved or slept on."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(*tokens: list[float], at: float = 0.0, first: int = 5) -> Run:
    """A run of requests with tokens at these times, a processor second."""
    served = [Served(at, times, [first] * len(times)) for times in tokens]
    return Run(served, max(times[-1] for times in tokens), 1.0)


def test_a_workload_comes_of_its_seed_and_keeps_to_its_sizes() -> None:
    made = requests(200, VOCABULARY, seed=7)
    assert made == requests(200, VOCABULARY, seed=7)
    assert made != requests(200, VOCABULARY, seed=8)
    lengths = [len(request.prompt) for request in made]
    assert (min(lengths) >= 16, max(lengths) <= 512) == (True, True)
    assert max(lengths) - min(lengths) > 400
    assert {request.tokens for request in made} <= set(range(8, 257))
    assert max(request.tokens for request in made) - min(request.tokens for request in made) > 200
    assert {10 <= token < VOCABULARY for request in made for token in request.prompt} == {True}
    assert [request.at for request in made] == [0.0] * 200
    assert len({request.prompt for request in made}) == 200
    assert total_tokens(made[:2]) == made[0].tokens + made[1].tokens
    assert [(len(each.prompt), each.tokens) for each in alone(VOCABULARY, 20, 3, count=2)] == [(20, 3)] * 2


def test_a_poisson_process_has_its_rate_and_irregular_gaps() -> None:
    made = requests(2000, VOCABULARY, prompts=(1, 1), answers=(1, 1))
    coming = poisson(made, 4.0)
    assert [each.prompt for each in coming] == [each.prompt for each in made]
    gaps = np.diff([0.0, *(each.at for each in coming)])
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.1)
    assert gaps.std() == pytest.approx(1 / 4, rel=0.1)


def test_requests_are_handed_out_when_they_come_and_waited_for() -> None:
    clock = Clock()
    coming = [Request(0, (1,), 1), Request(1, (1,), 1, at=2.0), Request(2, (1,), 1), Request(3, (1,), 1, at=2.5)]
    desk = Desk(coming, clock=clock, sleep=clock.sleep)
    assert [each.key for each in desk.due(1)] == [0]
    assert [each.key for each in desk.due()] == [2]
    assert desk.due() == []
    assert [each.key for each in desk.batch(8)] == [1]
    assert clock.now == 52.0
    clock.now = 60.0
    assert [each.key for each in desk.batch(8)] == [3]
    assert desk.batch(8) == []
    assert not desk.wait()


def test_tokens_count_until_an_answer_is_whole() -> None:
    clock = Clock()
    desk = Desk([Request(4, (1,), 2, at=0.5), Request(9, (1,), 3)], clock=clock, sleep=clock.sleep)
    for token in (7, 8, 9):
        clock.now += 1
        desk.note({4: token, 9: token})
    made = desk.run()
    assert [each.tokens for each in made.served] == [[7, 8], [7, 8, 9]]
    assert (made.seconds, made.tokens) == (3.0, 5)
    assert made.rate == pytest.approx(5 / 3)
    first = made.served[0]
    assert (first.first, first.latency, first.per_token) == (0.5, 1.5, 1.0)
    assert Served(0.0, [1.0], [3]).per_token is None


def test_an_answer_that_is_not_whole_is_an_error_and_no_figure() -> None:
    desk = Desk([Request(4, (1,), 2), Request(5, (1,), 1)])
    desk.note({4: 1, 5: 1})
    with pytest.raises(RuntimeError, match="1 of 2 requests have no whole answer, first 4"):
        desk.run()


def test_a_quantile_is_the_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 50.0, 95.0, 100.0]
    assert quantile([3.0], 0.95) == 3.0


def test_passes_count_while_every_row_decodes() -> None:
    # the second row begins two passes later and goes on two passes longer
    assert passes(run([1, 2, 3, 4, 5.0], [3, 4, 5, 6, 7.0])) == 1.0
    assert passes(run([1, 1.25, 1.5, 1.75])) == 4.0


def measured(seconds: float, first: int = 5) -> Measured:
    """Everything takes as many seconds a token; the median hides the second of three repeats."""
    kinds: list[Callable[[float], Run]] = [
        lambda s: run([s, 2 * s], [3 * s, 4 * s], first=first),  # all at once
        lambda s: run([s, 2 * s], [2 * s, 6 * s], at=0.0, first=first),  # Poisson
        lambda s: run([s]),  # a prompt
        lambda s: run([s, 2 * s, 3 * s]),  # one row
        lambda s: run([s, 3 * s, 5 * s]),  # all rows
    ]
    return Measured(*([kind(seconds), kind(50 * seconds), kind(seconds)] for kind in kinds))


def test_figures_are_ratios_of_medians() -> None:
    found = figures({OURS: measured(0.5), GENAI: measured(1.0, first=6), LLAMACPP: measured(0.25)})
    assert found["vs_genai_static"] == 2.0
    assert found["vs_llamacpp"] == 0.5
    assert (found["p95_vs_static"], found["ttft_p95_vs_static"], found["burst_p95_vs_static"]) == (0.5, 0.5, 0.5)
    assert (found["p95_vs_llamacpp"], found["ttft_p95_vs_llamacpp"]) == (2.0, 2.0)
    assert (found["b1_vs_genai"], found["full_vs_genai"], found["b1_vs_llamacpp"]) == (2.0, 2.0, 0.5)
    assert (found["prefill_vs_genai"], found["prefill_vs_llamacpp"]) == (2.0, 0.5)
    assert found["same_first_token"] == {GENAI: 0.0, LLAMACPP: 1.0}
    ours = found["penstock"]
    assert ours["tokens_per_s"] == 2.0
    assert ours["prefill_tokens_per_s"] == PROMPT / 0.5
    assert (ours["b1_tokens_per_s"], ours["full_passes_per_s"]) == (2.0, 1.0)
    assert (ours["burst_ttft_p50_s"], ours["burst_ttft_p95_s"]) == (0.5, 1.5)
    assert (ours["poisson_latency_p50_s"], ours["poisson_latency_p95_s"]) == (1.0, 3.0)
    assert (ours["poisson_tpot_p50_s"], ours["poisson_tpot_p95_s"]) == (0.5, 2.0)
    assert set(found) > {"genai_static", "llamacpp"}
    json.dumps(found)


def test_goals_that_were_measured_and_not_reached_are_named() -> None:
    assert missed({"vs_genai_static": 1.4, "p95_vs_static": 0.7, "b1_vs_genai": 0.9}) == {}
    found = missed({"vs_genai_static": 1.39, "ttft_p95_vs_static": 0.31, "prefill_vs_llamacpp": 0.8})
    assert found == {"vs_genai_static": "1.39 instead of >= 1.4", "ttft_p95_vs_static": "0.31 instead of <= 0.3"}


def test_shares_are_of_what_was_measured() -> None:
    model = Asked(bytes_per_pass=300, products_per_token=10, products_of_vocabulary=64)
    assert prefill_operations(model, 512) == 2 * (5120 + 64)
    ours = measured(0.5)  # two passes, 1024 tokens of prompts a second
    bounds = {"reading": 1200.0, "triad": 900.0, "product": 2 * 2 * 5184.0, "kernel": 2 * 5184.0 * 4}
    found = shares(ours, model, bounds)
    assert (found["bandwidth_share"], found["flops_share"], found["kernel_share"]) == (0.5, 1.0, 0.5)


def test_the_loops_that_measure_limits_do_their_work() -> None:
    arrays = [np.full(200_000, value, np.float32) for value in (0.0, 1.0, 2.0)]
    limits._triad(*arrays)()
    assert set(arrays[0].tolist()) == {7.0}
    machine = Machine(2, stream_bytes=1 << 20)
    for figure in (machine.reading(1), machine.triad(1), machine.product(1)):
        assert 1e6 < figure < 1e15


class Fake:
    """A peer that notes what it was asked, and takes a second for each request."""

    asked: list[tuple[str, int, float]]

    def __init__(self, name: str, asked: list[tuple[str, int, float]]) -> None:
        self._name, self.asked = name, asked

    def call(self, method: str, *args: Any) -> Run:
        (given,) = args
        self.asked.append((self._name, len(given), given[-1].at))
        times = [float(number + 1) for number in range(len(given))]
        return Run([Served(0.0, [at], [1]) for at in times], times[-1], 1.0)


def test_peers_take_turns_and_the_load_is_a_share_of_what_the_reference_serves() -> None:
    asked: list[tuple[str, int, float]] = []
    seats = {name: Fake(name, asked) for name in ("a", "b")}
    work = Work(requests(20, VOCABULARY), VOCABULARY, rows=3, repeats=2, load=0.5)
    found, rate = take_turns(seats, work, "b", lambda line: None)
    assert rate == 0.5  # half of one a second
    assert [name for name, *_ in asked] == ["a", "b"] * (len(asked) // 2)
    assert [len(each) for each in (found["a"].burst, found["a"].poisson, found["a"].prompt)] == [2, 2, 4]
    assert asked.count(("a", 20, 0.0)) == 2
    coming = [at for name, count, at in asked if count == 20 and at]
    assert (len(coming), len(set(coming))) == (4, 2)  # the same for both, anew in each repeat


def test_a_peer_that_fails_is_an_error_here() -> None:
    with pytest.raises(SeatError, match="No module named 'nonsense'"):
        Seat(import_module, "nonsense")
    with Seat(import_module, "os") as seat:
        with pytest.raises(SeatError, match="FileNotFoundError"):
            seat.call("listdir", "/nowhere")
        assert "/" in seat.call("getcwd")
        with pytest.raises(SeatError, match="ended with 3"):
            seat.call("_exit", 3)


def test_our_engine_is_measured_and_gives_the_same_tokens_in_any_company() -> None:
    work = requests(12, VOCABULARY, prompts=(4, 60), answers=(2, 20))
    with Seat(Ours, TINY, 4, 1) as seat:
        together = seat.call("serve", work)
        coming = seat.call("serve", poisson(work, 200.0))
    one = Ours(TINY, 1, 1).serve(work)
    assert [each.tokens for each in together.served] == [each.tokens for each in one.served]
    assert [each.tokens for each in coming.served] == [each.tokens for each in one.served]
    assert [len(each.tokens) for each in one.served] == [request.tokens for request in work]
    for made in (together, coming, one):
        assert made.tokens == total_tokens(work)
        assert {each.times == sorted(each.times) and each.first > 0 for each in made.served} == {True}
        assert made.seconds == max(each.times[-1] for each in made.served)
        assert made.cpu > 0
    # one after another: the next one's first token comes after the last one's last
    assert all(after.times[0] >= before.times[-1] for before, after in zip(one.served, one.served[1:], strict=False))


def test_tables_hold_every_peer() -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123  # closed with it
    report.show("tiny", {OURS: measured(0.5), GENAI: measured(1.0), "slow": Measured(burst=[run([4.0, 5.0])])}, console)
    shown = console.export_text()
    console.file.close()
    assert [shown.count(name) for name in (OURS, GENAI, "slow")] == [3, 3, 2]
    assert "0.500 / 1.500" in shown


@pytest.mark.parametrize("device", gpu.PROVIDERS)
def test_the_engine_gives_the_same_tokens_with_its_cache_on_a_device(device: str) -> None:
    if (reason := gpu.absent(device)) is not None:
        pytest.skip(f"not run on {device}: {reason}")

    class OnDevice(Ours):
        def runner(self, folder: Path, limits: Any) -> Any:
            return gpu.TorchRunner(ModelLayout.read(folder), limits, device)

    work = requests(10, VOCABULARY, prompts=(4, 60), answers=(2, 20))
    expected = Ours(TINY, 1, 1).serve(work)
    assert [each.tokens for each in OnDevice(TINY, 4, 1).serve(work).served] == [
        each.tokens for each in expected.served
    ]


@pytest.mark.parametrize("engine", ["penstock", "genai"])
def test_the_short_form_ends_with_json(engine: str) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.inference.rows", "--model", str(TINY), "--requests", "3"]
    done = subprocess.run(
        [*command, "--rows", "1", "2", "--repeats", "1", "--engine", engine],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=150,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["engine"], set(found["rows"])) == (engine, {"1", "2"})
    assert found["rows"]["2"]["tokens_per_s"] > 0
