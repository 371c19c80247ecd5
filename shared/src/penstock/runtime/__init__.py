"""How a stage is run: consume, process, produce and commit in one transaction, observed and bounded.

| module      | holds                                                               |
| ----------- | ------------------------------------------------------------------- |
| `stage`     | the interface that a stage implements                               |
| `settings`  | the settings every service shares, and refusing bad ones            |
| `app`       | from settings and a stage to a running process                      |
| `worker`    | the consume-transform-produce loop                                  |
| `batches`   | what the loop takes at once: its offsets, and how many              |
| `outcomes`  | from what a stage returned to records: events, results, dead letters |
| `state`     | keyed state, kept in a topic and restored at start                  |
| `kafka`     | client configurations in one place                                  |
| `topics`    | bringing a broker to `topics.toml`                                  |
| `telemetry` | OpenTelemetry set-up, span names and attributes                     |
| `metrics`   | Prometheus metrics of a stage                                       |
| `health`    | liveness, readiness and metrics over HTTP                           |
| `logging`   | structured logs with trace ids                                      |
"""
