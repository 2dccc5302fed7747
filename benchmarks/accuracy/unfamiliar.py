"""Measures on every suite whether inputs that no task covers can be told, in mode `exact`.

    python -m benchmarks.accuracy.unfamiliar SUITES --json FILE [--only NAME ...]

SUITES, calibrations and `--only` are those of `benchmarks.accuracy`. The inputs of the `ood` part are held
against those of the `evaluation` part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.accuracy.measure import calibrated_store, evaluation_of, variants_of
from benchmarks.by_suite import asked_suites
from mass_serve.evaluation import Options
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.variants import Variants

PLACES = 4


def measured(suite: Path) -> dict[str, Any]:
    """The figures without a calibration and with one."""
    plain = told(suite, variants_of(suite / "store", calibrated=False))
    with calibrated_store(suite) as store:
        return {"plain": plain, "calibrated": told(suite, variants_of(store, calibrated=True))}


def told(suite: Path, variants: Variants) -> dict[str, dict[str, float]]:
    """How the inputs of the suite that no task covers are told: all kinds, averaged, and each."""
    engine = variants.engine()
    options = Options(baselines=(), unfamiliar=suite / "ood")
    found = evaluate(engine, evaluation_of(suite, engine), options=options)["unfamiliar"]
    assert found is not None
    return {
        kind: {"auroc": round(figures["auroc"], PLACES), "unrouted": round(figures["unrouted"], PLACES)}
        for kind, figures in {"all": found["average"], **found["domains"]}.items()
    }


def main() -> None:
    """Prints a line for each suite."""
    asked = asked_suites(__doc__)
    for suite in asked.suites:
        found = measured(suite)
        before, after = (found[when]["all"] for when in ("plain", "calibrated"))
        print(
            f"{suite.name}: AUROC {before['auroc']:.3f}, calibrated {after['auroc']:.3f}"
            f" with {after['unrouted']:.3f} unrouted",
            flush=True,
        )
        asked.record(suite.name, found)


if __name__ == "__main__":
    main()
