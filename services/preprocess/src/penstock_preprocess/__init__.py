"""The service that reads `llm.requests`: any bytes in, a validated and rendered prompt out.

| module          | holds                                                        |
| --------------- | ------------------------------------------------------------ |
| `parsing`       | bytes to a request, with a typed error for each way to be wrong |
| `normalization` | cleaning text and saying what changed                        |
| `language`      | the prompt's language                                        |
| `template`      | the model's chat template, rendered so that text cannot forge it |
| `model`         | what is read from the model's folder                         |
| `stage`         | the logic that joins them                                    |
| `app`           | the composition root                                         |
"""
