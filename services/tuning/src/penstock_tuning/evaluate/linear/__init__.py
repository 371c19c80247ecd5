"""The baselines: linear models on hashed n-grams and a few hand-made features, of the same training split.

They are what a model with an encoder has to beat to be worth its cost. Needs scikit-learn (the extra `abuse`).

safety  logistic regressions over character and word n-grams, one for each label
names   logistic regressions over features of a token and its neighbours, and the best sequence of tags
pairs   n-grams weighted by rarity for similarity; overlap of words, numbers and negations for entailment
system  the three together, kept on disk
"""
