"""How much one address or one peer may ask of the relay: token buckets in bounded tables. No I/O; time comes in, in seconds.

An address is counted as its IPv4 address, or as its IPv6 /64, which is what one line gets (RFC 6177).
"""

from __future__ import annotations

import heapq
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["AddressCounts", "Bucket", "Buckets", "Rate", "Unannounced", "host_of", "line_of", "site_of"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second in the long run, and `burst` at once after a quiet time."""

    per_second: float
    burst: float


class Bucket:
    """One token bucket; full when it is made."""

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = rate.burst
        self._since = now

    def left(self, now: float) -> float:
        """Say what may be taken at once now."""
        # A clock that steps back gives nothing, and takes nothing away.
        if now > self._since:
            self._left = min(self._rate.burst, self._left + (now - self._since) * self._rate.per_second)
            self._since = now
        return self._left

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take `cost`, or nothing where there is less."""
        if self.left(now) < cost:
            return False
        self._left -= cost
        return True

    def give_back(self, cost: float) -> None:
        """Undo a `take`."""
        self._left = min(self._rate.burst, self._left + cost)


class Buckets(Generic[K]):
    """A bucket for each key, for `capacity` keys.

    Where there are more, the fullest are forgotten, as that gives them least: one that is full is as good as none.
    """

    def __init__(self, rate: Rate, *, capacity: int = 4096) -> None:
        self._rate = rate
        self._capacity = capacity
        self._buckets: OrderedDict[K, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Count the keys remembered."""
        return len(self._buckets)

    def take(self, key: K, now: float, cost: float = 1.0) -> bool:
        """Take `cost` from a key's bucket, or nothing where there is less."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._capacity:
                self._forget_some(now)
            bucket = self._buckets[key] = Bucket(self._rate, now)
        self._buckets.move_to_end(key)
        return bucket.take(now, cost)

    def _forget_some(self, now: float) -> None:
        """Make room for newcomers, by a 64th at once: finding the fullest takes a look at all. Of those as full the oldest goes first."""
        some = max(1, self._capacity // 64)
        for key in heapq.nlargest(some, self._buckets, key=lambda known: self._buckets[known].left(now)):
            del self._buckets[key]

    def left(self, key: K, now: float) -> float:
        """Say what may be taken from a key's bucket at once now."""
        bucket = self._buckets.get(key)
        return self._rate.burst if bucket is None else bucket.left(now)

    def give_back(self, key: K, cost: float = 1.0) -> None:
        """Undo a `take`: it turned out to be none of what is limited."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.give_back(cost)


class AddressCounts:
    """How many connections each line has now; bounded by the connections there are."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts: Counter[str] = Counter()

    def enter(self, line: str) -> bool:
        """Count one more, or say that there are too many."""
        if self._counts[line] >= self.most:
            return False
        self._counts[line] += 1
        return True

    def leave(self, line: str) -> None:
        """Count one less of those that entered."""
        self._counts[line] -= 1
        if self._counts[line] <= 0:
            del self._counts[line]

    def __len__(self) -> int:
        """Count the lines."""
        return sum(1 for count in self._counts.values() if count)


class Unannounced(Generic[T]):
    """Who has not said hello yet, by line; bounded by the lines' fair shares: when there is no room, the line with most gives way.

    Lines of one site share what a site has. So whoever wants to keep newcomers out by silent connections needs as many sites as there
    are places.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._sites: dict[str, dict[str, dict[int, T]]] = {}
        """By site, line and key."""
        self._count = 0

    def __len__(self) -> int:
        """Count those who wait."""
        return self._count

    def enter(self, line: str, key: int, newcomer: T) -> T | None:
        """Take a newcomer in; gives whom to send away for it, who may be the newcomer itself."""
        sent_away = None
        if self._count >= self.most:
            fattest = self._who_gives_way(line)
            if fattest is None:
                return newcomer
            waiting = self._sites[site_of(fattest)][fattest]
            # The oldest, which has had its time to say something.
            oldest = next(iter(waiting))
            sent_away = waiting[oldest]
            self.leave(fattest, oldest)
        self._sites.setdefault(site_of(line), {}).setdefault(line, {})[key] = newcomer
        self._count += 1
        return sent_away

    def leave(self, line: str, key: int) -> None:
        """Count one less, if it is still counted."""
        site = site_of(line)
        lines = self._sites.get(site, {})
        waiting = lines.get(line, {})
        if waiting.pop(key, None) is not None:
            self._count -= 1
        if not waiting:
            lines.pop(line, None)
        if not lines:
            self._sites.pop(site, None)

    def _who_gives_way(self, line: str) -> str | None:
        """Name the line that gives way to one more of `line`: the one with most at the site with most, if that is more than here."""
        sizes = {site: sum(map(len, lines.values())) for site, lines in self._sites.items()}
        own = site_of(line)
        fattest = max(sizes, key=sizes.__getitem__, default=own)
        is_of_others = sizes.get(fattest, 0) > sizes.get(own, 0) + 1
        lines = self._sites.get(fattest if is_of_others else own, {})
        most = max(lines, key=lambda known: len(lines[known]), default=None)
        if most is None or (not is_of_others and len(lines[most]) <= len(lines.get(line, ())) + 1):
            return None
        return most


def host_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Give the host of an `IP:PORT`; an IPv4 address that travels as IPv6 is one of IPv4.

    Raises ValueError: it is no such address.
    """
    host = ipaddress.ip_address(address.rpartition(":")[0].strip("[]").partition("%")[0])
    return getattr(host, "ipv4_mapped", None) or host


def line_of(address: str) -> str:
    """Give the line an `IP:PORT` belongs to: the IPv4 address, or the IPv6 /64.

    Raises ValueError: it is no such address.
    """
    host = host_of(address)
    return str(host) if host.version == 4 else str(ipaddress.ip_network((host, 64), strict=False))


def site_of(line: str) -> str:
    """Give the site of a line: an IPv4 address itself, or the /48 that a site may have of IPv6 (RFC 6177), with its 65,536 lines."""
    return str(ipaddress.ip_network(line).supernet(new_prefix=48)) if ":" in line else line
