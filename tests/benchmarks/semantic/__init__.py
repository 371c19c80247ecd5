"""How often the semantic cache answers, and how often wrongly.

sets      questions that are kept and questions that are asked, with what each means
twins     questions that differ in one word or number, and so in meaning
baseline  n-grams as an encoder, to compare with
measure   hits, wrong hits, the threshold
"""
