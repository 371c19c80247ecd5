"""`penstock.runtime.metrics`: a batch is counted at once, and reads like Prometheus's own histogram."""

from __future__ import annotations

from penstock.runtime.metrics import StageMetrics


def lines(metrics: StageMetrics) -> list[str]:
    text = metrics.exposition().decode()
    return [line for line in text.splitlines() if line.startswith("penstock_process_duration_seconds")]


def test_a_batch_counts_each_of_its_records_in_every_bucket_above() -> None:
    metrics = StageMetrics("toy")
    metrics.duration.observe(0.05, 10)
    metrics.duration.observe(0.3)
    metrics.duration.observe(1_000)
    found = dict(line.rsplit(" ", 1) for line in lines(metrics))
    name = "penstock_process_duration_seconds"
    assert found[name + '_bucket{le="0.025",stage="toy"}'] == "0.0"
    assert found[name + '_bucket{le="0.05",stage="toy"}'] == "10.0"
    assert found[name + '_bucket{le="0.25",stage="toy"}'] == "10.0"
    assert found[name + '_bucket{le="0.5",stage="toy"}'] == "11.0"
    assert found[name + '_bucket{le="+Inf",stage="toy"}'] == "12.0"
    assert found[name + '_count{stage="toy"}'] == "12.0"
    assert float(found[name + '_sum{stage="toy"}']) == 1_000.8
