"""Numbers the rows of its source over restarts, and gives them names out of a bucket and a greeting of a server; it holds them until a flush."""

from fs_data_sink import Field, Output, Replace, count, gauge, granted, log
from fs_data_sink.http import get
from fs_data_sink.keyvalue import Bucket
from fs_data_sink.state import StatefulPlugin

COLUMNS = ["country", "seen", "name", "greeting"]


class Numbers(StatefulPlugin):
    name = "numbers"
    buffers_rows = True

    def open(self, config, schema):
        self.config, self.seen, self.held = config, 0, []
        self.column = schema.require("country", "utf8")
        self.names = Bucket("names")
        return Replace([Field("country", "utf8"), Field("seen", "int64"), Field("name", "utf8"), Field("greeting", "utf8")])

    def process(self, batch):
        countries = batch.column("colour" if self.config["fail"] else self.column)
        log.info(f"heard {granted('region')} and {granted('x')}")
        count("rows", len(batch))
        gauge("share", 0.5)
        greeting = get(self.config["url"], {"x-who": self.name}).body.decode()
        for country, name in zip(countries, self.names.get_many(countries)):
            self.seen += 1
            self.held.append((country, self.seen, name and name.decode(), greeting))
        return Output()

    def flush(self, reason):
        held, self.held = self.held, []
        return {name: [row[at] for row in held] for at, name in enumerate(COLUMNS)} if held else None

    def snapshot(self):
        return str(self.seen).encode()

    def restore(self, snapshot):
        self.seen = int(snapshot)
