"""The models that are measured: `python -m tests.benchmarks.inference.making [--gpu]`.

Qwen2.5-0.5B's configuration with random weights, from a seed, once: as a Hugging Face folder (float32), by
onnxruntime-genai's builder in int4 (float16 on a GPU), and as a GGUF file of the same weights, all matrices in Q4_0.
Needs torch, transformers and onnxruntime-genai, and gguf for the file: the environment `.venv-bench`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EMBEDDED = Path(__file__).parents[3] / "deploy" / "models" / "penstock-lm"
CONFIG: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""As published with Qwen2.5-0.5B, but for the ids of special tokens: the tokenizer is the embedded model's."""
SEED = 0


def folder() -> Path:
    """Where they are kept: `PENSTOCK_BENCH_DIR`, else below the user's cache; one folder for each configuration."""
    base = os.environ.get("PENSTOCK_BENCH_DIR") or Path.home() / ".cache" / "penstock" / "bench"
    digest = hashlib.sha256(json.dumps([CONFIG, SEED], sort_keys=True).encode()).hexdigest()[:8]
    return Path(base) / f"qwen2.5-0.5b-{digest}"


def weights(target: Path) -> None:
    """The Hugging Face folder."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(SEED)
    model = Qwen2ForCausalLM(Qwen2Config(**CONFIG, dtype="float32"))
    model.save_pretrained(target)
    PreTrainedTokenizerFast(tokenizer_file=str(EMBEDDED / "tokenizer.json")).save_pretrained(target)


def graph(source: Path, target: Path, precision: str, device: str) -> None:
    """The builder's folder."""
    cache = target.with_name(f"{target.name}.cache")
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
    command += ["-p", precision, "-e", device, "-c", str(cache)]
    offline = {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    if done.returncode:
        raise RuntimeError(f"the builder failed: {done.stderr[-2000:]}")


def gguf_file(source: Path, target: Path) -> None:
    """The same weights for llama.cpp; norms and biases stay float32, as its own converter leaves them."""
    import gguf
    from safetensors import safe_open

    writer = gguf.GGUFWriter(target, "qwen2")
    writer.add_vocab_size(CONFIG["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_context_length(CONFIG["max_position_embeddings"])
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_head_count_kv(CONFIG["num_key_value_heads"])
    writer.add_rope_freq_base(CONFIG["rope_theta"])
    writer.add_layer_norm_rms_eps(CONFIG["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, CONFIG["num_hidden_layers"])
    with safe_open(source / "model.safetensors", "numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # not a dict
            tensor = tensors.get_tensor(name)
            kind = gguf.GGMLQuantizationType.Q4_0 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
            new = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if new is None:
                raise RuntimeError(f"gguf knows no name for {name}")
            writer.add_tensor(new, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def once(target: Path, make: Callable[[Path], None]) -> None:
    """Make a file or folder where it is not there yet; what is broken off leaves nothing under its name."""
    if target.exists():
        return
    print(f"making {target}", flush=True)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.unlink(missing_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    make(part)
    part.rename(target)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the models that the inference benchmark measures")
    parser.add_argument("--gpu", action="store_true", help="the float16 graph for CUDA too")
    options = parser.parse_args()
    base = folder()
    once(base / "hf", weights)
    once(base / "int4", lambda part: graph(base / "hf", part, "int4", "cpu"))
    if find_spec("gguf"):
        once(base / "q4_0.gguf", lambda part: gguf_file(base / "hf", part))
    if options.gpu:
        once(base / "fp16-cuda", lambda part: graph(base / "hf", part, "fp16", "cuda"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
