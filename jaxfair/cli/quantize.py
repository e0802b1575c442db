"""``jaxfair quantize``: networks for a table of one's own, at few bits, under a bound on what each group loses.

    jaxfair quantize --data my.npz --model my_model.py:make --bits 4 --tolerance 0.02 --out small/

trains dense networks, quantises them as usual and under the bound, and writes into ``--out`` what may be shipped (their
levels packed to bits, for `jaxfair.quant.load`), what each of them is worth (``networks.csv``), what they predict
(``predictions.npz``), and the page of the audit (``report.html``; needs ``jaxfair[report]``). The same command goes on
where it was stopped.

All weights of two axes and more are quantised, each output of a kernel on a grid of its own; biases stay floats. As in
``jaxfair prune``, a network that the bound made worse on the people trained on is not written: the one that is
quantised as usual stands in its place.
"""

import dataclasses
from typing import Any

from jaxfair import recipes
from jaxfair.cli import flags, job


@dataclasses.dataclass(frozen=True)
class Config(job.Flags):
    """Quantise networks under a bound on what each group loses."""

    # of each weight
    bits: int = flags.one(4, low=1, high=16)
    # of ptq (the nearest levels, without a bound), qat (trained at the levels), oscillation (trained as floats, pushed
    # away from their levels), rounding (levels chosen layer by layer; dense layers only)
    method: str = flags.one("qat", of=recipes.QUANTIZED)
    # of training
    epochs: int = flags.one(20, low=1)

    def check(self) -> None:
        """What no flag can say by itself."""
        super().check()
        if self.method == "ptq" and self.bound != "none":
            raise flags.UsageError(
                f"--bound={self.bound}: --method=ptq trains nothing and keeps no bound: --method=qat, or --bound=none"
            )


def run(config: Config) -> int:
    """From the flags to the whole job; the exit code is 1 if a network diverged."""
    return job.run(config, COMMAND)


def make(config: Config, *given: Any, **same: Any) -> recipes.Networks:
    """Networks at their levels."""
    return recipes.quantize(*given, bits=config.bits, method=config.method, **same)


COMMAND = job.Command(
    make,
    done=lambda config: f"{config.bits}-bit",
    doing="quantisation",
    less="take more bits",
    size=lambda config: f"{config.bits} bit{'' if config.bits == 1 else 's'}",
    facts=lambda config: {"bits": config.bits, "quantised_by": config.method},
    prunes=lambda config: False,
    explained=False,
)

main = flags.entry(run, Config, prog="jaxfair quantize")
