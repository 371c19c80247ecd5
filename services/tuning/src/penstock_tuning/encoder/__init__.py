"""The encoder: tokenizer, pretraining on masked tokens, export to int8 ONNX."""
