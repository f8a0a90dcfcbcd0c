"""Write the JSON Schema of records to ``leaderboards/record.schema.json``."""

from pathlib import Path

from genbench.files import write_json
from genbench.record import schema

if __name__ == "__main__":
    write_json(Path(__file__).parents[1] / "leaderboards" / "record.schema.json", schema())
