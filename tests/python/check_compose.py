"""Checks docker-compose.yml as far as that is possible without a container engine; says every fault it finds."""

import pathlib
import re
import sys

import yaml

# Part of the name of an image or a service, for each thing that must be there.
WANTED = {
    "Kafka": r"kafka",
    "Redis": r"redis|valkey",
    "an S3 server": r"minio|seaweedfs|versitygw|garage",
    "an OpenTelemetry collector": r"otel|opentelemetry",
    "the program": r"^fs-data-sink",
}


def check(path):
    """Yields the faults."""
    folder = path.parent
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    for what, pattern in WANTED.items():
        if not any(re.search(pattern, f"{name} {service.get('image', '')}") for name, service in services.items()):
            yield f"{what} is missing"
    for name, service in services.items():
        image = service.get("image")
        if image is None and "build" not in service:
            yield f"{name}: neither image nor build"
        # A version has a digit; `latest` and a missing tag name another image tomorrow.
        if image is not None and "build" not in service and not re.search(r":[^/:]*\d[^/:]*$|@sha256:", image):
            yield f"{name}: image {image} is not pinned by version"
        for needed in service.get("depends_on") or []:
            if needed not in services:
                yield f"{name}: depends on {needed}, which is not there"
        for volume in service.get("volumes") or []:
            source = volume.get("source", "") if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith(".") and not (folder / source).exists():
                # What a build makes is named; a typing error is not.
                if not source.startswith("./plugins/dist"):
                    yield f"{name}: mounts {source}, which is not there"
        build = service.get("build")
        context = build.get("context", ".") if isinstance(build, dict) else build
        if context is not None and not (folder / context).exists():
            yield f"{name}: builds from {context}, which is not there"
        if isinstance(build, dict) and "dockerfile_inline" not in build:
            if not (folder / context / build.get("dockerfile", "Dockerfile")).exists():
                yield f"{name}: has no Dockerfile"


faults = list(check(pathlib.Path(sys.argv[1])))
print("\n".join(faults) or "docker-compose.yml holds together")
sys.exit(1 if faults else 0)
