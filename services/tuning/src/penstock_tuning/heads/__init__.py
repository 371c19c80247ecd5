"""The encoder's heads: personal data, safety, embeddings, entailment; one encoder pass for all of them.

config      the recipe, one YAML file per preset
encode      the targets of windows and tokens
prepare     the public sets to arrays, and what is kept apart to calibrate on
batches     which texts a step reads: batch N is the same however often a run was cut
model       encoder and heads as functions, and the losses
train       the run in pieces
calibrate   probabilities and thresholds from what was kept apart
graph       the heads as nodes behind the encoder's
measure     the finished graph on what was kept apart
export      from a checkpoint to a model folder that was checked

A finished folder is run by `penstock.heads`.
"""
