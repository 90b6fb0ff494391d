"""Spark reads files of one dataset together, with `mergeSchema`, and writes what it read: {"files": [F, ...], "out": FOLDER}."""

import json
import sys

from pyspark.sql import SparkSession

order = json.loads(sys.argv[1])
settings = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
builder = SparkSession.builder.master("local[1]")
for name, value in settings.items():
    builder = builder.config(name, value)
rows = builder.getOrCreate().read.option("mergeSchema", "true").parquet(*order["files"])
rows.coalesce(1).write.parquet(order["out"])
