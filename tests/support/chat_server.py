"""A stand-in for a server of the OpenAI API: real HTTP and server-sent events on loopback, and no model.

It answers `POST /v1/chat/completions` with words that follow from the messages, and misbehaves as told.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from penstock.local.ports import LOOPBACK


@dataclass(frozen=True)
class Reply:
    """How to answer one request."""

    text: str | None = None
    """What is said, a word at a time; else what the last message says, back."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    """Of an error body."""
    cut_after: int | None = None
    """The connection ends after so many words,"""
    clean: bool = False
    """as if the answer were complete, rather than in the middle of the body."""
    error_after: int | None = None
    """After so many words an error event comes."""
    hold_after: int | None = None
    """After so many words nothing comes until `release`; 0 holds back the response's head too."""
    comments: bool = False
    """While holding after the head, keep-alive comments go on."""
    bare: str | None = None
    """The body of the answer, in place of all else."""
    usage: bool = True
    finish_reason: str = "stop"


@dataclass
class Seen:
    """One request."""

    body: dict[str, Any]
    headers: dict[str, str]
    closed: threading.Event = field(default_factory=threading.Event)
    """Set where the client closed the connection before the answer was whole."""
    held: threading.Event = field(default_factory=threading.Event)
    """Set where the answer stands still."""
    raw: str = ""

    @property
    def said(self) -> str:
        """The last message's text."""
        return str(self.body["messages"][-1]["content"])


def words_of(text: str) -> list[str]:
    """How the server cuts a text into chunks; joined, they are the text."""
    words = text.split(" ")
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)]


class ChatServer:
    """The server, while the context lasts. `replies` are used up first, then `choose` decides."""

    def __init__(self, name: str = "stand-in") -> None:
        self.name = name
        self.replies: deque[Reply] = deque()
        self.choose: Callable[[Seen], Reply] = lambda _: Reply()
        self.release = threading.Event()
        self._died = threading.Event()
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL for a client."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/v1"

    @property
    def seen(self) -> list[Seen]:
        """The requests so far."""
        with self._lock:
            return list(self._seen)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take no more connections; what stands still goes on. A second time does nothing."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def die(self) -> None:
        """Break off every answer that stands still, and take no more connections."""
        self._died.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def died(self) -> bool:
        """Whether it has."""
        return self._died.is_set()

    def take(self, seen: Seen) -> Reply:
        """The reply to a request, which is remembered."""
        with self._lock:
            self._seen.append(seen)
            if self.replies:
                return self.replies.popleft()
        return self.choose(seen)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(_Handler):
            server_of_tests = outer

        return Handler


class _Gone(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    server_of_tests: ChatServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(json.loads(raw), headers, raw=raw.decode())
        reply = self.server_of_tests.take(seen)
        try:
            if self.path != "/v1/chat/completions":
                self._error(Reply(status=404), "no such path")
            elif reply.bare is not None:
                self._body(200, reply.bare)
            elif reply.hold_after == 0:
                self._hold(seen, comments=False)
                self._answer(seen, reply)
            elif reply.status != 200:
                self._error(reply, seen.raw)
            else:
                self._answer(seen, reply)
        except (_Gone, ConnectionError):
            seen.closed.set()
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _error(self, reply: Reply, quoted: str) -> None:
        # real servers quote the request in their messages
        body = json.dumps({"error": {"message": f"about {quoted}", "type": "error", "code": reply.code}})
        self._body(reply.status, body, {**reply.headers, "content-type": "application/json"})

    def _body(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {"content-type": "text/event-stream"}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _answer(self, seen: Seen, reply: Reply) -> None:
        words = words_of(reply.text if reply.text is not None else f"You said: {seen.said}")
        limit = seen.body.get("max_tokens", seen.body.get("max_completion_tokens"))
        words, reason = (words[:limit], "length") if limit < len(words) else (words, reply.finish_reason)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._event({"role": "assistant", "content": ""})
        for number, word in enumerate([*words, None]):
            if reply.hold_after == number != 0:
                self._hold(seen, comments=reply.comments)
            if reply.cut_after == number:
                if reply.clean:
                    break
                self.connection.shutdown(socket.SHUT_RDWR)
                raise _Gone
            if reply.error_after == number:
                self._write(f"data: {json.dumps({'error': {'message': 'broken', 'code': 'server_error'}})}\n\n")
                break
            if word is not None:
                self._event({"content": word})
        else:
            self._event({}, reason)
            if reply.usage and seen.body.get("stream_options", {}).get("include_usage"):
                self._usage(len(seen.raw) // 4, len(words))
            self._write("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, delta: dict[str, str], reason: str | None = None) -> None:
        self._chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _usage(self, prompt: int, completion: int) -> None:
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self._chunk({"choices": [], "usage": usage})

    def _chunk(self, fields: dict[str, Any]) -> None:
        name = self.server_of_tests.name
        chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": f"{name}-model", **fields}
        self._write(f"data: {json.dumps({**chunk, 'system_fingerprint': 'fp'})}\n\n")

    def _write(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _hold(self, seen: Seen, *, comments: bool) -> None:
        seen.held.set()
        while not self.server_of_tests.release.wait(0.02):
            if self.server_of_tests.died:
                self.connection.shutdown(socket.SHUT_RDWR)
                raise _Gone
            if comments:
                self._write(": still here\n\n")
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise _Gone
