"""Joins MovieLens 100K (RecBole's atomic files) with its Freebase triples into the files that kithkin.toml reads.

    python prepare.py FOLDER_OF_ML_100K TO

``ml-100k.link`` says which film is which entity of Freebase, and no source of kithkin.toml joins two files.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

FACTS = {
    "film.film.actor": "actor",
    "film.film.award_nomination": "nominated",
    "film.film.award_won": "won",
    "film.film.cinematography": "cinematographer",
    "film.film.country": "country",
    "film.film.directed_by": "director",
    "film.film.genre": "genre",
    "film.film.language": "language",
    "film.film.prequel": "prequel",
    "film.film.produced_by": "producer",
    "film.film.production_companies": "company",
    "film.film.rating": "certificate",
    "film.film.subjects": "subject",
    "film.film.written_by": "writer",
}
"""Relations seen from the film; each of the others is one of these turned round."""


def rows(file: Path) -> Iterator[list[str]]:
    """The rows below the header."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            yield line.rstrip("\n").split("\t")


def found(folder: Path, name: str) -> Path:
    """The file, plain or packed."""
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


def write(file: Path, header: list[str], lines: list[list[str]]) -> None:
    """Write one CSV file."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
    print(f"{file.name}: {len(lines):,} rows")


def main() -> None:
    """Read FOLDER, write into TO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds ml-100k.inter, .item, .user, .kg and .link")
    parser.add_argument("to", type=Path, help="folder to write films.csv, users.csv, ratings.csv and facts.csv into")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)

    # Two films have a text in place of a year.
    items = rows(found(options.folder, "ml-100k.item"))
    films = [[film, title, year if year.isdecimal() else "", genres] for film, title, year, genres in items]
    write(options.to / "films.csv", ["film", "title", "year", "genres"], films)
    users = [row[:4] for row in rows(found(options.folder, "ml-100k.user"))]
    write(options.to / "users.csv", ["user", "age", "gender", "occupation"], users)
    ratings = [row[:4] for row in rows(found(options.folder, "ml-100k.inter"))]
    write(options.to / "ratings.csv", ["user", "film", "rating", "time"], ratings)

    film_of = {entity: film for film, entity in rows(found(options.folder, "ml-100k.link"))}
    facts = set()
    for head, relation, tail in rows(found(options.folder, "ml-100k.kg")):
        fact = FACTS.get(relation)
        if fact and head in film_of and (fact != "prequel" or tail in film_of):
            facts.add((film_of[head], fact, film_of[tail] if fact == "prequel" else tail))
    write(options.to / "facts.csv", ["film", "fact", "target"], [list(fact) for fact in sorted(facts)])


if __name__ == "__main__":
    main()
