"""Lists a lake and opens every Parquet file, again and again, until SIGTERM: what is visible must be whole, and where `once` is
asked for, no record may be in two files.

Argument: JSON with `lake` and `once`. Says `observing` after the first look. The last line is JSON: `looks`, `opened`, `failures`.
A record is known by the columns `_topic`, `_partition` and `_offset`.
"""

import io
import json
import random
import signal
import sys
import time

import pyarrow.parquet as pq

from lake import Lake

# A file that was seen is opened again now and then: it must not change under its readers.
AGAIN_PER_LOOK = 5


def main():
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    order = json.loads(sys.argv[1])
    lake = Lake(order["lake"])
    looks, opened, failures, seen, homes = 0, 0, [], {}, {}
    while not stopped:
        listed = {path: (size, changed) for path, size, changed in lake.parquet()}
        for path in seen.keys() - listed.keys():
            failures.append({"file": path, "fault": "it was visible and is gone"})
            del seen[path]
        again = random.sample(sorted(seen), min(AGAIN_PER_LOOK, len(seen)))
        for path in [path for path in listed if seen.get(path) != listed[path]] + again:
            if path in seen and seen[path] != listed[path]:
                failures.append({"file": path, "fault": f"it changed from {seen[path]} to {listed[path]}"})
            try:
                data = lake.read(path)
                rows = pq.read_table(io.BytesIO(data))
                if rows.num_rows == 0:
                    failures.append({"file": path, "fault": "it has no rows"})
                if order["once"] and path not in seen:
                    positions = [rows.column(name).to_pylist() for name in ("_topic", "_partition", "_offset")]
                    for position in zip(*positions):
                        if position in homes:
                            failures.append({"file": path, "fault": f"{position} is in {homes[position]} as well"})
                        homes[position] = path
            except Exception as error:  # whatever the fault is, it is one
                failures.append({"file": path, "fault": f"{type(error).__name__}: {error}"})
            opened += 1
            seen[path] = listed[path]
        looks += 1
        if looks == 1:
            print("observing", flush=True)
        time.sleep(0.02)
    print(json.dumps({"looks": looks, "opened": opened, "failures": failures[:20]}))


main()
