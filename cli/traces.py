"""Where files hold a person's id: as bytes, as a whole field, as a row of a table."""

from __future__ import annotations

import hashlib
import hmac
import json
import mmap
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

_CHUNK = 1 << 20
_BEFORE, _AFTER = rb"(?:\A|[,;:|\t\r\n\"'\[{])[ ]*", rb"[ ]*(?:\Z|[,;:|\t\r\n\"'\]}])"
"""What stands around a field of a CSV or JSON Lines file."""


def holds(file: Path, text: str) -> bool:
    """Whether a file's bytes hold a text."""
    wanted = text.encode()
    try:
        with file.open("rb") as stream:
            before = b""
            while part := stream.read(_CHUNK):
                if wanted in before + part:
                    return True
                before = part[-len(wanted) :]
    except FileNotFoundError:
        pass
    return False


def any_holds(folder: Path, text: str) -> bool:
    """Whether a file anywhere in a folder does."""
    return any(holds(path, text) for path in folder.rglob("*") if path.is_file())


def holds_field(file: Path, text: str) -> bool:
    """Whether a text file holds a text as the whole of a field, as it is or as JSON escapes it."""
    texts = {text.encode(), json.dumps(text)[1:-1].encode()}
    pattern = re.compile(_BEFORE + rb"(?:" + rb"|".join(map(re.escape, sorted(texts))) + rb")" + _AFTER)
    try:
        with file.open("rb") as stream:
            if not os.fstat(stream.fileno()).st_size:
                return False
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return pattern.search(mapped) is not None
    except FileNotFoundError:
        return False


def holds_node(folder: Path, node_type: str, node_id: str) -> bool | None:
    """Whether a bundle or a snapshot has a node of this type and id; None where its table cannot be read."""
    file = folder / "nodes" / f"{node_type}.arrow"
    try:
        with pa.memory_map(str(file)) as source:
            ids = pa.ipc.open_file(source).read_all().column("id")
            return bool(pc.any(pc.equal(ids, node_id)).as_py())
    except FileNotFoundError:
        return False
    except (OSError, pa.ArrowInvalid, KeyError):
        return None


def hashed(user: str) -> str:
    """The person as impressions name them where users are hashed; empty where the key is not known."""
    key = os.environ.get("KITHKIN_IMPRESSIONS_KEY", "")
    return hmac.new(key.encode(), user.encode(), hashlib.sha256).hexdigest() if key else ""


def without_rows(file: Path, users: set[str], *, dry_run: bool) -> int:
    """Rewrite a Parquet file without a person's rows; returns how many there were."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    if "user" not in table.column_names:
        return 0
    theirs = pc.fill_null(pc.is_in(table.column("user"), value_set=pa.array(sorted(users))), False)
    count = int(pc.sum(theirs).as_py() or 0)
    if count and not dry_run:
        kept = table.filter(pc.invert(theirs))
        if kept.num_rows:
            beside = file.with_name(f".{file.name}.half")
            pq.write_table(kept, beside, compression="zstd")
            beside.replace(file)
        else:
            file.unlink()
    return count
