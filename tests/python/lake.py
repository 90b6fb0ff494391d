"""Where a sink wrote to: a local folder or a prefix in an S3 bucket, seen through pyarrow's file systems."""

import pyarrow.fs


class Lake:
    """Lists and opens files, by their names relative to the root."""

    def __init__(self, order):
        if "folder" in order:
            self.files = pyarrow.fs.LocalFileSystem()
            self.root = order["folder"].rstrip("/")
        else:
            self.files = pyarrow.fs.S3FileSystem(
                endpoint_override=order["endpoint"],
                scheme=order["endpoint"].split(":")[0],
                region=order["region"],
                access_key=order["key_id"],
                secret_key=order["secret"],
            )
            self.root = (order["bucket"] + "/" + order["prefix"]).rstrip("/")

    def parquet(self):
        """Every `**/*.parquet`, hidden or not: (path, length, time of change)."""
        selector = pyarrow.fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        for info in self.files.get_file_info(selector):
            if info.type == pyarrow.fs.FileType.File and info.path.endswith(".parquet"):
                yield info.path, info.size, info.mtime_ns

    def read(self, path):
        """All bytes of a file."""
        with self.files.open_input_stream(path) as stream:
            return stream.read()
