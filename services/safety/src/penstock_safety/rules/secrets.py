"""Credentials in text: keys with a known form, private key blocks, and assignments of high-entropy values.

Forms follow what their issuers document and what public scanners (gitleaks, detect-secrets) look for. It never
checks whether a credential is live.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock_safety.detector import Finding, digest_of

LABEL = "secret"
RELEASE = "1"

_EDGE = r"(?<![A-Za-z0-9_/+\-])"
_STOP = r"(?![A-Za-z0-9_/+\-])"
_KEY_END = "-----END "
_PLACEHOLDER = re.compile(
    r"(?i)example|sample|dummy|placeholder|your[_\-]?|change[_\-]?me|redacted|xxx|\*{3}|\.{3}|1234567|abcdef|foobar|"
    r"<.*>|\$\{|\{\{|\$\(|%\(|^\$|^process\.|^os\.|getenv|environ"
)


@dataclass(frozen=True, slots=True)
class _Form:
    """A key with a known form. The pattern is tried only where one of the anchors occurs."""

    name: str
    anchors: tuple[str, ...]
    pattern: str
    score: float = 0.95
    min_entropy: float = 0.0
    digits: bool = False
    """A digit is needed: without one it is words joined by hyphens."""


_FORMS = (
    _Form(
        "aws_access_key",
        ("AKIA", "ASIA", "ABIA", "ACCA"),
        _EDGE + r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}" + _STOP,
        0.95,
        2.8,
    ),
    _Form(
        "github_token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
        _EDGE + r"gh[pousr]_[A-Za-z0-9]{36,255}" + _STOP,
        0.95,
        2.5,
    ),
    _Form("github_fine_grained", ("github_pat_",), _EDGE + r"github_pat_[A-Za-z0-9_]{40,255}", 0.95, 2.5),
    _Form("gitlab_token", ("glpat-",), _EDGE + r"glpat-[A-Za-z0-9_\-]{20,64}", 0.95, 2.5),
    _Form("slack_token", ("xox",), _EDGE + r"xox[abeoprs]-[A-Za-z0-9\-]{10,250}", 0.95, 2.5),
    _Form(
        "slack_webhook",
        ("hooks.slack.com",),
        r"https://hooks\.slack\.com/services/T[A-Za-z0-9_]{6,12}/B[A-Za-z0-9_]{6,12}/[A-Za-z0-9_]{20,30}",
    ),
    _Form("google_api_key", ("AIza",), _EDGE + r"AIza[A-Za-z0-9_\-]{35}" + _STOP, 0.95, 3.0),
    _Form("google_oauth_secret", ("GOCSPX-",), _EDGE + r"GOCSPX-[A-Za-z0-9_\-]{24,40}"),
    _Form(
        "stripe_key",
        ("sk_live_", "rk_live_", "sk_test_", "rk_test_"),
        _EDGE + r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,247}" + _STOP,
        0.95,
        2.5,
    ),
    _Form(
        "openai_key",
        ("sk-",),
        _EDGE + r"sk-(?!ant-)(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_\-]{32,200}",
        0.95,
        3.3,
        True,
    ),
    _Form("anthropic_key", ("sk-ant-",), _EDGE + r"sk-ant-[A-Za-z0-9_\-]{24,200}", 0.95, 3.0),
    _Form("huggingface_token", ("hf_",), _EDGE + r"hf_[A-Za-z0-9]{30,64}" + _STOP, 0.95, 3.0),
    _Form("sendgrid_key", ("SG.",), _EDGE + r"SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{32,64}"),
    _Form("twilio_key", ("SK",), _EDGE + r"SK[0-9a-f]{32}" + _STOP),
    _Form("telegram_bot_token", (":AA",), r"(?<!\d)\d{8,10}:AA[A-Za-z0-9_\-]{32,34}" + _STOP),
    _Form("npm_token", ("npm_",), _EDGE + r"npm_[A-Za-z0-9]{36}" + _STOP, 0.95, 2.5),
    _Form("package_index_token", ("pypi-AgE",), _EDGE + r"pypi-AgE[A-Za-z0-9_\-]{50,250}"),
    _Form("azure_storage_key", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{86}=="),
    _Form(
        "json_web_token",
        ("eyJ",),
        _EDGE + r"eyJ[A-Za-z0-9_\-]{10,4000}\.eyJ[A-Za-z0-9_\-]{10,4000}\.[A-Za-z0-9_\-]{10,1000}",
        0.9,
    ),
    _Form(
        "url_password",
        ("://",),
        r"(?<![A-Za-z])[a-z][a-z0-9+]{1,15}://[^\s:/@'\"<>{}\[\]$]{1,64}:(?!pass(?:word|wd)?@|secret@)[^\s:/@'\"<>{}\[\]$*]{6,128}@[A-Za-z0-9.\-]{3,}",
        0.85,
    ),
    _Form("bearer_token", ("earer ",), r"(?<!\w)[Bb]earer [A-Za-z0-9_\-.~+/]{24,2000}={0,2}", 0.85, 3.5),
)

_ASSIGNED = re.compile(
    r"(?i)(?<![A-Za-z0-9])(?:[a-z0-9]{1,24}[_\-.]){0,4}"
    r"(?:api[_\-]?key|apikey|secret(?:[_\-]?(?:access)?[_\-]?key)?|access[_\-]?token|auth[_\-]?token|token|passw(?:or)?d|passwort|"
    r"pwd|passphrase|client[_\-]?secret|private[_\-]?key|access[_\-]?key|credentials?)"
    r"[\"'`]?\s{0,3}(?::=|=>|=|:|\bis\b)\s{0,3}[\"'`]?([^\s\"'`,;<>]{8,200})"
)
_ASSIGNED_ANCHORS = ("key", "secret", "token", "pass", "pwd", "credential")
_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(r"(?:[A-Za-z0-9+/=\s\\]|-(?!----)|[:,.](?= ))*")
_KEY_CLOSE = re.compile(r"-----END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_CHAR = re.compile(r"[A-Za-z0-9+/=\s\\]")


class Secrets:
    """Implements `Detector`. The score says how sure the form is, not how bad the leak."""

    name = "secrets"
    labels = frozenset({LABEL})

    def __init__(self) -> None:
        self._forms = tuple((form, re.compile(form.pattern)) for form in _FORMS)
        self.digest = digest_of((self.name, RELEASE, repr(_FORMS), _ASSIGNED.pattern, _PLACEHOLDER.pattern))

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        """One list of findings per window."""
        return [list(self._scan(window)) for window in windows]

    def _scan(self, text: str) -> Iterator[Finding]:
        for form, pattern in self._forms:
            if not any(anchor in text for anchor in form.anchors):
                continue
            for match in pattern.finditer(text):
                key = match.group()
                if entropy(key) >= form.min_entropy and (not form.digits or any(char.isdigit() for char in key)):
                    yield Finding(LABEL, form.score, match.start(), match.end(), self.name)
        lowered = text.lower()
        if any(anchor in lowered for anchor in _ASSIGNED_ANCHORS):
            yield from self._assignments(text)
        if "PRIVATE KEY" in text:
            yield from self._private_keys(text)

    def _assignments(self, text: str) -> Iterator[Finding]:
        for match in _ASSIGNED.finditer(text):
            value = match.group(1).rstrip(".)]}")
            kinds = sum(bool(re.search(kind, value)) for kind in (r"[a-z]", r"[A-Z]", r"\d", r"[^A-Za-z0-9]"))
            if len(value) < 8 or not re.search(r"\d", value) or kinds < 2 or _PLACEHOLDER.search(value):
                continue
            if re.search(r"[(\[{]", value) or re.fullmatch(r"[\d.:\-/]+", value):
                continue
            measured = entropy(value)
            if measured >= 3.0 or (len(value) < 12 and measured >= 2.5 and kinds >= 3):
                score = 0.85 if measured >= 3.5 else 0.7
                yield Finding(LABEL, score, match.start(1), match.start(1) + len(value), self.name)

    def _private_keys(self, text: str) -> Iterator[Finding]:
        for match in _KEY_BEGIN.finditer(text):
            body = _KEY_BODY.match(text, match.end())
            end = body.end() if body else match.end()
            close = _KEY_CLOSE.match(text, end)
            yield Finding(LABEL, 0.99, match.start(), close.end() if close else end, self.name)
        # A block that began in an earlier window: walk back from its end, a regular expression would be quadratic.
        floor = 0
        for match in _KEY_CLOSE.finditer(text):
            start = match.start()
            while start > floor and _KEY_CHAR.match(text[start - 1]):
                start -= 1
            yield Finding(LABEL, 0.99, start, match.end(), self.name)
            floor = match.end()


def entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values()) if total else 0.0
