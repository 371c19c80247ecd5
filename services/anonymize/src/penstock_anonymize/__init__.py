"""The service that takes personal data out: placeholders in the prompt, their meaning in the sealed vault.

| module        | holds                                                                |
| ------------- | -------------------------------------------------------------------- |
| `scanners`    | running one recognizer over a text: bounded in time, failing closed  |
| `phone`       | telephone numbers                                                    |
| `recognizers` | which recognizers run for which language                             |
| `names`       | what has no form, found by a model                                   |
| `detector`    | a text to the places of personal data in it                          |
| `book`        | the conversation's placeholders                                      |
| `replacement` | writing placeholders into text, with Presidio's anonymizer           |
| `stage`       | the logic that joins them                                            |
| `app`         | the composition root                                                 |
"""
