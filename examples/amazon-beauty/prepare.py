"""Turns the Amazon Beauty files (of McAuley et al. 2015, as prepared for the knowledge graphs of ECFKG) into CSV.

    python prepare.py FOLDER_OF_AMAZON_BEAUTY TO

In them line i is product i, its values are line numbers of other files: no source of kithkin.toml reads that.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Iterator
from pathlib import Path


def lines(folder: Path, name: str) -> Iterator[str]:
    """The lines of a packed text file."""
    with gzip.open(folder / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n")


def write(file: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write one CSV file."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    print(f"{file.name}: {len(rows):,} rows")


def main() -> None:
    """Read FOLDER, write into TO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds product.txt.gz, related_product.txt.gz and the others")
    parser.add_argument("to", type=Path, help="folder to write into")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)

    products = list(lines(options.folder, "product"))
    related = list(lines(options.folder, "related_product"))
    catalogue = set(products)
    write(options.to / "products.csv", ["product"], [[product] for product in products])
    for relation in ("also_bought", "bought_together", "also_viewed"):
        pairs = [
            (product, related[int(other)])
            for product, line in zip(products, lines(options.folder, f"{relation}_p_p"), strict=True)
            for other in line.split()
        ]
        pairs = [(product, other) for product, other in dict.fromkeys(pairs) if product != other]
        inside = [[product, other] for product, other in pairs if other in catalogue]
        write(options.to / f"{relation}.csv", ["product", "other"], inside)
        if relation == "also_bought":  # the others stay within the catalogue
            outside = [[product, other] for product, other in pairs if other not in catalogue]
            write(options.to / f"{relation}_outside.csv", ["product", "other"], outside)
    for relation, file in (("brand", "brand_p_b"), ("category", "category_p_c")):
        names = list(lines(options.folder, relation))
        pairs = [
            (product, names[int(value)])
            for product, line in zip(products, lines(options.folder, file), strict=True)
            for value in line.split()
            if names[int(value)].strip()
        ]
        write(options.to / f"{relation}.csv", ["product", relation], [list(pair) for pair in dict.fromkeys(pairs)])


if __name__ == "__main__":
    main()
