"""Models that onnxruntime-genai runs: the same answers by the same sampler, another way to the logits.

model   the library, a folder opened with it, and one sequence on it
engine  several sequences in turn, one pass at a time
"""
