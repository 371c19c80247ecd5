"""Measures the shipped models on sources that training never saw, beside baselines.

metrics      figures of weighted rows: AUC, recall at a false-positive rate, rank correlation, F1 of spans
bootstrap    confidence intervals, of differences too
figures      one measured figure of one group of rows for every system
safety, names, pairs  which rows count for what
systems      what is measured: heads, a baseline
linear       the baselines
speed        tokens a second and the share of what the processor can multiply
language     perplexity of the language model
tables, page how figures are shown
"""
