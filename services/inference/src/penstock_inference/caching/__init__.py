"""Answers kept for requests that ask the same again, between the stage and a backend.

keys      what changes an answer, as one digest
answers   the answers kept: bounded in bytes, number and age
backend   a backend that answers from them, and keeps what another backend generates
semantic  kept answers by meaning: the last message's embedding, all else equal
guard     what two messages must have in common before their likeness counts
meters    hits and misses, and what is kept

It knows no events and no Kafka. What is kept lives in the process's memory alone.
"""
