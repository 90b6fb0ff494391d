"""Where a sink wrote to: a local folder or a prefix in an S3 bucket, seen through pyarrow's file systems; or a folder of
HDFS, seen through its REST interface."""

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request

import pyarrow.fs


class WebHdfs:
    """As much of a file system of pyarrow as is needed here, without its libhdfs and the JVM in it."""

    def __init__(self, url, who, ca_file):
        self.url, self.who = url, who
        self.context = ssl.create_default_context(cafile=ca_file) if ca_file else None

    def ask(self, path, operation):
        """The answer to a request; the namenode sends to a datanode for bytes."""
        quoted = urllib.parse.quote(path, safe="/")
        url = f"{self.url}/webhdfs/v1{quoted}?op={operation}&{self.who}"
        return urllib.request.urlopen(url, timeout=60, context=self.context)

    def files(self, root):
        """Every file below a folder: (path, length, time of change)."""
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                with self.ask(folder, "LISTSTATUS") as answer:
                    entries = json.load(answer)["FileStatuses"]["FileStatus"]
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                continue
            for entry in entries:
                path = f"{folder}/{entry['pathSuffix']}"
                if entry["type"] == "DIRECTORY":
                    folders.append(path)
                else:
                    yield path, entry["length"], entry["modificationTime"]


class Lake:
    """Lists and opens files, by their names relative to the root."""

    def __init__(self, order):
        if "webhdfs" in order:
            self.files = WebHdfs(order["webhdfs"], order["who"], order.get("ca_file"))
            self.root = order["base_path"].rstrip("/")
        elif "folder" in order:
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
        if isinstance(self.files, WebHdfs):
            yield from (file for file in self.files.files(self.root) if file[0].endswith(".parquet"))
            return
        selector = pyarrow.fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        for info in self.files.get_file_info(selector):
            if info.type == pyarrow.fs.FileType.File and info.path.endswith(".parquet"):
                yield info.path, info.size, info.mtime_ns

    def read(self, path):
        """All bytes of a file."""
        if isinstance(self.files, WebHdfs):
            with self.files.ask(path, "OPEN") as answer:
                return answer.read()
        with self.files.open_input_stream(path) as stream:
            return stream.read()
