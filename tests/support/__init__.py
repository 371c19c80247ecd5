"""What the end-to-end suites share: the running services, the broker's topics, spans as trees.

| module     | holds                                                              |
| ---------- | ------------------------------------------------------------------ |
| `stack`    | the five services as processes: start, kill, restart, read         |
| `kafka`    | publishing requests, reading whole topics, counting what was aborted |
| `otlp`     | an OTLP/HTTP receiver that keeps the spans it is sent               |
| `trees`    | spans as a tree of names                                           |
| `pipeline` | the five stages in one process, without a broker                   |
"""
