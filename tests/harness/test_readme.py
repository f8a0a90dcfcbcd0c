"""The README's model is a model: it satisfies the contract and learns."""

import re
from pathlib import Path

from genbench import registry, testing

README = Path(__file__).parents[2] / "README.md"


def test_readme_model_satisfies_the_contract(tmp_path):
    source = re.search(r"`my_model\.py`:\n\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "my_model.py"
    file.write_text(source.group(1))
    testing.check_model(registry.load_model(f"{file}:OneHistogram"))
