"""Makes the models and the greedy answers that the engine is compared with, by transformers in float32.

Needs torch, transformers, onnxruntime-genai and onnx (requirements-train.lock), which nothing that serves has:

    python tests/equality/reference.py OUT [--small] [--prompts 200]

Each architecture gets a folder of the onnxruntime-genai builder, of random weights by a seed, and beside its files
`equality.json`: prompts, some of which begin alike, transformers' answer to each alone, and where in it the two
likeliest tokens were so close that rounding decides. `--small` makes the committed ones in tests/fixtures/equality.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", ORT_DISABLE_TELEMETRY="1")

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

TOKENIZER = Path(__file__).parents[1] / "fixtures" / "tiny-lm"
FIRST_ID = 3
"""Ids below are those of control tokens."""
CLOSE = 1e-4
"""Logits; float32 rounds those of these models by some 1e-5."""
ARCHITECTURES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
}
SIZES: dict[bool, dict[str, Any]] = {
    False: {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "initializer_range": 0.08,
    },
    True: {
        "vocab_size": 352,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    },
}
PROMPT_TOKENS = {False: 300, True: 90}
ANSWER_TOKENS = {False: (8, 40), True: (4, 40)}


def model(architecture: str, small: bool, seed: int) -> Any:
    """Random weights, biases and norms too, spread so that answers are no loops; one token in 64 ends an answer."""
    torch.manual_seed(seed)
    config_class, model_class, given = ARCHITECTURES[architecture]
    size = SIZES[small]
    ends = [2, *range(10, size["vocab_size"], 64)]
    config = config_class(
        **size,
        **given,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=ends,
        dtype="float32",
    )
    made = model_class(config).float().eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):  # these begin as zeros and ones, which would hide their absence
                parameter.normal_(0.0, 0.1)
            elif "norm" in name:
                parameter.normal_(1.0, 0.1)
    made.generation_config.eos_token_id = ends
    made.generation_config.pad_token_id = 0
    return made


def prompts(small: bool, count: int) -> list[list[int]]:
    """Of all lengths; every other one has one of three beginnings in common with others."""
    random = np.random.default_rng(11)
    highest, longest = SIZES[small]["vocab_size"], PROMPT_TOKENS[small]

    def draw(length: int) -> list[int]:
        ids: list[int] = random.integers(FIRST_ID, highest, length).tolist()
        return ids

    shared = [draw(longest // 3 + 5 * number) for number in range(3)]
    made = []
    for number in range(count):
        beginning = shared[number // 2 % 3] if number % 2 else []
        made.append([*beginning, *draw(int(random.integers(1, longest + 1 - len(beginning))))])
    return made


def answer(made: Any, prompt: list[int], tokens: int) -> dict[str, Any]:
    """Greedy, alone, with transformers' own cache; `close` are places where the choice was as good as a tie."""
    with torch.inference_mode():
        told = made.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=tokens,
            output_logits=True,
            return_dict_in_generate=True,
        )
    best = [torch.topk(logits[0], 2).values for logits in told.logits]
    return {
        "prompt_ids": prompt,
        "max_tokens": tokens,
        "output_ids": told.sequences[0, len(prompt) :].tolist(),
        "close": [at for at, (first, second) in enumerate(best) if float(first - second) < CLOSE],
    }


def convert(made: Any, out: Path) -> None:
    """Write the folder that is served, its weights in float32."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "hf")
        made.save_pretrained(source)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(TOKENIZER / name, source / name)
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
        subprocess.run([*builder, "-i", source, "-o", out, "-c", Path(scratch, "cache")], check=True)


def main() -> None:
    """Make all architectures."""
    parser = argparse.ArgumentParser(description="Models and transformers' greedy answers")
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    few, many = ANSWER_TOKENS[options.small]
    for architecture in ARCHITECTURES:
        out = options.out / architecture
        made = model(architecture, options.small, options.seed)
        convert(made, out)
        lengths = np.random.default_rng(13).integers(few, many + 1, options.prompts).tolist()
        recorded: dict[str, Any] = {
            "architecture": architecture,
            "reference": f"transformers {transformers.__version__}, float32, greedy, one prompt at a time",
            "cases": [
                answer(made, prompt, tokens)
                for prompt, tokens in zip(prompts(options.small, options.prompts), lengths, strict=True)
            ],
        }
        if options.small:  # committed ones must not hang on a rounding
            recorded["cases"] = [case for case in recorded["cases"] if not case["close"]]
        (out / "equality.json").write_text(json.dumps(recorded, separators=(",", ":")) + "\n")
        print(f"{architecture}: {len(recorded['cases'])} answers in {out}", flush=True)


if __name__ == "__main__":
    main()
