"""An ONNX Runtime session over a model folder's graph, with the vocabulary head run where it is wanted alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import onnxruntime as ort

from penstock.contracts.errors import ConfigurationError
from penstock_inference.head import choosing
from penstock_inference.layout import ModelLayout

Provider = Literal["cpu", "cuda"]

CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"
# float32 is float32 there too: products rounded to 10 bits would change answers
_CUDA_OPTIONS: Final = {"use_tf32": "0"}


def spinning(microseconds: int) -> dict[str, str]:
    """Entries of a session's configuration: how long threads wait awake for their next part of a pass, 0 to sleep.

    Bounded, since threads that go on waiting after the last pass would take the cores from the other services.
    """
    if not microseconds:
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.intra_op.allow_spinning": "1", "session.intra_op.spin_duration_us": str(microseconds)}


def open_session(
    layout: ModelLayout,
    threads: int,
    provider: Provider = "cpu",
    change: Callable[[bytes], bytes] | None = None,
    *,
    spin_us: int = 0,
) -> Any:
    """Open the graph, changed further by `change`; raises ConfigurationError where it cannot be, or not so provided.

    With `cuda`, what a caller binds may stay in the host's memory: it is copied with each pass.
    """
    if provider == "cuda" and CUDA not in ort.get_available_providers():
        raise ConfigurationError(
            "PENSTOCK_INFERENCE_PROVIDER: cuda needs onnxruntime-gpu (penstock-inference[cuda]) in place of onnxruntime"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    for name, value in spinning(spin_us).items():
        options.add_session_config_entry(name, value)
    # where a graph that comes from memory finds its weights
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(layout.graph.parent))
    options.log_severity_level = 3
    providers: list[Any] = [(CUDA, _CUDA_OPTIONS), _CPU] if provider == "cuda" else [_CPU]
    try:
        exported = layout.graph.read_bytes()
        graph = choosing(exported, layout.logits)
        if change is not None:
            graph = change(graph or exported)
        session = ort.InferenceSession(graph or str(layout.graph), options, providers=providers)
    except Exception as error:  # the library's errors share no base below Exception
        raise ConfigurationError(
            f"PENSTOCK_MODEL_DIR: ONNX Runtime cannot open {layout.graph} ({type(error).__name__})"
        ) from error
    if provider == "cuda" and CUDA not in session.get_providers():
        raise ConfigurationError(
            "PENSTOCK_INFERENCE_PROVIDER: no CUDA device can be used; look at the driver and the CUDA libraries, "
            "or set cpu"
        )
    return session
