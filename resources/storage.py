"""The store as a resource. What a store is: `pipeline.store`."""

import dagster as dg

from pipeline.store import Store


class Storage(dg.ConfigurableResource["Storage"]):
    """Store in which every asset is published, under one URI."""

    uri: str

    def store(self) -> Store:
        """The store."""
        return Store(self.uri)
