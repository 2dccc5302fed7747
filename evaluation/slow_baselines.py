"""The names of the baselines that decompose or descend for minutes on a CPU, `baselines.WHOLE`."""

from __future__ import annotations

SLOW = ("doge", "iso_c", "iso_cts", "opcm", "wudi")
