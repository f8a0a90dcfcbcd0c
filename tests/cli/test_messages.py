"""Messages of errors: nothing in them is obeyed by a terminal or by a CI service."""

import pytest

from genbench.cli.main import main


def test_a_name_with_control_characters_is_shown_without_them(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["report", "a\x1b[31m\n::error::red", "--out", str(tmp_path / "x.html")])
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "\x1b" not in told
    assert not any(line.lstrip().startswith("::") for line in told.splitlines())
    assert "error: :red" in told
