"""Adds `is_large` to each row, leaves out rows without an amount, and refuses negative amounts."""

from fs_data_sink import Field, Output, Plugin


class {{type}}(Plugin):
    name = "{{name}}"
    version = "0.1.0"
    description = "says which amounts are large"
    roles = ("filter", "enrich")
    deterministic = True

    def open(self, config, schema):
        """Once, before any row: refuse here what cannot work. Answers the columns that are added."""
        self.column = schema.require(config["column"], "int64", "float64")
        self.minimum = config["minimum"]
        return [Field("is_large", "bool")]

    def process(self, batch):
        """Each batch of rows. Only the columns that are asked for are copied into the plugin."""
        amounts = batch.column(self.column)
        output = Output(
            keep=[amount is not None for amount in amounts],
            columns={"is_large": [None if amount is None else amount >= self.minimum for amount in amounts]},
        )
        negative = [row for row, amount in enumerate(amounts) if amount is not None and amount < 0]
        return output.reject(negative, "negative", f"{self.column.name} is below 0")
