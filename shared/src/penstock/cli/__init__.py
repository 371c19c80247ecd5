"""The `penstock` command.

| module                          | holds                                                     |
| ------------------------------- | --------------------------------------------------------- |
| `main`                          | the command and how errors end it                         |
| `*_commands`, `options`         | the commands' options and order of work                   |
| `plugins`                       | command groups that other installed packages bring        |
| `stack`, `services`, `state`    | the local stack: up, down, what was started               |
| `vault_key`                     | the vault's master key                                    |
| `target`                        | which broker and topics; clients                          |
| `records`, `sending`, `sent`    | from lines to records, publishing, what became of them    |
| `reading`, `dead_letters`       | results and dead letters, read committed                  |
| `viewer`, `tracing`, `probe`    | traces, readiness and metrics over HTTP                   |
| `render`, `durations`           | how things look                                           |
| `demo`, `expectations`          | the samples through the stack, compared                   |
| `tracer`                        | spans of this command's own sending                       |
"""
