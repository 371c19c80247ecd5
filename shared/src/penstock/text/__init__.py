"""Text rules that more than one service follows.

| module          | holds                                                            |
| --------------- | ---------------------------------------------------------------- |
| `prompt_tokens` | prompt parts to token ids, so that text cannot forge control tokens; needs `penstock[text]` |
| `placeholders`  | writing, finding and restoring `<EMAIL_ADDRESS_1>`               |
"""
