"""Servers that speak the OpenAI chat-completions API, and local models, as one backend.

backend  `backend.Backend` over them: a loop in a thread of its own, pieces handed to the stage
answers  one request's way: target after target until one has answered
pool     the targets' places: which one may be called now, and waiting for one
routing  in which order targets are asked: canary, balance, fallback, shadow
breaker  which targets are left alone for a while
budgets  what may be spent: reserved before a call, settled after
calls    what one call brings, whatever the target is
client   one call of a server: chunks of text out of HTTP
local    one local model: a backend in a thread of its own
faults   what went wrong, as the runtime's errors
meters   metrics by the GenAI semantic conventions
config   the file that names the targets
"""
