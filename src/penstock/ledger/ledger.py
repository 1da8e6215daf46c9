"""The ledger as one thing: the database that is opened with the gateway and closed after it."""

from penstock.ledger.database import Database


class Ledger:
    """See the module's head."""

    def __init__(self, database: Database) -> None:
        """Opens nothing."""
        self.database = database

    def __repr__(self) -> str:
        """Say where it is."""
        return f"<Ledger {self.database!r}>"

    async def open(self) -> None:
        """Open the database. Raises `LedgerUnusable`, `LedgerUnavailable`."""
        await self.database.start()

    async def aclose(self) -> None:
        """Do what is left to do, then close."""
        await self.database.aclose()
