"""The inference service: screened prompts in, the model's answers out.

stage       RequestScreened -> CompletionGenerated: the thread that generates, its queue and its room
generating  the answers under way: deadlines, spans, streamed pieces, faults isolated
backend     what the stage drives: requests in, pieces of text out
streamed    what the reader of a stream has, where an answer begins again
targets     that backend over servers and local models, by their weights and shares
caching     that backend in front of another: what was answered before is answered again
switching   several backends as one: the promoted model, and those that still have requests
models      the promoted model: loaded, followed, its successor loaded beside it
local       that backend over the model in a local folder
opening     a folder, by the engine that is asked for
genai       the engine that is onnxruntime-genai, an extra
answers     one answer under way: its tokens, text and likelihoods
text        incremental detokenization; holds back what may yet become something else
scheduler   continuous batching: plan a pass over rows and prompts, take what came of it
engine      the scheduler's plans, run
prefixes    keys and values of prompts' beginnings, for the next prompt that begins alike
sampler     logits to a token
constraints JSON and JSON Schema: which tokens may come next
runner      the ONNX session and its pool of key/value cache rows
layout      a model folder as the onnxruntime-genai builder writes it
"""

import os

# onnxruntime reports usage to its maker unless this is set before its first import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
