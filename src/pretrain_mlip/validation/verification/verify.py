"""All checks of a potential, under the names that OpenKIM gives to its verification checks where it has them.

https://openkim.org/doc/evaluation/kim-verification-checks. What is not there (stress, extensivity, batches,
checkpoints, single precision) has a name in the same style.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pretrain_mlip import console
from pretrain_mlip.errors import InputError
from pretrain_mlip.files import disk_fails
from pretrain_mlip.validation.verification import derivatives, programs, symmetries
from pretrain_mlip.validation.verification.subject import FAILED, Finding, Subject

logger = logging.getLogger(__name__)
MANDATORY, INFORMATIONAL = "mandatory", "informational"


class Check(NamedTuple):
    """A check, and whether a potential that fails it should not be used."""

    name: str
    category: str
    run: Callable[[Subject], Finding]


CHECKS = (
    Check("species-supported-as-stated", MANDATORY, programs.check_elements),
    Check("unit-conversion", MANDATORY, derivatives.check_units),
    Check("forces-numerical-derivative", MANDATORY, derivatives.check_forces),
    Check("stress-numerical-derivative", MANDATORY, derivatives.check_stress),
    Check("periodicity-support", MANDATORY, symmetries.check_periodicity),
    Check("permutation-symmetry", MANDATORY, symmetries.check_permutation),
    Check("objectivity", MANDATORY, symmetries.check_objectivity),
    Check("extensivity", MANDATORY, symmetries.check_extensivity),
    Check("batch-consistency", MANDATORY, programs.check_batches),
    Check("checkpoint-round-trip", MANDATORY, programs.check_file),
    Check("inversion-symmetry", INFORMATIONAL, symmetries.check_inversion),
    Check("dimer-continuity-c1", INFORMATIONAL, derivatives.check_dimers),
    Check("memory-leak", INFORMATIONAL, programs.check_memory),
    Check("single-precision", INFORMATIONAL, programs.check_single_precision),
    Check("thread-safe", INFORMATIONAL, programs.check_threads),  # last: threads may leave a library in disorder
)
OF_THE_PROGRAM = ("thread-safe", "memory-leak")  # as long as all others together, and the same whatever the weights


def verify(subject: Subject, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Make the checks.

    Args:
        subject: what is verified.
        names: of the checks to make; all where None.

    Returns:
        Name -> ``category`` ("mandatory" or "informational"), ``grade`` ("A" to "D" or "F" where the error is graded,
        else "P", "F", or "-" where it does not apply), ``error`` (None where there is no number), ``detail``.

    Raises:
        InputError: a name is none of a check.
    """
    known = {check.name: check for check in CHECKS}
    if strange := [name for name in names or () if name not in known]:
        raise InputError(f"verify: no check '{strange[0]}'; there are {', '.join(known)}")
    results = {}
    for check in console.track([known[name] for name in (names or known)], "verifying"):
        try:
            finding = check.run(subject)
        except MemoryError:
            raise
        except Exception as error:  # a calculator that raises has failed the check, not the program
            if disk_fails(error):
                raise
            logger.debug("check %s", check.name, exc_info=True)
            finding = Finding(FAILED, None, f"{type(error).__name__}: {error}")
        results[check.name] = {"category": check.category, **finding.to_dict()}
    return results


def passed(results: dict[str, dict[str, Any]]) -> bool:
    """Whether no mandatory check failed."""
    return not any(row["category"] == MANDATORY and row["grade"] == FAILED for row in results.values())
