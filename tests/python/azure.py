"""Makes a container of Azure Blob Storage, or copies one into a folder, through pyarrow's file system.

Argument: JSON with `authority` (host:port), `account`, `key`, `container`, and `folder` to copy it into.
"""

import json
import pathlib
import sys

import pyarrow.fs


def main():
    order = json.loads(sys.argv[1])
    files = pyarrow.fs.AzureFileSystem(
        account_name=order["account"],
        account_key=order["key"],
        blob_storage_authority=order["authority"],
        blob_storage_scheme="http",
        dfs_storage_authority=order["authority"],
        dfs_storage_scheme="http",
    )
    if "folder" not in order:
        files.create_dir(order["container"])
        return
    root, folder = order["container"], pathlib.Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for info in files.get_file_info(pyarrow.fs.FileSelector(root, recursive=True)):
        if info.type == pyarrow.fs.FileType.File:
            target = folder / info.path[len(root) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.open_input_stream(info.path) as stream:
                target.write_bytes(stream.read())


main()
