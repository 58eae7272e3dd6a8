"""The known name that a mistyped one probably means."""

from collections.abc import Iterable

__all__ = ["similar_name"]


def similar_name(name: str, known: Iterable[str], cutoff: float = 0.7) -> str | None:
    """Give the known name that is most similar, ``None`` if none is similar enough.

    Args:
        name: What was written.
        known: What could have been written.
        cutoff: Lowest ratio of ``difflib.SequenceMatcher``, from 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415  # only a mistake needs it

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)
