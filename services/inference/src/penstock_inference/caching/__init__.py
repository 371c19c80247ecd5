"""Answers kept for requests that ask the same again, between the stage and a backend.

keys      what changes an answer, as one digest
answers   the answers kept: bounded in bytes, number and age
backend   a backend that answers from them, and keeps what another backend generates
meters    hits and misses, and what is kept

It knows no events and no Kafka. What is kept lives in the process's memory alone.
"""
