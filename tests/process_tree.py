"""The processes below one, as /proc has them."""

from pathlib import Path


def below(process: int) -> list[tuple[int, str]]:
    """All processes below one, with their command lines."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            parents[int(entry.name)] = (int(stat[1]), line)
    found, front = [], [process]
    while front:
        front = [child for child, (parent, _) in parents.items() if parent in front]
        found += [(child, parents[child][1]) for child in front]
    return found
