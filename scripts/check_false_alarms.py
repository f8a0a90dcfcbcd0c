"""How often `genbench check` fires on runs that differ in nothing but their seed, measured on real ones.

    genbench run --suite digits --models vae --seed $(seq -s, 0 23) --out runs/seeds
    python scripts/check_false_alarms.py runs/seeds

Draws disjoint sets of seeds as baseline and candidate, and judges their quality at alpha = 0.01 (speed depends on what
else the machine does). Of 24 trainings of `vae` and 12 of `realnvp` on digits one seed against one fires on 7 % and 1 %
of pairs; 3 against 1, 5 against 1, 3 against 3 and 5 against 5 on at most 1 %. Were one seed against one paired image
by image, `vae` would fire on 40 %. Of 11 rows of digits with 12 seeds each, judged together, one seed against one fires
on 8 %, several seeds on none of 200 draws.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

from genbench.check.collect import Entry, by_row, read_entries
from genbench.check.judge import judge
from genbench.check.speed import SPEED_METRICS

SIZES = ((1, 1), (3, 1), (5, 1), (3, 3), (5, 5))
DRAWS = 200


def main(source: str) -> None:
    """Print a line for each row and pair of sizes, then for all rows at once, whose spreads tell each other."""
    rows = by_row([one for one in read_entries(source) if one.record.status == "ok"])
    for row, entries in rows.items():
        report(row, {row: entries})
    if len(rows) > 1:
        report("all rows", rows)


def report(name: str, rows: dict[str, list[Entry]]) -> None:
    """How often draws of disjoint seeds, the same for every row, fire."""
    rng = random.Random(0)
    seeds = sorted(set.intersection(*({one.record.seed for one in entries} for entries in rows.values())))
    for before, after in SIZES:
        if before + after > len(seeds):
            continue
        fired, metrics = 0, Counter[str]()
        for _ in range(DRAWS):
            drawn = rng.sample(seeds, before + after)
            sides = [
                [one for entries in rows.values() for one in entries if one.record.seed in chosen]
                for chosen in (drawn[before:], drawn[:before])
            ]
            found = judge(*sides).findings
            worse = [f"{one.row} {one.metric}" for one in found if one.fails and one.metric not in SPEED_METRICS]
            fired += bool(worse)
            metrics.update(worse)
        print(f"{name}: {before} against {after} seeds: {fired / DRAWS:.1%} {dict(metrics)}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/check_false_alarms.py RUN_OR_RECORDS")
    main(sys.argv[1])
