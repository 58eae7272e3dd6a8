"""The lease of one process to probe a part of an upstream.

The store holds the random token of the process for one interval, with a signature, so that no
client without the key of the app holds a lease. Renewing the lease and writing what the probes
found are one script, which does nothing unless the store holds this token: a number that only grows
would not survive an emptied store.
"""

from __future__ import annotations

from secrets import token_hex
from time import monotonic
from typing import Final, NamedTuple

from fastapi_proxy_di.cluster.keys import Keys
from fastapi_proxy_di.cluster.probing_records import Records
from fastapi_proxy_di.cluster.store import Script, Store

__all__ = ["Finding", "Lease", "Renewal"]

_TOKEN_BYTES: Final = 32
_LATE_MS: Final = 1000
"""How long after its end a lease may be in the store, as clocks and keys end late."""

# ARGV: the token, milliseconds, the signed lease, and a holder that is replaced.
_TAKE: Final = Script(
    """
    local holder = redis.call('GET', KEYS[1])
    if holder and string.sub(holder, 1, 32) ~= ARGV[1] and holder ~= ARGV[4] then
        return {0, holder}
    end
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
    local mark = redis.call('GET', KEYS[2])
    return {1, mark or ''}
    """
)

# A version that is not higher is given back, so that the process writes the next one above it.
# Versions that no clock gives are forged, and written over.
_RENEW: Final = Script(
    """
    local holder = redis.call('GET', KEYS[1])
    if not holder or string.sub(holder, 1, 32) ~= ARGV[1] then return {0, ''} end
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
    if not ARGV[4] then return {1, ''} end
    local known = redis.call('HGET', KEYS[2], ARGV[5])
    local version = known and string.match(known, '^%d+')
    version = version and tonumber(version)
    if version and version < 9e15 and version >= tonumber(ARGV[6]) then
        return {1, string.format('%.0f', version)}
    end
    redis.call('HSET', KEYS[2], ARGV[5], ARGV[6] .. '|' .. ARGV[7])
    if ARGV[8] == '1' then
        redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, '*', 'upstream', ARGV[4],
            'field', ARGV[5], 'version', ARGV[6], 'record', ARGV[7])
    end
    return {1, ''}
    """
)

_GIVE: Final = Script(
    """
    local holder = redis.call('GET', KEYS[1])
    if not holder or string.sub(holder, 1, 32) ~= ARGV[1] then return 0 end
    redis.call('DEL', KEYS[1])
    if ARGV[2] ~= '0' then redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2]) end
    return 1
    """
)


class Finding(NamedTuple):
    """A signed record to be written with a renewal.

    Attributes:
        upstream: Name of the upstream.
        field: Field of the upstream's state.
        version: Version of the record.
        record: The signed record.
        streamed: Whether the record is written into the stream too, which all processes follow.
    """

    upstream: str
    field: str
    version: int
    record: bytes
    streamed: bool


class Renewal(NamedTuple):
    """What came of a renewal.

    Attributes:
        held: Whether the lease is still this process's.
        newer: The version in the store, if it is not lower than that of the finding, which was
            not written then; else 0.
    """

    held: bool
    newer: int = 0


class Lease:
    """A lease that this process holds or tries to take.

    Args:
        store: The store.
        state: The records that processes share; signs and checks the lease.
        upstream: Name of the upstream.
        shard: The part of the upstream.

    Attributes:
        marked: Whether the holder before gave it away, because it found too much unhealthy to
            trust itself; as it was when this process took the lease.
    """

    def __init__(self, store: Store, state: Records, upstream: str, shard: int) -> None:
        self.marked: bool = False
        self._store: Final = store
        self._signs: Final = state
        self._about: Final = (upstream, str(shard))
        keys = Keys(state.cluster)
        self._key: Final = keys.lease(upstream, shard)
        self._mark: Final = keys.suspect(upstream, shard)
        self._state: Final = (keys.state(upstream), keys.stream)
        self._token: Final = token_hex(16)
        self._until = 0.0

    def holds(self, now: float) -> bool:
        """Whether the lease is this process's at ``now``, by its monotonic clock alone.

        A process that was stopped for longer than the lease lasts learns so by this.
        """
        return now < self._until

    async def take(self, seconds: float) -> bool:
        """Try to take the lease for ``seconds``; return whether this process holds it.

        Raises:
            StoreLost: The store cannot be reached.
        """
        taken, found = await self._take(seconds)
        if not taken and self._holder("lease", found) is None:
            taken, found = await self._take(seconds, found)
        if taken:
            self.marked = self._holder("suspect", found) not in (None, self._token)
        return taken

    async def _take(self, seconds: float, replaced: bytes = b"") -> tuple[bool, bytes]:
        """Give whether it is taken, and the mark or the holder."""
        began = monotonic()
        taken, found = await self._store.run(
            _TAKE,
            (self._key, self._mark),
            *(self._token, _milliseconds(seconds), self._signed("lease", seconds), replaced),
        )
        if taken:
            self._until = began + seconds
        return bool(taken), found

    def _signed(self, kind: str, seconds: float) -> bytes:
        ends = self._signs.now() + _milliseconds(seconds)
        subject = (kind, *self._about, self._token)
        return self._token.encode() + self._signs.seal(subject, {"until": ends})

    def _holder(self, kind: str, value: bytes) -> str | None:
        """Give the token of a holder, ``None`` if it is not signed or has ended."""
        if not value:
            return None
        token = value[:_TOKEN_BYTES].decode(errors="replace")
        body = self._signs.open((kind, *self._about, token), value[_TOKEN_BYTES:])
        if body is None or body["until"] < self._signs.now() - _LATE_MS:
            return None
        return token

    async def renew(self, seconds: float, finding: Finding | None = None) -> Renewal:
        """Hold the lease for ``seconds`` from now, and write what was found.

        Raises:
            StoreLost: The store cannot be reached.
        """
        began = monotonic()
        rest = () if finding is None else (*finding[:4], int(finding.streamed))
        held, newer = await self._store.run(
            _RENEW,
            (self._key, *self._state),
            *(self._token, _milliseconds(seconds), self._signed("lease", seconds), *rest),
        )
        self._until = began + seconds if held else 0.0
        return Renewal(bool(held), int(newer or 0))

    async def give(self, marked_for: float = 0.0) -> None:
        """Give the lease away, if this process holds it.

        Args:
            marked_for: Seconds for which the store has a mark that this process did not trust what
                it found; 0 for no mark.

        Raises:
            StoreLost: The store cannot be reached.
        """
        self._until = 0.0
        mark = _milliseconds(marked_for) if marked_for else 0
        signed = self._signed("suspect", marked_for)
        await self._store.run(_GIVE, (self._key, self._mark), self._token, mark, signed)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
