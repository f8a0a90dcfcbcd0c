"""What the rows of a suite tell each other of the spread of seeds.

Few seeds know their spread badly, and Student's t makes them pay for it. Rows scatter by more or less as their values'
own intervals are wide, so that the spread in units of these has a prior, metric by metric, that the rows tell (see
`genbench.check.moderation`). A row that scatters more than the others over all of its metrics has a prior that is wider
by as much: without that a suite with one unsteady training fires falsely ten times as often as it should.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from genbench.check.evidence import Evidence, Spread
from genbench.check.moderation import excess, posterior_variance, prior_variance, unbiased_log

CAUTION = 2.0
"""Of what rows tell each other of the spread of seeds (see `prior_variance`)."""


def moderated_table(found: Mapping[tuple[str, Hashable], Evidence]) -> dict[tuple[str, Hashable], Evidence]:
    """Evidence by row and metric, the spread of seeds of each made surer by that of the others."""
    excesses = row_excess(found)
    made: dict[tuple[str, Hashable], Evidence] = {}
    for metric in dict.fromkeys(metric for _, metric in found):
        rows = [row for row, other in found if other == metric]
        surer = moderated([found[row, metric] for row in rows], [excesses.get(row, 1.0) for row in rows])
        made |= {(row, metric): one for row, one in zip(rows, surer, strict=True)}
    return {key: made[key] for key in found}


def row_excess(found: Mapping[tuple[str, Hashable], Evidence]) -> dict[str, float]:
    """By row: how much more it scatters than the rows do as a rule, at least 1; rows without a spread are left out."""
    measured = {key: one.spread for key, one in found.items() if one.spread is not None and one.spread.is_measured}
    rows = list(dict.fromkeys(row for row, _ in measured))
    metrics = list(dict.fromkeys(metric for _, metric in measured))
    if not rows:
        return {}
    logs = np.full((len(rows), len(metrics)), np.nan)
    for (row, metric), spread in measured.items():
        logs[rows.index(row), metrics.index(metric)] = unbiased_log([spread.share], [spread.freedom])[0]
    return dict(zip(rows, map(float, excess(logs)), strict=True))


def moderated(found: Sequence[Evidence], excesses: Sequence[float] | None = None) -> list[Evidence]:
    """Evidence on one metric of several rows; values that do not move with the seed neither tell the prior nor take it.

    excesses: of the rows (`row_excess`), 1 without.
    """
    spreads = [one.spread for one in found if one.spread is not None and one.spread.is_measured]
    prior, weight = prior_variance([one.share for one in spreads], [one.freedom for one in spreads], CAUTION)
    known = sum(one.freedom for one in spreads)

    def moderate(one: Evidence, factor: float) -> Evidence:
        if one.spread is None or not one.spread.is_measured:
            return one
        spread = _surer(one.spread, prior * factor, weight, known)
        return replace(one, noises=(spread.noise, *one.noises[1:]), spread=spread)

    return [moderate(*pair) for pair in zip(found, excesses or [1.0] * len(found), strict=True)]


def _surer(spread: Spread, prior: float, weight: float, known: float) -> Spread:
    """known: degrees of freedom of all rows, which none has more than."""
    share = posterior_variance(spread.share, spread.freedom, prior, weight)
    return replace(spread, variance=share * spread.unit, freedom=min(spread.freedom + weight, known))
