"""What is shipped: sizes, cards and recipes of every model."""

import tomllib
from pathlib import Path

import pytest

import baselines
import genbench
from genbench import registry
from genbench.checkpoint import read_manifest
from genbench.published import published_checkpoints
from genbench.recipe import TrainRecipe, build_config, load_recipe, recipe_path, sampler_options, source_path
from genbench.suite import load_suite, suite_names

ROOTS = [Path(package.__file__).parent for package in (genbench, baselines)]
MIB = 2**20


def test_shipped_weights_are_small():
    sizes = {p: p.stat().st_size for root in ROOTS for p in root.rglob("*.safetensors")}
    assert sizes
    assert max(sizes.values()) <= 5 * MIB
    assert sum(sizes.values()) <= 20 * MIB


def test_nothing_shipped_may_hold_code():
    forbidden = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"}
    assert not [p for root in ROOTS for p in root.rglob("*") if p.suffix in forbidden]


@pytest.mark.parametrize("name", registry.names("models"))
def test_every_model_has_recipes_and_a_card(name):
    model = registry.load_model(name)
    card = source_path(model).with_suffix(".md").read_text(encoding="utf-8").lower()
    for word in ("paper", "good at", "bad at", "deviation", "published", "reproduced"):
        assert word in card, f"the card of {name} says nothing of '{word}'"
    suites = [suite for suite in map(load_suite, suite_names()) if name in {row.model for row in suite.rows()}]
    assert suites, f"{name} is in no suite"
    for table in {"digits", *(suite.recipe_table for suite in suites)}:
        recipe = load_recipe(model, table)
        build_config(model, recipe.config)
        sampler_options(model, recipe.sample)
        for variant in recipe.variants.values():
            sampler_options(model, {**recipe.sample, **variant})


def test_two_systems_of_one_source_share_its_recipe_file_unless_one_has_its_own():
    files = {name: recipe_path(registry.load_model(name)).name for name in ("nade", "orderless_nade", "row_lstm")}
    assert files == {"nade": "nade.toml", "orderless_nade": "orderless_nade.toml", "row_lstm": "pixelrnn.toml"}


@pytest.mark.parametrize("name", registry.names("models"))
def test_published_weights_state_the_settings_of_their_training(name):
    for folder in published_checkpoints(registry.load_model(name)).values():
        manifest = read_manifest(folder)
        assert {"steps", "batch_size"} <= set(manifest.train) <= set(TrainRecipe.model_fields), folder
        assert manifest.training["budget_steps"] in (0, manifest.train["steps"])


@pytest.mark.parametrize("name", registry.names("models"))
def test_a_recipe_for_a_suite_is_run_by_it(name):
    tables = tomllib.loads(recipe_path(registry.load_model(name)).read_text(encoding="utf-8"))
    suites = {suite.name: {row.model for row in suite.rows()} for suite in map(load_suite, suite_names())}
    missing = [
        table
        for table in tables
        if table != "default" and name not in suites[table] | suites.get(f"{table}-full", set())
    ]
    assert not missing
