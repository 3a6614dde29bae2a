"""Files with one JSON object a line: results, scalars."""

import json
from collections.abc import Callable
from os import PathLike
from typing import Any

#: Larger files are refused.
MOST_BYTES, MOST_LINES = 64 << 20, 1_000_000

Record = dict[str, Any]


def read_json_lines(
    path: str | PathLike[str], check: Callable[[Record], None] | None = None
) -> list[Record]:
    """Return the objects of a file.

    A last line that is cut off, as a killed run leaves it, does not count.

    Args:
        path: The file.
        check: Raises ValueError if an object is not what is expected.

    Raises:
        ValueError: If a line is no such object, naming it, or the file is
            too large.
    """
    with open(path, 'rb') as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES or content.count(b'\n') > MOST_LINES:
        raise ValueError(
            f'{str(path)!r} has more than {MOST_BYTES >> 20} MiB or '
            f'{MOST_LINES:,} lines: leave some out, or log less often.'
        )
    records = []
    *lines, last = content.decode('utf-8', 'replace').split('\n')
    for number, line in enumerate([*lines, last], 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError('no JSON object')
            if check is not None:
                check(record)
        except (ValueError, RecursionError) as error:
            if number > len(lines):
                break
            raise ValueError(
                f'{str(path)!r}, line {number}: {error}. Remove that line.'
            ) from None
        records.append(record)
    return records
