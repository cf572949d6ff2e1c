"""What was changed in a file, entry by entry: each change has the kind of fault that the doctor calls it by."""

from collections import Counter
from typing import Any, NamedTuple

from queryinst.data.faults import plain


class Change(NamedTuple):
    """One change: kind of fault, the entry, and what was done."""

    code: str
    where: str
    did: str


class Changes:
    """All changes, in the order in which they were made."""

    def __init__(self) -> None:
        self.all: list[Change] = []

    def add(self, code: str, where: str, did: str) -> None:
        self.all.append(Change(code, plain(where)[:200], plain(did)[:300]))

    def short(self) -> list[str]:
        """A line a kind of fault: how often, and the first two."""
        lines = []
        for code, times in Counter(change.code for change in self.all).items():
            few = [f"{change.where} {change.did}" for change in self.all if change.code == code][:2]
            lines.append(f"{code}: {times} x [{'; '.join(few)}{'; ...' if times > len(few) else ''}]")
        return lines

    def as_json(self) -> list[dict[str, str]]:
        return [change._asdict() for change in self.all]


def named(kind: str, entry: dict[str, Any]) -> str:
    """An entry as part of a line: `image 5`."""
    return f"{kind} {str(entry.get('id', 'without id'))[:30]}"
