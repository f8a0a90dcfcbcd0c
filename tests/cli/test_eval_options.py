"""Each option of ``genbench eval`` reaches `genbench.evaluate`, and the exit status tells a failed metric."""

from pathlib import Path

import pytest

import genbench
from genbench.cli import eval_verb
from genbench.cli.main import main
from genbench.errors import UsageError
from genbench.evaluation import evaluate as module
from genbench.evaluation.result import EvalResult, SideInfo
from genbench.record import MetricResult

OPTIONS = [
    (["--metrics", "fid,is"], {"metrics": "fid,is"}),
    (["--protocol", "clean"], {"protocol": "clean"}),
    (["--extractor", "digits-cnn"], {"extractor": "digits-cnn"}),
    (["--image-text", "digits-clip"], {"image_text": "digits-clip"}),
    (["--weights", "w.pth"], {"weights": Path("w.pth")}),
    (["--pairs"], {"pairs": True, "by_order": False}),
    (["--pairs-by-order"], {"pairs": True, "by_order": True}),
    (["--layout", "NCHW"], {"layout": "NCHW"}),
    (["--prompts", "p.txt"], {"prompts": Path("p.txt")}),
    (["--labels", "l.txt"], {"labels": Path("l.txt")}),
    (
        ["--option", "ssim.window=7", "--option", "f1.inequality=<"],
        {"options": {"ssim": {"window": 7}, "f1": {"inequality": "<"}}},
    ),
    (["--data-root", "data"], {"data_root": Path("data")}),
    (["--device", "cpu"], {"device": "cpu"}),
    (["--batch-size", "7"], {"batch_size": 7}),
    (["--precision", "bfloat16"], {"precision": "bfloat16"}),
    (["--seed", "3"], {"seed": 3}),
    (["--on-error", "skip"], {"on_error": "skip"}),
    (["--no-cache"], {"cache": False}),
    (["--verify"], {"verify": True}),
    (
        [],
        {
            "metrics": None,
            "seed": None,
            "cache": True,
            "verify": False,
            "on_error": "fail",
            "pairs": False,
            "options": {},
        },
    ),
]


@pytest.fixture
def asked(monkeypatch):
    found = {"status": "ok"}

    def evaluate(samples, reference, metrics, **more):
        found.update(more, samples=samples, reference=reference, metrics=metrics)
        failed = found["status"] == "failed"
        metric = MetricResult(
            name="fid", value=None if failed else 1.0, status=found["status"], reason="why" if failed else None
        )
        side = SideInfo(name="x", kind="folder", count=3)
        return EvalResult(
            genbench_version=genbench.__version__,
            samples=side,
            reference=side,
            protocol="tf1",
            metrics=[metric],
            created="now",
        )

    monkeypatch.setattr(module, "evaluate", evaluate)
    return found


def status_of(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["eval", *arguments])
    return stop.value.code


@pytest.mark.parametrize(("arguments", "expected"), OPTIONS)
def test_options_arrive(asked, arguments, expected):
    assert status_of("a", "b", *arguments) == 0
    assert (asked["samples"], asked["reference"]) == ("a", "b")
    assert {name: asked[name] for name in expected} == expected


def test_every_option_is_looked_at():
    given = {option for arguments, _ in OPTIONS for option in arguments if option.startswith("--")}
    known = {option.opts[0] for option in eval_verb.command.params if option.param_type_name == "option"}
    assert known - given == {"--json"}


def test_exit_status(asked, capfd):
    asked["status"] = "failed"
    assert status_of("a", "b") == 1
    assert "failed: why" in capfd.readouterr().out


@pytest.mark.parametrize("text", ["ssim", "ssim=7", "ssim.=7", ".window=7", "ssim.window"])
def test_settings_of_another_form(text):
    with pytest.raises(UsageError, match=r"METRIC\.NAME=VALUE"):
        eval_verb.parse_settings((text,))
