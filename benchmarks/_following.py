"""What the benchmarks of following share: a stream of changes at a fixed pace, written in a process of its own."""

from __future__ import annotations

import json
import random
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from graph_store.graph import open_graph

BATCH = 100
CHANGED, NEW, LINKS, MORE_LINKS = 40, 10, 3, 20
"""Of a batch: entities whose year changes, new ones, links of each new one, and links of entities that are there."""


class Stream:
    """Batches of 100 records: 40 changed entities, 10 new ones with 30 links, 20 links of entities that are there.

    Entities and tags are drawn evenly, so that in ten minutes nearly every entity changes. The first entity changed and
    the last new one of a batch are samples: no other batch touches them.
    """

    def __init__(self, entities: int, tags: int, seed: int = 1) -> None:
        self._random, self._entities, self._tags = random.Random(seed), entities, tags
        self._run = f"{time.time_ns():x}"
        self._years = time.time_ns() // 10**9 % 10**6 * 1000

    def batch(self, number: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The records, and the samples: id, and the year or the tag that it has then."""
        draw, records = self._random, []
        # Those below are samples, each once; those above change again and again.
        sample, kept = number % (self._entities // 10), self._entities // 10
        year = self._years + number // kept
        for place in range(CHANGED):
            item = sample if place == 0 else draw.randrange(kept, self._entities)
            value = year if place == 0 else draw.randrange(1900, 2026)
            records.append({"type": "Item", "id": f"item{item:07d}", "properties": {"year": value}})
        links: list[dict[str, Any]] = []
        for place in range(NEW):
            new = f"new{self._run}x{number:06d}x{place}"
            records.append({"type": "Item", "id": new, "properties": {"year": draw.randrange(1950, 2025)}})
            for tag in draw.sample(range(self._tags), LINKS):
                links.append({"relation": "HAS_TAG", "source": new, "target": f"tag{tag}"})
        last = links[-1]
        for _ in range(MORE_LINKS):
            source = f"item{draw.randrange(kept, self._entities):07d}"
            links.append({"relation": "HAS_TAG", "source": source, "target": f"tag{draw.randrange(self._tags)}"})
        samples = [
            {"id": f"item{sample:07d}", "year": year},
            {"id": last["source"], "tag": last["target"]},
        ]
        return records + links, samples


def write(folder: Path, seconds: float, rate: float, entities: int, tags: int) -> None:
    """Upsert at ``rate`` records a second, or as many as it takes; print a line of JSON for each batch written."""
    stream = Stream(entities, tags)
    with open_graph(folder / "kithkin.toml") as graph:
        graph.upsert([{"type": "Item", "id": "item0000000", "properties": {"year": 1950}}])
        began = time.monotonic()
        for number in count():
            due = began + number * BATCH / rate
            if max(due, time.monotonic()) >= began + seconds:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            records, samples = stream.batch(number)
            started = time.monotonic()
            graph.upsert(records)
            told = {"at": time.time(), "took": time.monotonic() - started, "late": started - due, "samples": samples}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), *(float(each) for each in sys.argv[2:4]), *(int(each) for each in sys.argv[4:6]))
