"""Fixtures of the integration tests: one Spark for all that need it, for its start takes longer than they do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A local Spark session, stopped at the end of the run."""
    from tests.spark_session import local_spark

    with local_spark(tmp_path_factory.mktemp("spark")) as session:
        yield session
