"""Texts to vectors whose cosine says how alike they mean: an ONNX encoder, mean pooling, unit length.

opening      the files of a model folder, and what is said of one that is damaged
encoder      a model folder in the Hugging Face layout, opened and run
batches      which texts go through the model together, by their length
background   an encoder in a thread of its own, for whoever must not wait

Needs `penstock[embeddings]`. It knows no Kafka, and not what the vectors are for.
"""
