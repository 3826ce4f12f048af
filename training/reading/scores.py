"""Scores of text fidelity: from the counts of pictures to ratios with intervals, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.reading.match import DONT_CARE_OVERLAP, Counts, MatchRule
from training.reports.bootstrap import CONFIDENCE, RESAMPLES, Ratio, ratio_interval
from training.reports.tables import markdown_table

SCORES: Mapping[str, tuple[str, str]] = {
    "precision": ("words", "found"),
    "recall": ("words", "true"),
    "box_precision": ("boxes", "found"),
    "box_recall": ("boxes", "true"),
    "one_minus_ned": ("similarity", "true"),
    "character_accuracy": ("characters_right", "characters"),
}
"""Each score is a sum of one count over a sum of another (fields of match.Counts), over all pictures. Higher is better."""
HEADINGS = (
    "engine", "row", "precision", "95 %", "recall", "95 %", "box recall", "1-NED", "characters", "words right / true / found",
)  # fmt: skip
REFERENCE_ROW = "reference"
"""The row of the undegraded pictures: what the engine reads there is the most that any row can be expected to reach."""


@dataclass(frozen=True, kw_only=True)
class TextScores:
    """What `training.reading.fidelity.score_text` found out.

    values[engine][row][key] holds the Counts of one picture as a dict; every row has the same keys in the same order, so rows
    can be compared in pairs. engines[engine] holds the engine's settings, not_computed[engine] why it did not read.
    annotated_pictures is the number in the annotations, of which some may be in no row.
    """

    rows: tuple[str, ...]
    keys: tuple[str, ...]
    annotated_pictures: int
    rule: MatchRule
    seed: int
    engines: dict[str, dict[str, Any]]
    not_computed: dict[str, str]
    values: dict[str, dict[str, dict[str, dict[str, float]]]]

    def ratio(self, engine: str, row: str, score: str) -> Ratio:
        """One of SCORES with its interval over pictures."""
        above, below = SCORES[score]
        pictures = list(self.values[engine][row].values())
        return ratio_interval([counts[above] for counts in pictures], [counts[below] for counts in pictures], seed=self.seed)

    def total(self, engine: str, row: str) -> dict[str, float]:
        """The sums of all counts over the pictures."""
        names = Counts.__dataclass_fields__
        return {name: sum(counts[name] for counts in self.values[engine][row].values()) for name in names}

    def markdown(self) -> str:
        """A table of all rows and engines, what was not computed, and how it was counted."""
        lines: list[list[str]] = []
        for engine in self.values:
            for row in self.rows:
                scores = {name: self.ratio(engine, row, name) for name in SCORES}
                total = self.total(engine, row)
                cells = [engine, row]
                for name in ("precision", "recall"):
                    cells += [_number(scores[name].value), _interval(scores[name])]
                cells += [_number(scores[name].value) for name in ("box_recall", "one_minus_ned", "character_accuracy")]
                cells.append(f"{total['words']} / {total['true']} / {total['found']}")
                lines.append(cells)
        parts = [markdown_table(HEADINGS, lines, align="llrcrcr")] if self.values else []
        parts += [f"\n{engine}: not computed: {why}" for engine, why in self.not_computed.items()]
        return "\n".join([*parts, "", self._protocol(), ""])

    def as_json(self) -> dict[str, Any]:
        """The same and the counts of every picture, for a file."""
        return {
            "pictures": len(self.keys),
            "annotated_pictures": self.annotated_pictures,
            "protocol": {
                **asdict(self.rule), "dont_care_overlap": DONT_CARE_OVERLAP, "normalisation": "NFKC, casefold, ends stripped",
                "interval": "percentile bootstrap over pictures", "confidence": CONFIDENCE, "resamples": RESAMPLES,
                "seed": self.seed,
            },
            "engines": self.engines,
            "not_computed": self.not_computed,
            "scores": {
                engine: {row: {name: asdict(self.ratio(engine, row, name)) for name in SCORES} for row in self.rows}
                for engine in self.values
            },
            "counts": self.values,
        }  # fmt: skip

    def _protocol(self) -> str:
        equal = self.rule.min_similarity == 1
        text = "equal after normalisation" if equal else f"similar to at least {self.rule.min_similarity:g}"
        versions = ", ".join(f"{name} {settings['version']}" for name, settings in self.engines.items())
        return (
            f"{len(self.keys)} pictures ({self.annotated_pictures} annotated). A word is right where its box overlaps by IoU >= "
            f"{self.rule.min_iou:g} and its text is {text}. Intervals: bootstrap over pictures. Engines: {versions or 'none'}."
        )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _interval(ratio: Ratio) -> str:
    return "none" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
