"""How often `genbench check` fires on runs that differ in nothing but their seed, measured on real ones.

    genbench run --suite digits --models vae --seed $(seq -s, 0 23) --out runs/seeds
    python scripts/check_false_alarms.py runs/seeds

Draws disjoint sets of seeds as baseline and candidate, and judges their quality at alpha = 0.01 (speed depends on what
else the machine does). Of 24 trainings of `vae` and 12 of `realnvp` on digits one seed against one fires on 7 % and 1 %
of pairs; 3 against 1, 5 against 1, 3 against 3 and 5 against 5 on at most 1 %. Were one seed against one paired image
by image, `vae` would fire on 40 %.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

from genbench.check.collect import by_row, read_entries
from genbench.check.judge import judge
from genbench.check.speed import SPEED_METRICS

SIZES = ((1, 1), (3, 1), (5, 1), (3, 3), (5, 5))
DRAWS = 300


def main(source: str) -> None:
    """Print a line for each row and pair of sizes."""
    rng = random.Random(0)
    for row, entries in by_row([one for one in read_entries(source) if one.record.status == "ok"]).items():
        for before, after in SIZES:
            if before + after > len(entries):
                continue
            fired, metrics = 0, Counter[str]()
            for _ in range(DRAWS):
                drawn = rng.sample(entries, before + after)
                found = judge(drawn[before:], drawn[:before]).findings
                worse = {one.metric for one in found if one.fails and one.metric not in SPEED_METRICS}
                fired += bool(worse)
                metrics.update(worse)
            print(f"{row}: {before} against {after} seeds: {fired / DRAWS:.1%} {dict(metrics)}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/check_false_alarms.py RUN_OR_RECORDS")
    main(sys.argv[1])
