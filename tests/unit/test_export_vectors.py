"""Vectors as Parquet: what is in the files, that they appear together, and what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.main import app
from graph_store.errors import ConfigError
from model_store import export_vectors as module
from model_store.bundle_store import BundleStore
from model_store.export_vectors import export_vectors, vector_schema
from tests.bundles import write_toy_bundle
from tests.toy import write_toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy(tmp_path_factory.mktemp("toy"))
    store = BundleStore(folder / ".kithkin" / "models")
    store.activate(write_toy_bundle(store))
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> BundleStore:
    return BundleStore(folder / ".kithkin" / "models")


def test_every_row_has_its_id_and_the_bundles_vector(
    store: BundleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 4)  # several chunks
    bundle = store.open()
    space = bundle.spaces["user"]
    written = {each.node_type: each for each in export_vectors(bundle, "user", tmp_path)}
    assert set(written) == {"User", "Artist"}
    for node_type, each in written.items():
        table = pq.read_table(each.file)
        assert table.schema.equals(vector_schema(space.dimension))
        assert table["id"].to_pylist() == bundle.nodes(node_type).column(0).to_pylist()
        found = np.array(table["vector"].to_pylist(), np.float32)
        assert np.array_equal(found, np.asarray(bundle.vectors("user", node_type)))
        assert set(table["bundle_version"].to_pylist()) == {bundle.version}
        assert set(table["node_type"].to_pylist()) == {node_type}
        assert each.rows == table.num_rows
        assert pq.ParquetFile(each.file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_killed_export_leaves_nothing_that_looks_whole(
    store: BundleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = store.open()
    real, calls = module._write, []

    def killed(*arguments: object) -> tuple[int, int]:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            export_vectors(bundle, "user", tmp_path)
    assert list((tmp_path / bundle.version).glob("[!.]*")) == []
    export_vectors(bundle, "user", tmp_path)
    names = sorted(each.name for each in (tmp_path / bundle.version).rglob("*.parquet"))
    assert names == ["Artist.parquet", "User.parquet"]
    assert [each.name for each in (tmp_path / bundle.version).iterdir()] == ["user"]


def test_the_command_writes_what_its_json_says(folder: Path, store: BundleStore, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["export-features", "-p", str(folder), "--to", str(tmp_path), "--json"])
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    assert (printed["bundle_version"], printed["space"]) == (store.active(), "user")
    for each in printed["files"]:
        assert pq.read_metadata(each["file"]).num_rows == each["rows"]
    one = [
        "export-features",
        "-p",
        str(folder),
        "--to",
        str(tmp_path),
        "--space",
        "similar",
        "--type",
        "Tag",
        "--json",
    ]
    ran = CliRunner().invoke(app, one)
    assert [each["node_type"] for each in json.loads(ran.stdout)["files"]] == ["Tag"]


@pytest.mark.parametrize(("option", "value"), [("--space", "other"), ("--type", "Nobody")])
def test_what_is_not_there_is_named(folder: Path, tmp_path: Path, option: str, value: str) -> None:
    ran = CliRunner().invoke(app, ["export-features", "-p", str(folder), "--to", str(tmp_path), option, value])
    assert isinstance(ran.exception, ConfigError)
    assert value in str(ran.exception)
    assert list(tmp_path.iterdir()) == []
