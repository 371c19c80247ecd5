"""What can go wrong while a local broker or trace viewer is brought up.

    LocalStackError
    ├── ProjectRootError       the deploy folder is not above the current folder
    ├── MissingToolError       a program (java, mvn, docker) is not there or too old
    ├── ResolveError           Maven did not deliver the jars
    ├── PortInUseError         somebody listens on the port that was asked for
    ├── AlreadyRunningError    the data folder belongs to a live process
    ├── StartError             the process ended or stayed silent; carries the tail of its log
    └── StopError              the process outlived SIGKILL

None is retriable by itself: each message says what to install or change.
"""

from __future__ import annotations


class LocalStackError(RuntimeError):
    """Base of everything `penstock.local` raises on purpose."""


class ProjectRootError(LocalStackError):
    """The folder with docker-compose.yml and deploy/ was not found."""


class MissingToolError(LocalStackError):
    """A program that the local stack needs is not installed, or is too old."""


class ResolveError(LocalStackError):
    """Maven ended without delivering the jars."""


class PortInUseError(LocalStackError):
    """The requested port is taken."""


class AlreadyRunningError(LocalStackError):
    """The data folder is in use by a live process."""


class StartError(LocalStackError):
    """A started process ended early or never answered."""


class StopError(LocalStackError):
    """A process could not be ended."""
