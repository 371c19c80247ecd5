"""What is on the wire: messages, headers, topics, errors. Imports pydantic and nothing else.

| module     | holds                                                        |
| ---------- | ------------------------------------------------------------ |
| `adapters` | how versions name the adapter of a request                   |
| `base`     | the frozen base, schema names and versions                   |
| `request`  | what upstream publishes                                      |
| `events`   | what passes between the stages                               |
| `results`  | the terminal result and the dead letter                      |
| `terminal` | making a terminal result                                     |
| `claims`   | what stands for a value that is kept in a store              |
| `headers`  | Kafka headers, parsed and written                            |
| `topics`   | the topics (`topics.toml`) and the message each carries      |
| `errors`   | every error, drawn as a tree                                 |
"""
