"""What waits to be started by an unordered stage: interactive before bulk, fair between tenants, in order per key.

Tenants of a lane take turns by deficit round robin (Shreedhar and Varghese, 1995): each turn is worth a
quantum of cost times the tenant's weight, so a tenant's share does not depend on how much it sends. Pure
and not thread-safe: one thread owns it, and bounds what it puts in.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from penstock.contracts.events import Priority

BULK_EVERY = 10
"""While interactive records wait, every so manieth start is a bulk one all the same: bulk never starves."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ticket(Generic[T]):
    """One waiting item."""

    item: T
    lane: Priority
    tenant: str
    key: bytes | None
    """Items of one lane and key run one after another; None where order does not matter."""
    cost: int
    """What it takes of the backend, in any unit that all items share."""


class Turns(Generic[T]):
    """One lane: a queue for each tenant, served by deficit round robin."""

    def __init__(self, weights: Mapping[str, float], quantum: int) -> None:
        self._weights = weights
        self._quantum = quantum
        self._queues: OrderedDict[str, deque[Ticket[T]]] = OrderedDict()
        self._deficits: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __bool__(self) -> bool:
        return bool(self._queues)

    def put(self, ticket: Ticket[T]) -> None:
        queue = self._queues.get(ticket.tenant)
        if queue is None:
            queue = self._queues[ticket.tenant] = deque()
            self._deficits[ticket.tenant] = self._turn(ticket.tenant) if len(self._queues) == 1 else 0.0
        queue.append(ticket)

    def take(self) -> Ticket[T] | None:
        while self._queues:
            tenant, queue = next(iter(self._queues.items()))
            if queue[0].cost <= self._deficits[tenant]:
                ticket = queue.popleft()
                self._deficits[tenant] -= ticket.cost
                if not queue:
                    self._forget(tenant)
                return ticket
            self._queues.move_to_end(tenant)
            # the turn goes to the next one
            following = next(iter(self._queues))
            self._deficits[following] += self._turn(following)
        return None

    def drop(self, unwanted: Callable[[T], bool]) -> list[Ticket[T]]:
        dropped = []
        for tenant, queue in list(self._queues.items()):
            dropped += [ticket for ticket in queue if unwanted(ticket.item)]
            kept = deque(ticket for ticket in queue if not unwanted(ticket.item))
            if kept:
                self._queues[tenant] = kept
            else:
                self._forget(tenant)
        return dropped

    def _turn(self, tenant: str) -> float:
        return self._quantum * self._weights.get(tenant, 1.0)

    def _forget(self, tenant: str) -> None:
        # an idle tenant saves up nothing
        first = next(iter(self._queues)) == tenant
        del self._queues[tenant], self._deficits[tenant]
        if first and self._queues:
            following = next(iter(self._queues))
            self._deficits[following] += self._turn(following)


class Window(Generic[T]):
    """Both lanes."""

    def __init__(self, weights: Mapping[str, float], quantum: int) -> None:
        self._lanes: dict[Priority, Turns[T]] = {
            "interactive": Turns(weights, quantum),
            "bulk": Turns(weights, quantum),
        }
        self._busy: dict[tuple[Priority, bytes], deque[Ticket[T]]] = {}
        """Keys that run or wait for their turn -> what waits behind them."""
        self._since_bulk = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values())) + sum(map(len, self._busy.values()))

    def put(self, ticket: Ticket[T]) -> None:
        """Let an item wait."""
        if ticket.key is not None:
            behind = self._busy.get((ticket.lane, ticket.key))
            if behind is not None:
                behind.append(ticket)
                return
            self._busy[ticket.lane, ticket.key] = deque()
        self._lanes[ticket.lane].put(ticket)

    def take(self, *, bulk: bool = True) -> Ticket[T] | None:
        """The next to start; None where none may. Its key stays busy until `done`."""
        interactive, later = self._lanes["interactive"], self._lanes["bulk"]
        if bulk and later and (not interactive or self._since_bulk >= BULK_EVERY - 1):
            self._since_bulk = 0
            return later.take()
        ticket = interactive.take()
        if ticket is not None and later:
            self._since_bulk += 1
        return ticket

    def done(self, ticket: Ticket[T]) -> None:
        """A taken item has ended, or will not come back: the next of its key may run."""
        if ticket.key is None:
            return
        behind = self._busy[ticket.lane, ticket.key]
        if behind:
            self._lanes[ticket.lane].put(behind.popleft())
        else:
            del self._busy[ticket.lane, ticket.key]

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out what waits and is not wanted any more."""
        dropped: list[T] = []
        for key, behind in self._busy.items():
            dropped += [ticket.item for ticket in behind if unwanted(ticket.item)]
            self._busy[key] = deque(ticket for ticket in behind if not unwanted(ticket.item))
        for lane in self._lanes.values():
            for ticket in lane.drop(unwanted):
                dropped.append(ticket.item)
                self.done(ticket)
        return dropped
