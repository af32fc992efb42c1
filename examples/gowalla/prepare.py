"""Turns LightGCN's split of Gowalla (a line a user: ``user place place ...``) into CSV.

python prepare.py FOLDER_OF_GOWALLA TO
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path


def main() -> None:
    """Read FOLDER, write ``visits.csv`` and ``places.csv`` into TO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds train.txt.gz")
    parser.add_argument("to", type=Path, help="folder to write into")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)

    with gzip.open(options.folder / "train.txt.gz", "rt", encoding="ascii") as lines:
        visits = [(user, place) for user, *places in map(str.split, lines) for place in places]
    for name, header, rows in (
        ("visits.csv", ["user", "place"], visits),
        ("places.csv", ["place"], [(place,) for place in sorted({place for _, place in visits}, key=int)]),
    ):
        with (options.to / name).open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        print(f"{name}: {len(rows):,} rows")


if __name__ == "__main__":
    main()
